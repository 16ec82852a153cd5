package partition

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/mutant"
)

// Limits are the times of Q6 that an operator may set.
type Limits struct {
	LagMaxMs int64 // replica.lag.time.max.ms
}

// The times of Q6 that nobody sets.
const (
	markEveryMs = 50     // how exactly lag is known
	marksMax    = 512    // then every second mark goes, and lag is known half as exactly
	joinLagMs   = 500    // a replica this close may join
	joinMs      = 1_000  // and holds the high watermark back no longer than this before it is proposed
	joinPauseMs = 5_000  // before it may try again
	absentMs    = 1_500  // an in-sync replica without a subscription is out after this
	flapMs      = 10_000 // a replica shrunk this recently must first be level (RM9)
	flapLevelMs = 500    // for this long
	levelLagMs  = 200    // what is younger a level replica need not have: under load it never has everything
	aloneMs     = 1_500  // a leader that does not hear of the controller believes in itself for so long
)

// OnTick decides who joins the ISR and who leaves it. It wants to be called some ten times a second while the partition
// has other replicas.
func (l *Leader) OnTick(nowMs int64) Effects {
	if l.deposed {
		return Effects{}
	}
	for i := range l.followers {
		f := &l.followers[i]
		l.watchLevel(f, nowMs)
		late := f.joiningSinceMs != never && nowMs-f.joiningSinceMs >= joinMs
		if f.joiningSinceMs != never && (late || f.subscription == 0) {
			// Nothing was proposed of it, so no copy is in flight and it may leave the maximal ISR without an image.
			f.joiningSinceMs, f.notBeforeMs = never, nowMs+joinPauseMs
		} else if l.mayJoin(f, nowMs) {
			f.joiningSinceMs = nowMs
		}
	}
	fx := Effects{HighWatermark: l.advance()}
	switch {
	case l.pending == nil:
		fx.Proposal = l.propose(nowMs)
	case l.hopeless():
		fx.Proposal = l.Withdraw().Proposal
	}
	return fx
}

// hopeless reports that the pending proposal names a newcomer that may not join, or another incarnation of it. The controller
// refuses it for as long as that is so, and since the newcomer was in no ISR nothing else raises the partition epoch: without
// a withdrawal the proposal would be pending for good, and nobody could join or leave.
func (l *Leader) hopeless() bool {
	return slices.ContainsFunc(l.pending.ISR, func(m Member) bool {
		f := l.follower(m.Node)
		return f != nil && !slices.Contains(l.image.ISR, m.Node) && (f.Fenced || f.Stopping || f.Broker != m.Broker)
	})
}

// Withdraw replaces the pending proposal by the committed ISR. Its commit raises the partition epoch and so kills every
// copy of the first that is still in flight; until then all that was proposed stays in the maximal ISR (RC8).
func (l *Leader) Withdraw() Effects {
	if l.pending == nil {
		return Effects{}
	}
	l.pending = l.proposalOf(func(f *follower) bool { return slices.Contains(l.image.ISR, f.Node) })
	return Effects{Proposal: l.pending}
}

func (l *Leader) mayJoin(f *follower, nowMs int64) bool {
	flapped := nowMs-f.shrunkAtMs < flapMs
	return !l.inMaximal(f) && l.pending == nil && !f.Fenced && !f.Stopping &&
		f.subscription != 0 && f.acked != broker.NoOffset && l.lagMs(f, nowMs) <= joinLagMs && nowMs >= f.notBeforeMs &&
		(!flapped || f.levelSinceMs != never && nowMs-f.levelSinceMs >= flapLevelMs)
}

// watchLevel notes since when a follower has all but the newest.
func (l *Leader) watchLevel(f *follower, nowMs int64) {
	level := f.subscription != 0 && f.acked != broker.NoOffset &&
		(f.acked >= l.end || nowMs-l.marks.timeOf(f.acked, l.sinceMs) <= levelLagMs)
	switch {
	case !level:
		f.levelSinceMs = never
	case f.levelSinceMs == never:
		f.levelSinceMs = nowMs
	}
}

// propose makes the ISR that the present lags ask for, or nil if that is the committed one.
func (l *Leader) propose(nowMs int64) *Proposal {
	if l.image.Recovering {
		// Nothing has to be made good first: what this log holds is the partition now.
		l.pending = l.proposalOf(func(*follower) bool { return false })
		l.pending.Recovered = true
		return l.pending
	}
	changes := false
	proposal := l.proposalOf(func(f *follower) bool {
		member := slices.Contains(l.image.ISR, f.Node)
		in := member && !l.isOut(f, nowMs) || !member && l.isIn(f)
		changes = changes || in != member
		return in
	})
	if !changes {
		return nil
	}
	l.pending = proposal
	for _, m := range proposal.ISR {
		if !slices.Contains(l.proposed, m.Node) {
			l.proposed = append(l.proposed, m.Node)
		}
		if f := l.follower(m.Node); f != nil {
			f.joiningSinceMs = never // proposed holds it from here on
		}
	}
	return proposal
}

func (l *Leader) proposalOf(in func(*follower) bool) *Proposal {
	p := &Proposal{LeaderEpoch: l.image.LeaderEpoch, PartitionEpoch: l.image.PartitionEpoch}
	for _, r := range l.image.Replicas {
		if r.Node == l.self || in(l.follower(r.Node)) {
			p.ISR = append(p.ISR, Member{Node: r.Node, Broker: r.Broker, Replica: r.ID})
		}
	}
	return p
}

// isIn reports that a joining replica has everything that may be committed. Under min.insync it must be level as well:
// it would move the high watermark by joining, and be thrown out again if it were merely near (KAFKA-19996).
func (l *Leader) isIn(f *follower) bool {
	has := max(l.highWatermark, l.epochStart)
	if mutant.Is(mutant.NoEpochStart) {
		has = l.highWatermark
	}
	if f.joiningSinceMs == never || f.subscription == 0 || f.acked < has {
		return false
	}
	return len(l.image.ISR) >= l.image.insyncMin() || f.acked >= l.marks.lastFrom(l.end)
}

// isOut reports that an in-sync replica holds the high watermark back for too long.
func (l *Leader) isOut(f *follower, nowMs int64) bool {
	lag := l.lagMs(f, nowMs)
	absent := f.subscription == 0 && nowMs-max(f.endedAtMs, l.sinceMs) > absentMs
	return lag > l.limits.LagMaxMs || absent && lag > absentMs
}

// FollowerLag is how far a follower is behind.
type FollowerLag struct {
	Node    broker.NodeID
	Records int64 // that it has not acknowledged; of one that has said nothing in this epoch, those of this epoch
	Ms      int64 // since when the oldest of them is there; of one that has said nothing, since the epoch began
}

// Lags tells of every follower, in assignment order.
func (l *Leader) Lags(nowMs int64) []FollowerLag {
	lags := make([]FollowerLag, 0, len(l.followers))
	for i := range l.followers {
		f := &l.followers[i]
		from := f.reached
		if from == broker.NoOffset {
			from = l.epochStart
		}
		lags = append(lags, FollowerLag{Node: f.Node, Records: max(0, int64(l.end-from)), Ms: l.lagMs(f, nowMs)})
	}
	return lags
}

// lagMs is the age of the oldest offset that f has not acknowledged in this epoch by any subscription; 0 if it has all.
func (l *Leader) lagMs(f *follower, nowMs int64) int64 {
	switch {
	case f.reached == broker.NoOffset && l.end > l.start:
		return nowMs - l.sinceMs
	case f.reached == broker.NoOffset || f.reached >= l.end:
		return 0
	}
	return nowMs - l.marks.timeOf(f.reached, l.sinceMs)
}

// dropMarks forgets when offsets were appended that every replica has.
func (l *Leader) dropMarks() {
	low := l.end
	for i := range l.followers {
		low = min(low, l.followers[i].reached)
	}
	l.marks.drop(low)
}

// marks tell when offsets were appended, one mark for each 50 ms in which something was.
type marks struct {
	list    []mark
	everyMs int64
}

// mark says that from was the log end at ms: what was appended since lies at or above it.
type mark struct {
	ms   int64
	from broker.Offset
}

func (m *marks) add(nowMs int64, from broker.Offset) {
	m.everyMs = max(m.everyMs, markEveryMs)
	if n := len(m.list); n > 0 && nowMs-m.list[n-1].ms < m.everyMs {
		return
	}
	if len(m.list) == marksMax {
		for i := range marksMax / 2 {
			m.list[i] = m.list[2*i]
		}
		m.list = m.list[:marksMax/2]
		m.everyMs *= 2
	}
	m.list = append(m.list, mark{nowMs, from})
}

// drop forgets what no replica waits for.
func (m *marks) drop(below broker.Offset) {
	n := 0
	for n+1 < len(m.list) && m.list[n+1].from <= below {
		n++
	}
	m.list = slices.Delete(m.list, 0, n)
	if len(m.list) < 2 {
		m.everyMs = markEveryMs
	}
}

// timeOf is when the offset was appended, or firstMs if it is older than every mark.
func (m *marks) timeOf(offset broker.Offset, firstMs int64) int64 {
	i, _ := slices.BinarySearchFunc(m.list, offset, func(k mark, o broker.Offset) int {
		if k.from <= o {
			return -1
		}
		return 1
	})
	if i == 0 {
		return firstMs
	}
	return m.list[i-1].ms
}

// endAt is where the log ended at ms; end is where it ends now.
func (m *marks) endAt(ms int64, end broker.Offset) broker.Offset {
	for _, k := range m.list {
		if k.ms > ms {
			return k.from
		}
	}
	return end
}

func (m *marks) lastFrom(otherwise broker.Offset) broker.Offset {
	if len(m.list) == 0 {
		return otherwise
	}
	return m.list[len(m.list)-1].from
}
