package node

import (
	"context"
	"fmt"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// TestNoRoleIsLostWhenImagesComeInAHurry wakes the executor all the time while topics are made. Between an image's
// publication and its change set the executor once took the image with an older set, and never looked at what lay between.
func TestNoRoleIsLostWhenImagesComeInAHurry(t *testing.T) {
	s := newSeat(t, vfs.NewMem(), "/data").format()
	n := s.start()
	defer s.stop(n)
	hurry := task.NewGroup(t.Context())
	hurry.Go("wake", func(ctx context.Context) error {
		for ctx.Err() == nil {
			n.executor.registered(n.brokerEpoch())
		}
		return nil
	})
	for i := range 60 {
		topic := s.createTopic(n, fmt.Sprintf("topic-%d", i), 2, nil)
		for partition := range int32(2) {
			r, err := n.set.Get(broker.TopicPartition{Topic: topic, Partition: partition})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.CheckLeader(broker.NoLeaderEpoch); err != nil {
				t.Fatalf("topic %d: %v", i, err)
			}
		}
	}
	hurry.Stop()
	if err := hurry.Wait(); err != nil {
		t.Fatal(err)
	}
}
