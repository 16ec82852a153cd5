package delivery_test

import (
	"strings"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// The oracle of the delivery contract: over a dump of the log and the decision rows, word for word, and without a line
// of delivery or plugins/window. Record o is absent iff a stage dropped it, or it is dead-lettered, or there is a k < o
// that came through every stage with the same id, k ≥ floor(o), and timestamp(k) ≥ timestamp(o) − within where set;
// each offset judged by the version in force there.

// force is a decision in effect from an offset on.
type force struct {
	from         int64
	version      string // "" delivers everything raw
	bits, blocks int64
	within       int64
	policy       metadata.ErrorPolicy
	row          broker.RowID
	halt         bool // a version tripped, and none stands in
}

type oracle struct {
	log    []stored                        // everything that was ever committed, deleted records too
	bases  map[broker.Offset]broker.Offset // of the batch that holds a record
	forces []force                         // in the order in which they were decided
	origin int64                           // -1: where the first version begins to judge
	// forgotten is the offset below which sightings are lost with every copy of the id files (G6).
	forgotten int64
}

// inForce is the decision that answers for o: the last one made whose offset is at or below o.
func (w *oracle) inForce(o int64) force {
	at := force{}
	for _, f := range w.forces {
		if f.from <= o {
			at = f
		}
	}
	return at
}

// fails says whether the stages dead-letter a record or fail at it.
func fails(value string) bool {
	return strings.ContainsAny(value, "LT") && (!strings.Contains(value, "x") || strings.Contains(value, "T"))
}

// stop is where delivery ends: the first batch with a record that fails under the policy stop, or the first offset where a
// version tripped and none stands in.
func (w *oracle) stop() broker.Offset {
	for _, r := range w.log {
		f := w.inForce(int64(r.offset))
		if f.halt {
			return r.offset
		}
		if f.version != "" && f.policy == metadata.PolicyStop && fails(r.value) {
			return w.bases[r.offset]
		}
	}
	return 1 << 60
}

// namer is the version that names o: the one in force, or over a raw range the first one behind it.
func (w *oracle) namer(o int64) string {
	if f := w.inForce(o); f.version != "" {
		return f.version
	}
	for next := o + 1; next <= o+1_000; next++ {
		if f := w.inForce(next); f.version != "" {
			return f.version
		}
	}
	return ""
}

func (w *oracle) start() int64 {
	if w.origin >= 0 {
		return w.origin
	}
	for o := int64(0); o < 100_000; o++ {
		if w.inForce(o).version != "" {
			return o
		}
	}
	return 100_000
}

func through(value string, policy metadata.ErrorPolicy) (survives, lettered bool) {
	if strings.Contains(value, "x") && !strings.Contains(value, "T") {
		return false, false
	}
	if strings.ContainsAny(value, "LT") {
		return policy == metadata.PolicyPass, policy == metadata.PolicyDeadLetter
	}
	return true, false
}

func identify(version, key, value string) (string, bool) {
	if strings.ContainsAny(value, "nLT") || version == "" {
		return "", false
	}
	if version == "v2" {
		return key[:1], true
	}
	return key, true
}

// sent is what a consumer sees of a record, and whether it sees it.
func (w *oracle) sent(r stored) (stored, bool) {
	o := int64(r.offset)
	f := w.inForce(o)
	if f.version == "" {
		return r, true
	}
	survives, _ := through(r.value, f.policy)
	if !survives || w.duplicate(r, f) {
		return r, false
	}
	if strings.Contains(r.value, "r") && !strings.ContainsAny(r.value, "LT") {
		r.value = "R" + r.value
	}
	return r, true
}

func (w *oracle) duplicate(r stored, f force) bool {
	id, named := identify(f.version, r.key, r.value)
	if !named {
		return false
	}
	o, size := int64(r.offset), int64(1)<<f.bits
	floor := max(w.start(), w.forgotten, (o/size-f.blocks)*size)
	for _, k := range w.log {
		if int64(k.offset) >= o {
			break
		}
		if int64(k.offset) < floor || f.within > 0 && k.timestamp < r.timestamp-f.within {
			continue
		}
		at := int64(k.offset)
		survived, _ := through(k.value, w.inForce(at).policy)
		if w.inForce(at).version == "" {
			survived, _ = through(k.value, f.policy)
		}
		if name, ok := identify(w.namer(at), k.key, k.value); survived && ok && name == id {
			return true
		}
	}
	return false
}

// filtered is the filtered log from an offset on.
func (w *oracle) filtered(from, end broker.Offset) []stored {
	var all []stored
	stop := w.stop()
	for _, r := range w.log {
		if r.offset < from || r.offset >= min(end, stop) {
			continue
		}
		if r, ok := w.sent(r); ok {
			all = append(all, r)
		}
	}
	return all
}

// letters are the offsets that must be in the dead-letter topic.
func (w *oracle) letters() []broker.Offset {
	var all []broker.Offset
	stop := w.stop()
	for _, r := range w.log {
		if r.offset >= stop {
			break
		}
		f := w.inForce(int64(r.offset))
		if _, lettered := through(r.value, f.policy); lettered && f.version != "" {
			all = append(all, r.offset)
		}
	}
	return all
}
