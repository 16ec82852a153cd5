package admin

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// orDefault turns the API's 0 into the controller's "the default".
func orDefault(n int32) int32 {
	if n == 0 {
		return -1
	}
	return n
}

// CreateTopic implements TopicService.
func (s *Server) CreateTopic(ctx context.Context, r *adminapi.CreateTopicRequest) (*adminapi.CreateTopicResponse, error) {
	request := controller.CreateTopic{
		Name: r.Name, Partitions: orDefault(r.Partitions), ReplicationFactor: int16(orDefault(r.ReplicationFactor)),
		Configs: r.Configs, ValidateOnly: r.ValidateOnly,
	}
	if r.ReplicationFactor > 1<<15-1 {
		return nil, broker.Errorf(broker.InvalidReplicationFactor, "%d replicas are more than any cluster has nodes", r.ReplicationFactor)
	}
	reply, err := submit[controller.TopicCreated](ctx, s, request)
	if err != nil {
		return nil, err
	}
	id := ""
	if !reply.ID.IsZero() {
		id = reply.ID.String()
	}
	return &adminapi.CreateTopicResponse{Topic: &adminapi.Topic{
		Id: id, Name: r.Name, Partitions: reply.Partitions, ReplicationFactor: int32(reply.ReplicationFactor),
	}}, nil
}

// submit asks the controller and takes the reply apart.
func submit[R controller.Reply](ctx context.Context, s *Server, request controller.Request) (R, error) {
	var none R
	reply, err := s.Metadata.Submit(ctx, request)
	if err != nil {
		return none, err
	}
	typed, ok := reply.(R)
	if !ok {
		return none, broker.Errorf(broker.UnknownServerError, "the controller answered %T with %T", request, reply)
	}
	return typed, nil
}

// ListTopics implements TopicService; views are listed among the topics.
func (s *Server) ListTopics(_ context.Context, r *adminapi.ListTopicsRequest) (*adminapi.ListTopicsResponse, error) {
	image := s.Metadata.Image()
	response := &adminapi.ListTopicsResponse{}
	for topic := range image.Topics() {
		if !topic.Internal || r.IncludeInternal {
			response.Topics = append(response.Topics, s.topic(image, topic))
		}
	}
	for _, view := range image.Views() {
		response.Topics = append(response.Topics, s.view(image, view))
	}
	slices.SortFunc(response.Topics, func(a, b *adminapi.Topic) int { return cmp.Compare(a.Name, b.Name) })
	return response, nil
}

func (s *Server) topic(image *metadata.Image, topic *metadata.Topic) *adminapi.Topic {
	t := &adminapi.Topic{Id: topic.ID.String(), Name: topic.Name, Partitions: topic.Partitions, Internal: topic.Internal}
	for _, p := range image.Partitions(topic.ID) {
		t.ReplicationFactor = max(t.ReplicationFactor, int32(p.Factor()))
		t.SizeBytes += s.Partitions.State(p.TopicPartition).SizeBytes
	}
	return t
}

func (s *Server) view(image *metadata.Image, view *metadata.View) *adminapi.Topic {
	t := &adminapi.Topic{Id: view.ID.String(), Name: view.Name, ViewOf: "(deleted)"}
	if base, ok := image.Topic(view.Base); ok {
		t.ViewOf, t.Partitions = base.Name, base.Partitions
		for _, p := range image.Partitions(base.ID) {
			t.ReplicationFactor = max(t.ReplicationFactor, int32(p.Factor()))
		}
	}
	return t
}

// named returns a topic by name or says that there is none.
func named(image *metadata.Image, name string) (*metadata.Topic, error) {
	topic, ok := image.TopicNamed(name)
	if !ok {
		return nil, broker.Errorf(broker.UnknownTopicOrPartition, "there is no topic %q; `raftctl topic list` lists them", name)
	}
	return topic, nil
}

// DescribeTopic implements TopicService.
func (s *Server) DescribeTopic(_ context.Context, r *adminapi.DescribeTopicRequest) (*adminapi.DescribeTopicResponse, error) {
	image := s.Metadata.Image()
	response := &adminapi.DescribeTopicResponse{}
	view, isView := image.ViewNamed(r.Name)
	name := r.Name
	if isView {
		base, ok := image.Topic(view.Base)
		if !ok {
			return nil, broker.Errorf(broker.UnknownTopicOrPartition, "view %q is detached: its topic was deleted", r.Name)
		}
		name = base.Name
		response.Topic = s.view(image, view)
		response.Configs = []*adminapi.ConfigEntry{{Name: "millrace.view.of", Value: base.Name, Source: "topic"}}
	}
	topic, err := named(image, name)
	if err != nil {
		return nil, err
	}
	for _, p := range image.Partitions(topic.ID) {
		state := s.partition(p)
		if isView {
			if end, known := s.Chains.End(view.Binding, p.TopicPartition); known {
				state.HighWatermark, state.LogEnd = int64(end), int64(end)
			}
		}
		response.Partitions = append(response.Partitions, state)
	}
	if !isView {
		response.Topic = s.topic(image, topic)
		response.Configs = s.configsOf(image, topic.Name)
	}
	return response, nil
}

func (s *Server) partition(p *metadata.Partition) *adminapi.PartitionState {
	state := s.Partitions.State(p.TopicPartition)
	message := &adminapi.PartitionState{
		Partition: p.Partition, Leader: int32(p.Leader), LeaderEpoch: int32(p.LeaderEpoch), PartitionEpoch: int32(p.PartitionEpoch),
		Isr: numbers(p.ISR), Elr: numbers(p.ELR), OfflineReason: state.OfflineBecause,
		LogStart: int64(state.LogStart), HighWatermark: int64(state.HighWatermark), LogEnd: int64(state.LogEnd), SizeBytes: state.SizeBytes,
	}
	for _, replica := range p.Replicas {
		message.Replicas = append(message.Replicas, int32(replica.Node))
	}
	return message
}

func numbers(nodes []broker.NodeID) []int32 {
	var ns []int32
	for _, n := range nodes {
		ns = append(ns, int32(n))
	}
	return ns
}

// configsOf lists a topic's configs: what was set, and what holds for the rest.
func (s *Server) configsOf(image *metadata.Image, topic string) []*adminapi.ConfigEntry {
	var entries []*adminapi.ConfigEntry
	for _, known := range metadata.TopicConfigs() {
		entry := &adminapi.ConfigEntry{Name: known.Name, Value: image.TopicSetting(topic, known.Name), Source: "default"}
		for _, c := range s.NodeConfigs {
			if c.Name == known.Broker && c.Value != known.Default {
				entry.Value, entry.Source = c.Value, "broker"
			}
		}
		if value, set := image.Config(metadata.TopicResource(topic), known.Name); set {
			entry.Value, entry.Source = value, "topic"
		}
		entries = append(entries, entry)
	}
	return entries
}

// AlterTopic implements TopicService.
func (s *Server) AlterTopic(ctx context.Context, r *adminapi.AlterTopicRequest) (*adminapi.AlterTopicResponse, error) {
	image := s.Metadata.Image()
	if _, isView := image.ViewNamed(r.Name); isView {
		return nil, broker.Errorf(broker.PolicyViolation, "%q is a view: its partitions and configs are those of its base topic", r.Name)
	}
	topic, err := named(image, r.Name)
	if err != nil {
		return nil, err
	}
	for _, name := range r.Unset {
		if _, both := r.Set[name]; both {
			return nil, broker.Errorf(broker.InvalidRequest, "config %s is to be set and unset", name)
		}
	}
	configs := controller.AlterConfigs{Resource: metadata.TopicResource(r.Name), Set: r.Set, Remove: r.Unset}
	grow := controller.CreatePartitions{Topic: topic.ID, Count: r.Partitions}
	// Both halves are checked before either is made.
	for _, validateOnly := range []bool{true, r.ValidateOnly} {
		configs.ValidateOnly, grow.ValidateOnly = validateOnly, validateOnly
		if _, err := submit[controller.ConfigsAltered](ctx, s, configs); err != nil {
			return nil, err
		}
		if r.Partitions == 0 {
			continue
		}
		if _, err := submit[controller.PartitionsCreated](ctx, s, grow); err != nil {
			return nil, err
		}
	}
	image = s.Metadata.Image()
	if topic, err = named(image, r.Name); err != nil {
		return nil, err
	}
	return &adminapi.AlterTopicResponse{Topic: s.topic(image, topic), Configs: s.configsOf(image, r.Name)}, nil
}

// DeleteTopic implements TopicService.
func (s *Server) DeleteTopic(ctx context.Context, r *adminapi.DeleteTopicRequest) (*adminapi.DeleteTopicResponse, error) {
	image := s.Metadata.Image()
	if _, isView := image.ViewNamed(r.Name); isView {
		return nil, broker.Errorf(broker.PolicyViolation, "%q is a view: `raftctl view delete` removes it", r.Name)
	}
	topic, err := named(image, r.Name)
	if err != nil {
		return nil, err
	}
	if topic.Internal {
		return nil, broker.Errorf(broker.PolicyViolation, "%q is internal and cannot be deleted", r.Name)
	}
	if !r.ValidateOnly {
		if _, err := submit[controller.TopicRemoved](ctx, s, controller.DeleteTopic{ID: topic.ID}); err != nil {
			return nil, err
		}
	}
	return &adminapi.DeleteTopicResponse{Id: topic.ID.String()}, nil
}

// placeText names a partition as "topic-partition".
func placeText(topic string, partition int32) string {
	return topic + "-" + strconv.Itoa(int(partition))
}
