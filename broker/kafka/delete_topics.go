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
//   - what is over the client's quota of changes is answered THROTTLING_QUOTA_EXCEEDED from v5 on, removed before; and the client waits
//   - v5: error messages; v6: by id or by name, exactly one of them

func (s *session) deleteTopics(ctx context.Context, req *kmsg.DeleteTopicsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	ctx, cancel := withTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	for _, name := range req.TopicNames {
		req.Topics = append(req.Topics, kmsg.DeleteTopicsRequestTopic{Topic: &name})
	}
	count := make(map[namedTopic]int, len(req.Topics))
	var once []namedTopic // each, where it comes first
	for _, rt := range req.Topics {
		t := namedTopic{id: rt.TopicID, byName: rt.Topic != nil, name: deref(rt.Topic)}
		if count[t]++; count[t] == 1 {
			once = append(once, t)
		}
	}
	over := map[namedTopic]error{}
	for _, named := range once {
		if t, err := s.topicToDelete(named); err == nil && count[named] == 1 {
			over[named] = s.mutates(int(t.topic.Partitions), req.Version >= 5)
		}
	}
	resp.ThrottleMillis = throttleMillis(s.throttle)
	deletions := together(once, func(t namedTopic) deletion {
		if over[t] != nil {
			return deletion{named: t, err: over[t]}
		}
		if count[t] > 1 {
			return deletion{named: t, err: broker.Errorf(broker.InvalidRequest, "the topic is in the request %d times", count[t])}
		}
		return s.deleteTopic(ctx, t)
	})
	for _, d := range deletions {
		answer := kmsg.NewDeleteTopicsResponseTopic()
		if answer.TopicID = d.named.id; d.named.byName {
			answer.Topic = &d.named.name
		}
		if d.err != nil {
			answer.ErrorCode, answer.ErrorMessage = s.fail(d.err), message(d.err)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

// namedTopic is a topic as a request names it: by its name, by its id, or, once it is found, by both.
type namedTopic struct {
	id     broker.TopicID
	byName bool
	name   string
}

// deletion is what became of one topic.
type deletion struct {
	named namedTopic
	err   error
}

func (s *session) deleteTopic(ctx context.Context, named namedTopic) deletion {
	t, err := s.topicToDelete(named)
	if err == nil {
		named = namedTopic{id: t.id, byName: true, name: t.name}
		if _, err = s.Controller.Submit(ctx, controller.DeleteTopic{ID: t.id}); err != nil {
			err = timedOut(ctx, err)
		}
	}
	return deletion{named: named, err: err}
}

func (s *session) topicToDelete(named namedTopic) (target, error) {
	if named.id.IsZero() != named.byName {
		return target{}, broker.Errorf(broker.InvalidRequest, "a topic is deleted by its name or by its id, exactly one of them")
	}
	t, code := s.resolve(s.Metadata.Image(), !named.byName, named.id, named.name)
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
