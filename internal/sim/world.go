package sim

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/millrace-io/millrace/broker"
)

// micros is virtual time since the start, in microseconds.
type micros int64

// Units of virtual time.
const (
	millisecond micros = 1_000
	second             = 1_000 * millisecond
)

// world is one run.
type world struct {
	plan      plan
	rng       *rand.Rand
	now       micros
	queue     events
	queued    uint64
	trace     trace
	net       network
	machines  []*machine
	clients   clients
	history   history
	faults    faults
	broken    *Violation
	topics    []broker.TopicPartition // the partitions under load
	watch     imageWatch
	inside    inside
	format    *raftpb.Snapshot // what a new directory's metadata begins with
	undecided int
}

// Violation is a promise that did not hold.
type Violation struct {
	Kind string // as the checkers name it
	What string
	At   micros
}

func (v *Violation) Error() string {
	return fmt.Sprintf("%s at %d.%06d s: %s", v.Kind, v.At/second, v.At%second, v.What)
}

// fail notes the first violation; the run ends there.
func (w *world) fail(kind, format string, args ...any) {
	if w.broken == nil {
		w.broken = &Violation{Kind: kind, What: fmt.Sprintf(format, args...), At: w.now}
		w.note("VIOLATION %s: %s", kind, w.broken.What)
	}
}

// after runs f when the given time has passed. What is put for the same instant runs in the order it was put.
func (w *world) after(d micros, f func()) {
	w.queued++
	heap.Push(&w.queue, event{at: w.now + max(d, 0), order: w.queued, do: f})
}

// runUntil runs events up to an instant, or to the first violation.
func (w *world) runUntil(end micros) {
	for w.broken == nil && len(w.queue) > 0 && w.queue[0].at <= end {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		w.trace.count(uint64(e.at), e.order)
		e.do()
	}
	w.now = max(w.now, end)
}

// chance is true n times in a thousand.
func (w *world) chance(n int) bool { return w.rng.IntN(1000) < n }

// between draws from [low, high).
func (w *world) between(low, high micros) micros {
	if high <= low {
		return low
	}
	return low + micros(w.rng.Int64N(int64(high-low)))
}

// note writes a line of the trace. Its cost without a reader is that of its arguments.
func (w *world) note(format string, args ...any) {
	if w.trace.out != nil {
		fmt.Fprintf(w.trace.out, "%4d.%06d "+format+"\n", append([]any{w.now / second, w.now % second}, args...)...)
	}
}

// trace is a digest of every event that ran, and the text of what happened if somebody wants it.
type trace struct {
	hash   uint64
	events int
	out    io.Writer
}

func (t *trace) count(values ...uint64) {
	t.events++
	for _, v := range values {
		t.hash = (t.hash ^ v) * 0x9E3779B97F4A7C15
		t.hash ^= t.hash >> 29
	}
}

// uuid draws an identity.
func (w *world) uuid() (id broker.UUID) {
	binary.LittleEndian.PutUint64(id[:8], w.rng.Uint64())
	binary.LittleEndian.PutUint64(id[8:], w.rng.Uint64())
	return id
}

// entropy makes the world's random source an io.Reader, for the controller.
type entropy struct{ w *world }

func (e entropy) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e.w.rng.Uint32())
	}
	return len(p), nil
}

type event struct {
	at    micros
	order uint64
	do    func()
}

// events is a heap by time, then by order.
type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}
