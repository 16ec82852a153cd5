package kafka

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/broker/metadata"
)

func TestT4GroupVersionIsFinalizedAndLeftOutWhereItsMinimumWouldBeAnError(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	for version, supported := range map[int16]int{3: 0, 4: 1} {
		req := kmsg.NewPtrApiVersionsRequest()
		req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = version, "test", "1"
		got := ask[*kmsg.ApiVersionsResponse](c, req)
		if len(got.SupportedFeatures) != supported || len(got.FinalizedFeatures) != 1 ||
			got.FinalizedFeatures[0].Name != "group.version" || got.FinalizedFeatures[0].MaxVersionLevel != 1 || got.FinalizedFeaturesEpoch < 0 {
			t.Errorf("version %d: supported %+v, finalized %+v", version, got.SupportedFeatures, got.FinalizedFeatures)
		}
	}
	for level, want := range map[int16]broker.Code{1: broker.None, 0: broker.InvalidUpdateVersion} {
		update := kmsg.NewPtrUpdateFeaturesRequest()
		update.Version, update.FeatureUpdates = 1, []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: "group.version", MaxVersionLevel: level}}
		if got := ask[*kmsg.UpdateFeaturesResponse](c, update); broker.Code(got.ErrorCode) != want {
			t.Errorf("to level %d: %+v", level, got)
		}
	}
}

func TestAConsumerHeartbeatSaysWhatChangedAndNothingElse(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	short := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	short.Version, short.Group, short.MemberID, short.MemberEpoch = 1, "g", "m", 4
	if got := ask[*kmsg.ConsumerGroupHeartbeatResponse](c, short); got.ErrorCode != 0 || got.Assignment != nil || got.HeartbeatIntervalMillis != 5000 {
		t.Errorf("answered %+v", got)
	}
	one, two := broker.TopicID{1}, broker.TopicID{2}
	full := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	full.Version, full.Group, full.MemberID, full.RebalanceTimeoutMillis = 1, "g", "m", 6000
	full.InstanceID, full.ServerAssignor, full.SubscribedTopicRegex = kmsg.StringPtr("i"), kmsg.StringPtr("range"), kmsg.StringPtr("a.*")
	full.SubscribedTopicNames = []string{"b"}
	full.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{{TopicID: one, Partitions: []int32{0, 2}}, {TopicID: two, Partitions: []int32{1}}}
	got := ask[*kmsg.ConsumerGroupHeartbeatResponse](c, full)
	if got.Assignment == nil || len(got.Assignment.Topics) != 2 || !slices.Equal(got.Assignment.Topics[0].Partitions, []int32{0, 2}) ||
		broker.TopicID(got.Assignment.Topics[1].TopicID) != two || *got.MemberID != "m" {
		t.Errorf("answered %+v", got)
	}
	saw := f.groups.beats
	if r := saw[0]; r.By != (group.Principal{Name: Anonymous, Host: "127.0.0.1"}) || r.Owned.Known || r.RebalanceTimeoutMs != -1 || r.Names != nil || r.Regex != nil || r.Assignor != nil || r.MemberEpoch != 4 || !r.MemberIDRequired {
		t.Errorf("the coordinator saw %+v", r)
	}
	if r := saw[1]; len(r.Owned.Partitions) != 3 || r.RebalanceTimeoutMs != 6000 || !slices.Equal(r.Names, []string{"b"}) || *r.Regex != "a.*" ||
		*r.Assignor != "range" || *r.InstanceID != "i" {
		t.Errorf("the coordinator saw %+v", r)
	}
	f.groups.err = broker.Errorf(broker.FencedMemberEpoch, "join again")
	if got := ask[*kmsg.ConsumerGroupHeartbeatResponse](c, short); broker.Code(got.ErrorCode) != broker.FencedMemberEpoch || *got.ErrorMessage != "join again" {
		t.Errorf("answered %+v", got)
	}
}

func TestConsumerGroupsAreDescribed(t *testing.T) {
	f := newFace(t, nil)
	orders := f.addTopic("orders", 2)
	f.groups.members848 = []group.ConsumerMember{{
		MemberID: "m", Epoch: 2, Subscription: group.Subscription{InstanceID: "i", Names: []string{"orders"}, ClientID: "app"},
		Assigned: []broker.TopicPartition{{Topic: orders, Partition: 1}, {Topic: broker.TopicID{99}, Partition: 0}},
		Target:   []broker.TopicPartition{{Topic: orders, Partition: 0}, {Topic: orders, Partition: 1}},
	}}
	c := dialRaw(t, f.serveTCP())
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Version, req.Groups = 1, []string{"c", "g"}
	got := ask[*kmsg.ConsumerGroupDescribeResponse](c, req).Groups
	if broker.Code(got[1].ErrorCode) != broker.GroupIDNotFound {
		t.Errorf("a classic group is described as %+v", got[1])
	}
	if d := got[0]; d.State != "Reconciling" || d.Epoch != 3 || d.AssignmentEpoch != 2 || d.AssignorName != "uniform" || len(d.Members) != 1 {
		t.Fatalf("described as %+v", d)
	}
	m := got[0].Members[0]
	if m.MemberEpoch != 2 || *m.InstanceID != "i" || *m.SubscribedTopicRegex != "" || m.MemberType != 1 || m.ClientID != "app" {
		t.Errorf("the member is %+v", m)
	}
	if a := m.Assignment.TopicPartitions; len(a) != 1 || a[0].Topic != "orders" || !slices.Equal(a[0].Partitions, []int32{1}) {
		t.Errorf("it has %+v", a)
	}
	if a := m.TargetAssignment.TopicPartitions; len(a) != 1 || !slices.Equal(a[0].Partitions, []int32{0, 1}) {
		t.Errorf("its target is %+v", a)
	}
}

func TestAGroupsConfigsAreItsOwnTheBrokersOrTheDefaultWithinTheBrokersLimits(t *testing.T) {
	f := newFace(t, func(c *Config) {
		number := func(name, value string) BrokerConfig {
			return BrokerConfig{Name: name, Value: value, Type: metadata.ConfigInt}
		}
		c.BrokerConfigs = []BrokerConfig{
			number("group.consumer.heartbeat.interval.ms", "3000"), number("group.consumer.min.session.timeout.ms", "6000"),
			number("group.consumer.max.session.timeout.ms", "9000"),
		}
	})
	c := dialRaw(t, f.serveTCP())
	kind := kmsg.ConfigResourceTypeGroupConfig
	for value, want := range map[string]broker.Code{"5999": broker.InvalidConfig, "9001": broker.InvalidConfig, "7000": broker.None} {
		req := alterRequest(1, kind, "g", edit{0, "consumer.session.timeout.ms", kmsg.StringPtr(value)})
		if got := ask[*kmsg.IncrementalAlterConfigsResponse](c, req).Resources[0]; broker.Code(got.ErrorCode) != want {
			t.Errorf("%s: code %d, want %d", value, got.ErrorCode, want)
		}
	}
	describe := kmsg.NewPtrDescribeConfigsRequest()
	describe.Version, describe.IncludeSynonyms = 4, true
	describe.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kind, ResourceName: "g"}}
	got := ask[*kmsg.DescribeConfigsResponse](c, describe).Resources[0].Configs
	if len(got) != 2 || *got[0].Value != "3000" || got[0].Source != kmsg.ConfigSourceStaticBrokerConfig ||
		*got[1].Value != "7000" || got[1].Source != kmsg.ConfigSourceGroupConfig || len(got[1].ConfigSynonyms) != 2 {
		t.Errorf("described as %+v", got)
	}
	list := kmsg.NewPtrListConfigResourcesRequest()
	list.Version, list.ResourceTypes = 1, []int8{int8(kind)}
	if got := ask[*kmsg.ListConfigResourcesResponse](c, list).ConfigResources; len(got) != 1 || got[0].Name != "g" {
		t.Errorf("listed %+v", got)
	}
	remove := alterRequest(1, kind, "g", edit{1, "consumer.session.timeout.ms", nil})
	ask[*kmsg.IncrementalAlterConfigsResponse](c, remove)
	if got := ask[*kmsg.ListConfigResourcesResponse](c, list).ConfigResources; len(got) != 0 {
		t.Errorf("listed %+v after it is gone", got)
	}
}
