package controller

// Times of an inquest, in milliseconds.
const (
	// InquestTickMs is how often OnTick is meant to be called.
	InquestTickMs = 25
	// DeathMs is how long a process whose lifeline has closed may be silent before it is dead (RH7).
	DeathMs = 150
	// underWayMs is how late a heartbeat may arrive that was sent before the lifeline closed.
	underWayMs = 50
	// inquestOnTimeMs is the longest gap between two ticks that counts (RH6).
	inquestOnTimeMs = 2 * InquestTickMs
)

// Verdict is what an inquest has come to.
type Verdict int

// Verdicts.
const (
	Undecided Verdict = iota
	Lives
	Dead
)

// Inquest asks whether the process whose lifeline has closed is dead (RH7). A closed connection alone is no proof: whatever
// lies between two nodes may close one. A process that is silent behind it for 150 ms is dead, one that is heard lives, and
// patient suspicion goes on (Detector). Time is the caller's, in milliseconds of any clock that never goes back. It is not
// safe for concurrent use.
type Inquest struct {
	closed   int64
	silent   int64 // since then
	lastTick int64
	heard    bool
}

// NewInquest opens one, at the time at which the lifeline closed.
func NewInquest(nowMs int64) *Inquest {
	return &Inquest{closed: nowMs, silent: nowMs, lastTick: nowMs}
}

// OnHeartbeat takes note of a heartbeat of that process. What may have been under way when it died proves nothing, but that
// it arrives shows that others may: the silence begins anew.
func (q *Inquest) OnHeartbeat(nowMs int64) {
	if nowMs-q.closed <= underWayMs {
		q.silent = nowMs
		return
	}
	q.heard = true
}

// OnTick returns the verdict at nowMs. A late tick shows that this node did not run itself: heartbeats may lie unread, so the
// gap is added to the silence that is asked for.
func (q *Inquest) OnTick(nowMs int64) Verdict {
	if gap := nowMs - q.lastTick; gap > inquestOnTimeMs {
		q.silent += gap
	}
	q.lastTick = nowMs
	switch {
	case q.heard:
		return Lives
	case nowMs-q.silent >= DeathMs:
		return Dead
	}
	return Undecided
}
