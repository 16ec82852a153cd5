package commitlog

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"
	"sort"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// indexEntry says that the batch at relative offset rel lies at byte pos, and carries the CRC32C of the first 21 bytes of
// every batch between the entry before it and itself.
type indexEntry struct{ rel, pos, crc uint32 }

// timeEntry says that no batch before relative offset rel has a timestamp above ms.
type timeEntry struct {
	ms  int64
	rel uint32
}

// A segment's first batch needs no entry; a closed segment's last entry lies at its end.
const (
	indexEntryBytes = 12
	timeEntryBytes  = 12
)

// index finds batches in one segment. It is a value: a copy that is added to leaves the original as it was, since
// entries are only ever appended behind what others see.
type index struct {
	entries []indexEntry
	times   []timeEntry
	last    uint32 // position of the last entry
	run     uint32 // CRC of the batch headers since
	maxMs   int64  // largest timestamp so far
}

func newIndex() index { return index{maxMs: math.MinInt64} }

// add notes the batch v at (rel, pos), behind an entry if the last one is interval bytes away.
func (x *index) add(v batch.View, rel, pos uint32, interval int) {
	if int64(pos)-int64(x.last) >= int64(interval) {
		x.mark(rel, pos)
	}
	x.run = crc32.Update(x.run, castagnoli, v[:batch.UncoveredBytes])
	x.maxMs = max(x.maxMs, v.MaxTimestamp())
}

// mark puts an entry at (rel, pos).
func (x *index) mark(rel, pos uint32) {
	x.entries = append(x.entries, indexEntry{rel: rel, pos: pos, crc: x.run})
	x.last, x.run = pos, 0
	if n := len(x.times); n == 0 || x.times[n-1].ms < x.maxMs {
		x.times = append(x.times, timeEntry{ms: x.maxMs, rel: rel})
	}
}

// sealed returns the index of a segment that ends at (rel, pos).
func (x index) sealed(rel, pos uint32) index {
	if n := len(x.entries); n == 0 || x.entries[n-1].pos != pos {
		x.mark(rel, pos)
	}
	return x
}

// unsealed returns the index of a closed segment that is to be appended to again: as it was before sealed, without an
// entry that appending would not have made.
func (x index) unsealed(interval int) index {
	n := len(x.entries)
	if n == 0 {
		return x
	}
	end, before := x.entries[n-1], uint32(0)
	if n > 1 {
		before = x.entries[n-2].pos
	}
	if int64(end.pos)-int64(before) >= int64(interval) {
		return x
	}
	x.entries, x.last, x.run = slices.Clone(x.entries[:n-1]), before, end.crc
	if t := len(x.times); t > 0 && x.times[t-1].rel == end.rel {
		x.times = slices.Clone(x.times[:t-1])
	}
	return x
}

// floor returns the place of the last entry at or below rel, the segment's start if there is none.
func (x *index) floor(rel uint32) (entryRel, pos uint32) {
	i := sort.Search(len(x.entries), func(i int) bool { return x.entries[i].rel > rel })
	if i == 0 {
		return 0, 0
	}
	return x.entries[i-1].rel, x.entries[i-1].pos
}

// before returns the relative offset below which no batch has a timestamp of ms or later.
func (x *index) before(ms int64) uint32 {
	i := sort.Search(len(x.times), func(i int) bool { return x.times[i].ms >= ms })
	if i == 0 {
		return 0
	}
	return x.times[i-1].rel
}

// cutAt returns the index without what lies above the entry at or below rel, in memory of its own, and that entry's
// place: the batches from there on are to be added again.
func (x *index) cutAt(rel uint32) (kept index, entryRel, pos uint32) {
	n := sort.Search(len(x.entries), func(i int) bool { return x.entries[i].rel > rel })
	kept = newIndex()
	kept.entries = slices.Clone(x.entries[:n])
	if n == 0 {
		return kept, 0, 0
	}
	entry := kept.entries[n-1]
	t := sort.Search(len(x.times), func(i int) bool { return x.times[i].rel > entry.rel })
	kept.times = slices.Clone(x.times[:t])
	if t > 0 {
		kept.maxMs = kept.times[t-1].ms
	}
	kept.last = entry.pos
	return kept, entry.rel, entry.pos
}

func (x *index) encode() (offsets, times []byte) {
	offsets = make([]byte, 0, len(x.entries)*indexEntryBytes)
	for _, e := range x.entries {
		offsets = binary.LittleEndian.AppendUint32(offsets, e.rel)
		offsets = binary.LittleEndian.AppendUint32(offsets, e.pos)
		offsets = binary.LittleEndian.AppendUint32(offsets, e.crc)
	}
	times = make([]byte, 0, len(x.times)*timeEntryBytes)
	for _, e := range x.times {
		times = binary.LittleEndian.AppendUint64(times, uint64(e.ms))
		times = binary.LittleEndian.AppendUint32(times, e.rel)
	}
	return offsets, times
}

// decodeIndex reads a closed segment's index back; ok is false if the entries do not rise.
func decodeIndex(offsets, times []byte) (x index, ok bool) {
	if len(offsets)%indexEntryBytes != 0 || len(times)%timeEntryBytes != 0 || len(offsets) == 0 {
		return index{}, false
	}
	x = newIndex()
	x.entries = make([]indexEntry, 0, len(offsets)/indexEntryBytes)
	for b := offsets; len(b) > 0; b = b[indexEntryBytes:] {
		e := decodeEntry(b)
		if n := len(x.entries); n > 0 && (e.rel <= x.entries[n-1].rel || e.pos <= x.entries[n-1].pos) {
			return index{}, false
		}
		x.entries = append(x.entries, e)
	}
	x.times = make([]timeEntry, 0, len(times)/timeEntryBytes)
	for b := times; len(b) > 0; b = b[timeEntryBytes:] {
		e := timeEntry{ms: int64(binary.LittleEndian.Uint64(b)), rel: binary.LittleEndian.Uint32(b[8:])}
		if n := len(x.times); n > 0 && (e.ms <= x.times[n-1].ms || e.rel <= x.times[n-1].rel) {
			return index{}, false
		}
		x.times = append(x.times, e)
	}
	x.last = x.entries[len(x.entries)-1].pos
	if n := len(x.times); n > 0 {
		x.maxMs = x.times[n-1].ms
	}
	return x, true
}

func decodeEntry(b []byte) indexEntry {
	return indexEntry{
		rel: binary.LittleEndian.Uint32(b),
		pos: binary.LittleEndian.Uint32(b[4:]),
		crc: binary.LittleEndian.Uint32(b[8:]),
	}
}

// epochStart says where a leader epoch begins in the log.
type epochStart struct {
	epoch broker.LeaderEpoch
	start broker.Offset
}

// epochs is the list of leader epochs of a log, both columns rising. Like index it is only appended to behind what
// others see.
type epochs []epochStart

const epochEntryBytes = 12

// add notes a batch of an epoch at an offset.
func (e epochs) add(epoch broker.LeaderEpoch, at broker.Offset) epochs {
	if n := len(e); n > 0 && e[n-1].epoch >= epoch {
		return e
	}
	return append(e, epochStart{epoch: epoch, start: at})
}

// at returns the epoch that the batch at offset has.
func (e epochs) at(offset broker.Offset) broker.LeaderEpoch {
	i := sort.Search(len(e), func(i int) bool { return e[i].start > offset })
	if i == 0 {
		return broker.NoLeaderEpoch
	}
	return e[i-1].epoch
}

// below returns the entries that start below end, in memory of their own.
func (e epochs) below(end broker.Offset) epochs {
	n := sort.Search(len(e), func(i int) bool { return e[i].start >= end })
	return slices.Clone(e[:n])
}

// from returns the entries that matter at or above start; the first of them starts no lower.
func (e epochs) from(start broker.Offset) epochs {
	i := sort.Search(len(e), func(i int) bool { return e[i].start > start })
	if i == 0 {
		return e
	}
	kept := slices.Clone(e[i-1:])
	kept[0].start = max(kept[0].start, start)
	return kept
}

func (e epochs) encode() []byte {
	b := make([]byte, 0, len(e)*epochEntryBytes)
	for _, s := range e {
		b = binary.LittleEndian.AppendUint32(b, uint32(s.epoch))
		b = binary.LittleEndian.AppendUint64(b, uint64(s.start))
	}
	return b
}

func decodeEpochs(b []byte) (e epochs, ok bool) {
	if len(b)%epochEntryBytes != 0 {
		return nil, false
	}
	for ; len(b) > 0; b = b[epochEntryBytes:] {
		s := epochStart{
			epoch: broker.LeaderEpoch(binary.LittleEndian.Uint32(b)),
			start: broker.Offset(binary.LittleEndian.Uint64(b[4:])),
		}
		if n := len(e); n > 0 && (s.epoch <= e[n-1].epoch || s.start <= e[n-1].start) {
			return nil, false
		}
		e = append(e, s)
	}
	return e, true
}
