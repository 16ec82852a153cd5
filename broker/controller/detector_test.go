package controller

import (
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// watched is an image with so many brokers that run, of epochs 101, 102, ...
func watched(t *testing.T, brokers int) *metadata.Image {
	img := metadata.NewImage()
	for i := range brokers {
		r := &metadata.Registration{
			Node: broker.NodeID(i + 1), Epoch: broker.BrokerEpoch(101 + i), Incarnation: broker.UUID{byte(i + 1)}, Directory: broker.DirectoryID{byte(i + 1)},
		}
		next, changes, err := metadata.Fold(img, img.Index()+1, 1, []*metadata.Fact{metadata.RegistrationFact(r), metadata.BrokerStateFact(r)})
		if err != nil || len(changes.Stale) > 0 {
			t.Fatal(err, changes.Stale)
		}
		img = next
	}
	return img
}

// hall drives a detector in time.
type hall struct {
	t     *testing.T
	image *metadata.Image
	d     *Detector
	now   int64
}

func newHall(t *testing.T, brokers int) *hall {
	return &hall{t: t, image: watched(t, brokers), d: NewDetector(5000), now: 5000}
}

// pass lets time go by in steps, in each of which some brokers are heard, and returns who was silent at the last.
func (h *hall) pass(ms, step int64, heard ...broker.NodeID) (silent []broker.NodeID) {
	for end := h.now + ms; h.now < end; {
		h.now += step
		for _, node := range heard {
			h.d.OnHeartbeat(node, broker.BrokerEpoch(100+int64(node)))
		}
		silent = nil
		for _, r := range h.d.OnTick(h.now, h.image) {
			silent = append(silent, r.Node)
		}
	}
	return silent
}

func (h *hall) want(got []broker.NodeID, wanted ...broker.NodeID) {
	h.t.Helper()
	if len(got) != len(wanted) {
		h.t.Fatalf("silent: %v, want %v", got, wanted)
	}
	for i := range got {
		if got[i] != wanted[i] {
			h.t.Fatalf("silent: %v, want %v", got, wanted)
		}
	}
}

// R8: a session of silence, not less.
func TestSilenceOfASessionIsDeath(t *testing.T) {
	h := newHall(t, 3)
	h.want(h.pass(1000, 100, 1, 2, 3))
	h.want(h.pass(SessionMs-100, 100, 1, 2))
	h.want(h.pass(100, 100, 1, 2), 3)
	h.want(h.pass(100, 100, 1, 2, 3))
}

// RH6: a detector that did not run itself knows nothing of others' silence.
func TestAPausedDetectorAccusesNobody(t *testing.T) {
	h := newHall(t, 3)
	h.want(h.pass(1000, 100, 1, 2, 3))
	h.want(h.pass(60_000, 60_000, 1)) // it was stopped for a minute, and so was its ear
	h.want(h.pass(SessionMs-100, 100, 1))
	h.want(h.pass(5000, 500, 1)) // it hardly runs: none of its ticks is on time
	h.want(h.pass(100, 100, 1, 2), 3)
}

// RH8: whoever was not heard since this node started has a whole session.
func TestANewDetectorGivesGrace(t *testing.T) {
	h := newHall(t, 3)
	h.want(h.pass(SessionMs-100, 100, 1, 2))
	h.want(h.pass(100, 100, 1, 2))
	h.want(h.pass(100, 100, 1, 2), 3)
}

// RH8: when most fall silent together, this node may be the one that is cut off.
func TestTheSilenceOfMostIsWaitedOut(t *testing.T) {
	h := newHall(t, 5)
	h.want(h.pass(1000, 100, 1, 2, 3, 4, 5))
	h.want(h.pass(2*SessionMs-100, 100, 1, 2))
	h.want(h.pass(100, 100, 1, 2), 3, 4, 5)
}

// An incarnation that was replaced is not heard for the one that replaced it, and does not silence it.
func TestAnOldIncarnationIsNotHeard(t *testing.T) {
	h := newHall(t, 3)
	h.want(h.pass(1000, 100, 1, 2, 3))
	for range SessionMs / DetectorTickMs {
		h.d.OnHeartbeat(3, 50)
		h.pass(100, 100, 1, 2)
	}
	h.want(h.pass(0, 100))
	h.want(h.pass(100, 100, 1, 2), 3)
}

// RH7: a death is told at the next tick, of that incarnation only, and until it is heard again.
func TestADeadProcessIsSilentAtOnce(t *testing.T) {
	h := newHall(t, 3)
	h.want(h.pass(1000, 100, 1, 2, 3))
	h.d.OnDeath(2, broker.UUID{99}) // a process before the one that runs
	h.d.OnDeath(3, broker.UUID{3})
	h.want(h.pass(25, 25, 1, 2), 3)
	h.d.OnLife(3, broker.UUID{98})
	h.want(h.pass(25, 25, 1, 2), 3)
	h.d.OnLife(3, broker.UUID{3})
	h.want(h.pass(25, 25, 1, 2))
}

// RH8 is about silence: that more than half have died is no reason to wait.
func TestTheDeathsOfMostAreNotWaitedOut(t *testing.T) {
	h := newHall(t, 3)
	h.want(h.pass(1000, 100, 1, 2, 3))
	h.d.OnDeath(2, broker.UUID{2})
	h.d.OnDeath(3, broker.UUID{3})
	h.want(h.pass(100, 100, 1), 2, 3)
}

// RH9: the controller counts as heard for a second and a half, on this node's own time (RH6).
func TestSilenceOfTheControllerIsCounted(t *testing.T) {
	h := newHall(t, 3)
	h.d.OnController()
	h.pass(1500, 100)
	if !h.d.ControllerHeard() {
		t.Error("it was heard 1.4 s ago")
	}
	h.pass(60_000, 60_000) // This node was stopped.
	if !h.d.ControllerHeard() {
		t.Error("silence of a time in which this node did not run")
	}
	h.pass(100, 100)
	if h.d.ControllerHeard() {
		t.Error("nothing was heard for 1.5 s")
	}
	h.d.OnController()
	if !h.d.ControllerHeard() {
		t.Error("it was heard just now")
	}
}

// A controller that does not hear most voters is none.
func TestAControllerHearsMostVoters(t *testing.T) {
	h := newHall(t, 3)
	var facts []*metadata.Fact
	for i := range 4 {
		facts = append(facts, metadata.NodeFact(&metadata.Node{ID: broker.NodeID(i + 1), Raft: broker.RaftID(i + 1), Directory: broker.DirectoryID{byte(i + 1)}, Voter: i < 3}))
	}
	image, changes, err := metadata.Fold(h.image, h.image.Index()+1, 1, facts)
	if err != nil || len(changes.Stale) > 0 {
		t.Fatal(err, changes.Stale)
	}
	h.image = image
	h.pass(1700, 100, 1, 4) // Node 4 is a learner.
	if h.d.HearsMost(h.image) {
		t.Error("one voter of three")
	}
	h.pass(1500, 100, 1, 2, 4)
	if !h.d.HearsMost(h.image) {
		t.Error("two voters of three")
	}
	h.pass(1700, 100, 1, 4)
	if h.d.HearsMost(h.image) {
		t.Error("the other one was not heard for 1.5 s")
	}
}
