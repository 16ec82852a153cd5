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
//   - v5: error messages; v6: by id or by name, exactly one of them

func (s *session) deleteTopics(ctx context.Context, req *kmsg.DeleteTopicsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	ctx, cancel := withTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	for _, name := range req.TopicNames {
		resp.Topics = append(resp.Topics, s.deleteTopic(ctx, broker.TopicID{}, &name))
	}
	for _, rt := range req.Topics {
		resp.Topics = append(resp.Topics, s.deleteTopic(ctx, rt.TopicID, rt.Topic))
	}
	return resp
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
