package coordinator

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// unleased runs f with a host whose lease is over once *over is set.
func unleased(t *testing.T, f func(t *testing.T, b *bench, over *bool)) {
	t.Helper()
	over := new(bool)
	bubble(t, func(c *Config) { c.Lease = func() bool { return !*over } }, func(t *testing.T, b *bench) { f(t, b, over) })
}

// Invariant 30: a coordinator that was paused, and has been replaced, leads as far as it knows. The first thing that it is
// asked, before it hears of anything, is not answered from memory.
func TestAReplacedCoordinatorAnswersNothingFromMemory(t *testing.T) {
	unleased(t, func(t *testing.T, b *bench, over *bool) {
		log := b.lead("g")
		b.want(b.commit(simple("g", "t", 7)), broker.None)
		who := b.found("g")
		*over = true
		log.set(func() { // The followers follow another leader: nothing is committed here any more. The log does not know yet.
			log.refusal = broker.Errorf(broker.NotLeaderOrFollower, "the followers follow another leader")
		})
		for what, ask := range map[string]func() error{
			"OffsetFetch": func() error {
				_, err := b.FetchOffsets(t.Context(), FetchRequest{Group: "g", All: true})
				return err
			},
			"Heartbeat":      func() error { return b.Heartbeat(t.Context(), "g", who) },
			"DescribeGroups": func() error { _, err := b.Describe(t.Context(), "g"); return err },
			"LeaveGroup": func() error {
				_, err := b.Leave(t.Context(), "g", []group.Leaving{{MemberID: "nobody"}})
				return err
			},
			"a committed offset": func() error { _, _, err := b.CommittedOffset("g", on("t", 0)); return err },
		} {
			err := ask()
			if code := broker.CodeOf(err); code != broker.NotCoordinator {
				t.Errorf("%s was answered: %v", what, err)
			}
			time.Sleep(2 * tenureRetryDelay) // Virtual: the next tenure has read the log.
			synctest.Wait()
		}
		_, err := b.List(t.Context())
		b.want(err, broker.CoordinatorNotAvailable)
	})
}

// A controller that is gone takes the groups of living leaders down with it no more than their records (36): what a leader
// commits it still leads for.
func TestACoordinatorWithoutAControllerProvesItselfByAWrite(t *testing.T) {
	unleased(t, func(t *testing.T, b *bench, over *bool) {
		log := b.lead("g")
		b.want(b.commit(simple("g", "t", 7)), broker.None)
		who := b.found("g")
		before := log.count()
		if got := b.committed("g", "t"); got != 7 || log.count() != before {
			t.Errorf("committed %d, and %d writes to answer it under a lease", got, log.count()-before)
		}
		*over = true
		fetched, err := b.FetchOffsets(t.Context(), FetchRequest{Group: "g", All: true})
		if b.want(err, broker.None); len(fetched) != 1 || fetched[0].Offset != 7 || log.count() != before+1 {
			t.Errorf("fetched %v with %d writes, want one", fetched, log.count()-before)
		}
		b.want(b.Heartbeat(t.Context(), "g", who), broker.None)
		log.set(func() { log.refusal = broker.Errorf(broker.NotEnoughReplicas, "alone") })
		b.want(b.Heartbeat(t.Context(), "g", who), broker.NotCoordinator)
		log.set(func() { log.refusal = nil })

		log.hold() // Readers that come while a mark is under way share the next.
		before = log.count()
		beats := make([]*call[struct{}], 20)
		for i := range beats {
			beats[i] = begin(func() (struct{}, error) { return struct{}{}, b.Heartbeat(t.Context(), "g", who) })
		}
		log.release()
		for _, c := range beats {
			<-c.done
			b.want(c.err, broker.None)
		}
		if n := log.count() - before; n != 2 {
			t.Errorf("%d writes for 20 heartbeats at once, want 2", n)
		}
		b.restart() // With a lease. The marks are read again, and say nothing.
		if got := b.committed("g", "t"); got != 7 {
			t.Errorf("committed %d after a replay", got)
		}
		infos, err := b.List(t.Context())
		if b.want(err, broker.None); len(infos) != 1 {
			t.Errorf("groups %v", infos)
		}
	})
}
