package golden

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func groupChapters() []chapter {
	return []chapter{
		{key: kmsg.JoinGroup, questions: []question{
			{"no group", 0, func(*script, int16) kmsg.Request { return join("", "") }},
			{"unknown member", 0, func(_ *script, v int16) kmsg.Request { return join(named("join-unknown", v), "nobody") }},
			{"no protocols", 0, func(_ *script, v int16) kmsg.Request {
				req := join(named("join-none", v), "")
				req.Protocols = nil
				return req
			}},
			{"no protocol type", 0, func(_ *script, v int16) kmsg.Request {
				req := join(named("join-none", v), "")
				req.ProtocolType = ""
				return req
			}},
			{"session too short", 0, func(_ *script, v int16) kmsg.Request {
				req := join(named("join-short", v), "")
				req.SessionTimeoutMillis = 10
				return req
			}},
			{"session too long", 0, func(_ *script, v int16) kmsg.Request {
				req := join(named("join-long", v), "")
				req.SessionTimeoutMillis = 1 << 30
				return req
			}},
		}, story: joinStory},
		{key: kmsg.SyncGroup, questions: []question{
			{"no group", 0, func(_ *script, v int16) kmsg.Request { return syncGroup(v, "", "nobody", 1) }},
			{"unknown group", 0, func(_ *script, v int16) kmsg.Request { return syncGroup(v, named("sync-unknown", v), "nobody", 1) }},
			{"no protocol", 5, func(_ *script, v int16) kmsg.Request { return syncGroup(0, named("sync-unknown", v), "nobody", 1) }},
		}, story: syncStory},
		{key: kmsg.Heartbeat, questions: []question{
			{"no group", 0, func(*script, int16) kmsg.Request { return heartbeat("", "nobody", 1) }},
			{"unknown group", 0, func(_ *script, v int16) kmsg.Request { return heartbeat(named("heartbeat-unknown", v), "nobody", 1) }},
		}, story: heartbeatStory},
		{key: kmsg.OffsetCommit, questions: offsetCommitQuestions(), story: offsetCommitStory},
		{key: kmsg.OffsetFetch, questions: offsetFetchQuestions()},
		{key: kmsg.LeaveGroup, questions: []question{
			{"no group", 0, func(_ *script, v int16) kmsg.Request { return leave(v, "", "nobody") }},
			{"unknown group", 0, func(_ *script, v int16) kmsg.Request { return leave(v, named("leave-unknown", v), "nobody") }},
			{"no members", 3, func(_ *script, v int16) kmsg.Request { return leave(v, named("leave-unknown", v)) }},
		}, story: leaveStory},
		{key: kmsg.DescribeGroups, questions: []question{
			{"unknown group", 0, func(_ *script, v int16) kmsg.Request { return describeGroups(named("describe-unknown", v)) }},
			{"no group", 0, func(*script, int16) kmsg.Request { return describeGroups() }},
			{"empty name", 0, func(*script, int16) kmsg.Request { return describeGroups("") }},
			{"the same group twice", 0, func(_ *script, v int16) kmsg.Request {
				return describeGroups(named("describe-unknown", v), named("describe-unknown", v))
			}},
		}, story: describeGroupsStory},
		{key: kmsg.ListGroups, questions: []question{
			{"all", 0, func(*script, int16) kmsg.Request { return kmsg.NewPtrListGroupsRequest() }},
			{"empty ones", 4, func(*script, int16) kmsg.Request { return listGroups([]string{"Empty"}, nil) }},
			{"states in small letters", 4, func(*script, int16) kmsg.Request { return listGroups([]string{"stable"}, nil) }},
			{"no such state", 4, func(*script, int16) kmsg.Request { return listGroups([]string{"Golden"}, nil) }},
			{"classic ones", 5, func(*script, int16) kmsg.Request { return listGroups(nil, []string{"classic"}) }},
			{"no such type", 5, func(*script, int16) kmsg.Request { return listGroups(nil, []string{"golden"}) }},
		}},
		{key: kmsg.OffsetDelete, story: offsetDeleteStory},
		{key: kmsg.DeleteGroups, story: deleteGroupsStory},
	}
}

func join(group, member string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.ProtocolType = group, member, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 30_000, 30_000
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: consumerMetadata()}}
	return req
}

// consumerMetadata is what a consumer of the golden topic says when it joins.
func consumerMetadata() []byte {
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Topics = []string{topicGolden}
	return meta.AppendTo(nil)
}

func syncGroup(v int16, group, member string, generation int32) *kmsg.SyncGroupRequest {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.Generation = group, member, generation
	if v >= 5 {
		req.ProtocolType, req.Protocol = ptr("consumer"), ptr("range")
	}
	return req
}

func heartbeat(group, member string, generation int32) *kmsg.HeartbeatRequest {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = group, member, generation
	return req
}

func leave(v int16, group string, members ...string) *kmsg.LeaveGroupRequest {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = group
	for _, m := range members {
		req.MemberID = m
		if v >= 3 {
			req.Members = append(req.Members, kmsg.LeaveGroupRequestMember{MemberID: m})
		}
	}
	return req
}

func describeGroups(groups ...string) *kmsg.DescribeGroupsRequest {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups, req.IncludeAuthorizedOperations = groups, true
	return req
}

func listGroups(states, kinds []string) *kmsg.ListGroupsRequest {
	req := kmsg.NewPtrListGroupsRequest()
	req.StatesFilter, req.TypesFilter = states, kinds
	return req
}

// member joins a group as its only member without a record and returns its id; its generation is 1.
func (s *script) member(group string) (string, error) {
	id := ""
	err := s.silently(func() error {
		for range 2 { // The first is told its id (KIP-394).
			resp, err := s.ask("", 5, join(group, id))
			if err != nil {
				return err
			}
			id = resp.(*kmsg.JoinGroupResponse).MemberID
		}
		return s.tell("", 3, assigned(syncGroup(3, group, id, 1)))
	})
	return id, err
}

// assigned gives all to the member that syncs.
func assigned(req *kmsg.SyncGroupRequest) *kmsg.SyncGroupRequest {
	plan := kmsg.NewConsumerMemberAssignment()
	plan.Topics = []kmsg.ConsumerMemberAssignmentTopic{{Topic: topicGolden, Partitions: []int32{0, 1}}}
	req.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: req.MemberID, MemberAssignment: plan.AppendTo(nil)}}
	return req
}

// joinStory joins twice as clients do, joins again, joins with another protocol, and joins as a static member.
func joinStory(s *script, v int16) error {
	group := named("join", v)
	resp, err := s.ask("first", v, join(group, ""))
	if err != nil {
		return err
	}
	id := resp.(*kmsg.JoinGroupResponse).MemberID
	if v >= 4 {
		if err := s.tell("with the id", v, join(group, id)); err != nil {
			return err
		}
	}
	other := join(group, "")
	other.ProtocolType = "connect"
	if err := s.tell("another protocol type", v, other); err != nil {
		return err
	}
	strange := join(group, id)
	strange.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "golden"}}
	if err := s.tell("another protocol", v, strange); err != nil {
		return err
	}
	if err := s.tell("again", v, join(group, id)); err != nil {
		return err
	}
	if v < 5 {
		return nil
	}
	static := join(named("join-static", v), "")
	static.InstanceID = ptr("instance")
	if err := s.tell("static", v, static); err != nil {
		return err
	}
	fenced := join(named("join-static", v), "somebody else")
	fenced.InstanceID = ptr("instance")
	return s.tell("static, another id", v, fenced)
}

func syncStory(s *script, v int16) error {
	group := named("sync", v)
	id, err := s.member(group)
	if err != nil {
		return err
	}
	wrong := syncGroup(v, group, id, 1)
	wrong.ProtocolType = ptr("connect")
	for _, one := range []struct {
		label string
		from  int16
		req   kmsg.Request
	}{
		{"again", 0, assigned(syncGroup(v, group, id, 1))},
		{"without a plan", 0, syncGroup(v, group, id, 1)},
		{"old generation", 0, syncGroup(v, group, id, 0)},
		{"unknown member", 0, syncGroup(v, group, "nobody", 1)},
		{"another protocol type", 5, wrong},
	} {
		if v < one.from {
			continue
		}
		if err := s.tell(one.label, v, one.req); err != nil {
			return err
		}
	}
	return nil
}

func heartbeatStory(s *script, v int16) error {
	group := named("heartbeat", v)
	id, err := s.member(group)
	if err != nil {
		return err
	}
	unknown := heartbeat(group, id, 1)
	unknown.InstanceID = ptr("instance")
	for _, one := range []struct {
		label string
		from  int16
		req   kmsg.Request
	}{
		{"good", 0, heartbeat(group, id, 1)},
		{"future generation", 0, heartbeat(group, id, 2)},
		{"unknown member", 0, heartbeat(group, "nobody", 1)},
		{"unknown instance", 3, unknown},
	} {
		if v < one.from {
			continue
		}
		if err := s.tell(one.label, v, one.req); err != nil {
			return err
		}
	}
	return nil
}

func (s *script) offsetCommit(group, topic string, partition int32, metadata string) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: topic, TopicID: s.id(topic), Partitions: []kmsg.OffsetCommitRequestTopicPartition{
		{Partition: partition, Offset: 2, LeaderEpoch: -1, Metadata: ptr(metadata)},
	}}}
	return req
}

func offsetCommitQuestions() []question {
	ask := func(change func(v int16, r *kmsg.OffsetCommitRequest)) func(*script, int16) kmsg.Request {
		return func(s *script, v int16) kmsg.Request {
			req := s.offsetCommit(named("commit", v), topicGolden, 0, "here")
			if change != nil {
				change(v, req)
			}
			return req
		}
	}
	return []question{
		{"without a member", 0, ask(nil)},
		{"null metadata", 0, ask(func(_ int16, r *kmsg.OffsetCommitRequest) { r.Topics[0].Partitions[0].Metadata = nil })},
		{"too much metadata", 0, ask(func(_ int16, r *kmsg.OffsetCommitRequest) {
			r.Topics[0].Partitions[0].Metadata = ptr(strings.Repeat("m", 5000))
		})},
		{"no group", 0, ask(func(_ int16, r *kmsg.OffsetCommitRequest) { r.Group = "" })},
		{"no topics", 0, ask(func(_ int16, r *kmsg.OffsetCommitRequest) { r.Topics = nil })},
		{"negative offset", 0, ask(func(_ int16, r *kmsg.OffsetCommitRequest) { r.Topics[0].Partitions[0].Offset = -1 })},
		{"unknown partition", 0, ask(func(_ int16, r *kmsg.OffsetCommitRequest) { r.Topics[0].Partitions[0].Partition = 7 })},
		{"unknown member", 0, ask(func(_ int16, r *kmsg.OffsetCommitRequest) { r.Generation, r.MemberID = 1, "nobody" })},
		{"unknown member of no group", 0, ask(func(v int16, r *kmsg.OffsetCommitRequest) {
			r.Group, r.Generation, r.MemberID = named("commit-none", v), 1, "nobody"
		})},
		{"unknown topic", 0, func(s *script, v int16) kmsg.Request { return s.offsetCommit(named("commit", v), topicNone, 0, "") }},
		{"a good and an unknown topic", 0, func(s *script, v int16) kmsg.Request {
			req := s.offsetCommit(named("commit", v), topicNone, 0, "")
			req.Topics = append(req.Topics, s.offsetCommit("", topicGolden, 0, "").Topics...)
			return req
		}},
	}
}

func offsetCommitStory(s *script, v int16) error {
	group := named("commit-member", v)
	id, err := s.member(group)
	if err != nil {
		return err
	}
	by := func(label, member string, generation int32) error {
		req := s.offsetCommit(group, topicGolden, 0, "")
		req.MemberID, req.Generation = member, generation
		return s.tell(label, v, req)
	}
	if err := by("by the member", id, 1); err != nil {
		return err
	}
	if err := by("old generation", id, 0); err != nil {
		return err
	}
	return by("past the member", "", -1)
}

func (s *script) offsetFetch(v int16, group string, topics ...string) *kmsg.OffsetFetchRequest {
	req := kmsg.NewPtrOffsetFetchRequest()
	g := kmsg.NewOffsetFetchRequestGroup()
	req.Group, g.Group = group, group
	for _, t := range topics {
		req.Topics = append(req.Topics, kmsg.OffsetFetchRequestTopic{Topic: t, Partitions: []int32{0, 1, 7}})
		g.Topics = append(g.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: t, TopicID: s.id(t), Partitions: []int32{0, 1, 7}})
	}
	if v >= 8 {
		req.Groups = []kmsg.OffsetFetchRequestGroup{g}
	}
	return req
}

// offsetFetchQuestions ask for what offsetCommitQuestions left behind.
func offsetFetchQuestions() []question {
	const group = "golden-commit-5"
	return []question{
		{"committed and not", 0, func(s *script, v int16) kmsg.Request { return s.offsetFetch(v, group, topicGolden) }},
		{"unknown group", 0, func(s *script, v int16) kmsg.Request { return s.offsetFetch(v, "golden-nobody", topicGolden) }},
		{"unknown topic", 0, func(s *script, v int16) kmsg.Request { return s.offsetFetch(v, group, topicNone) }},
		{"no group", 0, func(s *script, v int16) kmsg.Request { return s.offsetFetch(v, "", topicGolden) }},
		{"all topics", 2, func(s *script, v int16) kmsg.Request { return s.offsetFetch(v, group) }},
		{"all topics of an unknown group", 2, func(s *script, v int16) kmsg.Request { return s.offsetFetch(v, "golden-nobody") }},
		{"stable", 7, func(s *script, v int16) kmsg.Request {
			req := s.offsetFetch(v, group, topicGolden)
			req.RequireStable = true
			return req
		}},
		{"two groups", 8, func(s *script, v int16) kmsg.Request {
			req := s.offsetFetch(v, group, topicGolden)
			req.Groups = append(req.Groups, s.offsetFetch(v, "golden-nobody", topicBlank, topicGolden).Groups...)
			return req
		}},
		{"unknown member", 9, func(s *script, v int16) kmsg.Request {
			req := s.offsetFetch(v, group, topicGolden)
			req.Groups[0].MemberID, req.Groups[0].MemberEpoch = ptr("nobody"), 1
			return req
		}},
	}
}

func leaveStory(s *script, v int16) error {
	group := named("leave", v)
	id, err := s.member(group)
	if err != nil {
		return err
	}
	if err := s.tell("unknown member", v, leave(v, group, "nobody")); err != nil {
		return err
	}
	if err := s.tell("good", v, leave(v, group, id)); err != nil {
		return err
	}
	return s.tell("again", v, leave(v, group, id))
}

func describeGroupsStory(s *script, v int16) error {
	group := named("describe", v)
	id, err := s.member(group)
	if err != nil {
		return err
	}
	if err := s.tell("stable", v, describeGroups(group)); err != nil {
		return err
	}
	if err := s.silently(func() error { return s.tell("", 4, leave(4, group, id)) }); err != nil {
		return err
	}
	return s.tell("empty", v, describeGroups(group))
}

func offsetDeleteStory(s *script, v int16) error {
	group := named("offset-delete", v)
	if _, err := s.member(group); err != nil {
		return err
	}
	ask := func(label, group, topic string, partition int32) error {
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = group
		req.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: partition}}}}
		return s.tell(label, v, req)
	}
	for _, one := range []struct {
		label, group, topic string
		partition           int32
	}{
		{"unknown group", "golden-nobody", topicGolden, 0}, {"no group", "", topicGolden, 0}, {"subscribed", group, topicGolden, 0},
		{"not subscribed", group, topicBlank, 0}, {"unknown topic", group, topicNone, 0}, {"unknown partition", group, topicBlank, 7},
		{"empty group", "golden-commit-5", topicGolden, 0}, {"nothing committed", "golden-commit-5", topicGolden, 1},
	} {
		if err := ask(one.label, one.group, one.topic, one.partition); err != nil {
			return err
		}
	}
	return nil
}

func deleteGroupsStory(s *script, v int16) error {
	used, left := named("delete-used", v), named("delete-left", v)
	if _, err := s.member(used); err != nil {
		return err
	}
	if err := s.silently(func() error { return s.tell("", 8, s.offsetCommit(left, topicGolden, 0, "")) }); err != nil {
		return err
	}
	for _, one := range []struct {
		label  string
		groups []string
	}{
		{"unknown group", []string{"golden-nobody"}}, {"in use", []string{used}}, {"empty", []string{left}}, {"again", []string{left}},
		{"no group", nil}, {"empty name", []string{""}}, {"two", []string{used, "golden-nobody"}},
	} {
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = one.groups
		if err := s.tell(one.label, v, req); err != nil {
			return err
		}
	}
	return nil
}
