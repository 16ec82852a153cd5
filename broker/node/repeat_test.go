package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker/controller"
)

// A controller dies over the requests of others: none that can be put again is answered with a question, and none is done
// twice.
func TestRequestsOfADyingControllerArePutToTheNext(t *testing.T) {
	c := newTrio(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	i := slices.IndexFunc(c.nodes[:], func(n *Node) bool { return n.quorum.Status().Active })
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
