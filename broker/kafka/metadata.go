package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Metadata: v0-13
//
// Behaviour:
//   - brokers with the address of the listener that the question came in on (T22); fenced brokers are left out
//   - views appear beside topics, with their own id and the base's partitions and leaders
//   - this node names itself as the controller and forwards what it is then asked (T21)
//   - a partition without a live leader answers LEADER_NOT_AVAILABLE
//   - unknown names are made if both sides allow it (auto.create.topics.enable, off by default)
//   - v8: what the principal may do (KIP-430), with topics and, up to v10, with the cluster
//   - v1: null asks for all topics, an empty list for none (in v0 for all); v10: topic ids; v12: lookup by id, which v10 and
//     v11 have the field for and refuse, as they do a topic with neither: INVALID_REQUEST, and nothing else is told

func (s *session) metadata(ctx context.Context, req *kmsg.MetadataRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	if refused := s.refuseLookup(req); refused != nil {
		return refused
	}
	img := s.Metadata.Image()
	all := req.Topics == nil || req.Version == 0 && len(req.Topics) == 0
	if all {
		for topic := range img.Topics() {
			if !s.mayTopic(topic.Name) {
				continue
			}
			resp.Topics = append(resp.Topics, s.describeTopic(img, target{id: topic.ID, name: topic.Name, topic: topic}, broker.None))
		}
		for _, view := range img.Views() {
			if t, code := resolveView(img, view); code == broker.None && s.mayTopic(view.Name) {
				resp.Topics = append(resp.Topics, s.describeTopic(img, t, broker.None))
			}
		}
	}
	seen := make(map[string]bool, len(req.Topics))
	for _, rt := range req.Topics {
		var t target
		var code broker.Code
		switch {
		case rt.TopicID != [16]byte{}:
			t, code = s.resolveID(img, rt.TopicID)
		default:
			t, code = s.resolveName(img, *rt.Topic)
			if code == broker.UnknownTopicOrPartition && t.view == nil {
				code = s.autoCreate(ctx, *rt.Topic, req.Version < 4 || req.AllowAutoTopicCreation)
				if code == broker.None {
					img = s.Metadata.Image()
					t, code = s.resolveName(img, *rt.Topic)
				}
			}
		}
		if t.name != "" && seen[t.name] {
			continue
		}
		seen[t.name] = true
		s.note(code)
		resp.Topics = append(resp.Topics, s.describeTopic(img, t, code))
	}
	for _, b := range s.brokers(img) {
		mb := kmsg.NewMetadataResponseBroker()
		mb.NodeID, mb.Host, mb.Port, mb.Rack = b.NodeID, b.Host, b.Port, b.Rack
		resp.Brokers = append(resp.Brokers, mb)
	}
	cluster := img.Cluster().ID.String()
	resp.ClusterID = &cluster
	resp.ControllerID = int32(s.Node)
	s.tellOperations(req, resp)
	return resp
}

// refuseLookup answers a request with a topic that it does not name in a way that its version knows.
func (s *session) refuseLookup(req *kmsg.MetadataRequest) kmsg.Response {
	bad := slices.ContainsFunc(req.Topics, func(rt kmsg.MetadataRequestTopic) bool {
		if rt.TopicID == [16]byte{} {
			return rt.Topic == nil
		}
		return req.Version < 12
	})
	if !bad {
		return nil
	}
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	resp.ControllerID, resp.ErrorCode = int32(broker.NoNode), s.note(broker.InvalidRequest)
	for _, rt := range req.Topics {
		mt := kmsg.NewMetadataResponseTopic()
		mt.Topic, mt.TopicID, mt.ErrorCode = rt.Topic, rt.TopicID, int16(broker.InvalidRequest)
		resp.Topics = append(resp.Topics, mt)
	}
	return resp
}

// describeTopic describes what a name or id stands for, or says why it cannot.
func (s *session) describeTopic(img *metadata.Image, t target, code broker.Code) kmsg.MetadataResponseTopic {
	mt := kmsg.NewMetadataResponseTopic()
	mt.ErrorCode = int16(code)
	mt.TopicID = t.id
	mt.Topic = &t.name
	if t.name == "" && t.id != (broker.TopicID{}) {
		mt.Topic = nil // only an unknown id was given, which is written as "" before v12
	}
	if code != broker.None {
		return mt
	}
	mt.IsInternal = t.topic.Internal && t.view == nil
	for _, p := range img.Partitions(t.topic.ID) {
		mp := kmsg.NewMetadataResponseTopicPartition()
		mp.Partition, mp.Leader, mp.LeaderEpoch = p.Partition, int32(p.Leader), int32(p.LeaderEpoch)
		if _, live := s.brokerAddress(img, p.Leader); !live {
			mp.ErrorCode, mp.Leader = int16(broker.LeaderNotAvailable), int32(broker.NoNode)
		}
		mp.Replicas, mp.OfflineReplicas = replicaNodes(img, p)
		mp.ISR = nodeNumbers(p.ISR)
		mt.Partitions = append(mt.Partitions, mp)
	}
	return mt
}

// autoCreate makes a topic that was asked for, if both sides allow it.
func (s *session) autoCreate(ctx context.Context, name string, asked bool) broker.Code {
	if err := broker.CheckTopicName(name); err != nil {
		return broker.CodeOf(err)
	}
	if !s.AutoCreateTopics || !asked || slices.Contains(reservedTopics, name) {
		return broker.UnknownTopicOrPartition
	}
	if !s.mayCreate(name) {
		return broker.TopicAuthorizationFailed
	}
	_, err := s.Controller.Submit(ctx, controller.CreateTopic{Name: name, Partitions: -1, ReplicationFactor: -1})
	if code := broker.CodeOf(err); code != broker.None && code != broker.TopicAlreadyExists {
		return code
	}
	return broker.None
}
