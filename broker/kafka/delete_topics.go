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
	named := make([]deletion, 0, len(req.TopicNames)+len(req.Topics))
	for i := range req.TopicNames {
		named = append(named, deletion{name: &req.TopicNames[i]})
	}
	for _, rt := range req.Topics {
		named = append(named, deletion{name: rt.Topic, id: rt.TopicID})
	}
	for _, d := range together(named, func(d deletion) deletion { return s.deleteTopic(ctx, d) }) {
		answer := kmsg.NewDeleteTopicsResponseTopic()
		answer.Topic, answer.TopicID = d.name, d.id
		if d.err != nil {
			answer.ErrorCode, answer.ErrorMessage = s.fail(d.err), message(d.err)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

// deletion is one topic to delete, by one of its names, and what became of it.
type deletion struct {
	name *string
	id   broker.TopicID
	err  error
}

func (s *session) deleteTopic(ctx context.Context, d deletion) deletion {
	t, err := s.topicToDelete(d.id, d.name)
	if err == nil {
		d.name, d.id = &t.name, t.id
		if _, err = s.Controller.Submit(ctx, controller.DeleteTopic{ID: t.id}); err != nil {
			err = timedOut(ctx, err)
		}
	}
	d.err = err
	return d
}

func (s *session) topicToDelete(id broker.TopicID, name *string) (target, error) {
	if id.IsZero() == (name == nil) {
		return target{}, broker.Errorf(broker.InvalidRequest, "a topic is deleted by its name or by its id, exactly one of them")
	}
	t, code := resolve(s.Metadata.Image(), name == nil, id, deref(name))
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
