package kafka

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
)

// TestX9UnauthorisedTopicsLookLikeUnknownOnes compares what a user who may do nothing hears of a topic that exists with
// what it hears of one that does not.
func TestX9UnauthorisedTopicsLookLikeUnknownOnes(t *testing.T) {
	g := newGuarded(t, nil)
	g.addTopic("taken", 1)
	g.give(allowed("elsewhere", onTopic(metadata.OperationAll)), allowed("", onCluster(metadata.OperationAlter)),
		allowed("", onCluster(metadata.OperationDescribe)), allowed("", onCluster(metadata.OperationDescribeConfigs)))
	for _, row := range matrix {
		if accesses[row.key].topic == 0 {
			continue
		}
		c := g.dial("alice")
		for version := row.min; version <= row.max; version++ {
			heard := map[string]string{}
			for _, name := range []string{"taken", "gone."} {
				req := g.request(row.key, version, name, broker.TopicID{})
				heard[name] = strings.ReplaceAll(shown(t, c.receive(req, c.send(req))), name, "?")
			}
			if heard["taken"] != heard["gone."] {
				t.Errorf("%s version %d\n%s\n%s", row.name, version, heard["taken"], heard["gone."])
			}
		}
	}
}

func TestX9TopicIDsOfOthersDoNotGiveTheirNamesAway(t *testing.T) {
	g := newGuarded(t, nil)
	id := g.addTopic("secret-name", 1)
	c := g.dial("alice")
	for key, versions := range map[int16][]int16{keyMetadata: {12, 13}, keyFetch: {13, 18}, keyProduce: {13}, keyOffsetCommit: {10}, keyDeleteTopics: {6}} {
		for _, version := range versions {
			req := g.request(key, version, "", id)
			if m, ok := req.(*kmsg.MetadataRequest); ok {
				m.Topics[0].Topic = nil
			}
			text := shown(t, c.receive(req, c.send(req)))
			if strings.Contains(text, "secret-name") || !strings.Contains(text, `"ErrorCode":29`) && key != keyOffsetCommit {
				t.Errorf("api %d version %d: %s", key, version, text)
			}
		}
	}
}

func TestListsShowWhatMayBeSeen(t *testing.T) {
	g := newGuarded(t, nil)
	base := g.addTopic("hidden", 1)
	g.addTopic("mine", 1)
	g.addView("view-of-hidden", base, g.bind("", base, nil))
	g.addView("other-view", base, g.bind("other", base, nil))
	g.give(allowed("mine", onTopic(metadata.OperationRead)), allowed("view-of-hidden", onTopic(metadata.OperationDescribe)))
	c := g.dial("alice")
	all := kmsg.NewPtrMetadataRequest()
	all.Version = 9
	for _, req := range []kmsg.Request{all, kmsg.NewPtrDescribeTopicPartitionsRequest()} {
		text := shown(t, c.receive(req, c.send(req)))
		if strings.Contains(text, `"hidden"`) || strings.Contains(text, "other-view") || !strings.Contains(text, `"mine"`) || !strings.Contains(text, "view-of-hidden") {
			t.Errorf("%T: %s", req, text)
		}
	}
}

func fetched1(t *testing.T, c *rawConn, req *kmsg.FetchRequest) broker.Code {
	t.Helper()
	resp := ask[*kmsg.FetchResponse](c, req)
	return broker.Code(resp.Topics[0].Partitions[0].ErrorCode)
}

// TestX9AViewIsReadByItsOwnRules: reading a view takes a rule on the view, and no rule on its base.
func TestX9AViewIsReadByItsOwnRules(t *testing.T) {
	g := newGuarded(t, nil)
	base := g.addTopic("orders", 1)
	g.addView("clean", base, g.bind("", base, func(broker.Offset) bool { return false }))
	c := g.dial("alice")
	g.give(allowed("clean", onTopic(metadata.OperationRead)))
	if code := fetched1(t, c, fetchRequest(11, "clean", broker.TopicID{}, 0)); code != broker.None {
		t.Errorf("the view: error %d", code)
	}
	if code := fetched1(t, c, fetchRequest(11, "orders", broker.TopicID{}, 0)); code != broker.TopicAuthorizationFailed {
		t.Errorf("its base: error %d", code)
	}
	g.give(allowed("orders", onTopic(metadata.OperationRead)))
	if code := fetched1(t, c, fetchRequest(11, "clean", broker.TopicID{}, 0)); code != broker.TopicAuthorizationFailed {
		t.Errorf("the view with a rule on its base: error %d", code)
	}
}

// TestX9AGroupsChainTakesReadOnTheGroup: the rack names a group, and proves nothing.
func TestX9AGroupsChainTakesReadOnTheGroup(t *testing.T) {
	g := newGuarded(t, nil)
	g.bind("billing", g.addTopic("orders", 1), func(broker.Offset) bool { return false })
	c := g.dial("alice")
	ask := func(rack string) broker.Code {
		req := fetchRequest(11, "orders", broker.TopicID{}, 0)
		req.Rack = rack
		return fetched1(t, c, req)
	}
	g.give(allowed("orders", onTopic(metadata.OperationRead)))
	if code := ask("group=billing"); code != broker.GroupAuthorizationFailed {
		t.Errorf("another's chain: error %d", code)
	}
	if code := ask(""); code != broker.None {
		t.Errorf("the log itself: error %d", code)
	}
	g.give(allowed("orders", onTopic(metadata.OperationRead)), allowed("billing", onGroup(metadata.OperationRead)))
	if code := ask("group=billing"); code != broker.None {
		t.Errorf("the group's own: error %d", code)
	}
}

func TestX9InternalTopicsTakeClusterAction(t *testing.T) {
	g := newGuarded(t, nil)
	c := g.dial("alice")
	find := g.request(keyFindCoordinator, 0, "billing", broker.TopicID{}) // makes the offsets topic
	g.give(allowed("billing", onGroup(metadata.OperationDescribe)), allowed(metadata.AnyName, onTopic(metadata.OperationRead)))
	c.receive(find, c.send(find))
	if _, there := g.Image().TopicNamed(broker.OffsetsTopic); !there {
		t.Fatal("no offsets topic")
	}
	if code := fetched1(t, c, fetchRequest(11, broker.OffsetsTopic, broker.TopicID{}, 0)); code != broker.TopicAuthorizationFailed {
		t.Errorf("with a rule on every topic: error %d", code)
	}
	g.give(allowed(metadata.AnyName, onTopic(metadata.OperationRead)), allowed("", onCluster(metadata.OperationClusterAction)))
	if code := fetched1(t, c, fetchRequest(11, broker.OffsetsTopic, broker.TopicID{}, 0)); code != broker.None {
		t.Errorf("with ClusterAction: error %d", code)
	}
}

// TestX6NobodyReplicatesThroughTheClientListener: not even who may do everything.
func TestX6NobodyReplicatesThroughTheClientListener(t *testing.T) {
	g := newGuarded(t, nil)
	g.addTopic("orders", 1)
	c := g.dial("root")
	req := fetchRequest(11, "orders", broker.TopicID{}, 0)
	req.ReplicaID = 2
	if code := fetched1(t, c, req); code != broker.ClusterAuthorizationFailed {
		t.Errorf("error %d", code)
	}
}

// TestX8AParkedFetchIsAskedAgain takes the permission back while a Fetch waits for records.
func TestX8AParkedFetchIsAskedAgain(t *testing.T) {
	g := newGuarded(t, nil)
	g.addTopic("orders", 1)
	g.give(allowed("orders", onTopic(metadata.OperationRead)))
	c := g.dial("alice")
	req := fetchRequest(11, "orders", broker.TopicID{}, 0)
	req.MinBytes, req.MaxWaitMillis = 1, 15_000
	correlation := c.send(req)
	log := g.log("orders", 0)
	waitUntil(t, "the Fetch is parked", func() bool {
		log.mu.Lock()
		defer log.mu.Unlock()
		return len(log.watchers) > 0
	})
	g.give()
	log.Submit(Append{Batches: makeBatch(t, batch.None, "after the fact"), Acks: 1}, func(Appended) {})
	resp := c.receive(req, correlation).(*kmsg.FetchResponse)
	if p := resp.Topics[0].Partitions[0]; broker.Code(p.ErrorCode) != broker.TopicAuthorizationFailed || len(p.RecordBatches) > 0 {
		t.Errorf("error %d with %d bytes", p.ErrorCode, len(p.RecordBatches))
	}
}

func TestSuperUsersAndUnruledResources(t *testing.T) {
	for _, tc := range []struct {
		name, user string
		unruled    bool
		rules      []metadata.AccessRule
		want       broker.Code
	}{
		{"no rule", "alice", false, nil, broker.TopicAuthorizationFailed},
		{"no rule, and that is allowed", "alice", true, nil, broker.None},
		{"a rule for another, and that is allowed", "alice", true, []metadata.AccessRule{{
			ResourcePattern: metadata.ResourcePattern{Resource: metadata.AccessTopic, Pattern: metadata.PatternLiteral, Name: "orders"},
			Principal:       "User:bob", Host: metadata.AnyName, Operation: metadata.OperationRead, Permission: metadata.PermissionAllow,
		}}, broker.TopicAuthorizationFailed},
		{"a superuser", "root", false, nil, broker.None},
		{"a superuser who is denied", "root", false, []metadata.AccessRule{{
			ResourcePattern: metadata.ResourcePattern{Resource: metadata.AccessTopic, Pattern: metadata.PatternLiteral, Name: "orders"},
			Principal:       metadata.AnyUser, Host: metadata.AnyName, Operation: metadata.OperationAll, Permission: metadata.PermissionDeny,
		}}, broker.None},
	} {
		g := newGuarded(t, func(c *Config) { c.Authorizer.AllowUnlessRuled = tc.unruled })
		g.addTopic("orders", 1)
		g.give(tc.rules...)
		if code := fetched1(t, g.dial(tc.user), fetchRequest(11, "orders", broker.TopicID{}, 0)); code != tc.want {
			t.Errorf("%s: error %d, want %d", tc.name, code, tc.want)
		}
	}
}

// TestEitherOfTwoPermissionsMayDo goes through the requests that Kafka allows for one of two reasons.
func TestEitherOfTwoPermissionsMayDo(t *testing.T) {
	g := newGuarded(t, nil)
	c := g.dial("alice")
	for _, tc := range []struct {
		key   int16
		needs need
	}{
		{keyCreateTopics, onTopic(metadata.OperationCreate)},
		{keyInitProducerID, onTopic(metadata.OperationWrite)},
		{keyListGroups, onCluster(metadata.OperationDescribe)},
	} {
		g.give(allowed("g", tc.needs))
		row, _ := lookup(tc.key)
		req := g.request(tc.key, row.max, "g", broker.TopicID{})
		text := shown(t, c.receive(req, c.send(req)))
		for _, refused := range []string{`"ErrorCode":29`, `"ErrorCode":31`} {
			if strings.Contains(text, refused) {
				t.Errorf("%s: %s", row.name, text)
			}
		}
		if tc.key == keyListGroups && !strings.Contains(text, `"h"`) {
			t.Errorf("%s shows not all: %s", row.name, text)
		}
	}
}

func TestConfigsOfBrokersAndGroupsTakeTheirOwnPermissions(t *testing.T) {
	g := newGuarded(t, nil)
	c := g.dial("alice")
	for kind, tc := range map[kmsg.ConfigResourceType]struct {
		name  string
		needs need
		code  broker.Code
	}{
		kmsg.ConfigResourceTypeBroker:      {"1", onCluster(metadata.OperationDescribeConfigs), broker.ClusterAuthorizationFailed},
		kmsg.ConfigResourceTypeGroupConfig: {"g", onGroup(metadata.OperationDescribeConfigs), broker.GroupAuthorizationFailed},
	} {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.Version = 1
		resource := kmsg.NewDescribeConfigsRequestResource()
		resource.ResourceType, resource.ResourceName = kind, tc.name
		req.Resources = append(req.Resources, resource)
		for _, may := range []bool{false, true} {
			want := tc.code
			g.give()
			if may {
				g.give(allowed(tc.name, tc.needs))
				want = broker.None
			}
			if got := broker.Code(ask[*kmsg.DescribeConfigsResponse](c, req).Resources[0].ErrorCode); got != want {
				t.Errorf("resource type %d, allowed %v: error %d, want %d", kind, may, got, want)
			}
		}
	}
}

// TestRulesCountFromTheNextRequestOn asks often enough to pass the number of answers that a session keeps.
func TestRulesCountFromTheNextRequestOn(t *testing.T) {
	g := newGuarded(t, nil)
	g.addTopic("orders", 1)
	c := g.dial("alice")
	for round := range 3 {
		for _, may := range []bool{true, false} {
			g.give()
			want := broker.TopicAuthorizationFailed
			if may {
				g.give(allowed("orders", onTopic(metadata.OperationRead)))
				want = broker.None
			}
			if code := fetched1(t, c, fetchRequest(11, "orders", broker.TopicID{}, 0)); code != want {
				t.Fatalf("round %d, allowed %v: error %d", round, may, code)
			}
		}
	}
	s := &session{Server: g.server, authentication: authentication{principal: "User:alice"}, conn: c.Conn}
	for i := range 3 * answersMax {
		s.may(metadata.OperationRead, metadata.AccessTopic, itoa(int32(i)))
	}
	if len(s.answers.known) > answersMax {
		t.Errorf("%d answers are kept", len(s.answers.known))
	}
}
