package coordinator

import (
	"context"
	"errors"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// Join enters a group, or enters its next generation, and returns when that generation is formed. The request's
// NewMemberID is made here. With MemberIDRequired the response holds the id to come again with.
func (h *Host) Join(ctx context.Context, groupID string, r group.JoinRequest) (group.JoinResponse, error) {
	refused := group.JoinResponse{MemberID: r.MemberID, Generation: group.NoGeneration}
	if r.MemberID == "" {
		prefix := r.ClientID
		if r.InstanceID != "" {
			prefix = r.InstanceID
		}
		id, err := h.newMemberID(prefix)
		if err != nil {
			return refused, err
		}
		r.NewMemberID = id
	}
	texts := []string{r.MemberID, r.NewMemberID, r.InstanceID, r.ClientID, r.ClientHost, r.ProtocolType}
	for _, p := range r.Protocols {
		texts = append(texts, p.Name)
	}
	if err := checkStrings(groupID, texts...); err != nil {
		return refused, err
	}
	t, err := h.memberTenure(groupID)
	if err != nil {
		return refused, err
	}
	answer := make(chan group.JoinResponse, 1)
	ticket, err := t.onJoin(groupID, r, answer)
	if err != nil {
		return refused, err
	}
	select {
	case response := <-answer:
		if response.Code != broker.None {
			return response, broker.Errorf(response.Code, "join group %q: error code %d", groupID, response.Code)
		}
		return response, nil
	case <-t.ended:
		return refused, errNotCoordinator
	case <-ctx.Done():
		t.mu.Lock()
		delete(t.joins, ticket)
		t.mu.Unlock()
		return refused, interrupted(ctx)
	}
}

// memberTenure finds the tenure for a request of the group protocol, in which a group has a name.
func (h *Host) memberTenure(groupID string) (*tenure, error) {
	if groupID == "" {
		return nil, errGroupID
	}
	return h.tenureOf(groupID)
}

func (t *tenure) onJoin(groupID string, r group.JoinRequest, answer chan group.JoinResponse) (group.Ticket, error) {
	t.mu.Lock()
	if err := t.serving(); err != nil {
		t.mu.Unlock()
		return 0, err
	}
	g := t.groups[groupID]
	if g == nil && r.MemberID != "" {
		t.mu.Unlock()
		return 0, errUnknownMember
	}
	if g == nil {
		g = t.ensure(groupID)
	}
	t.ticket++
	ticket := t.ticket
	t.joins[ticket] = answer
	g.OnJoin(t.nowMs(), ticket, r)
	o := t.settle(g)
	t.mu.Unlock()
	t.deliver(o)
	return ticket, nil
}

// Sync returns a member's assignment when the leader's is committed.
func (h *Host) Sync(ctx context.Context, groupID string, r group.SyncRequest) (group.SyncResponse, error) {
	t, err := h.memberTenure(groupID)
	if err != nil {
		return group.SyncResponse{}, err
	}
	answer := make(chan group.SyncResponse, 1)
	ticket, err := t.onSync(groupID, r, answer)
	if err != nil {
		return group.SyncResponse{}, err
	}
	select {
	case response := <-answer:
		if response.Code != broker.None {
			return response, broker.Errorf(response.Code, "sync with group %q: error code %d", groupID, response.Code)
		}
		return response, t.ensureLeads(ctx)
	case <-t.ended:
		return group.SyncResponse{}, errNotCoordinator
	case <-ctx.Done():
		t.mu.Lock()
		delete(t.syncs, ticket)
		t.mu.Unlock()
		return group.SyncResponse{}, interrupted(ctx)
	}
}

func (t *tenure) onSync(groupID string, r group.SyncRequest, answer chan group.SyncResponse) (group.Ticket, error) {
	t.mu.Lock()
	g, err := t.existing(groupID)
	if err != nil {
		t.mu.Unlock()
		return 0, err
	}
	t.ticket++
	ticket := t.ticket
	t.syncs[ticket] = answer
	g.OnSync(t.nowMs(), ticket, r)
	o := t.settle(g)
	t.mu.Unlock()
	t.deliver(o)
	return ticket, nil
}

var errUnknownMember = broker.Errorf(broker.UnknownMemberID, "the group has no such member; join again without a member id")

// existing returns a group for a request that only a member sends. The caller holds mu.
func (t *tenure) existing(groupID string) (*hosted, error) {
	if err := t.serving(); err != nil {
		return nil, err
	}
	g := t.groups[groupID]
	if g == nil {
		return nil, errUnknownMember
	}
	return g, nil
}

// Heartbeat keeps a member's session alive.
func (h *Host) Heartbeat(ctx context.Context, groupID string, who group.Identity) error {
	t, err := h.memberTenure(groupID)
	if err != nil {
		return err
	}
	t.mu.Lock()
	g, err := t.existing(groupID)
	if err != nil {
		t.mu.Unlock()
		if errors.Is(err, broker.CoordinatorLoadInProgress) {
			return t.confirm() // As in Kafka: the member is alive, and its session will begin when the group is loaded.
		}
		return err
	}
	code := g.OnHeartbeat(t.nowMs(), who)
	o := t.settle(g)
	t.mu.Unlock()
	t.deliver(o)
	if err := t.ensureLeads(ctx); err != nil {
		return err
	}
	if code != broker.None {
		return broker.Errorf(code, "heartbeat in group %q: error code %d", groupID, code)
	}
	return nil
}

// Leave removes members. The outcome of each is in its Code; the error is about the group.
func (h *Host) Leave(ctx context.Context, groupID string, leaving []group.Leaving) ([]group.Left, error) {
	t, err := h.memberTenure(groupID)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	g, err := t.existing(groupID)
	if errors.Is(err, broker.UnknownMemberID) {
		t.mu.Unlock()
		left := make([]group.Left, 0, len(leaving))
		for _, l := range leaving {
			left = append(left, group.Left{Code: broker.UnknownMemberID, MemberID: l.MemberID, InstanceID: l.InstanceID})
		}
		return left, nil
	}
	if err != nil {
		t.mu.Unlock()
		return nil, err
	}
	left := g.OnLeave(t.nowMs(), leaving)
	o := t.settle(g)
	t.mu.Unlock()
	t.deliver(o)
	return left, t.ensureLeads(ctx)
}
