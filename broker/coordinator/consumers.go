package coordinator

import (
	"context"
	"iter"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// Cluster is what consumer groups have to know of the cluster. It is asked at every heartbeat and must not block.
type Cluster interface {
	// Topics returns what there is to subscribe to.
	Topics() group.Topics
	// Timing returns how often the members of a group are to be heard of.
	Timing(groupID string) group.Timing
}

// bareCluster has no topics, and Kafka's default timing.
type bareCluster struct{}

func (bareCluster) Topics() group.Topics { return bareCluster{} }
func (bareCluster) Timing(string) group.Timing {
	return group.Timing{SessionTimeoutMs: 45_000, HeartbeatIntervalMs: 5_000}
}
func (bareCluster) Version() uint64                   { return 1 }
func (bareCluster) Named(string) (group.Topic, bool)  { return group.Topic{}, false }
func (bareCluster) Sees(group.Principal, string) bool { return true }
func (bareCluster) All() iter.Seq[group.Topic]        { return func(func(group.Topic) bool) {} }

// ConsumerHeartbeat is a heartbeat of the consumer protocol (KIP-848), which joins, keeps and leaves a group. It returns
// when what the answer rests on is committed.
func (h *Host) ConsumerHeartbeat(ctx context.Context, groupID string, r group.HeartbeatRequest) (group.HeartbeatResponse, error) {
	if groupID == "" {
		return group.HeartbeatResponse{}, broker.Errorf(broker.InvalidRequest, "the group id is empty")
	}
	if r.MemberID == "" {
		id, err := h.newMemberID("consumer")
		if err != nil {
			return group.HeartbeatResponse{}, err
		}
		r.NewMemberID = id
	}
	if err := checkStrings(groupID, r.MemberID, r.NewMemberID); err != nil {
		return group.HeartbeatResponse{}, err
	}
	t, err := h.tenureOf(groupID)
	if err != nil {
		return group.HeartbeatResponse{}, err
	}
	r.Timing = h.config.Cluster.Timing(groupID)
	answer := make(chan group.HeartbeatResponse, 1)
	ticket, err := t.onConsumerHeartbeat(groupID, r, h.config.Cluster.Topics(), answer)
	if err != nil {
		return group.HeartbeatResponse{}, err
	}
	select {
	case response := <-answer:
		if response.Err != nil {
			return response, response.Err
		}
		return response, t.ensureLeads(ctx)
	case <-t.ended:
		return group.HeartbeatResponse{}, errNotCoordinator
	case <-ctx.Done():
		t.mu.Lock()
		delete(t.heartbeats, ticket)
		t.mu.Unlock()
		return group.HeartbeatResponse{}, interrupted(ctx)
	}
}

func (t *tenure) onConsumerHeartbeat(
	groupID string, r group.HeartbeatRequest, topics group.Topics, answer chan group.HeartbeatResponse,
) (group.Ticket, error) {
	t.mu.Lock()
	if err := t.serving(); err != nil {
		t.mu.Unlock()
		return 0, err
	}
	if t.queueBytes > t.config.QueueBytesMax {
		t.mu.Unlock()
		return 0, errQueueFull
	}
	g := t.ensure(groupID)
	t.ticket++
	ticket := t.ticket
	t.heartbeats[ticket] = answer
	g.OnConsumerHeartbeat(t.nowMs(), ticket, r, topics)
	o := t.settle(g)
	t.mu.Unlock()
	t.deliver(o)
	return ticket, nil
}

// DescribeConsumers tells who is in a consumer group: GroupIDNotFound if there is none of that name.
func (h *Host) DescribeConsumers(ctx context.Context, groupID string) (group.ConsumerDescription, error) {
	if groupID == "" {
		return group.ConsumerDescription{}, broker.Errorf(broker.InvalidGroupID, "the group id is empty")
	}
	t, err := h.tenureOf(groupID)
	if err != nil {
		return group.ConsumerDescription{}, err
	}
	t.mu.Lock()
	if err := t.serving(); err != nil {
		t.mu.Unlock()
		return group.ConsumerDescription{}, err
	}
	var d group.ConsumerDescription
	isConsumers := false
	if g := t.groups[groupID]; g != nil && g.State() != group.Dead {
		d, isConsumers = g.DescribeConsumers()
	}
	t.mu.Unlock()
	if err := t.ensureLeads(ctx); err != nil {
		return group.ConsumerDescription{}, err
	}
	if !isConsumers {
		return group.ConsumerDescription{}, broker.Errorf(broker.GroupIDNotFound, "there is no consumer group %q", groupID)
	}
	return d, nil
}
