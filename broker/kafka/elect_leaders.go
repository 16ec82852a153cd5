package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/internal/invariant"
)

// ElectLeaders: v0-2
//
// Behaviour:
//   - hands partitions back to their preferred leaders, the first of their replicas; ELECTION_NOT_NEEDED where it leads
//   - null topics ask for all partitions; then those that need no election are left out of the answer
//   - v1: the unclean kind is ELECTION_NOT_NEEDED where there is a leader, and otherwise refused: the topic config
//     unclean.leader.election.enable is how an operator accepts that acknowledged records may be lost
//   - views are POLICY_VIOLATION: their leaders are those of the base

const (
	electPreferred = 0
	electUnclean   = 1
)

func (s *session) electLeaders(ctx context.Context, req *kmsg.ElectLeadersRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	if req.ElectionType != electPreferred && req.ElectionType != electUnclean {
		return s.refuseElection(req)
	}
	ctx, cancel := withTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	img := s.Metadata.Image()
	topics, all := req.Topics, req.Topics == nil
	if all {
		for topic := range img.Topics() {
			if !s.mayTopic(topic.Name) {
				continue
			}
			rt := kmsg.NewElectLeadersRequestTopic()
			rt.Topic = topic.Name
			for _, p := range img.Partitions(topic.ID) {
				rt.Partitions = append(rt.Partitions, p.Partition)
			}
			topics = append(topics, rt)
		}
	}
	for i := range topics {
		rt := &topics[i]
		answer := kmsg.NewElectLeadersResponseTopic()
		answer.Topic = rt.Topic
		for n, err := range s.elect(ctx, rt, req.ElectionType) {
			if all && broker.CodeOf(err) == broker.ElectionNotNeeded {
				continue
			}
			ap := kmsg.NewElectLeadersResponseTopicPartition()
			ap.Partition = rt.Partitions[n]
			if err != nil {
				ap.ErrorCode, ap.ErrorMessage = s.fail(err), message(err)
			}
			answer.Partitions = append(answer.Partitions, ap)
		}
		if len(answer.Partitions) > 0 {
			resp.Topics = append(resp.Topics, answer)
		}
	}
	return resp
}

// refuseElection answers a kind of election that there is not, for every partition.
func (s *session) refuseElection(req *kmsg.ElectLeadersRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	err := broker.Errorf(broker.InvalidRequest, "there is no election of kind %d", req.ElectionType)
	resp.ErrorCode = s.fail(err)
	for i := range req.Topics {
		answer := kmsg.NewElectLeadersResponseTopic()
		answer.Topic = req.Topics[i].Topic
		for _, number := range req.Topics[i].Partitions {
			ap := kmsg.NewElectLeadersResponseTopicPartition()
			ap.Partition, ap.ErrorCode, ap.ErrorMessage = number, int16(broker.InvalidRequest), message(err)
			answer.Partitions = append(answer.Partitions, ap)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

// elect returns an error, or nil, for each of a topic's partitions in their order.
func (s *session) elect(ctx context.Context, rt *kmsg.ElectLeadersRequestTopic, kind int8) []error {
	results := make([]error, len(rt.Partitions))
	fill := func(err error) []error {
		for i := range results {
			results[i] = err
		}
		return results
	}
	img := s.Metadata.Image()
	t, code := s.resolveName(img, rt.Topic)
	switch {
	case t.view != nil:
		return fill(broker.Errorf(broker.PolicyViolation, "%q is a view; its leaders are those of its base topic", rt.Topic))
	case code != broker.None:
		return fill(notUsable(code, rt.Topic))
	}
	request := controller.ElectLeaders{}
	for i, number := range rt.Partitions {
		tp := t.partition(number)
		request.Partitions = append(request.Partitions, tp)
		if kind == electUnclean {
			results[i] = s.electUncleanly(tp)
		}
	}
	if kind == electUnclean {
		return results
	}
	reply, err := s.Controller.Submit(ctx, request)
	if err != nil {
		return fill(timedOut(ctx, err))
	}
	elected, ok := reply.(controller.LeadersElected)
	invariant.Check(ok && len(elected.Results) == len(results), "electing leaders was answered with %+v", reply)
	for i, refusal := range elected.Results {
		if refusal != nil {
			results[i] = refusal
		}
	}
	return results
}

func (s *session) electUncleanly(tp broker.TopicPartition) error {
	p, exists := s.Metadata.Image().Partition(tp)
	switch {
	case !exists:
		return broker.Errorf(broker.UnknownTopicOrPartition, "there is no partition %d", tp.Partition)
	case p.Leader != broker.NoNode:
		return broker.Errorf(broker.ElectionNotNeeded, "partition %d has a leader", tp.Partition)
	}
	return broker.Errorf(broker.EligibleLeadersNotAvailable,
		"partition %d has no replica that surely has every acknowledged record; unclean.leader.election.enable on the topic accepts another", tp.Partition)
}
