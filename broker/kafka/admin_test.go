package kafka

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
)

func createRequest(version int16, topics ...kmsg.CreateTopicsRequestTopic) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis, req.Topics = version, 10_000, topics
	return req
}

func newTopicRequest(name string, partitions int32) kmsg.CreateTopicsRequestTopic {
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, partitions, 1
	return rt
}

func withConfig(rt kmsg.CreateTopicsRequestTopic, name string, value *string) kmsg.CreateTopicsRequestTopic {
	rt.Configs = append(rt.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: name, Value: value})
	return rt
}

func TestCreateTopicsSaysWhatWasMade(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	rt := withConfig(newTopicRequest("orders", 3), "retention.ms", kmsg.StringPtr("60000"))
	got := ask[*kmsg.CreateTopicsResponse](c, createRequest(7, rt)).Topics[0]
	made, exists := f.Image().TopicNamed("orders")
	if got.ErrorCode != 0 || !exists || got.TopicID != made.ID || got.NumPartitions != 3 || got.ReplicationFactor != 1 {
		t.Fatalf("created %+v, the image has %+v", got, made)
	}
	own := slices.IndexFunc(got.Configs, func(c kmsg.CreateTopicsResponseTopicConfig) bool { return c.Name == "retention.ms" })
	if own < 0 || *got.Configs[own].Value != "60000" || got.Configs[own].Source != int8(kmsg.ConfigSourceDynamicTopicConfig) {
		t.Errorf("configs do not say what was asked for")
	}
}

func TestCreateTopicsRefusesOneByOne(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("taken", 1)
	c := dialRaw(t, f.serveTCP())
	assigned := newTopicRequest("assigned", 1)
	assigned.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: []int32{1}}}
	resp := ask[*kmsg.CreateTopicsResponse](c, createRequest(7,
		newTopicRequest("fine", 1), newTopicRequest("taken", 1), newTopicRequest("twice", 1), newTopicRequest("twice", 2),
		withConfig(newTopicRequest("unknown-config", 1), "no.such.config", kmsg.StringPtr("1")),
		withConfig(newTopicRequest("null-config", 1), "retention.ms", nil), assigned, newTopicRequest("none", 0), newTopicRequest(broker.OffsetsTopic, 1),
	))
	want := map[string]broker.Code{
		"fine": broker.None, "taken": broker.TopicAlreadyExists, "twice": broker.InvalidRequest,
		"unknown-config": broker.InvalidConfig, "null-config": broker.InvalidConfig, "assigned": broker.InvalidRequest,
		"none": broker.InvalidPartitions, broker.OffsetsTopic: broker.InvalidTopic,
	}
	if len(resp.Topics) != len(want) {
		t.Errorf("%d answers, want %d: a name twice has one", len(resp.Topics), len(want))
	}
	for _, rt := range resp.Topics {
		if code := broker.Code(rt.ErrorCode); code != want[rt.Topic] || (code != broker.None) != (rt.ErrorMessage != nil) {
			t.Errorf("topic %s: code %d, message %v; want code %d with a message if it is one", rt.Topic, code, rt.ErrorMessage, want[rt.Topic])
		}
	}
}

func TestValidateOnlyMakesNothing(t *testing.T) {
	f := newFace(t, nil)
	req := createRequest(7, newTopicRequest("orders", 1))
	req.ValidateOnly = true
	if got := ask[*kmsg.CreateTopicsResponse](dialRaw(t, f.serveTCP()), req).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("validate: %+v", got)
	}
	if _, exists := f.Image().TopicNamed("orders"); exists {
		t.Error("validating made the topic")
	}
}

func TestTopicsAreMadeOnDemandOnlyIfBothSidesAllowIt(t *testing.T) {
	for _, tc := range []struct {
		broker, client bool
		want           broker.Code
	}{
		{false, true, broker.UnknownTopicOrPartition}, {true, false, broker.UnknownTopicOrPartition}, {true, true, broker.None},
	} {
		f := newFace(t, func(c *Config) { c.AutoCreateTopics = tc.broker })
		req := kmsg.NewPtrMetadataRequest()
		req.Version, req.AllowAutoTopicCreation = 12, tc.client
		req.Topics = []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("wanted")}}
		got := ask[*kmsg.MetadataResponse](dialRaw(t, f.serveTCP()), req).Topics[0]
		if broker.Code(got.ErrorCode) != tc.want || (tc.want == broker.None) != (len(got.Partitions) == 1) {
			t.Errorf("broker allows %v, client %v: %+v", tc.broker, tc.client, got)
		}
	}
}

func TestInternalTopicsAreReadableAndNotWritable(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	if found := ask[*kmsg.FindCoordinatorResponse](c, kmsg.NewPtrFindCoordinatorRequest()); found.ErrorCode != 0 || found.NodeID != int32(selfNode) {
		t.Fatalf("coordinator: %+v", found)
	}
	offsets, exists := f.Image().TopicNamed(broker.OffsetsTopic)
	if !exists || !offsets.Internal || offsets.Partitions != broker.OffsetsPartitions || !f.Image().Compacted(broker.OffsetsTopic) {
		t.Fatalf("offsets topic: %+v", offsets)
	}
	p := ask[*kmsg.ProduceResponse](c, produceRequest(9, broker.OffsetsTopic, offsets.ID, -1, makeBatch(t, batch.None, "x"))).Topics[0].Partitions[0]
	if broker.Code(p.ErrorCode) != broker.InvalidTopic {
		t.Errorf("produce: code %d, want INVALID_TOPIC", p.ErrorCode)
	}
	if got := ask[*kmsg.FetchResponse](c, fetchRequest(12, broker.OffsetsTopic, offsets.ID, 0)).Topics[0].Partitions[0]; got.ErrorCode != 0 {
		t.Errorf("fetch: code %d", got.ErrorCode)
	}
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.Version, remove.TopicNames = 4, []string{broker.OffsetsTopic}
	if got := ask[*kmsg.DeleteTopicsResponse](c, remove).Topics[0]; broker.Code(got.ErrorCode) != broker.PolicyViolation {
		t.Errorf("delete: code %d, want POLICY_VIOLATION", got.ErrorCode)
	}
}

func TestDeleteTopicsByNameAndByID(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("by-name", 1)
	id := f.addTopic("by-id", 1)
	c := dialRaw(t, f.serveTCP())
	byName := kmsg.NewPtrDeleteTopicsRequest()
	byName.Version, byName.TopicNames = 5, []string{"by-name", "absent"}
	got := ask[*kmsg.DeleteTopicsResponse](c, byName).Topics
	if got[0].ErrorCode != 0 || broker.Code(got[1].ErrorCode) != broker.UnknownTopicOrPartition {
		t.Errorf("by name: %+v", got)
	}
	byID := kmsg.NewPtrDeleteTopicsRequest()
	byID.Version = 6
	byID.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: id}, {TopicID: broker.TopicID{9}}, {}, {TopicID: id, Topic: kmsg.StringPtr("by-id")}}
	got = ask[*kmsg.DeleteTopicsResponse](c, byID).Topics
	want := []broker.Code{broker.None, broker.UnknownTopicID, broker.InvalidRequest, broker.InvalidRequest}
	for i, rt := range got {
		if broker.Code(rt.ErrorCode) != want[i] {
			t.Errorf("by id, entry %d: code %d, want %d", i, rt.ErrorCode, want[i])
		}
	}
	if got[0].Topic == nil || *got[0].Topic != "by-id" {
		t.Error("a topic deleted by id is not named in the answer")
	}
}

func TestTransactionsGetAFatalCode(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	init := kmsg.NewPtrInitProducerIDRequest()
	init.Version, init.TransactionalID = 4, kmsg.StringPtr("tx")
	if got := ask[*kmsg.InitProducerIDResponse](c, init); broker.Code(got.ErrorCode) != broker.TransactionalIDAuthFailed || got.ProducerID != -1 {
		t.Errorf("init producer id: %+v", got)
	}
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.Version, find.CoordinatorType, find.CoordinatorKeys = 4, 1, []string{"tx"}
	if got := ask[*kmsg.FindCoordinatorResponse](c, find).Coordinators[0]; broker.Code(got.ErrorCode) != broker.TransactionalIDAuthFailed {
		t.Errorf("find coordinator: %+v", got)
	}
	produce := produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, "x"))
	produce.TransactionID = kmsg.StringPtr("tx")
	if got := ask[*kmsg.ProduceResponse](c, produce).Topics[0].Partitions[0]; broker.Code(got.ErrorCode) != broker.TransactionalIDAuthFailed {
		t.Errorf("produce: %+v", got)
	}
}

func TestProducerIDsAreNeverGivenOutTwice(t *testing.T) {
	f := newFace(t, nil)
	address := f.serveTCP()
	const conns, each = 4, 300 // more than one block of a thousand
	ids := make(chan int64, conns*each)
	done := make(chan struct{}, conns)
	for range conns {
		c := dialRaw(t, address)
		go func() {
			defer func() { done <- struct{}{} }()
			for range each {
				got := ask[*kmsg.InitProducerIDResponse](c, kmsg.NewPtrInitProducerIDRequest())
				if got.ErrorCode != 0 || got.ProducerEpoch != 0 {
					t.Errorf("init producer id: %+v", got)
				}
				ids <- got.ProducerID
			}
		}()
	}
	for range conns {
		<-done
	}
	close(ids)
	seen := make(map[int64]bool)
	for id := range ids {
		if seen[id] {
			t.Fatalf("producer id %d was given out twice", id)
		}
		seen[id] = true
	}
}

func TestListOffsetsAnswersEverySpecialTime(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	latest := func(at int64) kmsg.ListOffsetsResponseTopicPartition {
		return ask[*kmsg.ListOffsetsResponse](c, listRequest("orders", at)).Topics[0].Partitions[0]
	}
	if got := latest(timeMax); got.Offset != -1 || got.ErrorCode != 0 {
		t.Errorf("max timestamp of an empty log: %+v", got)
	}
	produced(t, c, "orders", makeBatch(t, batch.None, "a", "b", "c")) // at 1000, 1001, 1002
	produced(t, c, "orders", makeBatch(t, batch.None, "d"))           // at 1000
	f.log("orders", 0).start = 1
	for at, want := range map[int64][2]int64{
		timeLatest: {4, -1}, timeEarliest: {1, -1}, timeMax: {2, 1002}, timeEarliestLocal: {1, -1}, timeLatestTiered: {-1, -1},
		0: {0, 1000}, 1001: {1, 1001}, 1002: {2, 1002}, 1003: {-1, -1},
	} {
		if got := latest(at); got.ErrorCode != 0 || got.Offset != want[0] || got.Timestamp != want[1] {
			t.Errorf("timestamp %d: offset %d at %d, code %d; want %v", at, got.Offset, got.Timestamp, got.ErrorCode, want)
		}
	}
	for _, at := range []int64{-7, timeEarliestTier} { // -6 comes with version 11
		if got := latest(at); broker.Code(got.ErrorCode) != broker.UnsupportedVersion {
			t.Errorf("timestamp %d: %+v", at, got)
		}
	}
	early := listRequest("orders", timeMax)
	early.Version = 6
	if got := ask[*kmsg.ListOffsetsResponse](c, early).Topics[0].Partitions[0]; broker.Code(got.ErrorCode) != broker.UnsupportedVersion || got.Offset != -1 {
		t.Errorf("max timestamp in version 6: %+v", got)
	}
}

func synonyms(all []kmsg.DescribeConfigsResponseResourceConfigConfigSynonym) (places []string) {
	for _, s := range all {
		places = append(places, fmt.Sprintf("%d:%s=%s", s.Source, s.Name, *s.Value))
	}
	return places
}

func TestDescribeConfigsTellsWhereValuesComeFrom(t *testing.T) {
	f := newFace(t, func(c *Config) {
		c.BrokerConfigs = []BrokerConfig{{Name: "log.retention.ms", Value: "777", Type: metadata.ConfigLong, Doc: "of records"}}
	})
	f.addTopic("orders", 1)
	f.fold(configFact("orders", "retention.ms", "1234"))
	c := dialRaw(t, f.serveTCP())
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Version, req.IncludeSynonyms, req.IncludeDocumentation = 4, true, true
	req.Resources = []kmsg.DescribeConfigsRequestResource{
		{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "orders", ConfigNames: []string{"retention.ms", "cleanup.policy"}},
		{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "absent"},
		{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: "1"},
		{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: "2"},
	}
	got := ask[*kmsg.DescribeConfigsResponse](c, req).Resources
	sources := make(map[string]kmsg.ConfigSource)
	places := make(map[string]string)
	for _, config := range got[0].Configs {
		sources[config.Name+"="+*config.Value] = config.Source
		if config.Documentation == nil {
			t.Errorf("config %s lacks documentation", config.Name)
		}
		places[config.Name] = fmt.Sprint(synonyms(config.ConfigSynonyms))
	}
	if at := slices.IndexFunc(got[2].Configs, func(c kmsg.DescribeConfigsResponseResourceConfig) bool {
		return c.Documentation != nil && *c.Documentation == "of records"
	}); at < 0 || got[2].Configs[at].Name != "log.retention.ms" {
		t.Errorf("no config of the broker is documented: %+v", got[2].Configs)
	}
	if len(sources) != 2 || sources["retention.ms=1234"] != kmsg.ConfigSourceDynamicTopicConfig || sources["cleanup.policy=delete"] != kmsg.ConfigSourceDefaultConfig {
		t.Errorf("topic configs %v", sources)
	}
	for name, want := range map[string]string{
		"retention.ms": "[1:retention.ms=1234 4:log.retention.ms=777 5:retention.ms=604800000]", "cleanup.policy": "[5:cleanup.policy=delete]",
	} {
		if places[name] != want {
			t.Errorf("%s can come from %s, want %s", name, places[name], want)
		}
	}
	if broker.Code(got[1].ErrorCode) != broker.UnknownTopicOrPartition {
		t.Errorf("absent topic: code %d", got[1].ErrorCode)
	}
	names := func(config kmsg.DescribeConfigsResponseResourceConfig) bool {
		return config.Name == "socket.request.max.bytes" && config.ReadOnly
	}
	if !slices.ContainsFunc(got[2].Configs, names) {
		t.Errorf("broker configs: %+v", got[2])
	}
	if broker.Code(got[3].ErrorCode) != broker.InvalidRequest {
		t.Errorf("another broker's configs: code %d", got[3].ErrorCode)
	}
}

func TestOffsetCommitRefusesPartitionsOneByOne(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 2)
	c := dialRaw(t, f.serveTCP())
	long := strings.Repeat("m", offsetMetadataBytesMax+1)
	for _, version := range []int16{2, 8, 10} {
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Version, req.Group, req.Generation = version, "group", -1
		req.Topics = []kmsg.OffsetCommitRequestTopic{
			{Topic: "orders", TopicID: id, Partitions: []kmsg.OffsetCommitRequestTopicPartition{
				{Partition: 0, Offset: 7, Metadata: kmsg.StringPtr("note")}, {Partition: 1, Offset: 8, Metadata: &long}, {Partition: 2, Offset: 9},
			}},
			{Topic: "absent", TopicID: broker.TopicID{9}, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 0}}},
		}
		unknown := broker.UnknownTopicOrPartition
		if version >= 10 {
			unknown = broker.UnknownTopicID
		}
		want := [][]broker.Code{{broker.None, broker.OffsetMetadataTooLarge, broker.UnknownTopicOrPartition}, {unknown}}
		for i, rt := range ask[*kmsg.OffsetCommitResponse](c, req).Topics {
			for j, p := range rt.Partitions {
				if broker.Code(p.ErrorCode) != want[i][j] {
					t.Errorf("version %d: topic %d partition %d: code %d, want %d", version, i, j, p.ErrorCode, want[i][j])
				}
			}
		}
		if stored := f.groups.offsets["group"]; len(stored) != 1 || stored[0].Offset != 7 || stored[0].Metadata != "note" {
			t.Errorf("version %d: stored %+v", version, stored)
		}
		delete(f.groups.offsets, "group")
	}
}

func TestOffsetFetchSpeaksEveryForm(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 2)
	f.groups.offsets["group"] = []FetchedOffset{
		{NamedPartition: named("orders", 1), Offset: 7, LeaderEpoch: 3, Metadata: "note"}, {NamedPartition: named("gone", 0), Offset: 1},
	}
	c := dialRaw(t, f.serveTCP())
	one := kmsg.NewPtrOffsetFetchRequest()
	one.Version, one.Group = 5, "group"
	one.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "orders", Partitions: []int32{0, 1}}}
	got := ask[*kmsg.OffsetFetchResponse](c, one).Topics
	if p := got[0].Partitions; p[0].Offset != -1 || p[0].ErrorCode != 0 || p[1].Offset != 7 || p[1].LeaderEpoch != 3 || *p[1].Metadata != "note" {
		t.Errorf("two partitions: %+v", got)
	}
	one.Topics = nil
	if got := ask[*kmsg.OffsetFetchResponse](c, one).Topics; len(got) != 2 {
		t.Errorf("all partitions: %+v", got)
	}
	many := kmsg.NewPtrOffsetFetchRequest()
	many.Version = 10
	many.Groups = []kmsg.OffsetFetchRequestGroup{
		{Group: "group"}, {Group: "group", Topics: []kmsg.OffsetFetchRequestGroupTopic{
			{TopicID: id, Partitions: []int32{1}}, {TopicID: broker.TopicID{9}, Partitions: []int32{0}},
		}},
	}
	groups := ask[*kmsg.OffsetFetchResponse](c, many).Groups
	if all := groups[0].Topics; len(all) != 1 || all[0].TopicID != id || all[0].Partitions[0].Offset != 7 {
		t.Errorf("all partitions by id: %+v", groups[0])
	}
	if some := groups[1].Topics; some[0].Partitions[0].Offset != 7 || broker.Code(some[1].Partitions[0].ErrorCode) != broker.UnknownTopicID {
		t.Errorf("partitions by id: %+v", groups[1])
	}
	f.groups.err = broker.NotCoordinator
	for version, where := range map[int16]func(*kmsg.OffsetFetchResponse) int16{
		1:  func(r *kmsg.OffsetFetchResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode },
		2:  func(r *kmsg.OffsetFetchResponse) int16 { return r.ErrorCode },
		10: func(r *kmsg.OffsetFetchResponse) int16 { return r.Groups[0].ErrorCode },
	} {
		many.Version, many.Group = version, "group"
		many.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
		if code := broker.Code(where(ask[*kmsg.OffsetFetchResponse](c, many))); code != broker.NotCoordinator {
			t.Errorf("version %d: code %d, want NOT_COORDINATOR", version, code)
		}
	}
}

func TestGroupsAreListedDescribedAndLeft(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	list := kmsg.NewPtrListGroupsRequest()
	list.Version, list.StatesFilter, list.TypesFilter = 5, []string{"stable"}, []string{"Classic"}
	if got := ask[*kmsg.ListGroupsResponse](c, list).Groups; len(got) != 1 || got[0].Group != "g" || got[0].GroupType != "classic" {
		t.Errorf("stable groups: %+v", got)
	}
	list.TypesFilter = []string{"consumer"}
	if got := ask[*kmsg.ListGroupsResponse](c, list).Groups; len(got) != 0 {
		t.Errorf("stable groups of another type: %+v", got)
	}
	list.StatesFilter = []string{"Reconciling"}
	if got := ask[*kmsg.ListGroupsResponse](c, list).Groups; len(got) != 1 || got[0].GroupType != "consumer" || got[0].ProtocolType != "consumer" {
		t.Errorf("consumer groups: %+v", got)
	}
	for version, want := range map[int16]broker.Code{5: broker.None, 6: broker.GroupIDNotFound} {
		describe := kmsg.NewPtrDescribeGroupsRequest()
		describe.Version, describe.Groups = version, []string{"g", "absent"}
		got := ask[*kmsg.DescribeGroupsResponse](c, describe).Groups
		if got[0].State != "Stable" || *got[0].Members[0].InstanceID != "i" {
			t.Errorf("version %d: %+v", version, got[0])
		}
		if got[1].State != "Dead" || broker.Code(got[1].ErrorCode) != want {
			t.Errorf("version %d: absent group is %q with code %d, want code %d", version, got[1].State, got[1].ErrorCode, want)
		}
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Version, leave.Group, leave.MemberID = 2, "g", "m"
	ask[*kmsg.LeaveGroupResponse](c, leave)
	leave.Version, leave.Members = 3, []kmsg.LeaveGroupRequestMember{{MemberID: "n", InstanceID: kmsg.StringPtr("i")}}
	if got := ask[*kmsg.LeaveGroupResponse](c, leave).Members; len(got) != 1 || *got[0].InstanceID != "i" {
		t.Errorf("leave: %+v", got)
	}
	if len(f.groups.left) != 2 || f.groups.left[0].MemberID != "m" || f.groups.left[1].InstanceID != "i" {
		t.Errorf("the coordinator saw %+v leave", f.groups.left)
	}
}
