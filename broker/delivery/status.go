package delivery

import (
	"slices"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// State is what a binding's partition does.
type State string

// The states.
const (
	StateRunning  State = "running"
	StateDeciding State = "deciding" // a row has no offset here yet
	StateWaiting  State = "waiting"  // for a transaction to end
	StateStalled  State = "stalled"  // trouble of the broker's; it retries
	StateStopped  State = "stopped"  // by the policy
)

// PartitionStatus describes a binding on one partition that this node leads.
type PartitionStatus struct {
	Partition   int32
	State       State
	Reason      string // why it does not run
	Origin      broker.Offset
	JudgedTo    broker.Offset // answers are known and letters durable below it
	LastStable  broker.Offset
	LastVisible broker.Offset // or broker.NoOffset
	// ReachOffsets and Reach say how far back the next record is compared: in offsets, and in time between the
	// oldest of them and the newest, zero where unknown.
	ReachOffsets int64
	Reach        time.Duration
	ReachFrom    time.Time // of the oldest of them; zero where unknown
	LogStart     broker.Offset
	Counts       BindingCounts
	// Records, Failures and Fuel are of the judge key, shared by all bindings that have it.
	Records, Failures, Fuel uint64
	LastError               string // of the newest failed record that is remembered
	LastStderr              string
	LastErrorOffset         broker.Offset // of that record; broker.NoOffset without one

	key JudgeKey
}

// Describe returns the status of a binding on every partition that this node leads, by partition.
func (h *Host) Describe(id broker.BindingID) []PartitionStatus {
	var all []PartitionStatus
	for _, l := range h.all() {
		c := l.channel(id)
		if c == nil {
			continue
		}
		st := c.status()
		if t := l.track(st.key); t != nil {
			st.add(t)
		}
		st.LogStart = l.source.Ends().LogStart
		if st.ReachOffsets > 0 && st.JudgedTo > 0 {
			oldest := max(st.JudgedTo-broker.Offset(st.ReachOffsets), st.LogStart)
			if a, b := c.timeAt(oldest), c.timeAt(st.JudgedTo-1); !a.IsZero() && !b.IsZero() {
				st.ReachFrom, st.Reach = a, b.Sub(a)
			}
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b PartitionStatus) int { return int(a.Partition) - int(b.Partition) })
	return all
}

// add brings in what the judge key's track knows.
func (st *PartitionStatus) add(t *track) {
	e := t.extent()
	st.Records, st.Failures, st.Fuel = e.of.Records, e.of.Failures, e.of.Fuel
	if e.trouble != nil && st.State == StateRunning {
		st.State, st.Reason = StateStalled, e.trouble.Error()
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	newest := broker.NoOffset
	if st.LastError != "" {
		return // what stopped the partition is told, not what came behind it
	}
	for o, f := range t.failures {
		if o > newest {
			newest, st.LastErrorOffset = o, o
			st.LastError, st.LastStderr = f.Reason.String()+": "+f.Text, string(f.Stderr)
		}
	}
}
