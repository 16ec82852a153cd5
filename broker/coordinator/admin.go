package coordinator

import (
	"cmp"
	"context"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// errUnlisted is an answer that clients of ListGroups try again on; there is no coordinator that they could look for.
var errUnlisted = broker.Errorf(broker.CoordinatorNotAvailable, "groups may have moved to another node a moment ago; try again")

// List returns the groups coordinated here, by name. An error means that some may be missing.
func (h *Host) List(_ context.Context) ([]group.Info, error) {
	var all []group.Info
	var incomplete error
	for i := range h.slots {
		t := h.slots[i].tenure.Load()
		if t == nil {
			continue
		}
		infos, err := t.infos()
		if err != nil {
			incomplete = err
		}
		all = append(all, infos...)
	}
	slices.SortFunc(all, func(a, b group.Info) int { return cmp.Compare(a.Group, b.Group) })
	return all, incomplete
}

// Loading reports whether a partition that this node leads is still being read.
func (h *Host) Loading() bool {
	for i := range h.slots {
		if t := h.slots[i].tenure.Load(); t != nil && t.isLoading() {
			return true
		}
	}
	return false
}

func (t *tenure) isLoading() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.phase == loading
}

func (t *tenure) infos() ([]group.Info, error) {
	t.mu.Lock()
	err := t.serving()
	infos := make([]group.Info, 0, len(t.groups))
	for _, g := range t.groups {
		if g.State() != group.Dead {
			infos = append(infos, g.Info())
		}
	}
	t.mu.Unlock()
	if err == nil && t.confirm() != nil {
		err = errUnlisted
	}
	return infos, err
}

// Describe tells who is in a classic group. A group that does not exist, or is of another type, is group.Dead.
func (h *Host) Describe(ctx context.Context, groupID string) (group.Description, error) {
	t, err := h.tenureOf(groupID)
	if err != nil {
		return group.Description{}, err
	}
	d := group.Description{State: group.Dead}
	t.mu.Lock()
	err = t.serving()
	if g := t.groups[groupID]; g != nil && g.Type() == group.Classic {
		d = g.Describe()
	}
	t.mu.Unlock()
	if err != nil {
		return group.Description{}, err
	}
	return d, t.ensureLeads(ctx)
}

// Delete removes a group without members, with its committed offsets: NonEmptyGroup if it has members, GroupIDNotFound
// if it does not exist.
func (h *Host) Delete(ctx context.Context, groupID string) error {
	t, err := h.tenureOf(groupID)
	if err != nil {
		return err
	}
	done := make(chan broker.Code, 1)
	if err := t.onDelete(groupID, done); err != nil {
		return err
	}
	t.kick()
	return t.await(ctx, "delete group "+groupID, done)
}

func (t *tenure) onDelete(groupID string, done chan broker.Code) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.serving(); err != nil {
		return err
	}
	g, code := t.groups[groupID], broker.GroupIDNotFound
	if g != nil {
		code = g.CheckDelete()
	}
	if code != broker.None {
		return refusal("delete group", groupID, code)
	}
	g.OnDelete(t.nowMs())
	t.enqueueRemoval(g, g.Written(), true, done)
	return nil
}

// refusal says why a group was left as it is.
func refusal(what, groupID string, code broker.Code) error {
	switch code {
	case broker.GroupIDNotFound:
		return broker.Errorf(code, "%s %q: there is no such group", what, groupID)
	case broker.NonEmptyGroup:
		return broker.Errorf(code, "%s %q: it has members, stop them first", what, groupID)
	}
	return broker.Errorf(code, "%s %q: error code %d", what, groupID, code)
}

// await waits for a write.
func (t *tenure) await(ctx context.Context, what string, done <-chan broker.Code) error {
	select {
	case code := <-done:
		if code != broker.None {
			return broker.Errorf(code, "%s: error code %d", what, code)
		}
		return nil
	case <-t.ended:
		return errNotCoordinator
	case <-ctx.Done():
		return interrupted(ctx)
	}
}

// DeleteOffsets removes committed offsets (KIP-496): a code for each partition, in their order. Those of topics that
// members subscribe to are refused with GroupSubscribedToTopic.
func (h *Host) DeleteOffsets(ctx context.Context, groupID string, partitions []group.NamedPartition) ([]broker.Code, error) {
	t, err := h.tenureOf(groupID)
	if err != nil {
		return nil, err
	}
	done := make(chan broker.Code, 1)
	codes, queued, err := t.onDeleteOffsets(groupID, partitions, done)
	if err != nil || !queued {
		return codes, err
	}
	t.kick()
	return codes, t.await(ctx, "delete offsets of group "+groupID, done)
}

func (t *tenure) onDeleteOffsets(
	groupID string, partitions []group.NamedPartition, done chan broker.Code,
) (codes []broker.Code, queued bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.serving(); err != nil {
		return nil, false, err
	}
	g := t.groups[groupID]
	if g == nil {
		return nil, false, refusal("delete offsets of group", groupID, broker.GroupIDNotFound)
	}
	var removable []group.NamedPartition
	for _, p := range partitions {
		code := g.CheckRemove(p.Topic)
		if code == broker.GroupIDNotFound || code == broker.NonEmptyGroup {
			return nil, false, refusal("delete offsets of group", groupID, code)
		}
		codes = append(codes, code)
		if _, ok := g.Committed(p); ok && code == broker.None {
			removable = append(removable, p)
		}
	}
	t.enqueueRemoval(g, removable, false, done)
	return codes, len(removable) > 0, nil
}
