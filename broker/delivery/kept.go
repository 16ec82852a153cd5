package delivery

import (
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// Bounds of what judging leaves in memory for the reader that follows it.
const (
	keptBytesMax     = 4 << 20  // of a track: more than a reader takes at a time, and less than a processor's cache
	nodeKeptBytesMax = 32 << 20 // of all tracks of a node
)

// kept is what judging has read from disk, and had checked, for the reader that comes behind it: he would read and check
// the same bytes again. It holds committed batches of a log that this node leads, so nothing cuts them while its track runs;
// and whoever reads them decides as with bytes from the log what of them is visible. It is safe for concurrent use.
type kept struct {
	node *atomic.Int64 // bytes that all tracks of the node keep

	mu    sync.Mutex
	runs  []*keptRun // in the order of their offsets
	bytes int
}

// keptRun is one read of the log. It is given back when neither the track nor a reader has it.
type keptRun struct {
	from, end broker.Offset
	slice     Slice
	bytes     int
	users     atomic.Int32
}

func (r *keptRun) release() {
	if r.users.Add(-1) == 0 {
		r.slice.release()
	}
}

// add takes a slice over that holds [from, end), unless there is enough.
func (k *kept) add(from, end broker.Offset, s Slice) (taken bool) {
	r := &keptRun{from: from, end: end, slice: s, bytes: s.size()}
	if r.bytes == 0 || k.full() {
		return false
	}
	if k.node.Add(int64(r.bytes)) > nodeKeptBytesMax {
		k.node.Add(-int64(r.bytes))
		return false
	}
	r.users.Store(1)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.runs = append(k.runs, r)
	k.bytes += r.bytes
	return true
}

// full reports whether the track keeps as much as it may.
func (k *kept) full() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bytes >= keptBytesMax
}

// read returns the batches from the one on that holds o, as far as one read of the log had them; false if it is not kept.
func (k *kept) read(o broker.Offset) (Slice, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.runs {
		if r.from > o {
			break
		}
		if o < r.end {
			r.users.Add(1)
			return Slice{Bytes: from(r.slice.Bytes, o), Release: r.release}, true
		}
	}
	return Slice{}, false
}

// from leaves the batches out that end at or below o.
func from(runs [][]byte, o broker.Offset) [][]byte {
	for i, run := range runs {
		for at := 0; at < len(run); at += batch.PeekLen(run[at:]) {
			if batch.View(run[at:]).NextOffset() > o {
				return append([][]byte{run[at:]}, runs[i+1:]...)
			}
		}
	}
	return nil
}

// passed lets go of what ends at or below o.
func (k *kept) passed(o broker.Offset) {
	for _, r := range k.remove(o) {
		k.node.Add(-int64(r.bytes))
		r.release()
	}
}

func (k *kept) remove(o broker.Offset) (removed []*keptRun) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.runs) > 0 && k.runs[0].end <= o {
		removed, k.runs[0] = append(removed, k.runs[0]), nil
		k.runs, k.bytes = k.runs[1:], k.bytes-removed[len(removed)-1].bytes
	}
	return removed
}

// empty reports whether nothing is kept.
func (k *kept) empty() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.runs) == 0
}
