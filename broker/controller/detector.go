package controller

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Times of the detector, in milliseconds.
const (
	// DetectorTickMs is how often OnTick is meant to be called.
	DetectorTickMs = 100
	// SessionMs is how long a broker may be silent before it is fenced (R8). With the ticks it stays below a second, so that a
	// client that gives a silent leader up after one finds the next leader when it asks.
	SessionMs = 900
	// AloneMs is how long a broker may hear nothing of the controller before its leaders doubt that they lead (RH9).
	AloneMs = 1500
	// onTimeMs is the longest gap between two ticks that counts: a detector that was not running itself knows nothing of
	// others' silence (RH6).
	onTimeMs = 2 * DetectorTickMs
)

// Detector tells which brokers have fallen silent. It runs on every voter, so that a new controller judges by what its own
// node heard (RH8). Time is the caller's, in milliseconds of any clock that never goes back; a gap between ticks that is
// longer than two of them adds to every deadline. A process that is known to have died (see Inquest) is silent at once. It is
// not safe for concurrent use.
type Detector struct {
	lastTick int64
	ran      int64 // of the caller's time, as much as ticks on time have seen
	brokers  map[broker.NodeID]sighting
	dead     map[broker.NodeID]broker.UUID // the incarnation that died last, of each node
	touched  int64                         // when the controller was heard, on the detector's own time
}

// sighting is when a broker was heard, on the detector's own time.
type sighting struct {
	epoch broker.BrokerEpoch
	heard int64
}

// NewDetector returns a detector that has heard nobody. Whoever it knows of has a whole session from then on.
func NewDetector(nowMs int64) *Detector {
	return &Detector{lastTick: nowMs, brokers: map[broker.NodeID]sighting{}, dead: map[broker.NodeID]broker.UUID{}}
}

// OnHeartbeat takes note that an incarnation of a broker lives.
func (d *Detector) OnHeartbeat(node broker.NodeID, epoch broker.BrokerEpoch) {
	if known, ok := d.brokers[node]; ok && known.epoch > epoch {
		return // A process that has been replaced.
	}
	d.brokers[node] = sighting{epoch: epoch, heard: d.ran + DetectorTickMs} // At some time before the next tick.
}

// OnDeath takes note that a process has died.
func (d *Detector) OnDeath(node broker.NodeID, incarnation broker.UUID) { d.dead[node] = incarnation }

// OnLife takes note that a process lives, whatever was said of it.
func (d *Detector) OnLife(node broker.NodeID, incarnation broker.UUID) {
	if d.dead[node] == incarnation {
		delete(d.dead, node)
	}
}

// OnController takes note that the controller is there.
func (d *Detector) OnController() { d.touched = d.ran + DetectorTickMs }

// ControllerHeard reports whether the controller was there not long ago.
func (d *Detector) ControllerHeard() bool { return d.ran-d.touched < AloneMs }

// HearsMost reports whether most of an image's voters were heard not long ago: a controller for which that is not so is none
// any more, whether it knows or not.
func (d *Detector) HearsMost(image *metadata.Image) bool {
	voters, heard := 0, 0
	for _, m := range image.Nodes() {
		if !m.Voter {
			continue
		}
		voters++
		if known, ok := d.brokers[m.ID]; ok && d.ran-known.heard < AloneMs {
			heard++
		}
	}
	return 2*heard > voters
}

// OnTick returns the brokers of an image that are to be fenced at nowMs, in order. If more than half of those that run fall
// silent together, this node may be the one that is cut off: it waits for another session, in which a leader without its
// voters steps down. Deaths are certain, and wait for nothing.
func (d *Detector) OnTick(nowMs int64, image *metadata.Image) []*metadata.Registration {
	if gap := nowMs - d.lastTick; gap <= onTimeMs {
		d.ran += gap
	}
	d.lastTick = nowMs
	var dead, silent []*metadata.Registration
	running, shortest := 0, int64(0)
	for _, r := range image.Brokers() {
		known, ok := d.brokers[r.Node]
		if !ok || known.epoch < r.Epoch {
			known = sighting{epoch: r.Epoch, heard: d.ran}
			d.brokers[r.Node] = known
		}
		if r.Fenced {
			continue
		}
		if incarnation, died := d.dead[r.Node]; died && incarnation == r.Incarnation {
			dead = append(dead, r)
			continue
		}
		running++
		if silence := d.ran - known.heard; known.epoch == r.Epoch && silence >= SessionMs {
			silent = append(silent, r)
			if len(silent) == 1 || silence < shortest {
				shortest = silence
			}
		}
	}
	if 2*len(silent) > running && shortest < 2*SessionMs {
		return dead
	}
	return append(dead, silent...)
}
