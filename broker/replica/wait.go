package replica

import "github.com/millrace-io/millrace/broker"

// waiter is an append that was written, or a retry of one, and waits for its acknowledgement.
type waiter struct {
	done         func(Appended)
	base, end    broker.Offset
	appendTimeMs int64
	acks         int16
	duplicate    bool
}

func (w waiter) complete(r *Replica, err error) {
	if err != nil {
		r.hooks.Refused(r.tp, broker.CodeOf(err))
	}
	w.done(Appended{
		Base: w.base, End: w.end, AppendTimeMs: w.appendTimeMs, LogStart: r.current().start, Duplicate: w.duplicate, Err: err,
	})
}

// waitQueue holds waiters in the order of their appends. Retries stand where they came, so an end may be lower than the
// one before it; such a retry waits a moment longer than it must, with the appends around it.
type waitQueue struct {
	list []waiter
	head int
}

func (q *waitQueue) len() int { return len(q.list) - q.head }

func (q *waitQueue) push(w waiter) { q.list = append(q.list, w) }

func (q *waitQueue) front() *waiter { return &q.list[q.head] }

func (q *waitQueue) ready(end broker.Offset) bool { return q.len() > 0 && q.front().end <= end }

func (q *waitQueue) pop() waiter {
	w := q.list[q.head]
	q.list[q.head] = waiter{}
	q.head++
	switch {
	case q.head == len(q.list):
		q.list, q.head = q.list[:0], 0
	case q.head >= 1024 && 2*q.head >= len(q.list):
		q.list, q.head = append(q.list[:0], q.list[q.head:]...), 0
	}
	return w
}
