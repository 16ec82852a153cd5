package commitlog

import (
	"sync"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

const (
	tailBlockBytesMin  = 4 << 10
	tailBlockBytesMax  = 256 << 10
	tailAppendBytesMax = 8 << 20 // a larger append is left to the page cache
	tailMarkBytes      = 4 << 10
	tailBytesDefault   = 128 << 20
)

// tailBlock holds copies of batches that a log appended last, one after another. The bytes below len(data) never
// change, so a reader may keep them as long as it likes.
type tailBlock struct {
	log   *Log
	bytes int64 // what the budget counts
	// Guarded by the log's mu.
	base, next broker.Offset
	data       []byte
	marks      []indexEntry // one a tailMarkBytes, the block's first batch has none
	lastMark   uint32
	evicted    bool
}

// tailBudget bounds the memory of all tails of a node: the oldest block goes first.
type tailBudget struct {
	bytesMax int64

	mu    sync.Mutex
	bytes int64
	fifo  []*tailBlock
}

// admit counts a new block and returns those that must go for it.
func (t *tailBudget) admit(b *tailBlock) (out []*tailBlock) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fifo = append(t.fifo, b)
	t.bytes += b.bytes
	for t.bytes > t.bytesMax && len(t.fifo) > 1 {
		oldest := t.fifo[0]
		t.fifo[0] = nil
		t.fifo = t.fifo[1:]
		t.bytes -= oldest.bytes
		out = append(out, oldest)
	}
	return out
}

// evict drops the block, and those before it, from its log's tail.
func (b *tailBlock) evict() {
	l := b.log
	l.mu.Lock()
	defer l.mu.Unlock()
	b.evicted = true
	if l.open == b {
		l.open = nil
	}
	for i, held := range l.tail {
		if held == b {
			l.tail = append([]*tailBlock(nil), l.tail[i+1:]...)
			return
		}
	}
}

// tailWrite is an append on its way into the tail: the block, and what it will hold.
type tailWrite struct {
	block    *tailBlock
	data     []byte
	marks    []indexEntry
	lastMark uint32
}

// room returns where the next n bytes go: the open block, or a new one; no block if so large an append is not kept.
// Appender only.
func (l *Log) room(n int) tailWrite {
	if n > tailAppendBytesMax || l.flusher.tail.bytesMax <= 0 {
		return tailWrite{}
	}
	size := tailBlockBytesMin
	l.mu.Lock()
	open, end := l.open, l.end
	l.mu.Unlock()
	if open != nil {
		if cap(open.data)-len(open.data) >= n {
			return tailWrite{block: open, data: open.data, marks: open.marks, lastMark: open.lastMark}
		}
		size = min(2*cap(open.data), tailBlockBytesMax)
	}
	b := &tailBlock{log: l, base: end, next: end, bytes: int64(max(size, n))}
	if n < size {
		b.data = make([]byte, 0, size)
	} // else append makes room for exactly this, and does not zero it first
	for _, old := range l.flusher.tail.admit(b) {
		old.evict()
	}
	return tailWrite{block: b, data: b.data}
}

// mark notes that a batch begins at offset at, at the end of the data, if the last mark is far enough away.
func (w *tailWrite) mark(at broker.Offset, pos int) {
	if w.block != nil && pos-int(w.lastMark) >= tailMarkBytes {
		w.marks = append(w.marks, indexEntry{rel: uint32(at - w.block.base), pos: uint32(pos)})
		w.lastMark = uint32(pos)
	}
}

// keepTail makes what was just appended visible. Under mu.
func (l *Log) keepTail(w tailWrite, next broker.Offset) {
	b := w.block
	if b == nil || b.evicted {
		// What is in memory must reach up to the end without a gap.
		l.tail, l.open = nil, nil
		return
	}
	if b != l.open {
		l.tail = append(l.tail, b)
		l.open = b
	}
	b.data, b.marks, b.lastMark, b.next = w.data, w.marks, w.lastMark, next
}

// cutTail drops what lies at or above end. Under mu. Blocks that reach over it are dropped whole.
func (l *Log) cutTail(end broker.Offset) {
	n := 0
	for n < len(l.tail) && l.tail[n].next <= end {
		n++
	}
	if n < len(l.tail) {
		// The tail would no longer reach up to the end.
		for _, b := range l.tail[n:] {
			b.evicted = true
		}
		l.tail = nil
	}
	l.open = nil
}

// tailSpan is a block as it was under mu.
type tailSpan struct {
	base  broker.Offset
	data  []byte
	marks []indexEntry
}

// tailFrom returns the blocks from offset on, or nothing if the tail does not reach so far back. Under mu.
func (l *Log) tailFrom(offset broker.Offset, into []tailSpan) []tailSpan {
	if len(l.tail) == 0 || offset < l.tail[0].base {
		return into
	}
	i := len(l.tail) - 1
	for l.tail[i].base > offset {
		i--
	}
	for ; i < len(l.tail) && len(into) < cap(into); i++ {
		b := l.tail[i]
		into = append(into, tailSpan{base: b.base, data: b.data, marks: b.marks})
	}
	return into
}

// InMemory tells how many bytes lie between an offset and the log's end, counted no further than past most, and how large
// the batch at the offset is; ok is false where they are not all in memory. At the end of the log both are 0.
func (l *Log) InMemory(from broker.Offset, most int64) (bytes int64, first int, ok bool) {
	l.mu.Lock()
	if from == l.end {
		l.mu.Unlock()
		return 0, 0, true
	}
	var spans [1]tailSpan
	found := l.tailFrom(from, spans[:0])
	if from > l.end || len(found) == 0 {
		l.mu.Unlock()
		return 0, 0, false
	}
	for i := len(l.tail) - 1; i >= 0 && l.tail[i].base > found[0].base && bytes <= most; i-- {
		bytes += int64(len(l.tail[i].data))
	}
	l.mu.Unlock()
	rest := found[0].from(from)
	return bytes + int64(len(rest)), batch.PeekLen(rest), true
}

// from returns what the span has from the batch on that holds an offset.
func (t tailSpan) from(offset broker.Offset) []byte {
	at := 0
	for i := len(t.marks) - 1; i >= 0; i-- {
		if t.base+broker.Offset(t.marks[i].rel) <= offset {
			at = int(t.marks[i].pos)
			break
		}
	}
	data := t.data[at:]
	for len(data) > 0 && batch.View(data).NextOffset() <= offset {
		data = data[batch.PeekLen(data):]
	}
	return data
}

// take cuts the batches of [from, limit) out of the span, at most bytesMax of them unless first is set, which lets one
// batch pass. It returns the offset behind what it took.
func (t tailSpan) take(from, limit broker.Offset, bytesMax int, first bool) (b []byte, next broker.Offset, more bool) {
	data, next, end := t.from(from), from, 0
	for end < len(data) {
		v := batch.View(data[end:])
		size := batch.PeekLen(v)
		if v.NextOffset() > limit || end+size > bytesMax && !(first && end == 0) {
			break
		}
		end += size
		next = v.NextOffset()
	}
	return data[:end:end], next, end > 0 && end == len(data)
}
