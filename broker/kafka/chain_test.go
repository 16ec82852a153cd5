package kafka

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/controller"
)

// odd drops what lies at an odd offset.
func odd(o broker.Offset) bool { return o%2 == 1 }

// even drops what lies at an even offset.
func even(o broker.Offset) bool { return o%2 == 0 }

func TestGroupBehindAFetchIsResolvedByViewThenPreambleThenRack(t *testing.T) {
	f := newFakeCluster(t)
	topic := f.addTopic("orders", 1)
	viewed := f.bind("viewed", topic, odd)
	spoken := f.bind("spoken", topic, odd)
	racked := f.bind("racked", topic, odd)
	f.addView("orders-view", topic, viewed)
	preamble := func(group string, require bool) *adminapi.Preamble {
		return &adminapi.Preamble{Group: group, RequireChain: require}
	}
	for name, tc := range map[string]struct {
		topic    string
		preamble *adminapi.Preamble
		rack     string
		want     chain
		code     broker.Code
	}{
		"nobody":                          {topic: "orders"},
		"a rack alone":                    {topic: "orders", rack: "eu-1"},
		"a view":                          {topic: "orders-view", want: chain{binding: viewed, view: true}},
		"a view before preamble and rack": {topic: "orders-view", preamble: preamble("spoken", true), rack: "group=racked", want: chain{binding: viewed, view: true}},
		"preamble":                        {topic: "orders", preamble: preamble("spoken", false), want: chain{binding: spoken, group: "spoken"}},
		"preamble before rack":            {topic: "orders", preamble: preamble("spoken", false), rack: "group=racked", want: chain{binding: spoken, group: "spoken"}},
		"a preamble without a chain hides a rack": {topic: "orders", preamble: preamble("other", false), rack: "group=racked"},
		"a preamble without a group does not":     {topic: "orders", preamble: preamble("", false), rack: "group=racked", want: chain{binding: racked, group: "racked"}},
		"rack":                                    {topic: "orders", rack: "group=racked", want: chain{binding: racked, group: "racked"}},
		"rack behind a rack":                      {topic: "orders", rack: "eu-1;group=racked", want: chain{binding: racked, group: "racked"}},
		"a rack that only ends so":                {topic: "orders", rack: "nogroup=racked"},
		"an unbound group":                        {topic: "orders", rack: "group=other"},
		"require chain, unmet":                    {topic: "orders", preamble: preamble("other", true), code: broker.PolicyViolation},
		"require chain, nobody":                   {topic: "orders", preamble: preamble("", true), code: broker.PolicyViolation},
		"require chain, met":                      {topic: "orders", preamble: preamble("spoken", true), want: chain{binding: spoken, group: "spoken"}},
	} {
		img := f.Image()
		target, code := findName(img, tc.topic)
		if code != broker.None {
			t.Fatal(code)
		}
		if got, code := resolveChain(img, target, tc.preamble, tc.rack); got != tc.want || code != tc.code {
			t.Errorf("%s: %+v, code %d; want %+v, code %d", name, got, code, tc.want, tc.code)
		}
	}
}

// tenOrders makes a topic with ten records in batches of their own, a binding of group billing that drops the odd ones,
// and a view of another binding that drops the even ones.
func tenOrders(t *testing.T, change func(*Config)) (f *face, topic, view broker.TopicID, address string) {
	t.Helper()
	f = newFace(t, change)
	topic = f.addTopic("orders", 1)
	f.bind("billing", topic, odd)
	view = f.addView("orders-view", topic, f.bind("", topic, even))
	address = f.serveTCP()
	c := dialRaw(t, address)
	for _, v := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"} {
		produced(t, c, "orders", makeBatch(t, batch.None, v))
	}
	return f, topic, view, address
}

func TestClientsReadTheirFilteredLog(t *testing.T) {
	f, _, _, address := tenOrders(t, nil)
	quic, overQUIC := f.serveQUIC(&adminapi.Preamble{Group: "billing", RequireChain: true})
	fromStart := kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())
	for name, tc := range map[string]struct {
		client *kgo.Client
		want   []string
	}{
		"raw":      {f.client(address, fromStart, kgo.ConsumeTopics("orders")), []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}},
		"rack":     {f.client(address, fromStart, kgo.ConsumeTopics("orders"), kgo.Rack("eu;group=billing")), []string{"0", "2", "4", "6", "8"}},
		"preamble": {f.client(quic, fromStart, kgo.ConsumeTopics("orders"), overQUIC), []string{"0", "2", "4", "6", "8"}},
		"view":     {f.client(address, fromStart, kgo.ConsumeTopics("orders-view")), []string{"1", "3", "5", "7", "9"}},
	} {
		if got := consumeValues(t, tc.client, len(tc.want)); !slices.Equal(got, tc.want) {
			t.Errorf("%s: consumed %q, want %q", name, got, tc.want)
		}
	}
}

// A Fetch of the group's own is parked while the group is bound. What comes then is the chain's to answer for.
func TestAFetchThatIsParkedWhileItsGroupIsBoundGetsNothingRaw(t *testing.T) {
	f := newFace(t, nil)
	topic := f.addTopic("orders", 1)
	address := f.serveTCP()
	c, producer := dialRaw(t, address), dialRaw(t, address)
	produced(t, producer, "orders", makeBatch(t, batch.None, "0"))
	req := fetchRequest(13, "", topic, 1)
	req.Rack, req.MinBytes, req.MaxWaitMillis = "group=billing", 1, 60_000
	correlation := c.send(req)
	log := f.log("orders", 0)
	waitUntil(t, "the Fetch is parked", func() bool {
		log.mu.Lock()
		defer log.mu.Unlock()
		return len(log.watchers) > 0
	})
	f.bind("billing", topic, odd)
	produced(t, producer, "orders", makeBatch(t, batch.None, "1"))
	if p := c.receive(req, correlation).(*kmsg.FetchResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || len(p.RecordBatches) > 0 {
		t.Errorf("error %d with %d bytes of what the chain drops", p.ErrorCode, len(p.RecordBatches))
	}
}

func TestRequireChainUnmetAnswersPolicyViolationForEveryPartition(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("plain", 2)
	quic, overQUIC := f.serveQUIC(&adminapi.Preamble{Group: "billing", RequireChain: true})
	client := f.client(quic, overQUIC)
	req := fetchRequest(13, "", id, 0, 0)
	resp, err := client.Broker(int(selfNode)).Request(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range resp.(*kmsg.FetchResponse).Topics[0].Partitions {
		if broker.Code(p.ErrorCode) != broker.PolicyViolation {
			t.Errorf("partition %d: code %d, want POLICY_VIOLATION", p.Partition, p.ErrorCode)
		}
	}
}

func TestFilteredEndsFollowTheKindOfReader(t *testing.T) {
	_, topic, view, address := tenOrders(t, nil)
	c := dialRaw(t, address)
	ends := func(id broker.TopicID, from int64, rack string) [2]int64 {
		req := fetchRequest(13, "", id, from)
		req.Rack = rack
		p := ask[*kmsg.FetchResponse](c, req).Topics[0].Partitions[0]
		if p.ErrorCode != 0 || len(p.RecordBatches) > 0 {
			t.Fatalf("fetch at %d: %+v", from, p)
		}
		return [2]int64{p.HighWatermark, p.LastStableOffset}
	}
	if got := ends(topic, 9, "group=billing"); got != [2]int64{9, 9} {
		t.Errorf("a group at 9 of 10, all judged: ends %v, want its own fetch offset", got)
	}
	if got := ends(view, 10, ""); got != [2]int64{10, 10} {
		t.Errorf("a view: ends %v, want 10", got)
	}
	for name, want := range map[string]int64{"orders": 10, "orders-view": 10} {
		if got := ask[*kmsg.ListOffsetsResponse](c, listRequest(name, -1)).Topics[0].Partitions[0].Offset; got != want {
			t.Errorf("latest of %s: %d, want %d", name, got, want)
		}
	}
	produced(t, c, "orders", makeBatch(t, batch.None, "10"))
	for name, want := range map[string]int64{"orders": 11, "orders-view": 10} {
		if got := ask[*kmsg.ListOffsetsResponse](c, listRequest(name, -1)).Topics[0].Partitions[0].Offset; got != want {
			t.Errorf("latest of %s with a record that its view drops: %d, want %d", name, got, want)
		}
	}
	if got := ends(view, 11, ""); got != [2]int64{10, 10} {
		t.Errorf("a view between its end and the base's: ends %v, want 10 and no error", got)
	}
}

func TestViewsAreTopicsToReadAndNothingElse(t *testing.T) {
	f, topic, view, address := tenOrders(t, nil)
	c := dialRaw(t, address)

	meta := kmsg.NewPtrMetadataRequest()
	meta.Version = 12
	meta.Topics = []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("orders-view")}, {TopicID: view}}
	got := ask[*kmsg.MetadataResponse](c, meta).Topics
	if len(got) != 1 || *got[0].Topic != "orders-view" || got[0].TopicID != view || got[0].IsInternal || len(got[0].Partitions) != 1 ||
		got[0].Partitions[0].Leader != int32(selfNode) {
		t.Errorf("metadata of a view, asked for twice: %+v", got)
	}
	meta.Topics = nil
	if all := ask[*kmsg.MetadataResponse](c, meta).Topics; len(all) != 2 {
		t.Errorf("all topics are %d, want the base and the view", len(all))
	}

	p := ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders-view", view, -1, makeBatch(t, batch.None, "x"))).Topics[0].Partitions[0]
	if broker.Code(p.ErrorCode) != broker.PolicyViolation || p.ErrorMessage == nil {
		t.Errorf("produce to a view: %+v", p)
	}

	create := kmsg.NewPtrCreateTopicsRequest()
	create.Version = 7
	create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "orders-view", NumPartitions: 1, ReplicationFactor: 1}}
	if code := broker.Code(ask[*kmsg.CreateTopicsResponse](c, create).Topics[0].ErrorCode); code != broker.TopicAlreadyExists {
		t.Errorf("create a topic named as a view: code %d", code)
	}
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.Version = 6
	remove.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: kmsg.StringPtr("orders-view")}, {TopicID: view}}
	for _, rt := range ask[*kmsg.DeleteTopicsResponse](c, remove).Topics {
		if broker.Code(rt.ErrorCode) != broker.PolicyViolation {
			t.Errorf("delete a view: %+v", rt)
		}
	}

	describe := kmsg.NewPtrDescribeConfigsRequest()
	describe.Version = 4
	describe.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "orders-view"}}
	configs := ask[*kmsg.DescribeConfigsResponse](c, describe).Resources[0].Configs
	if len(configs) != 1 || configs[0].Name != "millrace.view.of" || *configs[0].Value != "orders" || !configs[0].ReadOnly {
		t.Errorf("configs of a view: %+v", configs)
	}

	if end := ask[*kmsg.OffsetForLeaderEpochResponse](c, epochRequest("orders-view", -1, int32(f.log("orders", 0).epoch))).Topics[0].Partitions[0]; end.EndOffset != 10 {
		t.Errorf("leader epochs of a view end at %d, want the base's end", end.EndOffset)
	}
	at := ask[*kmsg.ListOffsetsResponse](c, listRequest("orders-view", 1000)).Topics[0].Partitions[0]
	if at.Offset != 0 || at.Timestamp != 1000 {
		t.Errorf("a time in a view: %+v, want the base's record", at)
	}

	if _, err := f.Submit(t.Context(), controller.DeleteTopic{ID: topic}); err != nil {
		t.Fatal(err)
	}
	if code := broker.Code(ask[*kmsg.FetchResponse](c, fetchRequest(12, "orders-view", view, 0)).Topics[0].Partitions[0].ErrorCode); code != broker.UnknownTopicOrPartition {
		t.Errorf("fetch from a view whose base is gone: code %d", code)
	}
}

func TestOffsetsOfAViewAreItsOwn(t *testing.T) {
	f, _, _, address := tenOrders(t, nil)
	client := f.client(address, kgo.ConsumerGroup("readers"), kgo.ConsumeTopics("orders-view"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	consumeValues(t, client, 5)
	if err := client.CommitUncommittedOffsets(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.groups.offsets["readers"]; len(got) != 1 || got[0].Topic != "orders-view" || got[0].Offset != 10 {
		t.Errorf("committed %+v, want offset 10 of the view", got)
	}
}

func TestH39GroupThatCommitsWithoutFetchingInItsNameRaisesAnAlarm(t *testing.T) {
	var alarm bypassAlarm
	const billing = broker.BindingID(7)
	at := time.UnixMilli(1_700_000_000_000)
	after := func(d time.Duration) bool { return alarm.sawCommit(billing, at.Add(d)) }
	if after(0) || after(bypassAfter-1) {
		t.Error("an alarm at once: a consumer that outlived its broker may commit before it fetches")
	}
	if !after(bypassAfter) {
		t.Error("no alarm although the group went by for so long")
	}
	if after(2 * bypassAfter) {
		t.Error("the alarm is raised twice")
	}
	alarm.sawFetch(billing)
	if after(3*bypassAfter) || after(5*bypassAfter) {
		t.Error("an alarm for a group that fetches in its own name")
	}
}

func TestH39CommitsOfUnboundGroupsAndFirstPositionsAreNoBypass(t *testing.T) {
	f, topic, _, address := tenOrders(t, nil)
	s := f.server
	c := dialRaw(t, address)
	commit := func(group string, offset int64) {
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Version, req.Group, req.Generation = 8, group, -1
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic = "orders"
		rt.Partitions = []kmsg.OffsetCommitRequestTopicPartition{{Offset: offset}}
		req.Topics = append(req.Topics, rt)
		ask[*kmsg.OffsetCommitResponse](c, req)
	}
	counted := func() int {
		s.bypass.mu.Lock()
		defer s.bypass.mu.Unlock()
		return len(s.bypass.since)
	}
	commit("billing", 0) // as tools do before the first read
	commit("unbound", 5)
	if n := counted(); n != 0 {
		t.Errorf("%d bindings are counted as gone by", n)
	}
	commit("billing", 5)
	if n := counted(); n != 1 {
		t.Errorf("%d bindings are counted as gone by, want one", n)
	}
	req := fetchRequest(12, "orders", topic, 0)
	req.Rack = "group=billing"
	ask[*kmsg.FetchResponse](c, req)
	if n := counted(); n != 0 {
		t.Errorf("%d bindings are counted as gone by although the group fetched", n)
	}
}
