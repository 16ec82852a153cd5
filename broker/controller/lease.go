package controller

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// LeaseMs is how long a broker may take for granted that it has not been fenced, from the sending of a heartbeat that the
// controller answered: it cannot have been silent for a session before that is over, and the detector's ticks are as exact as
// that.
const LeaseMs = SessionMs - 2*DetectorTickMs

// NotLed is what a node tells that has not been the controller, as far as it knows.
const NotLed int64 = -1

// Lease tells whether this node can have been fenced, and another one be leader in its place, without its knowledge. What
// was heard proves nothing of that: it may have lain unread while this process was paused, or come from a controller that
// was replaced, or over a link that carries nothing the other way. So heartbeats are answered by heartbeats, and all that
// counts is when the one was sent that an answer is to; and a controller counts only up to the time at which most voters
// had answered it, which is before they can have elected another one. Who loses a lifeline may be taken for dead, sooner than
// anybody who falls silent: it has nothing until it has been heard for longer than such an inquest lasts.
//
// Time is this node's own, in milliseconds of a clock that never goes back and goes on while the process is paused. It is
// asked when it matters: no tick and no timer has to run before. It is not safe for concurrent use.
type Lease struct {
	answered map[broker.RaftID]int64 // when the newest heartbeat was sent that each member answered
	shown    int64                   // when a controller is known to have heard this node
	since    int64                   // what was sent before counts for nothing
}

// NewLease returns a lease that does not hold.
func NewLease() *Lease { return &Lease{answered: map[broker.RaftID]int64{}, shown: -LeaseMs} }

// OnAnswer takes note that a member has answered the heartbeat that this node sent it at sentMs, and says that most voters
// were behind it as the controller ledAgoMs before the answer, or NotLed.
func (l *Lease) OnAnswer(from broker.RaftID, sentMs, ledAgoMs int64) {
	if sentMs < l.since {
		return
	}
	l.answered[from] = max(l.answered[from], sentMs)
	if ledAgoMs >= 0 {
		l.shown = max(l.shown, sentMs-ledAgoMs)
	}
}

// OnLifelineLost takes note that a lifeline that this node held has closed.
func (l *Lease) OnLifelineLost(nowMs int64) {
	clear(l.answered)
	l.shown, l.since = nowMs-LeaseMs, nowMs+DeathMs+underWayMs
}

// LedAgo is what this node, which takes itself for the controller, tells others: how long ago most voters of an image, it
// among them, had answered it; or NotLed.
func (l *Lease) LedAgo(nowMs int64, self broker.RaftID, image *metadata.Image) int64 {
	var answers []int64 // of voters, 0: never
	for _, m := range image.Nodes() {
		switch {
		case m.Voter && m.Raft == self:
			answers = append(answers, nowMs)
		case m.Voter:
			answers = append(answers, l.answered[m.Raft])
		}
	}
	if len(answers) == 0 {
		return NotLed
	}
	slices.Sort(answers)
	behind := answers[(len(answers)-1)/2] // This one and what is newer are the smallest majority.
	if behind == 0 {
		return NotLed
	}
	return nowMs - behind
}

// Holds reports whether this node cannot have been fenced yet. A controller tells it by what it would tell others.
func (l *Lease) Holds(nowMs int64, ledAgoMs int64) bool {
	if ledAgoMs >= 0 && nowMs-ledAgoMs >= l.since {
		l.shown = max(l.shown, nowMs-ledAgoMs)
	}
	return nowMs-l.shown < LeaseMs
}
