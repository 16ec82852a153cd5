package node

import (
	"context"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/internal/vfs"
)

// A copy of the registration of an incarnation that is dead may be decided after this one's own. The broker finds the dead in
// its place, registers again, and leads again; also where it finds so before it begins to serve.
func TestABrokerThatItsDeadIncarnationOvertookRegistersAgain(t *testing.T) {
	s := newSeat(t, vfs.NewMem(), "/data").format()
	n := s.start()
	defer s.stop(n)
	s.createTopic(n, "orders", 1, nil)
	client := s.client(n)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	late := func(dead byte) {
		t.Helper()
		request := controller.RegisterBroker{Node: n.identity.Node, Raft: n.identity.Raft, Directory: n.identity.Directory, Incarnation: broker.UUID{dead}}
		if _, err := n.quorum.Submit(ctx, request); err != nil {
			t.Fatal(err)
		}
	}
	check := func() {
		t.Helper()
		for {
			r, _ := n.quorum.Image().Broker(n.identity.Node)
			if r.Incarnation == n.incarnation && !r.Fenced && r.Epoch == n.brokerEpoch() {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("registered is %+v; this is incarnation %s with epoch %d", r, n.incarnation, n.brokerEpoch())
			}
			time.Sleep(time.Millisecond)
		}
		if err := client.ProduceSync(ctx, record("orders", 0, "it leads")).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	late(1)
	check()
	n.setReady(false) // It still starts: nobody but the start itself looks after its registration.
	late(2)
	if err := n.unfence(ctx, 0); err != nil {
		t.Fatal(err)
	}
	n.setReady(true)
	check()
}
