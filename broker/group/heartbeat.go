package group

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// HeartbeatRequest is a ConsumerGroupHeartbeat request. What is nil, or -1, has not changed since the last.
type HeartbeatRequest struct {
	MemberID         string
	NewMemberID      string // the id of a member that joins without one; made by the caller
	MemberIDRequired bool   // version 1 and up: members make their id (KIP-1082)
	MemberEpoch      int32
	InstanceID       *string
	RackID           *string
	ClientID         string
	ClientHost       string
	By               Principal

	RebalanceTimeoutMs int32
	Names              []string // of the topics that it subscribes to
	Regex              *string  // that matches more of them as a whole (RE2); empty: none
	Assignor           *string
	Owned              Owned

	Timing Timing
}

// Timing is how long a group's members may be silent, and how often they are to speak.
type Timing struct {
	SessionTimeoutMs    int32 // consumer.session.timeout.ms
	HeartbeatIntervalMs int32 // consumer.heartbeat.interval.ms
}

// full reports whether the request says everything, as a member does that has lost an answer.
func (r *HeartbeatRequest) full() bool {
	return r.RebalanceTimeoutMs != -1 && (r.Names != nil || r.Regex != nil) && r.Owned.Known
}

// HeartbeatResponse answers it. Without Assigned the assignment is what the member was told last.
type HeartbeatResponse struct {
	Err                 error // carries a broker.Code
	MemberID            string
	MemberEpoch         int32
	HeartbeatIntervalMs int32
	Assigned            bool
	Partitions          []broker.TopicPartition // sorted
}

// HeartbeatAnswer completes a parked heartbeat.
type HeartbeatAnswer struct {
	Ticket
	HeartbeatResponse
}

// OnConsumerHeartbeat takes a heartbeat, which is answered under t at once or, if the answer rests on something that is
// not stored, by OnStored.
func (g *Group) OnConsumerHeartbeat(nowMs int64, t Ticket, r HeartbeatRequest, topics Topics) {
	pattern, err := r.check()
	if err == nil {
		err = g.becomeConsumers(r.MemberEpoch)
	}
	if err != nil {
		g.refuseHeartbeat(t, err)
		return
	}
	response := g.consumerHeartbeat(nowMs, r, pattern, topics)
	if response.Err != nil {
		g.refuseHeartbeat(t, response.Err)
	} else {
		g.consumers.ledger.waiting = append(g.consumers.ledger.waiting, HeartbeatAnswer{t, response})
	}
	g.flush()
}

func (g *Group) refuseHeartbeat(t Ticket, err error) {
	g.out.Heartbeats = append(g.out.Heartbeats, HeartbeatAnswer{t, HeartbeatResponse{Err: err}})
}

// check refuses what no group could answer, and compiles the request's regular expression; nil if it has none.
func (r *HeartbeatRequest) check() (*regexp.Regexp, error) {
	if err := r.checkFields(); err != nil || r.Regex == nil {
		return nil, err
	}
	pattern, err := compile(*r.Regex)
	if err != nil {
		return nil, broker.Errorf(broker.InvalidRegularExpression, "the regular expression cannot be subscribed to: %v", err)
	}
	return pattern, nil
}

func (r *HeartbeatRequest) checkFields() error {
	switch {
	case r.MemberID == "" && (r.MemberIDRequired || r.MemberEpoch != joinEpoch):
		return broker.Errorf(broker.InvalidRequest, "a member id is required")
	case r.InstanceID != nil && *r.InstanceID == "":
		return broker.Errorf(broker.InvalidRequest, "an instance id may not be empty")
	case r.RackID != nil && *r.RackID == "":
		return broker.Errorf(broker.InvalidRequest, "a rack id may not be empty")
	case r.MemberEpoch < staticLeaveEpoch:
		return broker.Errorf(broker.InvalidRequest, "%d is no member epoch", r.MemberEpoch)
	case r.Assignor != nil && assignors[*r.Assignor] == nil:
		return broker.Errorf(broker.UnsupportedAssignor, "there is no assignor %q; there are uniform and range", *r.Assignor)
	case r.MemberEpoch != joinEpoch:
		return nil
	case r.RebalanceTimeoutMs == -1:
		return broker.Errorf(broker.InvalidRequest, "a member that joins says its rebalance timeout")
	case !r.Owned.Known || len(r.Owned.Partitions) > 0:
		return broker.Errorf(broker.InvalidRequest, "a member that joins owns no partitions, and says so")
	case r.Names == nil && r.Regex == nil:
		return broker.Errorf(broker.InvalidRequest, "a member that joins says what it subscribes to")
	}
	return nil
}

// becomeConsumers makes a classic group without members a consumer group for the first member to join.
func (g *Group) becomeConsumers(epoch int32) error {
	switch {
	case g.state == Dead:
		return broker.Errorf(broker.CoordinatorNotAvailable, "group %q is being deleted", g.id)
	case g.consumers != nil:
		return nil
	case g.HasMembers() || g.state != Empty:
		return broker.Errorf(broker.GroupIDNotFound, "group %q has members of the classic protocol", g.id)
	case epoch != joinEpoch:
		return broker.Errorf(broker.GroupIDNotFound, "there is no consumer group %q", g.id)
	}
	g.consumers = newConsumers()
	if g.stored || g.outStoring > 0 {
		g.consumers.ledger.mark(ClassicChange, "")
	}
	g.generation, g.protocolType, g.protocol, g.leader = 0, "", "", ""
	return nil
}

func (g *Group) consumerHeartbeat(nowMs int64, r HeartbeatRequest, pattern *regexp.Regexp, topics Topics) HeartbeatResponse {
	if r.MemberEpoch < joinEpoch {
		return g.consumerLeave(nowMs, r)
	}
	c := g.consumers
	m, raise, err := g.admit(r)
	if err != nil {
		return HeartbeatResponse{Err: err}
	}
	if c.update(m, r, pattern) {
		raise = true
	}
	c.hear(m, r.By)
	c.refresh(topics, raise)
	changed := c.reconcile(nowMs, m, r.Owned, topics)
	c.extend(nowMs, m, r.Timing.SessionTimeoutMs)
	response := HeartbeatResponse{MemberID: m.id, MemberEpoch: m.epoch, HeartbeatIntervalMs: r.Timing.HeartbeatIntervalMs}
	if r.MemberEpoch == joinEpoch || r.full() || changed {
		response.Assigned, response.Partitions = true, sortedKeys(m.assigned)
	}
	return response
}

// regexBytesMax bounds a regular expression: it is compiled under the lock of a coordinator.
const regexBytesMax = 16 << 10

// compile returns a pattern that matches whole names; nil for the empty one, which stands for none.
func compile(regex string) (*regexp.Regexp, error) {
	if regex == "" {
		return nil, nil
	}
	if len(regex) > regexBytesMax {
		return nil, fmt.Errorf("it has %d bytes, at most %d are allowed", len(regex), regexBytesMax)
	}
	return regexp.Compile(`\A(?:` + regex + `)\z`)
}

// admit finds who the request is from, or makes the member that joins. raise is true where the group changes by it.
func (g *Group) admit(r HeartbeatRequest) (m *consumer, raise bool, err error) {
	c := g.consumers
	if r.InstanceID != nil {
		if m, err = c.holder(r); m != nil || err != nil {
			return m, false, err
		}
	} else if m = c.byID[r.MemberID]; m != nil {
		return m, false, m.checkEpoch(r)
	}
	switch {
	case r.MemberEpoch != joinEpoch:
		return nil, false, broker.Errorf(broker.UnknownMemberID, "group %q has no member %q; join again", g.id, r.MemberID)
	case len(c.members) >= g.config.ConsumersMax:
		return nil, false, broker.Errorf(broker.GroupMaxSizeReached, "group %q has %d members, which is all it may have", g.id, len(c.members))
	}
	id := r.MemberID
	if id == "" {
		id = r.NewMemberID
	}
	m = newConsumer(id)
	if r.InstanceID != nil {
		m.instanceID = *r.InstanceID
	}
	c.add(m)
	g.note("member joined", m.id, broker.None)
	return m, true, nil
}

// holder finds the static member of a request's instance id; nil if it is free. Who joins takes the place of one that
// is away, with everything it had.
func (c *consumers) holder(r HeartbeatRequest) (*consumer, error) {
	m := c.static[*r.InstanceID]
	switch {
	case m == nil && r.MemberEpoch == joinEpoch:
		if c.byID[r.MemberID] != nil {
			return nil, broker.Errorf(broker.InvalidRequest, "member %q has no instance id, or another one", r.MemberID)
		}
		return nil, nil
	case m == nil:
		return nil, broker.Errorf(broker.UnknownMemberID, "there is no static member %q", *r.InstanceID)
	case m.id == r.MemberID && (r.MemberEpoch != joinEpoch || m.epoch != staticLeaveEpoch):
		return m, m.checkEpoch(r)
	case r.MemberEpoch != joinEpoch:
		return nil, broker.Errorf(broker.FencedInstanceID, "instance id %q is another member's now", *r.InstanceID)
	case m.epoch != staticLeaveEpoch:
		return nil, broker.Errorf(broker.UnreleasedInstanceID, "instance id %q belongs to a member that has not left", *r.InstanceID)
	}
	c.rename(m, r)
	return m, nil
}

// rename gives the place of a static member that is away to its next incarnation.
func (c *consumers) rename(m *consumer, r HeartbeatRequest) {
	id := r.MemberID
	if id == "" {
		id = r.NewMemberID
	}
	for _, who := range []string{m.id, id} {
		c.ledger.mark(SubscriptionChange, who)
		c.ledger.mark(TargetChange, who)
		c.ledger.mark(CurrentChange, who)
	}
	delete(c.byID, m.id)
	m.id = id
	c.byID[id] = m
	m.epoch, m.previousEpoch = joinEpoch, joinEpoch
}

// checkEpoch refuses a request of another epoch than the member's. The previous one is let through if the member has
// nothing but what is assigned to it: it has not got the answer that named the present one. Epoch 0 is let through too,
// because a member that was fenced comes back with nothing under the same id, and has no other way in.
func (m *consumer) checkEpoch(r HeartbeatRequest) error {
	switch {
	case r.MemberEpoch == m.epoch, r.MemberEpoch == joinEpoch:
		return nil
	case r.MemberEpoch == m.previousEpoch && r.MemberEpoch < m.epoch && r.Owned.within(m.assigned):
		return nil
	}
	return broker.Errorf(broker.FencedMemberEpoch,
		"member %q comes with epoch %d and is at %d: give up all partitions and join again", m.id, r.MemberEpoch, m.epoch)
}

// update takes what a request says of m and reports whether its subscription changed.
func (c *consumers) update(m *consumer, r HeartbeatRequest, pattern *regexp.Regexp) bool {
	before := m.subscription()
	next := before
	next.ClientID, next.ClientHost = r.ClientID, r.ClientHost
	if r.RackID != nil {
		next.RackID = *r.RackID
	}
	if r.RebalanceTimeoutMs != -1 {
		next.RebalanceTimeoutMs = r.RebalanceTimeoutMs
	}
	if r.Names != nil {
		next.Names = sortedNames(r.Names)
	}
	if r.Assignor != nil {
		next.Assignor = *r.Assignor
	}
	if r.Regex != nil {
		next.Regex = *r.Regex
	} else {
		pattern = m.pattern
	}
	if before.equal(next) {
		return false
	}
	m.subscribe(next, pattern)
	c.ledger.mark(SubscriptionChange, m.id)
	return !slices.Equal(before.Names, next.Names) || before.Regex != next.Regex
}

// hear notes who speaks for m. What its regular expression matches may be other topics then.
func (c *consumers) hear(m *consumer, by Principal) {
	if m.heard && m.by == by {
		return
	}
	m.heard, m.by = true, by
	if m.pattern != nil {
		c.topicsVersion = noVersion
	}
}

func (s Subscription) equal(o Subscription) bool {
	return s.InstanceID == o.InstanceID && s.RackID == o.RackID && s.ClientID == o.ClientID && s.ClientHost == o.ClientHost &&
		s.RebalanceTimeoutMs == o.RebalanceTimeoutMs && s.Regex == o.Regex && s.Assignor == o.Assignor && slices.Equal(s.Names, o.Names)
}

// subscription is what m says of itself.
func (m *consumer) subscription() Subscription {
	return Subscription{
		InstanceID: m.instanceID, RackID: m.rackID, ClientID: m.clientID, ClientHost: m.clientHost,
		Names: m.names, Regex: m.regex, RebalanceTimeoutMs: m.rebalanceTimeoutMs, Assignor: m.assignor,
	}
}

// subscribe makes s what m says of itself; its names are sorted, and its regular expression compiled.
func (m *consumer) subscribe(s Subscription, pattern *regexp.Regexp) {
	m.instanceID, m.rackID, m.clientID, m.clientHost = s.InstanceID, s.RackID, s.ClientID, s.ClientHost
	m.names, m.regex, m.pattern = s.Names, s.Regex, pattern
	m.rebalanceTimeoutMs, m.assignor = s.RebalanceTimeoutMs, s.Assignor
}

// consumerLeave takes a member out, or lets a static one be away. franz-go does not name the instance id when a static
// member goes, so it is the member that says whether it is one; a dynamic member cannot be away, and leaves.
func (g *Group) consumerLeave(nowMs int64, r HeartbeatRequest) HeartbeatResponse {
	c := g.consumers
	m := c.byID[r.MemberID]
	if r.InstanceID != nil {
		m = c.static[*r.InstanceID]
		if m != nil && m.id != r.MemberID {
			return HeartbeatResponse{Err: broker.Errorf(broker.FencedInstanceID, "instance id %q is another member's now", *r.InstanceID)}
		}
	}
	if m == nil {
		return HeartbeatResponse{Err: broker.Errorf(broker.UnknownMemberID, "group %q has no member %q", g.id, r.MemberID)}
	}
	if r.MemberEpoch == staticLeaveEpoch && m.instanceID != "" {
		g.note("static member is away", m.id, broker.None)
		c.release(m)
		m.epoch, m.state, m.revoking, m.revokeDueMs = staticLeaveEpoch, MemberStable, nil, Never
		c.own(m)
		c.ledger.mark(CurrentChange, m.id)
	} else {
		g.dismiss(nowMs, []*consumer{m}, "member left")
	}
	return HeartbeatResponse{MemberID: r.MemberID, MemberEpoch: r.MemberEpoch} // No interval: it is not to speak again.
}

// dismiss takes members out for good. Targets are computed by the next heartbeat.
func (g *Group) dismiss(nowMs int64, gone []*consumer, why string) {
	for _, m := range gone {
		g.consumers.remove(m)
		g.note(why, m.id, broker.None)
	}
	g.consumers.raiseEpoch()
	if len(g.consumers.members) == 0 {
		g.consumers.emptiedMs = nowMs
	}
}

func (c *consumers) extend(nowMs int64, m *consumer, sessionTimeoutMs int32) {
	m.deadlineMs = nowMs + int64(sessionTimeoutMs)
	c.dueMs = min(c.dueMs, m.deadlineMs)
}

// onConsumersDue takes out those whose session is over or who have not revoked in time, and finds out when to look
// again.
func (g *Group) onConsumersDue(nowMs int64) {
	c := g.consumers
	c.dueMs = Never
	var silent, slow []*consumer
	for _, m := range c.members {
		switch {
		case m.deadlineMs <= nowMs:
			silent = append(silent, m)
		case m.revokeDueMs <= nowMs:
			slow = append(slow, m)
		default:
			c.dueMs = min(c.dueMs, m.deadlineMs, m.revokeDueMs)
		}
	}
	if len(silent) > 0 {
		g.dismiss(nowMs, silent, "member removed: its session timed out")
	}
	if len(slow) > 0 {
		g.dismiss(nowMs, slow, "member removed: it did not revoke its partitions in time")
	}
	g.flush()
}
