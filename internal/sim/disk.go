package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/mutant"
)

// batch is a record batch: what a leader stamped, the same value on every replica. Its records are numbers.
type batch struct {
	base     broker.Offset
	epoch    broker.LeaderEpoch
	values   []int64
	producer broker.ProducerID
	prodEp   broker.ProducerEpoch
	first    broker.Sequence
}

func (b *batch) end() broker.Offset { return b.base + broker.Offset(len(b.values)) }

// cell is the bytes of one record in a log file: which batch, and which of its records. A flipped bit makes it bad.
type cell struct {
	of  *batch
	at  int32
	bad bool
}

// logFile is the file of one log: what reads of this machine return (the page cache), and what is on the platter. The
// record at offset o lies in cell o, so a batch that is written where another was leaves the other's remains behind it.
type logFile struct {
	id       broker.ReplicaID // replica.meta
	oldID    broker.ReplicaID // what the directory still names, if the new name was not synced
	cache    []cell
	platter  []cell
	dirty    []bool
	unsynced []broker.Offset // the dirty cells, and some that no longer are
	start    broker.Offset
	// flushed and high are what the flush journal has on the platter: the ends that the group before the last made durable,
	// and the high watermark then (RC10).
	flushed, high broker.Offset
	sure          broker.Offset // the platter is known to hold what is committed up to here (inside.go)
}

func (f *logFile) write(b *batch) {
	for i := range b.values {
		f.put(b.base+broker.Offset(i), cell{of: b, at: int32(i)})
	}
}

func (f *logFile) put(at broker.Offset, c cell) {
	for broker.Offset(len(f.cache)) <= at {
		f.cache, f.platter, f.dirty = append(f.cache, cell{}), append(f.platter, cell{}), append(f.dirty, false)
	}
	if !f.dirty[at] {
		f.unsynced = append(f.unsynced, at)
	}
	f.cache[at], f.dirty[at] = c, true
}

// persist puts a cell on the platter.
func (f *logFile) persist(at broker.Offset, c cell) {
	if f.platter[at] != c {
		f.sure = min(f.sure, at)
	}
	f.platter[at], f.dirty[at] = c, false
}

// cut removes what lies at and above an offset, durably, before it returns (RC5).
func (f *logFile) cut(at broker.Offset) {
	f.flushed, f.high, f.sure = min(f.flushed, at), min(f.high, at), min(f.sure, at)
	if mutant.Is(mutant.CutLeavesBytes) || broker.Offset(len(f.cache)) <= at {
		return
	}
	f.cache, f.platter, f.dirty = f.cache[:at], f.platter[:at], f.dirty[:at]
}

// reset empties the log, which begins anew at start.
func (f *logFile) reset(start broker.Offset) {
	clear(f.cache)
	clear(f.platter)
	clear(f.dirty)
	f.start, f.flushed, f.high, f.sure = start, start, start, start
}

// written is a cell as it was when a sync began.
type written struct {
	at broker.Offset
	as cell
}

// sync makes cells durable that were dirty when it began, and still are what they were then.
func (f *logFile) sync(captured []written) {
	for _, c := range captured {
		if f.isDirty(c.at) && f.cache[c.at] == c.as {
			f.persist(c.at, c.as)
		}
	}
}

// failSync is a sync that returns an error: the pages count as clean, and some never reached the platter.
func (f *logFile) failSync(w *world, captured []written) {
	for _, c := range captured {
		if at := c.at; f.isDirty(at) {
			f.dirty[at] = false
			if w.chance(500) {
				f.persist(at, f.cache[at])
			}
		}
	}
}

func (f *logFile) isBad(at broker.Offset) bool { return int(at) < len(f.cache) && f.cache[at].bad }

func (f *logFile) isDirty(at broker.Offset) bool { return int(at) < len(f.dirty) && f.dirty[at] }

func (f *logFile) dirtyCells() []written {
	f.unsynced = slices.DeleteFunc(f.unsynced, func(at broker.Offset) bool { return !f.isDirty(at) })
	cells := make([]written, len(f.unsynced))
	for i, at := range f.unsynced {
		cells[i] = written{at, f.cache[at]}
	}
	return cells
}

// losePower keeps of what was not synced whatever the drive happened to write: any cells, in any order, batches torn.
func (f *logFile) losePower(w *world) {
	keep := 1000
	if w.chance(700) {
		keep = w.rng.IntN(1001)
	}
	for at := range f.cache {
		if f.dirty[at] && w.chance(keep) {
			f.persist(broker.Offset(at), f.cache[at])
		}
		f.dirty[at] = false
	}
	copy(f.cache, f.platter)
	if f.oldID != 0 && w.chance(500) {
		f.id = f.oldID
	}
	f.oldID = 0
}

// scan walks the file from the log start and returns the batches that are whole, in order and in line.
func (f *logFile) scan() []*batch {
	var found []*batch
	last := broker.NoLeaderEpoch
	for at := f.start; int(at) < len(f.cache); {
		b := f.cache[at].of
		if b == nil || b.base != at || b.epoch < last || int(b.end()) > len(f.cache) {
			break
		}
		for i := range b.values {
			if c := f.cache[at+broker.Offset(i)]; c.of != b || c.at != int32(i) || c.bad {
				return found
			}
		}
		found, last, at = append(found, b), b.epoch, b.end()
	}
	return found
}

// recover opens the log after a crash. An invalid tail above the flush point is cut; below it is damage, and nothing is
// touched: damaged is where it begins. The kept tail above the flush point is written and synced again, because a page
// cache that survived may be clean and not on the platter (RC9).
func (f *logFile) recover() (kept []*batch, damaged broker.Offset) {
	kept = f.scan()
	end := f.start
	if len(kept) > 0 {
		end = kept[len(kept)-1].end()
	}
	if end < f.flushed && !mutant.Is(mutant.DamageCut) {
		return kept, end
	}
	f.cut(end)
	for at := min(f.flushed, end); at < end; at++ {
		f.persist(at, f.cache[at])
	}
	f.flushed = end
	return kept, broker.NoOffset
}

// disk is a node's data directory.
type disk struct {
	directory  broker.DirectoryID
	logs       map[broker.TopicPartition]*logFile
	order      []broker.TopicPartition // the keys of logs
	raft       *raftDisk
	base, slow int    // syncs take this many times as long
	full       bool   // appends are refused
	failNext   bool   // the next sync fails
	hang       micros // the next sync of records takes this much longer
}

func newDisk(w *world) *disk {
	return &disk{directory: w.uuid(), logs: map[broker.TopicPartition]*logFile{}, base: 1, slow: 1}
}

func (d *disk) open(tp broker.TopicPartition, id broker.ReplicaID) *logFile {
	f := d.logs[tp]
	if f == nil {
		f = &logFile{id: id}
		d.logs[tp] = f
		d.order = append(d.order, tp)
	}
	return f
}

func (d *disk) remove(tp broker.TopicPartition) {
	delete(d.logs, tp)
	d.order = slices.DeleteFunc(d.order, func(o broker.TopicPartition) bool { return o == tp })
}

// setID replaces replica.meta: write, sync, rename, sync of the directory.
func (f *logFile) setID(id broker.ReplicaID) {
	if mutant.Is(mutant.NoDirectorySync) {
		f.oldID = f.id
	}
	f.id = id
}

func (d *disk) losePower(w *world) {
	for _, tp := range d.order {
		d.logs[tp].losePower(w)
	}
	if d.raft != nil {
		d.raft.losePower(w)
	}
}

// syncTime is how long the next sync takes.
func (d *disk) syncTime(w *world) micros {
	t := w.between(200, 900)
	if w.chance(20) {
		t += w.between(0, 8*millisecond)
	}
	return t * micros(max(d.slow, d.base))
}
