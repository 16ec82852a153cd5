package admin

import (
	"context"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// ListGroups implements GroupService.
func (s *Server) ListGroups(ctx context.Context, _ *adminapi.ListGroupsRequest) (*adminapi.ListGroupsResponse, error) {
	groups, err := s.Groups.List(ctx)
	if err != nil {
		return nil, err
	}
	response := &adminapi.ListGroupsResponse{}
	for _, summary := range groups {
		group, err := s.Groups.Describe(ctx, summary.Group)
		if err != nil {
			return nil, err
		}
		message, _ := s.group(group)
		response.Groups = append(response.Groups, message)
	}
	return response, nil
}

// group computes the lag of a group's commits.
func (s *Server) group(g Group) (*adminapi.GroupSummary, []*adminapi.GroupOffset) {
	image := s.Metadata.Image()
	summary := &adminapi.GroupSummary{Group: g.Group, State: g.State, ProtocolType: g.ProtocolType, Members: int32(len(g.Members))}
	var offsets []*adminapi.GroupOffset
	for _, commit := range g.Offsets {
		message := &adminapi.GroupOffset{
			Topic: commit.Topic, Partition: commit.Partition, Committed: int64(commit.Offset), End: -1, Lag: -1, Metadata: commit.Metadata,
		}
		if end, filtered, known := s.end(image, g.Group, commit.Topic, commit.Partition); known {
			message.End, message.Filtered = int64(end), filtered
			message.Lag = max(0, int64(end-commit.Offset))
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

// end returns where a group's reading of a partition ends: in its filtered log if it has one, else at the high watermark.
func (s *Server) end(image *metadata.Image, group, topicName string, partition int32) (end broker.Offset, filtered, known bool) {
	binding, topicID := broker.BindingID(0), broker.TopicID{}
	if view, ok := image.ViewNamed(topicName); ok {
		binding, topicID = view.Binding, view.Base
	} else if topic, ok := image.TopicNamed(topicName); ok {
		topicID = topic.ID
		if b, ok := image.BindingOf(group, topic.ID); ok {
			binding = b.ID
		}
	} else {
		return 0, false, false
	}
	tp := broker.TopicPartition{Topic: topicID, Partition: partition}
	if binding != 0 {
		if end, ok := s.Chains.End(binding, tp); ok {
			return end, true, true
		}
	}
	state := s.Partitions.State(tp)
	return state.HighWatermark, false, state.Here
}

// DescribeGroup implements GroupService.
func (s *Server) DescribeGroup(ctx context.Context, r *adminapi.DescribeGroupRequest) (*adminapi.DescribeGroupResponse, error) {
	group, err := s.Groups.Describe(ctx, r.Group)
	if err != nil {
		return nil, err
	}
	response := &adminapi.DescribeGroupResponse{Protocol: group.Protocol}
	response.Summary, response.Offsets = s.group(group)
	for _, m := range group.Members {
		response.Members = append(response.Members, &adminapi.GroupMember{
			MemberId: m.ID, InstanceId: m.Instance, ClientId: m.ClientID, ClientHost: m.ClientHost, Assigned: m.Assigned,
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
	offsets, err := s.seekTargets(r, group)
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
func (s *Server) seekTargets(r *adminapi.SeekGroupRequest, group Group) ([]GroupOffset, error) {
	image := s.Metadata.Image()
	topics := r.Topics
	if len(topics) == 0 {
		for _, o := range group.Offsets {
			if !slices.Contains(topics, o.Topic) {
				topics = append(topics, o.Topic)
			}
		}
	}
	if len(topics) == 0 {
		return nil, broker.Errorf(broker.GroupIDNotFound, "group %q has no commits; name the topics to seek on", r.Group)
	}
	var offsets []GroupOffset
	for _, name := range topics {
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
		for _, p := range image.Partitions(topic.ID) {
			if len(r.Partitions) > 0 && !slices.Contains(r.Partitions, p.Partition) {
				continue
			}
			offset, err := s.seekTarget(r, p.TopicPartition, name)
			if err != nil {
				return nil, err
			}
			offsets = append(offsets, GroupOffset{Topic: name, Partition: p.Partition, Offset: offset})
		}
	}
	return offsets, nil
}

func (s *Server) seekTarget(r *adminapi.SeekGroupRequest, tp broker.TopicPartition, name string) (broker.Offset, error) {
	state := s.Partitions.State(tp)
	if !state.Here {
		return 0, broker.Errorf(broker.LeaderNotAvailable, "%s is not led here", placeText(name, tp.Partition))
	}
	switch to := r.Target.To.(type) {
	case *adminapi.SeekTarget_Start:
		return state.LogStart, nil
	case *adminapi.SeekTarget_End:
		return state.HighWatermark, nil
	case *adminapi.SeekTarget_TimestampMs:
		return s.Partitions.OffsetForTime(tp, to.TimestampMs)
	case *adminapi.SeekTarget_Offset:
		offset := broker.Offset(to.Offset)
		if offset < state.LogStart || offset > state.HighWatermark {
			return 0, broker.Errorf(broker.OffsetOutOfRange, "offset %d is outside of %s, which has [%d, %d)",
				offset, placeText(name, tp.Partition), state.LogStart, state.HighWatermark)
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
