package delivery_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/metadata"
)

// walk does random things to a partition with bindings and compares what they deliver with the oracle.
type walk struct {
	*world
	ids []broker.BindingID
}

func (w *walk) appendSome() {
	flags := []string{"", "", "", "", "x", "r", "n"}
	if w.rng.IntN(4) == 0 {
		flags = append(flags, "L", "T", "rL")
	}
	pairs := make([]string, 1+w.rng.IntN(6))
	for i := range pairs {
		key := string(rune('a'+w.rng.IntN(4))) + strconv.Itoa(w.rng.IntN(3))
		pairs[i] = key + "=" + strconv.Itoa(len(w.records)) + flags[w.rng.IntN(len(flags))]
	}
	codec := batch.None
	if w.rng.IntN(3) == 0 {
		codec = batch.Gzip
	}
	w.append(codec, pairs...)
}

func (w *walk) bindSome() {
	group := "g" + strconv.Itoa(len(w.ids))
	if w.rng.IntN(2) == 0 {
		w.groups.commit(group, "orders", w.log.Ends().LogEnd) // a group with a past is bound at the log end
	}
	id := w.bind(group, "v"+strconv.Itoa(1+w.rng.IntN(2)), w.rowOf())
	w.ids = append(w.ids, id)
}

func (w *walk) rowOf() func(*metadata.Row) {
	within := int64(0)
	if w.rng.IntN(3) == 0 {
		within = int64(w.rng.IntN(8000))
	}
	policy := []metadata.ErrorPolicy{metadata.PolicyDeadLetter, metadata.PolicyDeadLetter, metadata.PolicySkip, metadata.PolicyPass}[w.rng.IntN(4)]
	return func(row *metadata.Row) { row.WithinMs, row.Policy = within, policy }
}

func (w *walk) updateSome() {
	version := []string{"v1", "v2", "v1", "v2", ""}[w.rng.IntN(5)]
	w.update(w.ids[w.rng.IntN(len(w.ids))], version, w.rowOf())
}

// readSome reads anywhere, at once: what is answered must be what the oracle says, and no end is claimed too early.
func (w *walk) readSome() {
	id := w.ids[w.rng.IntN(len(w.ids))]
	ends := w.log.Ends()
	if ends.LogEnd == ends.LogStart {
		return
	}
	from := ends.LogStart + broker.Offset(w.rng.IntN(int(ends.LogEnd-ends.LogStart)))
	view := w.rng.IntN(2) == 0
	got, result, _, err := w.read(id, delivery.FilteredRead{From: from, MaxBytes: w.rng.IntN(500), MinOne: w.rng.IntN(2) == 0, View: view})
	if view && errors.Is(err, broker.OffsetOutOfRange) {
		return
	}
	if err != nil {
		w.t.Fatal(err)
	}
	oracle := w.oracle(id)
	undecided := false
	for _, row := range w.control.Image().Rows(id) {
		if _, decided := row.From[0]; !decided {
			undecided = true
		}
	}
	want := oracle.filtered(from, ends.LogEnd)
	if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
		if !undecided {
			w.t.Fatalf("read at %d:\ngot  %v\nwant %v", from, got, want)
		}
	}
	if len(got) == 0 && len(want) > 0 && result.HighWatermark <= from && !undecided {
		w.t.Fatalf("end claimed at %d, but %v are to come", from, want)
	}
}

func (w *walk) restart() {
	kill := w.rng.IntN(2) == 0
	w.stop(kill)
	if kill && w.rng.IntN(2) == 0 && w.log.start == 0 {
		w.dropCaches()
	}
	w.epoch++
	w.control.edit(func(*image) {})
	w.control.mu.Lock()
	w.control.epoch = w.epoch
	w.control.mu.Unlock()
	w.start()
}

func (w *walk) step() {
	switch n := w.rng.IntN(20); {
	case n < 9:
		w.appendSome()
	case n < 10 && len(w.ids) < 4 || len(w.ids) == 0:
		w.bindSome()
	case n < 12:
		w.updateSome()
	case n < 16:
		w.readSome()
	case n < 17:
		w.restart()
	default:
		w.settle()
		for _, id := range w.ids {
			w.check(id)
		}
	}
}

func randomShape(w *world) {
	w.bits = uint8(2 + w.rng.IntN(4))
	w.blocks = uint32(w.rng.IntN(4))
}

func TestEveryReaderSeesTheOraclesFilteredLog(t *testing.T) {
	overSeeds(t, walks(t), func(w *world) {
		randomShape(w)
		k := &walk{world: w}
		for range 80 {
			k.step()
		}
		w.settle()
		for _, id := range k.ids {
			w.check(id)
		}
	})
}

// walks is how many random walks a test takes.
func walks(t *testing.T) int {
	if testing.Short() {
		return 20
	}
	return 120
}

func TestRetentionThatOvertakesAGroupLosesNoLaterCopy(t *testing.T) {
	overSeeds(t, walks(t), func(w *world) {
		randomShape(w)
		k := &walk{world: w}
		id := w.bind("g", "v1", k.rowOf())
		w.settle()
		for range 40 {
			k.appendSome()
			if w.rng.IntN(3) > 0 {
				continue
			}
			w.settle()
			w.check(id)
			ends := w.log.Ends()
			committed := ends.LogStart + broker.Offset(w.rng.IntN(int(ends.LogEnd-ends.LogStart)+1))
			w.groups.commit("g", "orders", committed)
			start := ends.LogStart + broker.Offset(w.rng.IntN(int(ends.LogEnd-ends.LogStart)+1))
			moved := w.control.moved
			w.retain(start)
			if w.rng.IntN(3) == 0 {
				k.restart()
			}
			w.settle()
			w.check(id)
			if start <= committed && w.control.moved != moved {
				w.t.Fatalf("the group is at %d, the log start went to %d, and the origin moved to %d", committed, start, w.oracle(id).start())
			}
			if o := w.oracle(id); start > committed && o.start() < int64(start) {
				w.t.Fatalf("retention to %d overtook the commit at %d, and the origin stayed at %d", start, committed, o.start())
			}
		}
	})
}

func TestRollbackIsAForwardCutover(t *testing.T) {
	overSeeds(t, walks(t), func(w *world) {
		randomShape(w)
		k := &walk{world: w}
		a := w.bind("a", "v1", nil)
		b := w.bind("b", "v1", nil)
		for i := range 30 {
			k.appendSome()
			k.appendSome()
			switch i {
			case 8:
				w.update(a, "v2", nil)
			case 16:
				w.update(a, "v1", nil)
			case 20:
				w.update(b, "", nil)
			case 24:
				w.update(b, "v2", nil)
			}
			if w.rng.IntN(4) == 0 {
				w.settle()
				w.check(a)
				w.check(b)
			}
			if w.rng.IntN(8) == 0 {
				k.restart()
			}
		}
		w.settle()
		w.check(a)
		w.check(b)
		if rows := w.control.now.rows[a]; len(rows) != 3 || strings.Contains(rows[2].Stages[0].Version, "v2") {
			w.t.Fatal("three rows are expected, the last of them v1")
		}
	})
}
