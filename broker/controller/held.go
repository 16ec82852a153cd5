package controller

import (
	"fmt"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// A data directory that is put back as it was at an earlier time, from a backup or a snapshot of the disk, has forgotten what
// it acknowledged and voted for since, and is whole in itself. Others must know better: the metadata says up to where each
// directory is known to have held it, which only rises, and which nothing but such a step back makes greater than what the
// directory holds when its process begins.

// NoteHeld records how far brokers have come, so that a directory of an earlier time is known for one though its broker has
// not registered since. The controller asks it of itself now and then. Reply: HeldNoted.
type NoteHeld struct{ Held []Held }

// Held is an index that an incarnation of a broker has applied, and so has on stable storage.
type Held struct {
	Node  broker.NodeID
	Epoch broker.BrokerEpoch
	Index broker.Index
}

// HeldNoted is the reply to NoteHeld.
type HeldNoted struct{}

func (NoteHeld) request() {}
func (HeldNoted) reply()  {}

func noteHeld(head *metadata.Image, r NoteHeld) Decision {
	var facts []*metadata.Fact
	for _, h := range r.Held {
		if old, err := present(head, h.Node, h.Epoch); err == nil && h.Index > old.Held {
			next := *old
			next.Held = h.Index
			facts = append(facts, metadata.BrokerStateFact(&next))
		}
	}
	return Decision{Changes: metadata.Split(facts), Reply: HeldNoted{}}
}

// CheckHeld returns why a directory must not come back that has held the metadata up to an index, and holds less.
func CheckHeld(holds, held broker.Index) error {
	if holds >= held {
		return nil
	}
	return fmt.Errorf("this data directory is of an earlier time, from a backup or a snapshot of the disk: it holds the metadata up to index %d, and has held it up to %d; "+
		"what it acknowledged and voted for since is lost, so the cluster must not count on it: set it aside, and join again with an empty one under the same node id", holds, held)
}
