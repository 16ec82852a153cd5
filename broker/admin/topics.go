package admin

import (
	"cmp"
	"context"
	"fmt"
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
		MinInsyncReplicas: controller.MinISR(r.Configs, int(reply.ReplicationFactor)),
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
func (s *Server) ListTopics(ctx context.Context, r *adminapi.ListTopicsRequest) (*adminapi.ListTopicsResponse, error) {
	image := s.Metadata.Image()
	reports := s.Nodes.Inquire(ctx, serving(image), Inquiry{Sizes: true})
	response := &adminapi.ListTopicsResponse{Silent: silent(reports)}
	sizes := map[broker.TopicID]int64{}
	for _, report := range reports {
		for _, t := range report.Sizes {
			sizes[t.Topic] += t.Bytes
		}
	}
	for topic := range image.Topics() {
		if !topic.Internal || r.IncludeInternal {
			message := topicMessage(image, topic)
			message.SizeBytes = sizes[topic.ID]
			response.Topics = append(response.Topics, message)
		}
	}
	for _, view := range image.Views() {
		response.Topics = append(response.Topics, s.view(image, view))
	}
	slices.SortFunc(response.Topics, func(a, b *adminapi.Topic) int { return cmp.Compare(a.Name, b.Name) })
	return response, nil
}

func topicMessage(image *metadata.Image, topic *metadata.Topic) *adminapi.Topic {
	t := &adminapi.Topic{Id: topic.ID.String(), Name: topic.Name, Partitions: topic.Partitions, Internal: topic.Internal}
	for _, p := range image.Partitions(topic.ID) {
		t.ReplicationFactor, t.MinInsyncReplicas = max(t.ReplicationFactor, int32(p.Factor())), max(t.MinInsyncReplicas, p.MinISR)
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

// DescribeTopic implements TopicService: every partition as its leader knows it, and replicas that are damaged.
func (s *Server) DescribeTopic(ctx context.Context, r *adminapi.DescribeTopicRequest) (*adminapi.DescribeTopicResponse, error) {
	image := s.Metadata.Image()
	response := &adminapi.DescribeTopicResponse{}
	view, isView := image.ViewNamed(r.Name)
	name, asked := r.Name, LogAsked{}
	if isView {
		base, ok := image.Topic(view.Base)
		if !ok {
			return nil, broker.Errorf(broker.UnknownTopicOrPartition, "view %q is detached: its topic was deleted", r.Name)
		}
		name, asked.Binding = base.Name, view.Binding
		response.Topic = s.view(image, view)
		response.Configs = []*adminapi.ConfigEntry{{Name: "millrace.view.of", Value: base.Name, Source: "topic"}}
	}
	topic, err := named(image, name)
	if err != nil {
		return nil, err
	}
	if !isView {
		response.Topic = topicMessage(image, topic)
		response.Configs = s.configsOf(image, topic.Name)
	}
	asked.Topic = topic.ID
	reports := s.Nodes.Inquire(ctx, holders(image, topic.ID), Inquiry{Logs: []LogAsked{asked}})
	response.Silent = silent(reports)
	known, damaged := logs(reports), damagedReplicas(reports)
	for _, p := range image.Partitions(topic.ID) {
		message := partitionMessage(p)
		message.OfflineReason = damaged[p.TopicPartition]
		if state, ok := known[logKey{p.TopicPartition, asked.Binding}]; ok {
			message.LogStart, message.HighWatermark, message.LogEnd, message.SizeBytes =
				int64(state.LogStart), int64(state.HighWatermark), int64(state.LogEnd), state.SizeBytes
			if state.Filtered {
				message.HighWatermark, message.LogEnd = int64(state.End), int64(state.End)
			}
			if !isView {
				response.Topic.SizeBytes += state.SizeBytes
			}
		}
		response.Partitions = append(response.Partitions, message)
	}
	return response, nil
}

// damagedReplicas tells why replicas are offline, and where.
func damagedReplicas(reports []Report) map[broker.TopicPartition]string {
	all := map[broker.TopicPartition]string{}
	for _, r := range reports {
		for _, l := range r.Logs {
			switch text := fmt.Sprintf("node %d: %s", r.Node, l.OfflineBecause); {
			case l.OfflineBecause == "":
			case all[l.TopicPartition] == "":
				all[l.TopicPartition] = text
			default:
				all[l.TopicPartition] += "; " + text
			}
		}
	}
	return all
}

func partitionMessage(p *metadata.Partition) *adminapi.PartitionState {
	message := &adminapi.PartitionState{
		Partition: p.Partition, Leader: int32(p.Leader), LeaderEpoch: int32(p.LeaderEpoch), PartitionEpoch: int32(p.PartitionEpoch),
		Isr: numbers(p.ISR), Elr: numbers(p.ELR), LogStart: -1, HighWatermark: -1, LogEnd: -1, SizeBytes: -1,
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
	return &adminapi.AlterTopicResponse{Topic: topicMessage(image, topic), Configs: s.configsOf(image, r.Name)}, nil
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
