package main

import (
	"encoding/json"
	"fmt"
	"slices"
)

// entry is a record as a plain consumer reads it. Offsets in a dump are dense: entry i has offset i.
type entry struct {
	offset    int64
	timestamp int64 // Unix milliseconds
	key       string
	value     string
	epoch     int32 // of the leader that appended it
}

// decision is one row of a binding in one partition.
type decision struct {
	row    uint64
	from   int64
	judge  judge // nil: everything is delivered raw
	bits   uint8 // log2 of a block
	blocks int64 // reach in whole blocks
	within int64 // milliseconds; 0: no limit
}

// decided is everything that was decided for a binding in one partition, rows in the order in which they were made.
type decided struct {
	rows   []decision
	origin int64 // -1: where the first row with stages begins
}

// verdict is what the stages of a version say of one record.
type verdict struct {
	survives bool
	lettered bool
	id       string // empty: nothing identifies it
	value    string // what is delivered
}

// judge is a native model of a chain's stages.
type judge func(entry) verdict

// delivered is one offset of the filtered log.
type delivered struct {
	offset     int64
	key, value string
}

// letter is an offset that must be in the dead-letter topic, and under which row.
type letter struct {
	offset int64
	row    uint64
}

// judgement is the oracle's answer over a dump.
type judgement struct {
	visible    []delivered // from the first row on
	letters    []letter
	dropped    int // by a stage
	duplicates int
}

// oracle computes the filtered log from a dump and the decisions alone: record o is absent iff a stage dropped it, or it
// is dead-lettered, or a sighting k < o with the same id lies at or above floor(o) = max(origin, (⌊o/B⌋ − G)·B) and, where
// within is set, has a timestamp of at least o's less within. Each offset is judged by the version in force there.
func oracle(log []entry, d decided) judgement {
	var j judgement
	sightings := map[string][]entry{}
	origin := d.start()
	for _, e := range log {
		row := d.inForce(e.offset)
		namer := row
		if row != nil && row.judge == nil {
			namer = d.firstJudgeBehind(e.offset)
		}
		if row == nil {
			continue // in front of the binding
		}
		v := verdict{survives: true, value: e.value}
		if namer != nil {
			named := namer.judge(e)
			if row.judge != nil {
				v = named
			}
			if named.survives && named.id != "" {
				if row.judge != nil && duplicate(sightings[named.id], e, *row, origin) {
					j.duplicates++
					v.survives = false
				}
				sightings[named.id] = append(sightings[named.id], e)
			}
			if row.judge != nil && !named.survives && !named.lettered {
				j.dropped++
			}
		}
		if v.lettered {
			j.letters = append(j.letters, letter{e.offset, row.row})
		}
		if v.survives {
			j.visible = append(j.visible, delivered{e.offset, e.key, v.value})
		}
	}
	return j
}

func duplicate(earlier []entry, o entry, row decision, origin int64) bool {
	block := int64(1) << row.bits
	floor := max(origin, (o.offset/block-row.blocks)*block)
	return slices.ContainsFunc(earlier, func(k entry) bool {
		return k.offset >= floor && (row.within == 0 || k.timestamp >= o.timestamp-row.within)
	})
}

// inForce returns the newest row that begins at or below o; a later row takes everything from its own offset on.
func (d decided) inForce(o int64) *decision {
	for i := len(d.rows) - 1; i >= 0; i-- {
		if d.rows[i].from <= o {
			return &d.rows[i]
		}
	}
	return nil
}

// firstJudgeBehind names the records of a raw stretch: the first version that judges behind o.
func (d decided) firstJudgeBehind(o int64) *decision {
	borders := make([]int64, 0, len(d.rows))
	for _, r := range d.rows {
		borders = append(borders, r.from)
	}
	slices.Sort(borders)
	for _, from := range borders {
		if row := d.inForce(from); from > o && row.judge != nil {
			return row
		}
	}
	return nil
}

// start returns the oldest offset whose sightings count.
func (d decided) start() int64 {
	if d.origin >= 0 {
		return d.origin
	}
	if first := d.firstJudgeBehind(-1); first != nil {
		return first.from
	}
	return 0
}

// payload is what a load record says of itself.
type payload struct {
	ID       string `json:"id"`
	Revision string `json:"rev"`
	Kind     string `json:"kind"`
	Producer int    `json:"p"`
	Sequence int    `json:"n"`
}

// judgeVersion is the model of the folder plugin's versions.
func judgeVersion(version string) judge {
	return func(e entry) verdict {
		var p payload
		if json.Unmarshal([]byte(e.value), &p) != nil {
			return verdict{survives: true, value: e.value} // no record of the load
		}
		id := p.ID
		if version == "2" {
			id = p.ID + "/" + p.Revision
		}
		switch {
		case version == "1" && p.Kind == "drop", version == "2" && p.Kind == "odd":
			return verdict{}
		case p.Kind == "bad", p.Kind == "trap", p.Kind == "spin":
			return verdict{lettered: true}
		case p.Kind == "anon":
			return verdict{survives: true, value: e.value}
		case p.Kind == "swap":
			return verdict{survives: true, id: id, value: "swapped by " + version + ": " + e.value + "!"}
		}
		return verdict{survives: true, id: id, value: e.value}
	}
}

// judgeField is the model of the built-in dedup-json with the field id.
func judgeField(e entry) verdict {
	var p payload
	if json.Unmarshal([]byte(e.value), &p) != nil {
		return verdict{survives: true, value: e.value}
	}
	return verdict{survives: true, id: p.ID, value: e.value}
}

// judgeKey is the model of the built-in dedup-key.
func judgeKey(e entry) verdict { return verdict{survives: true, id: e.key, value: e.value} }

func describe(d delivered) string { return fmt.Sprintf("%d (key %q) %.120q", d.offset, d.key, d.value) }

// difference returns how a filtered log that was read differs from what the oracle says, empty if it does not.
func difference(want, got []delivered) string {
	for i := 0; i < len(want) || i < len(got); i++ {
		switch {
		case i >= len(got):
			return "lost: offset " + describe(want[i])
		case i >= len(want):
			return "not to be delivered: offset " + describe(got[i])
		case got[i] == want[i]:
		case got[i].offset > want[i].offset:
			return "lost: offset " + describe(want[i])
		case got[i].offset < want[i].offset:
			return "not to be delivered: offset " + describe(got[i])
		default:
			return "other bytes than " + describe(want[i]) + ": offset " + describe(got[i])
		}
	}
	return ""
}
