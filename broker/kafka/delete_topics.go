package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
)

// DeleteTopics: v1-6
//
// Behaviour:
//   - any broker answers; the controller decides (T21)
//   - views and internal topics are POLICY_VIOLATION: the admin API deletes views, nobody deletes the offsets topic
//   - a topic that is in a request twice is INVALID_REQUEST, answered once, and stays
//   - v5: error messages; v6: by id or by name, exactly one of them

func (s *session) deleteTopics(ctx context.Context, req *kmsg.DeleteTopicsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	ctx, cancel := withTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	for _, name := range req.TopicNames {
		req.Topics = append(req.Topics, kmsg.DeleteTopicsRequestTopic{Topic: &name})
	}
	count := make(map[namedTopic]int, len(req.Topics))
	for _, rt := range req.Topics {
		count[namedTopic{rt.TopicID, deref(rt.Topic)}]++
	}
	for _, rt := range req.Topics {
		same := namedTopic{rt.TopicID, deref(rt.Topic)}
		switch count[same] {
		case 0: // answered once already
		case 1:
			resp.Topics = append(resp.Topics, s.deleteTopic(ctx, rt.TopicID, rt.Topic))
		default:
			err := broker.Errorf(broker.InvalidRequest, "the topic is in the request %d times", count[same])
			answer := kmsg.NewDeleteTopicsResponseTopic()
			answer.Topic, answer.TopicID = rt.Topic, rt.TopicID
			answer.ErrorCode, answer.ErrorMessage = s.fail(err), message(err)
			resp.Topics = append(resp.Topics, answer)
		}
		count[same] = 0
	}
	return resp
}

// namedTopic is a topic as a request names it.
type namedTopic struct {
	id   broker.TopicID
	name string
}

func (s *session) deleteTopic(ctx context.Context, id broker.TopicID, name *string) kmsg.DeleteTopicsResponseTopic {
	answer := kmsg.NewDeleteTopicsResponseTopic()
	answer.Topic, answer.TopicID = name, id
	t, err := s.topicToDelete(id, name)
	if err == nil {
		answer.Topic, answer.TopicID = &t.name, t.id
		_, err = s.Controller.Submit(ctx, controller.DeleteTopic{ID: t.id})
		if err != nil {
			err = timedOut(ctx, err)
		}
	}
	if err != nil {
		answer.ErrorCode, answer.ErrorMessage = s.fail(err), message(err)
	}
	return answer
}

func (s *session) topicToDelete(id broker.TopicID, name *string) (target, error) {
	if id.IsZero() == (name == nil) {
		return target{}, broker.Errorf(broker.InvalidRequest, "a topic is deleted by its name or by its id, exactly one of them")
	}
	t, code := s.resolve(s.Metadata.Image(), name == nil, id, deref(name))
	switch {
	case t.view != nil:
		return t, broker.Errorf(broker.PolicyViolation, "%q is a view; delete it with raftctl view delete", t.name)
	case code != broker.None:
		return t, code
	case t.topic.Internal:
		return t, broker.Errorf(broker.PolicyViolation, "topic %q is internal and cannot be deleted", t.name)
	}
	return t, nil
}
