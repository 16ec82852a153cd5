package controller

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
)

// A directory that comes back with less than it is known to have held is refused, whatever its epochs are; one with as much is
// not, nor another one, of which nothing is known.
func TestADirectoryOfAnEarlierTimeIsNotRegistered(t *testing.T) {
	c := newCluster(1)
	register := func(incarnation, directory byte, held broker.Index) error {
		_, err := c.decide(RegisterBroker{Node: 1, Incarnation: broker.UUID{incarnation}, Directory: broker.DirectoryID{directory}, Held: held})
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	held := func() broker.Index { r, _ := c.img.Broker(1); return r.Held }
	epoch := func() broker.BrokerEpoch { r, _ := c.img.Broker(1); return r.Epoch }
	must(register(1, 1, 7))
	if held() != 0 {
		t.Errorf("a directory that has not served has held %d", held())
	}
	_, err := c.decide(UnfenceBroker{Node: 1, Epoch: epoch(), Applied: 40})
	must(err)
	must(register(2, 1, 40))
	if held() != 40 {
		t.Errorf("the next incarnation's directory has held %d, want 40", held())
	}
	for _, h := range []Held{{1, epoch(), 90}, {1, epoch(), 60}, {1, epoch() - 1, 900}, {2, 1, 900}} {
		_, err := c.decide(NoteHeld{Held: []Held{h}})
		must(err)
	}
	if held() != 90 {
		t.Errorf("held %d, want the highest of this incarnation", held())
	}
	before := c.entries
	if _, err := c.decide(NoteHeld{Held: []Held{{1, epoch(), 90}}}); err != nil || c.entries != before {
		t.Errorf("what was known was recorded again (%v)", err)
	}
	if err := register(3, 1, 89); broker.CodeOf(err) != broker.DuplicateBrokerRegistration || !strings.Contains(err.Error(), "of an earlier time") {
		t.Errorf("a directory that lost an index registers: %v", err)
	}
	must(register(2, 1, 89)) // A copy of the registration that stands.
	must(register(3, 1, 90))
	_, err = c.decide(FenceBroker{Node: 1, Epoch: epoch()})
	must(err)
	must(register(4, 2, 3))
	if held() != 0 {
		t.Errorf("an empty directory has held %d", held())
	}
}
