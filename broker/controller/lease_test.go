package controller

import (
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// quorumOf is an image with so many voters, raft ids 1, 2, ..., and a learner behind them.
func quorumOf(t *testing.T, voters int) *metadata.Image {
	var facts []*metadata.Fact
	for i := range voters + 1 {
		facts = append(facts, metadata.NodeFact(&metadata.Node{
			ID: broker.NodeID(i + 1), Raft: broker.RaftID(i + 1), Directory: broker.DirectoryID{byte(i + 1)}, Voter: i < voters,
		}))
	}
	img, changes, err := metadata.Fold(metadata.NewImage(), 1, 1, facts)
	if err != nil || len(changes.Stale) > 0 {
		t.Fatal(err, changes.Stale)
	}
	return img
}

// A broker that was paused finds its lease over before it hears anything, and what then lies in its buffers, all of which was
// sent while it was paused, does not renew it.
func TestALeaseIsOverWhenAPausedBrokerWakes(t *testing.T) {
	l := NewLease()
	if l.Holds(0, NotLed) || l.Holds(10*LeaseMs, NotLed) {
		t.Error("a lease holds that nobody gave")
	}
	l.OnAnswer(1, 5000, 150) // sent at 5000, answered by a controller with voters behind it 150 ms before
	for at, want := range map[int64]bool{5000: true, 4850 + LeaseMs - 1: true, 4850 + LeaseMs: false} {
		if got := l.Holds(at, NotLed); got != want {
			t.Errorf("at %d the lease holds: %v", at, got)
		}
	}
	const woken = 9000
	l.OnAnswer(1, 5100, 100) // read at 9000
	if l.Holds(woken, NotLed) {
		t.Error("an answer to what was sent before the pause renewed the lease")
	}
	l.OnAnswer(1, woken, NotLed)
	if l.Holds(woken, NotLed) {
		t.Error("the answer of a node that is not the controller renewed the lease")
	}
	l.OnAnswer(1, woken, LeaseMs)
	if l.Holds(woken, NotLed) {
		t.Error("a controller without voters behind it renewed the lease")
	}
	if l.OnAnswer(1, woken, 0); !l.Holds(woken+LeaseMs-1, NotLed) {
		t.Error("the controller's answer did not renew the lease")
	}
}

// A lease is over before the detector of any voter can have fenced its holder, wherever the holder's heartbeats stop.
func TestALeaseEndsBeforeTheDetectorFences(t *testing.T) {
	for stop := int64(5000); stop < 5400; stop += 7 { // The last heartbeat that arrives.
		h, l := newHall(t, 3), NewLease()
		for now := h.now + 1; ; now++ {
			if now%100 == stop%100 && now <= stop {
				h.d.OnHeartbeat(1, 101)
				l.OnAnswer(2, now, 0) // As generous as can be: answered at once.
			}
			if now%100 != 0 {
				continue
			}
			h.d.OnHeartbeat(2, 102)
			h.d.OnHeartbeat(3, 103)
			fenced := len(h.d.OnTick(now, h.image)) > 0
			if fenced && l.Holds(now, NotLed) {
				t.Fatalf("fenced at %d, %d ms after the last heartbeat, and the lease holds", now, now-stop)
			}
			if fenced {
				break
			}
		}
	}
}

// A controller has a lease of its voters, and gives none that is longer.
func TestAControllerLeadsAsLongAsMostVotersAnswered(t *testing.T) {
	if got := NewLease().LedAgo(77, 1, quorumOf(t, 1)); got != 0 {
		t.Errorf("a sole voter was behind itself %d ms ago", got)
	}
	three, l := quorumOf(t, 3), NewLease()
	if l.OnAnswer(4, 1000, NotLed); l.LedAgo(1000, 1, three) != NotLed {
		t.Error("a learner's answer counts")
	}
	l.OnAnswer(2, 1000, NotLed)
	if got := l.LedAgo(1100, 1, three); got != 100 {
		t.Errorf("one of two others answered 100 ms ago, and most of three %d", got)
	}
	if l.OnAnswer(3, 1080, NotLed); l.LedAgo(1100, 1, three) != 20 {
		t.Errorf("the newer answer makes a majority; %d", l.LedAgo(1100, 1, three))
	}
	five, m := quorumOf(t, 5), NewLease()
	for i, sent := range []int64{900, 800, 700, 600} {
		m.OnAnswer(broker.RaftID(i+2), sent, NotLed)
	}
	if got := m.LedAgo(1000, 1, five); got != 200 {
		t.Errorf("the third of five was there %d ms ago, want 200", got)
	}
	if m.Holds(1000, 200); !m.Holds(800+LeaseMs-1, NotLed) || m.Holds(800+LeaseMs, NotLed) {
		t.Error("a controller's own lease is not that of its voters")
	}
}

// Who loses a lifeline may be dead for the others 150 ms later, and the controller no more.
func TestALostLifelineEndsALease(t *testing.T) {
	l, three := NewLease(), quorumOf(t, 3)
	for _, voter := range []broker.RaftID{2, 3} {
		l.OnAnswer(voter, 5000, 0)
	}
	l.OnLifelineLost(5010)
	l.OnAnswer(2, 5100, 0) // It was heard, and may have fallen silent since.
	if l.Holds(5110, NotLed) || l.LedAgo(5110, 1, three) != NotLed {
		t.Error("a lease outlives a lifeline")
	}
	if l.OnAnswer(2, 5210, 0); !l.Holds(5230, NotLed) || l.LedAgo(5230, 1, three) != 20 {
		t.Error("a node that is heard long after its lifeline was cut gets no lease")
	}
	if sole := NewLease(); !sole.Holds(1, sole.LedAgo(1, 1, quorumOf(t, 1))) {
		t.Error("a sole voter has no lease of itself")
	}
}
