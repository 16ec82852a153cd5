package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/internal/vfs"
)

// deed is what a client of a recorded run asked for, or was told. Between the two nobody knows; what it was told must
// hold from then on, however often the node dies.
type deed struct {
	what      what
	topic     string
	partition int32
	key       string
	value     string // of a record; unique in the run
	offset    int64  // of a record, a commit or a log start
}

// what is a kind of deed.
type what string

// The kinds. Those in -ing were asked for, the others were answered.
const (
	formatted  what = "formatted"
	making     what = "making a topic"
	made       what = "made a topic"
	deleting   what = "deleting a topic"
	deleted    what = "deleted a topic"
	bound      what = "bound"
	sending    what = "sending"
	sent       what = "sent"
	committing what = "committing"
	committed  what = "committed"
	starting   what = "moving a log start"
	started    what = "moved a log start"
	entering   what = "entering" // a stage of the run: value names it
)

// place is a partition.
type place struct {
	topic     string
	partition int32
}

// promises is what deeds amount to.
type promises struct {
	formatted, bound bool
	topics           map[string]what // the last deed about it
	sent             map[place]map[string]deed
	acknowledged     map[place][]deed
	commits          map[place][]int64 // that may be there: the last told, and those asked for since
	startTold        map[place]int64
	startAsked       map[place]int64
	compacted        func(topic string) bool
}

// fold adds deeds up.
func fold(deeds []deed) *promises {
	p := &promises{
		topics: map[string]what{}, sent: map[place]map[string]deed{}, acknowledged: map[place][]deed{}, commits: map[place][]int64{},
		startTold: map[place]int64{}, startAsked: map[place]int64{},
		compacted: func(topic string) bool { return strings.HasPrefix(topic, "table") },
	}
	for _, d := range deeds {
		at := place{d.topic, d.partition}
		switch d.what {
		case formatted:
			p.formatted = true
		case bound:
			p.bound = true
		case making, made, deleting, deleted:
			p.topics[d.topic] = d.what
		case sending:
			if p.sent[at] == nil {
				p.sent[at] = map[string]deed{}
			}
			p.sent[at][d.value] = d
		case sent:
			p.acknowledged[at] = append(p.acknowledged[at], d)
		case committing:
			p.commits[at] = append(p.commits[at], d.offset)
		case committed:
			told := slices.Index(p.commits[at], d.offset)
			p.commits[at] = p.commits[at][max(told, 0):]
		case starting:
			p.startAsked[at] = max(p.startAsked[at], d.offset)
		case started:
			p.startTold[at] = max(p.startTold[at], d.offset)
		}
	}
	return p
}

// committedTold says whether a commit of this partition was ever answered, given the deeds.
func committedTold(deeds []deed, at place) bool {
	return slices.ContainsFunc(deeds, func(d deed) bool { return d.what == committed && place{d.topic, d.partition} == at })
}

// stored is a record as it was found.
type stored struct {
	offset     int64
	key, value string
}

// checkLog compares a partition as it was found with what was promised of it.
func (p *promises) checkLog(at place, start, end int64, found []stored) error {
	if start < p.startTold[at] || start > p.startAsked[at] {
		return fmt.Errorf("%v starts at %d; it was told to start at %d and asked to start at %d", at, start, p.startTold[at], p.startAsked[at])
	}
	byOffset, newest := map[int64]stored{}, map[string]int64{}
	last := stored{offset: start - 1}
	for _, r := range found {
		asked, ok := p.sent[at][r.value]
		if !ok || asked.key != r.key {
			return fmt.Errorf("%v holds %+v at %d, which nobody sent there", at, r, r.offset)
		}
		if r.offset <= last.offset || r.value <= last.value || !p.compacted(at.topic) && r.offset != last.offset+1 {
			return fmt.Errorf("%v holds %+v behind %+v", at, r, last)
		}
		last, byOffset[r.offset], newest[r.key] = r, r, r.offset
	}
	if last.offset >= end {
		return fmt.Errorf("%v ends at %d and holds %+v", at, end, last)
	}
	for _, a := range p.acknowledged[at] {
		r, ok := byOffset[a.offset]
		switch {
		case ok && r.value == a.value, a.offset < start:
		case !ok && p.compacted(at.topic) && newest[a.key] > a.offset:
		default:
			return fmt.Errorf("%v was acknowledged at offset %d and is not there; the log is [%d, %d)", a, a.offset, start, end)
		}
	}
	return nil
}

// firstOfKeys is the oracle of a chain that deduplicates by key with a reach longer than the log, bound before the first
// record.
func firstOfKeys(found []stored) []stored {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(found), func(r stored) bool {
		again := seen[r.key]
		seen[r.key] = true
		return again
	})
}

// census counts crash points by what the node was at.
type census map[string]int

func (c census) total() (n int) {
	for _, of := range c {
		n += of
	}
	return n
}

func (c census) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "%6d  %s\n", c[name], name)
	}
	return b.String()
}

// phaseOf names what an operation is part of, from the file that it is about.
func phaseOf(op vfs.Op) string {
	name := op.Name
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(name, part) })
	}
	switch {
	case has("/tls", "node.meta", "LOCK") || op.Kind == vfs.OpMkdir && strings.Count(name, "/") < 2:
		return "format"
	case has("/raft/vote"):
		return "vote file"
	case has("/raft/snapshots"):
		return "metadata snapshot"
	case has("/raft/log"):
		return "metadata log"
	case has("/flush/") && (has(".tmp") || op.Kind == vfs.OpRemove):
		return "flush journal: a new file"
	case has("/flush"):
		return "flush journal: a record"
	case has("/chains"):
		return "files of a chain"
	case has("/plugins"):
		return "plugin module"
	case has("/stray"), op.Kind == vfs.OpRename && !has(".tmp", ".cleaned"):
		return "topic deleted or set aside"
	case has("replica.meta"), has("/topics/") && op.Kind == vfs.OpMkdir:
		return "replica made"
	case has(".cleaned", "/cleaned"):
		return "compaction"
	case has(".producers"):
		return "producer snapshot"
	case has(".index", ".timeindex", "/epochs"):
		return "segment closed"
	case has(".log") && (op.Kind == vfs.OpCreate || op.Kind == vfs.OpReserve):
		return "segment begun"
	case has(".log") && op.Kind == vfs.OpRemove:
		return "segment removed"
	case has(".log") && op.Kind == vfs.OpTruncate:
		return "segment cut"
	case has(".log") && op.Kind == vfs.OpSync:
		return "group commit"
	case has(".log"):
		return "append"
	case has("/clean"):
		return "clean mark"
	case op.Kind == vfs.OpSyncDir:
		return "names of a directory"
	}
	return string(op.Kind) + " " + name
}
