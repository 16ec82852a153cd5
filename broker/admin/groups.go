package admin

import (
	"context"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// ListGroups implements GroupService.
func (s *Server) ListGroups(ctx context.Context, _ *adminapi.ListGroupsRequest) (*adminapi.ListGroupsResponse, error) {
	summaries, err := s.Groups.List(ctx)
	if err != nil {
		return nil, err
	}
	var groups []Group
	for _, summary := range summaries {
		group, err := s.Groups.Describe(ctx, summary.Group)
		if err != nil {
			return nil, err
		}
		groups = append(groups, group)
	}
	ends := s.endsOf(ctx, groups...)
	response := &adminapi.ListGroupsResponse{Silent: silent(ends.reports)}
	for _, group := range groups {
		message, _ := lagOf(group, ends)
		response.Groups = append(response.Groups, message)
	}
	return response, nil
}

// ends are where groups' reading of partitions ends, as the leaders told.
type ends struct {
	image   *metadata.Image
	reports []Report
	known   map[logKey]LogState
}

// endsOf asks the leaders of all partitions that groups committed on.
func (s *Server) endsOf(ctx context.Context, groups ...Group) ends {
	e := ends{image: s.Metadata.Image()}
	var asked []LogAsked
	var topics []broker.TopicID
	for _, g := range groups {
		for _, commit := range g.Offsets {
			log, ok := LogOf(e.image, g.Group, commit.Topic)
			if ok && !slices.Contains(asked, log) {
				asked, topics = append(asked, log), append(topics, log.Topic)
			}
		}
	}
	e.reports = s.Nodes.Inquire(ctx, leaders(e.image, topics...), Inquiry{Logs: asked})
	e.known = logs(e.reports)
	return e
}

// LogOf is what a group reads under the name of a topic or view.
func LogOf(image *metadata.Image, group, name string) (LogAsked, bool) {
	if view, ok := image.ViewNamed(name); ok {
		return LogAsked{Topic: view.Base, Binding: view.Binding}, true
	}
	topic, ok := image.TopicNamed(name)
	if !ok {
		return LogAsked{}, false
	}
	log := LogAsked{Topic: topic.ID}
	if b, ok := image.BindingOf(group, topic.ID); ok {
		log.Binding = b.ID
	}
	return log, true
}

// of is where a group's reading of a partition ends.
func (e ends) of(group, topic string, partition int32) (LogState, bool) {
	log, ok := LogOf(e.image, group, topic)
	state, known := e.known[logKey{broker.TopicPartition{Topic: log.Topic, Partition: partition}, log.Binding}]
	return state, ok && known
}

// lagOf computes the lag of a group's commits.
func lagOf(g Group, e ends) (*adminapi.GroupSummary, []*adminapi.GroupOffset) {
	summary := &adminapi.GroupSummary{Group: g.Group, State: g.State, ProtocolType: text(g.ProtocolType), Members: int32(len(g.Members))}
	var offsets []*adminapi.GroupOffset
	for _, commit := range g.Offsets {
		message := &adminapi.GroupOffset{
			Topic: commit.Topic, Partition: commit.Partition, Committed: int64(commit.Offset), End: -1, Lag: -1, Metadata: text(commit.Metadata),
		}
		if state, known := e.of(g.Group, commit.Topic, commit.Partition); known {
			message.End, message.Filtered = int64(state.End), state.Filtered
			message.Lag = max(0, int64(state.End-commit.Offset))
		}
		if message.Lag < 0 || summary.TotalLag < 0 {
			summary.TotalLag = -1
		} else {
			summary.TotalLag += message.Lag
		}
		offsets = append(offsets, message)
	}
	return summary, offsets
}

// DescribeGroup implements GroupService.
func (s *Server) DescribeGroup(ctx context.Context, r *adminapi.DescribeGroupRequest) (*adminapi.DescribeGroupResponse, error) {
	group, err := s.Groups.Describe(ctx, r.Group)
	if err != nil {
		return nil, err
	}
	ends := s.endsOf(ctx, group)
	response := &adminapi.DescribeGroupResponse{Protocol: text(group.Protocol), Silent: silent(ends.reports)}
	response.Summary, response.Offsets = lagOf(group, ends)
	for _, m := range group.Members {
		response.Members = append(response.Members, &adminapi.GroupMember{
			MemberId: text(m.ID), InstanceId: text(m.Instance), ClientId: text(m.ClientID), ClientHost: m.ClientHost, Assigned: m.Assigned,
		})
	}
	image := s.Metadata.Image()
	for _, binding := range image.Bindings() {
		if topic, ok := image.Topic(binding.Topic); ok && binding.Group == r.Group {
			response.Bindings = append(response.Bindings, topic.Name)
		}
	}
	return response, nil
}

// SeekGroup implements GroupService.
func (s *Server) SeekGroup(ctx context.Context, r *adminapi.SeekGroupRequest) (*adminapi.SeekGroupResponse, error) {
	if r.Target == nil || r.Target.To == nil {
		return nil, broker.Errorf(broker.InvalidRequest, "seek of group %q names no target", r.Group)
	}
	group, err := s.Groups.Describe(ctx, r.Group)
	if err != nil && broker.CodeOf(err) != broker.GroupIDNotFound {
		return nil, err
	}
	if len(group.Members) > 0 {
		return nil, broker.Errorf(broker.NonEmptyGroup, "group %q has %d members: stop them first, a seek under them would be lost", r.Group, len(group.Members))
	}
	offsets, err := s.seekTargets(ctx, r, group)
	if err != nil {
		return nil, err
	}
	response := &adminapi.SeekGroupResponse{Executed: r.Execute}
	for _, o := range offsets {
		from := broker.NoOffset
		for _, old := range group.Offsets {
			if old.Topic == o.Topic && old.Partition == o.Partition {
				from = old.Offset
			}
		}
		response.Changes = append(response.Changes, &adminapi.SeekChange{Topic: o.Topic, Partition: o.Partition, From: int64(from), To: int64(o.Offset)})
	}
	if !r.Execute {
		return response, nil
	}
	if r.RestartWindow {
		if err := s.restartWindows(ctx, r.Group, offsets); err != nil {
			return nil, err
		}
	}
	return response, s.Groups.Commit(ctx, r.Group, offsets)
}

// seekTargets returns the offsets that a seek would commit.
func (s *Server) seekTargets(ctx context.Context, r *adminapi.SeekGroupRequest, group Group) ([]GroupOffset, error) {
	image := s.Metadata.Image()
	names := r.Topics
	if len(names) == 0 {
		for _, o := range group.Offsets {
			if !slices.Contains(names, o.Topic) {
				names = append(names, o.Topic)
			}
		}
	}
	if len(names) == 0 {
		return nil, broker.Errorf(broker.GroupIDNotFound, "group %q has no commits; name the topics to seek on", r.Group)
	}
	var asked []LogAsked
	var topics []broker.TopicID
	for _, name := range names {
		base := name
		if view, ok := image.ViewNamed(name); ok {
			if topic, ok := image.Topic(view.Base); ok {
				base = topic.Name
			}
		}
		topic, err := named(image, base)
		if err != nil {
			return nil, err
		}
		log := LogAsked{Topic: topic.ID}
		if to, ok := r.Target.To.(*adminapi.SeekTarget_TimestampMs); ok {
			log.AtMs = &to.TimestampMs
		}
		asked, topics = append(asked, log), append(topics, topic.ID)
	}
	reports := s.Nodes.Inquire(ctx, leaders(image, topics...), Inquiry{Logs: asked})
	known := logs(reports)
	var offsets []GroupOffset
	for i, name := range names {
		for _, p := range image.Partitions(topics[i]) {
			if len(r.Partitions) > 0 && !slices.Contains(r.Partitions, p.Partition) {
				continue
			}
			state, ok := known[logKey{TopicPartition: p.TopicPartition}]
			if !ok {
				return nil, broker.Errorf(broker.LeaderNotAvailable, "%s: %s", placeText(name, p.Partition), unheard(reports, p))
			}
			offset, err := seekTarget(r, state, name)
			if err != nil {
				return nil, err
			}
			offsets = append(offsets, GroupOffset{Topic: name, Partition: p.Partition, Offset: offset})
		}
	}
	for _, partition := range r.Partitions {
		if !slices.ContainsFunc(offsets, func(o GroupOffset) bool { return o.Partition == partition }) {
			return nil, broker.Errorf(broker.UnknownTopicOrPartition, "there is no partition %d of %s", partition, strings.Join(names, ", "))
		}
	}
	return offsets, nil
}

func seekTarget(r *adminapi.SeekGroupRequest, state LogState, name string) (broker.Offset, error) {
	switch to := r.Target.To.(type) {
	case *adminapi.SeekTarget_Start:
		return state.LogStart, nil
	case *adminapi.SeekTarget_End:
		return state.HighWatermark, nil
	case *adminapi.SeekTarget_TimestampMs:
		if state.NoAt != "" {
			return 0, broker.Errorf(broker.StorageError, "%s: %s", placeText(name, state.Partition), state.NoAt)
		}
		return state.At, nil
	case *adminapi.SeekTarget_Offset:
		offset := broker.Offset(to.Offset)
		if offset < state.LogStart || offset > state.HighWatermark {
			return 0, broker.Errorf(broker.OffsetOutOfRange, "offset %d is outside of %s, which has [%d, %d)",
				offset, placeText(name, state.Partition), state.LogStart, state.HighWatermark)
		}
		return offset, nil
	}
	return 0, broker.Errorf(broker.InvalidRequest, "seek of group %q names no target", r.Group)
}

// restartWindows moves the origins of a group's bindings to where it seeks (H7): copies of what it skips are delivered.
func (s *Server) restartWindows(ctx context.Context, group string, offsets []GroupOffset) error {
	image := s.Metadata.Image()
	for _, o := range offsets {
		topic, ok := image.TopicNamed(o.Topic)
		if !ok {
			continue
		}
		binding, bound := image.BindingOf(group, topic.ID)
		p, here := image.Partition(broker.TopicPartition{Topic: topic.ID, Partition: o.Partition})
		if !bound || !here {
			continue
		}
		request := controller.ProposeOrigin{Binding: binding.ID, Partition: o.Partition, LeaderEpoch: p.LeaderEpoch, Origin: o.Offset, Rewind: true}
		if _, err := s.Metadata.Submit(ctx, request); err != nil {
			return err
		}
	}
	return nil
}

// DeleteGroup implements GroupService.
func (s *Server) DeleteGroup(ctx context.Context, r *adminapi.DeleteGroupRequest) (*adminapi.DeleteGroupResponse, error) {
	return &adminapi.DeleteGroupResponse{}, s.Groups.Delete(ctx, r.Group, r.ValidateOnly)
}
