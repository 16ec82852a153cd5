package node

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Whoever is told that a topic was made finds its leaders here: a client that finds none waits before it looks again. The
// disk is held while the directories are made; the metadata goes on, and the answer waits.
func TestNewPartitionsAreLedWhenTheirTopicIsAnswered(t *testing.T) {
	fs := vfs.NewMem()
	s := newSeat(t, fs, "/data").format()
	n := s.start()
	defer s.stop(n)
	var held atomic.Bool
	gate := make(chan struct{})
	release := sync.OnceFunc(func() { close(gate) })
	defer release()
	fs.Watch(func(op vfs.Op) {
		if op.Kind == vfs.OpMkdir && strings.Contains(op.Name, "/topics/") {
			held.Store(true)
			<-gate
		}
	})
	defer fs.Watch(nil)
	answered := make(chan error, 1)
	go func() {
		made, err := kadm.NewClient(s.client(n)).CreateTopics(t.Context(), 3, 1, nil, "a", "b")
		if err == nil {
			err = made.Error()
		}
		answered <- err
	}()
	for known := false; !known || !held.Load(); {
		// Each turn of the quorum gives every answer that it has.
		if _, err := n.quorum.Submit(t.Context(), controller.Tidy{}); err != nil {
			t.Fatal(err)
		}
		_, known = n.quorum.Image().TopicNamed("b")
	}
	for range 200 {
		if _, err := n.quorum.Submit(t.Context(), controller.Tidy{}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-answered:
		t.Fatalf("answered before the partitions are led: %v", err)
	default:
	}
	release()
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		topic, _ := n.quorum.Image().TopicNamed(name)
		for p := range topic.Partitions {
			r, err := n.set.Get(broker.TopicPartition{Topic: topic.ID, Partition: p})
			if err != nil {
				t.Fatal(err)
			}
			if _, leads := r.Leading(); !leads {
				t.Fatalf("partition %d of %s is not led", p, name)
			}
		}
	}
}
