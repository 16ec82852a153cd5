package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
)

// CreatePartitions: v0-3
//
// Behaviour:
//   - any broker answers; the controller decides (T21) and the answer leaves when this node knows the partitions
//     and has opened those that it leads, within the request's timeout
//   - a new partition begins under the chains in force on its topic, and the dead-letter topics grow with it (H14)
//   - views and internal topics are POLICY_VIOLATION; the number only rises; a topic twice in a request is INVALID_REQUEST
//   - what is over the client's quota of changes is answered THROTTLING_QUOTA_EXCEEDED from v3 on, made before; and the client waits
//   - an assignment names the replicas of the new partitions, as many as the others have

func (s *session) createPartitions(ctx context.Context, req *kmsg.CreatePartitionsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	ctx, cancel := withTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	count := make(map[string]int, len(req.Topics))
	for i := range req.Topics {
		count[req.Topics[i].Topic]++
	}
	for i := range req.Topics {
		rt := &req.Topics[i]
		if count[rt.Topic] == 0 {
			continue // answered once already
		}
		answer := kmsg.NewCreatePartitionsResponseTopic()
		answer.Topic = rt.Topic
		var err error
		if count[rt.Topic] > 1 {
			err = broker.Errorf(broker.InvalidRequest, "topic %q is in the request %d times", rt.Topic, count[rt.Topic])
		} else {
			err = s.growTopic(ctx, rt, req)
		}
		count[rt.Topic] = 0
		if err != nil {
			answer.ErrorCode, answer.ErrorMessage = s.fail(err), message(err)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	resp.ThrottleMillis = throttleMillis(s.throttle)
	return resp
}

func (s *session) growTopic(ctx context.Context, rt *kmsg.CreatePartitionsRequestTopic, req *kmsg.CreatePartitionsRequest) error {
	t, code := s.resolveName(s.Metadata.Image(), rt.Topic)
	if code != broker.None {
		return notUsable(code, rt.Topic)
	}
	if more := int(rt.Count - t.topic.Partitions); more > 0 && !req.ValidateOnly {
		if err := s.mutates(more, req.Version >= 3); err != nil {
			return err
		}
	}
	request := controller.CreatePartitions{Topic: t.id, Count: rt.Count, ValidateOnly: req.ValidateOnly}
	for _, a := range rt.Assignment {
		nodes := make([]broker.NodeID, len(a.Replicas))
		for i, id := range a.Replicas {
			nodes[i] = broker.NodeID(id)
		}
		request.Assignment = append(request.Assignment, nodes)
	}
	if _, err := s.Controller.Submit(ctx, request); err != nil {
		return timedOut(ctx, err)
	}
	return nil
}
