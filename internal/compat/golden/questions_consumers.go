package golden

import "github.com/twmb/franz-go/pkg/kmsg"

// Groups whose coordinator assigns (KIP-848).

func consumerChapters() []chapter {
	ask := func(change func(*kmsg.ConsumerGroupHeartbeatRequest)) func(*script, int16) kmsg.Request {
		return func(_ *script, v int16) kmsg.Request {
			req := consumerJoin(named("consumer-refused", v), "golden-refused")
			change(req)
			return req
		}
	}
	return []chapter{
		{key: kmsg.ConsumerGroupHeartbeat, questions: []question{
			{"no group", 0, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Group = "" })},
			{"no member", 1, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberID = "" })},
			{"no timeout", 0, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RebalanceTimeoutMillis = -1 })},
			{"no partitions", 0, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Topics = nil })},
			{"no subscription", 0, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicNames = nil })},
			{"partitions of a member that joins", 0, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) {
				r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{{TopicID: [16]byte{1}, Partitions: []int32{0}}}
			})},
			{"no such assignor", 0, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.ServerAssignor = ptr("golden") })},
			{"empty instance", 0, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.InstanceID = ptr("") })},
			{"empty rack", 0, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RackID = ptr("") })},
			{"epoch of nobody", 0, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch = 3 })},
			{"no such epoch", 0, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch = -3 })},
			{"leave what is not there", 0, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch = -1 })},
			{"away without an instance", 0, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch = -2 })},
			{"bad pattern", 1, ask(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicRegex = ptr("(golden") })},
		}, story: consumerStory},
		{key: kmsg.ConsumerGroupDescribe, questions: []question{
			{"unknown group", 0, func(_ *script, v int16) kmsg.Request { return consumerDescribe(named("consumer-none", v)) }},
			{"no group", 0, func(*script, int16) kmsg.Request { return consumerDescribe() }},
			{"empty name", 0, func(*script, int16) kmsg.Request { return consumerDescribe("") }},
			{"a classic group", 0, func(*script, int16) kmsg.Request { return consumerDescribe("golden-delete-used-2") }},
			{"a group and none", 0, func(*script, int16) kmsg.Request {
				return consumerDescribe("golden-consumer-1", "golden-consumer-none")
			}},
		}},
	}
}

func consumerJoin(group, member string) *kmsg.ConsumerGroupHeartbeatRequest {
	req := consumerBeat(group, member, 0)
	req.RebalanceTimeoutMillis, req.SubscribedTopicNames = 30_000, []string{topicGolden}
	req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	return req
}

// consumerBeat is a heartbeat in which nothing has changed.
func consumerBeat(group, member string, epoch int32) *kmsg.ConsumerGroupHeartbeatRequest {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Group, req.MemberID, req.MemberEpoch = group, member, epoch
	return req
}

func consumerDescribe(groups ...string) *kmsg.ConsumerGroupDescribeRequest {
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Groups, req.IncludeAuthorizedOperations = groups, true
	return req
}

// consumerStory is the life of a group: one member, a second, which takes a partition of the first, a static one that
// goes and comes back, and the end.
func consumerStory(s *script, v int16) error {
	group := named("consumer", v)
	one := consumerJoin(group, "golden-one")
	joined, err := s.ask("join", v, one)
	if err != nil {
		return err
	}
	first := joined.(*kmsg.ConsumerGroupHeartbeatResponse)
	id := "golden-one"
	if first.MemberID != nil {
		id = *first.MemberID
	}
	owns := func(partitions ...int32) []kmsg.ConsumerGroupHeartbeatRequestTopic {
		if len(partitions) == 0 {
			return []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		}
		return []kmsg.ConsumerGroupHeartbeatRequestTopic{{TopicID: s.id(topicGolden), Partitions: partitions}}
	}
	beat := func(member string, epoch int32, change func(*kmsg.ConsumerGroupHeartbeatRequest)) *kmsg.ConsumerGroupHeartbeatRequest {
		req := consumerBeat(group, member, epoch)
		if change != nil {
			change(req)
		}
		return req
	}
	with := func(partitions ...int32) func(*kmsg.ConsumerGroupHeartbeatRequest) {
		return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Topics = owns(partitions...) }
	}
	static := func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.InstanceID = ptr("golden-instance") }
	again := consumerJoin(group, "golden-static")
	static(again)
	next := consumerJoin(group, "golden-next")
	static(next)
	epoch := first.MemberEpoch
	for _, step := range []struct {
		label string
		req   kmsg.Request
	}{
		{"nothing new", beat(id, epoch, nil)}, {"has all", beat(id, epoch, with(0, 1))}, {"alone", consumerDescribe(group)},
		{"future epoch", beat(id, epoch+7, nil)}, {"unknown member", beat("golden-nobody", epoch, nil)},
		{"second joins", consumerJoin(group, "golden-two")}, {"first is to revoke", beat(id, epoch, with(0, 1))},
		{"second waits", beat("golden-two", epoch+1, with())}, {"between two", consumerDescribe(group)},
		{"old epoch", beat("golden-two", epoch, nil)},
		{"first revoked", beat(id, epoch, with(0))}, {"second gets it", beat("golden-two", epoch+1, with())},
		{"two members", consumerDescribe(group)}, {"second leaves", beat("golden-two", -1, nil)},
		{"first gets it back", beat(id, epoch+1, with(0))}, {"first leaves", beat(id, -1, nil)},
		{"empty", consumerDescribe(group)}, {"static joins", again}, {"static joins again", next},
		{"static goes", beat("golden-static", -2, static)}, {"static is away", consumerDescribe(group)}, {"static comes back", next},
		{"static of before", beat("golden-static", 1, static)}, {"static leaves", beat("golden-next", -1, static)},
	} {
		if err := s.tell(step.label, v, step.req); err != nil {
			return err
		}
	}
	return nil
}
