package kafka

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/invariant"
)

// CreateTopics: v2-7
//
// Behaviour:
//   - any broker answers; the controller decides (T21) and the answer leaves when this node knows the topic
//     and has opened what it leads of it, within the request's timeout: the first Produce is not turned away
//   - names are checked (X13), those of internal topics are refused; a name twice in a request is INVALID_REQUEST; that of a view is taken
//   - what is over the client's quota of changes is answered THROTTLING_QUOTA_EXCEEDED from v6 on, made before; and the client waits
//   - v4: -1 partitions and replicas mean the defaults; v5: what was made, and its configs; v7: topic ids

// reservedTopics are made by the broker alone: a group's coordinator is found by the number of their partitions.
var reservedTopics = []string{broker.OffsetsTopic, broker.ModulesTopic, "__transaction_state"}

func (s *session) createTopics(ctx context.Context, req *kmsg.CreateTopicsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	ctx, cancel := withTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	count := make(map[string]int, len(req.Topics))
	var once []*kmsg.CreateTopicsRequestTopic // each name, where it comes first
	for i := range req.Topics {
		rt := &req.Topics[i]
		if count[rt.Topic]++; count[rt.Topic] == 1 {
			once = append(once, rt)
		}
	}
	type outcome struct {
		created controller.TopicCreated
		err     error
	}
	over := map[string]error{}
	for _, rt := range once {
		if count[rt.Topic] == 1 && !req.ValidateOnly {
			over[rt.Topic] = s.mutates(newPartitions(rt), req.Version >= 6)
		}
	}
	resp.ThrottleMillis = throttleMillis(s.throttle)
	outcomes := together(once, func(rt *kmsg.CreateTopicsRequestTopic) (o outcome) {
		if o.err = over[rt.Topic]; o.err != nil {
			return o
		}
		if count[rt.Topic] > 1 {
			o.err = broker.Errorf(broker.InvalidRequest, "topic %q is in the request %d times", rt.Topic, count[rt.Topic])
			return o
		}
		o.created, o.err = s.createTopic(ctx, rt, req.ValidateOnly)
		return o
	})
	for i, rt := range once {
		answer := kmsg.NewCreateTopicsResponseTopic()
		answer.Topic = rt.Topic
		if o := outcomes[i]; o.err != nil {
			answer.ErrorCode, answer.ErrorMessage = s.fail(o.err), message(o.err)
			answer.Configs = []kmsg.CreateTopicsResponseTopicConfig{} // null is for who may not see them
		} else {
			answer.TopicID, answer.NumPartitions, answer.ReplicationFactor = o.created.ID, o.created.Partitions, o.created.ReplicationFactor
			answer.Configs = s.createdConfigs(s.Metadata.Image(), rt)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

// newPartitions is how many partitions a topic is to have, for its client's quota. A default counts as one.
func newPartitions(rt *kmsg.CreateTopicsRequestTopic) int {
	return max(int(rt.NumPartitions), len(rt.ReplicaAssignment), 1)
}

// withTimeout bounds what an administrative request waits for.
func withTimeout(ctx context.Context, millis int32) (context.Context, context.CancelFunc) {
	const least, most = time.Second, 5 * time.Minute
	return context.WithTimeout(ctx, min(max(time.Duration(millis)*time.Millisecond, least), most))
}

func (s *session) createTopic(ctx context.Context, rt *kmsg.CreateTopicsRequestTopic, validateOnly bool) (controller.TopicCreated, error) {
	if err := broker.CheckTopicName(rt.Topic); err != nil {
		return controller.TopicCreated{}, err
	}
	if !s.mayCreate(rt.Topic) {
		return controller.TopicCreated{}, broker.Errorf(broker.TopicAuthorizationFailed, "no permission to create topic %q", rt.Topic)
	}
	if slices.Contains(reservedTopics, rt.Topic) {
		return controller.TopicCreated{}, broker.Errorf(broker.InvalidTopic, "topic %q is internal; the broker makes it itself", rt.Topic)
	}
	if view, taken := s.Metadata.Image().ViewNamed(rt.Topic); taken {
		return controller.TopicCreated{}, broker.Errorf(broker.TopicAlreadyExists, "%q is a view", view.Name)
	}
	topic := controller.CreateTopic{
		Name: rt.Topic, Partitions: rt.NumPartitions, ReplicationFactor: rt.ReplicationFactor, ValidateOnly: validateOnly,
		Configs: make(map[string]string, len(rt.Configs)),
	}
	for _, c := range rt.Configs {
		if c.Value == nil {
			return controller.TopicCreated{}, broker.Errorf(broker.InvalidConfig, "config %s of topic %q has no value", c.Name, rt.Topic)
		}
		topic.Configs[c.Name] = *c.Value
	}
	if len(rt.ReplicaAssignment) == 0 {
		return s.submitTopic(ctx, topic)
	}
	if rt.NumPartitions != -1 || rt.ReplicationFactor != -1 {
		return controller.TopicCreated{}, broker.Errorf(broker.InvalidRequest,
			"topic %q: partitions and replication factor must be -1 beside an assignment", rt.Topic)
	}
	topic.Assignment = make(map[int32][]broker.NodeID, len(rt.ReplicaAssignment))
	for _, a := range rt.ReplicaAssignment {
		if _, twice := topic.Assignment[a.Partition]; twice {
			return controller.TopicCreated{}, broker.Errorf(broker.InvalidReplicaAssignment, "topic %q: partition %d is assigned twice", rt.Topic, a.Partition)
		}
		nodes := make([]broker.NodeID, len(a.Replicas))
		for i, id := range a.Replicas {
			nodes[i] = broker.NodeID(id)
		}
		topic.Assignment[a.Partition] = nodes
	}
	return s.submitTopic(ctx, topic)
}

func (s *session) submitTopic(ctx context.Context, topic controller.CreateTopic) (controller.TopicCreated, error) {
	reply, err := s.Controller.Submit(ctx, topic)
	if err != nil {
		return controller.TopicCreated{}, timedOut(ctx, err)
	}
	created, ok := reply.(controller.TopicCreated)
	invariant.Check(ok, "creating topic %s was answered with %T", topic.Name, reply)
	return created, nil
}

// timedOut gives an error its code where it says no more than that ctx ended.
func timedOut(ctx context.Context, err error) error {
	if broker.CodeOf(err) == broker.UnknownServerError && ctx.Err() != nil {
		return broker.Errorf(broker.RequestTimedOut, "the controller did not answer in time")
	}
	return err
}

// createdConfigs lists what holds for a topic that was asked for: its own values over those of the broker.
func (s *session) createdConfigs(img *metadata.Image, rt *kmsg.CreateTopicsRequestTopic) []kmsg.CreateTopicsResponseTopicConfig {
	own := make(map[string]string, len(rt.Configs))
	for _, c := range rt.Configs {
		own[c.Name] = deref(c.Value)
	}
	var configs []kmsg.CreateTopicsResponseTopicConfig
	for _, known := range metadata.TopicConfigs() {
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		holds := s.settings(img, rt.Topic, known)[0]
		if value, set := own[known.Name]; set { // also where the topic was only validated
			holds = setting{known.Name, value, kmsg.ConfigSourceDynamicTopicConfig}
		}
		c.Name, c.Value, c.Source = known.Name, &holds.value, int8(holds.source)
		configs = append(configs, c)
	}
	return configs
}
