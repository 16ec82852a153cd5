package node

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/peer"
	"github.com/millrace-io/millrace/internal/vfs"
)

// A controller dies over the requests of others: none that can be put again is answered with a question, and none is done
// twice.
func TestRequestsOfADyingControllerArePutToTheNext(t *testing.T) {
	c := newTrio(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	i := c.controller()
	asked := c.nodes[(i+1)%3]
	dead := make(chan struct{})
	var group sync.WaitGroup
	var mu sync.Mutex
	made := map[string]bool{}
	for worker := range 8 {
		group.Go(func() {
			for n := 0; ; n++ {
				name := fmt.Sprintf("topic-%d-%d", worker, n)
				if _, err := asked.cluster.Submit(ctx, controller.CreateTopic{Name: name, Partitions: 1, ReplicationFactor: 1}); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				mu.Lock()
				made[name] = true
				mu.Unlock()
				select {
				case <-dead:
					return
				default:
				}
			}
		})
	}
	c.await("topics", func() bool { mu.Lock(); defer mu.Unlock(); return len(made) > 20 })
	_ = c.nodes[i].stop(false)
	c.nodes[i] = nil
	close(dead)
	group.Wait()
	for name := range made {
		if _, ok := asked.quorum.Image().TopicNamed(name); !ok {
			t.Errorf("%s was made, and is not there", name)
		}
	}
}

// What a node that stops cannot finish may have been done or not, and whoever asked is told so: the end of the context is not
// that of the one who asks.
func TestAQuestionThatANodeCannotFinishIsLeftOpen(t *testing.T) {
	s := newSeat(t, vfs.NewMem(), "/data").format()
	n := s.start()
	defer s.stop(n)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for i := range 100 {
		question, err := controller.EncodeRequest(controller.CreateTopic{Name: fmt.Sprint("topic-", i), Partitions: 1, ReplicationFactor: 1})
		if err != nil {
			t.Fatal(err)
		}
		answer := n.cluster.Answer(stopped, peer.Peer{Node: 1, Raft: n.identity.Raft}, append([]byte{askController}, question...))
		_, _, refusal, err := controller.DecodeAnswer(answer)
		switch {
		case err != nil:
			t.Fatal(err)
		case refusal == nil: // It was done all the same.
		case broker.CodeOf(refusal) != broker.RequestTimedOut:
			t.Fatalf("answered with %v", refusal)
		default:
			return
		}
	}
	t.Fatal("every question was answered by a node that stops")
}
