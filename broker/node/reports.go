package node

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/admin"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/replica"
	"github.com/millrace-io/millrace/internal/task"
)

// Bounds of what one node tells another of itself.
const (
	reportWithin   = 2 * time.Second
	reportBytesMax = 12 << 20 // between nodes go 16 MiB
	printedMax     = 64       // partitions whose plugins' output is told
)

// Inquire implements admin.Nodes.
func (c *clusterRoom) Inquire(ctx context.Context, nodes []broker.NodeID, q admin.Inquiry) []admin.Report {
	ctx, cancel := context.WithTimeout(ctx, reportWithin)
	defer cancel()
	reports := make([]admin.Report, len(nodes))
	group := task.NewGroup(ctx)
	for i, node := range nodes {
		group.Go("ask a node for a report", func(ctx context.Context) error {
			report, err := c.reportOf(ctx, node, q)
			if err != nil {
				report = admin.Report{Silent: silence(ctx, err)}
			}
			report.Node = node
			reports[i] = report
			return nil
		})
	}
	_ = group.Wait() // Each of them tells its own trouble.
	return reports
}

// silence says why a node told nothing.
func silence(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return fmt.Sprintf("nothing came within %s", reportWithin)
	}
	return err.Error()
}

func (c *clusterRoom) reportOf(ctx context.Context, node broker.NodeID, q admin.Inquiry) (report admin.Report, err error) {
	if node == c.node.identity.Node {
		return c.node.report(q), nil
	}
	m, ok := memberOf(c.node.quorum.Image(), node)
	if !ok {
		return report, fmt.Errorf("node %d is no member of the cluster", node)
	}
	question, err := json.Marshal(q)
	if err != nil {
		return report, err
	}
	answer, err := c.askMember(ctx, m.Raft, askReport, question)
	if broker.CodeOf(err) == broker.NotController {
		return report, fmt.Errorf("there is no connection with node %d", node)
	}
	if err == nil {
		err = json.Unmarshal(answer, &report)
	}
	return report, err
}

// reportHere answers another node's inquiry.
func (n *Node) reportHere(question []byte) ([]byte, error) {
	var q admin.Inquiry
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, broker.Errorf(broker.InvalidRequest, "an inquiry that cannot be read: %v", err)
	}
	answer, err := json.Marshal(n.report(q))
	if err == nil && len(answer) > reportBytesMax {
		return nil, broker.Errorf(broker.InvalidRequest, "it would tell %d bytes, and at most %d go: ask for less", len(answer), reportBytesMax)
	}
	return answer, err
}

// report tells what this node knows.
func (n *Node) report(q admin.Inquiry) admin.Report {
	image := n.quorum.Image()
	var r admin.Report
	if q.Binding != 0 {
		r.Chains = n.chainStatuses(image, q.Binding)
	}
	for _, asked := range q.Logs {
		r.Logs = append(r.Logs, n.logStates(image, asked)...)
	}
	r.Ages = n.agesLed(q.Ages)
	if q.Sizes {
		r.Sizes = n.sizesLed(image)
	}
	if q.Troubles {
		for _, binding := range image.Bindings() {
			for _, status := range n.chainStatuses(image, binding.ID) {
				if state := delivery.State(status.State); state == delivery.StateStalled || state == delivery.StateStopped {
					r.Chains = append(r.Chains, admin.ChainStatus{Binding: binding.ID, Partition: status.Partition, State: status.State, Reason: status.Reason})
				}
			}
		}
		for _, failed := range n.set.Failed() {
			r.Damaged = append(r.Damaged, admin.LogState{TopicPartition: failed.TopicPartition, OfflineBecause: failed.Err.Error()})
		}
		m := n.machine()
		r.Certificates, r.NotRenewed = m.Certificates, m.NotRenewed
	}
	return r
}

// chainStatuses are how a binding does on the partitions that this node leads.
func (n *Node) chainStatuses(image *metadata.Image, id broker.BindingID) []admin.ChainStatus {
	binding, ok := image.Binding(id)
	if !ok {
		return nil
	}
	var all []admin.ChainStatus
	printed := 0
	for _, s := range n.chains.Describe(id) {
		status := admin.ChainStatus{
			Binding: id, Partition: s.Partition, State: string(s.State), Reason: s.Reason,
			LogStart: s.LogStart, JudgedTo: s.JudgedTo, LastStable: s.LastStable, End: broker.NoOffset,
			Passed: int64(s.Counts.Visible), Dropped: int64(s.Counts.Dropped), Duplicates: int64(s.Counts.Duplicates),
			Replaced: int64(s.Counts.Replaced), Lettered: int64(s.Counts.Lettered), Failed: int64(s.Failures),
			FuelUsed: s.Fuel, LastError: s.LastError, LastErrorOffset: s.LastErrorOffset,
			ReachFrom: max(s.LogStart, s.JudgedTo-broker.Offset(s.ReachOffsets)),
		}
		if s.LastStderr != "" && printed < printedMax {
			printed++
			status.LastStderr = s.LastStderr
		}
		if end, known := n.filteredEnd(id, broker.TopicPartition{Topic: binding.Topic, Partition: s.Partition}); known {
			status.End = end
		}
		if !s.ReachFrom.IsZero() {
			status.ReachFromMs = s.ReachFrom.UnixMilli()
		}
		all = append(all, status)
	}
	return all
}

// logStates are the partitions of a topic that this node leads, and its replicas that are damaged.
func (n *Node) logStates(image *metadata.Image, asked admin.LogAsked) []admin.LogState {
	var all []admin.LogState
	for _, p := range image.Partitions(asked.Topic) {
		r, err := n.set.Get(p.TopicPartition)
		if err != nil {
			continue
		}
		state := admin.LogState{TopicPartition: p.TopicPartition, Binding: asked.Binding}
		if err := r.Err(); err != nil {
			state.OfflineBecause = err.Error()
		} else if r.CheckLeader(broker.NoLeaderEpoch) != nil {
			continue
		} else {
			n.describeLog(&state, r, asked)
		}
		all = append(all, state)
	}
	return all
}

func (n *Node) describeLog(state *admin.LogState, r *replica.Replica, asked admin.LogAsked) {
	ends := r.Ends()
	state.LogStart, state.HighWatermark, state.LogEnd, state.SizeBytes = ends.LogStart, ends.HighWatermark, ends.LogEnd, r.SizeBytes()
	state.End = state.HighWatermark
	if asked.Binding != 0 {
		if end, known := n.filteredEnd(asked.Binding, state.TopicPartition); known {
			state.End, state.Filtered = end, true
		}
	}
	if asked.AtMs == nil {
		return
	}
	at, _, found, err := r.OffsetForTime(*asked.AtMs)
	switch {
	case err != nil:
		state.NoAt = err.Error()
	case found:
		state.At = at
	default:
		state.At = state.HighWatermark
	}
}

// sizesLed are the bytes of the partitions that this node leads, by topic.
func (n *Node) sizesLed(image *metadata.Image) []admin.TopicSize {
	var all []admin.TopicSize
	for topic := range image.Topics() {
		size := admin.TopicSize{Topic: topic.ID}
		for _, p := range image.Partitions(topic.ID) {
			if p.Leader != n.identity.Node {
				continue
			}
			if r, err := n.set.Get(p.TopicPartition); err == nil {
				size.Bytes += r.SizeBytes()
			}
		}
		if size.Bytes > 0 {
			all = append(all, size)
		}
	}
	return all
}
