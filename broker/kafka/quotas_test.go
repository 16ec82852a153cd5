package kafka

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
)

// quotaOf alters one bound; entity is as in "user=alice,client-id=" with nothing behind the sign for the default.
func quotaOf(entity, key string, value float64) kmsg.AlterClientQuotasRequestEntry {
	e := kmsg.NewAlterClientQuotasRequestEntry()
	for part := range strings.SplitSeq(entity, ",") {
		kind, name, _ := strings.Cut(part, "=")
		q := kmsg.NewAlterClientQuotasRequestEntryEntity()
		q.Type = kind
		if name != "" {
			q.Name = &name
		}
		e.Entity = append(e.Entity, q)
	}
	op := kmsg.NewAlterClientQuotasRequestEntryOp()
	op.Key, op.Value, op.Remove = key, value, value < 0
	e.Ops = append(e.Ops, op)
	return e
}

func alterQuotas(c *rawConn, entries ...kmsg.AlterClientQuotasRequestEntry) []broker.Code {
	req := kmsg.NewPtrAlterClientQuotasRequest()
	req.SetVersion(1)
	req.Entries = entries
	var codes []broker.Code
	for _, e := range ask[*kmsg.AlterClientQuotasResponse](c, req).Entries {
		codes = append(codes, broker.Code(e.ErrorCode))
	}
	return codes
}

func setQuota(t *testing.T, c *rawConn, entity, key string, value float64) {
	t.Helper()
	if codes := alterQuotas(c, quotaOf(entity, key, value)); len(codes) != 1 || codes[0] != broker.None {
		t.Fatalf("%s %s: %v", entity, key, codes)
	}
}

// A producer over its bound is answered at once and told how long it has to wait; if it does not, the connection does.
func TestT14ProducerOverItsQuotaIsToldAndThenHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, f *face, dial func() *rawConn) {
		id := f.addTopic("orders", 1)
		c := dial()
		setQuota(t, c, "user=ANONYMOUS", metadata.ProducerByteRate, 1000)
		req := produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, strings.Repeat("a", 4000)))
		size := len(kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, 1)) - 4
		start := time.Now()
		resp := ask[*kmsg.ProduceResponse](c, req)
		want := time.Duration(size-1000) * time.Millisecond // a second's worth was there
		if got := time.Duration(resp.ThrottleMillis) * time.Millisecond; got != want || time.Since(start) != 0 {
			t.Errorf("told to wait %s after %s, want %s at once", got, time.Since(start), want)
		}
		other := dial()
		ask[*kmsg.MetadataResponse](other, kmsg.NewPtrMetadataRequest())
		if took := time.Since(start); took != 0 {
			t.Errorf("another connection waited %s", took)
		}
		ask[*kmsg.MetadataResponse](c, kmsg.NewPtrMetadataRequest())
		if took := time.Since(start); took != want {
			t.Errorf("the next request was read after %s, want %s", took, want)
		}
		setQuota(t, c, "user=ANONYMOUS", metadata.ProducerByteRate, -1)
		if resp := ask[*kmsg.ProduceResponse](c, req); resp.ThrottleMillis != 0 {
			t.Errorf("without a quota: %d ms", resp.ThrottleMillis)
		}
	})
}

func TestT14ConsumerOverItsQuotaIsToldAndThenHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, f *face, dial func() *rawConn) {
		id := f.addTopic("orders", 1)
		c := dial()
		for range 4 {
			ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, strings.Repeat("a", 4000))))
		}
		setQuota(t, c, "client-id=", metadata.ConsumerByteRate, 1000)
		start := time.Now()
		resp := ask[*kmsg.FetchResponse](c, fetchRequest(12, "orders", id, 0))
		sent := len(resp.Topics[0].Partitions[0].RecordBatches)
		want := time.Duration(sent-1000) * time.Millisecond
		if got := time.Duration(resp.ThrottleMillis) * time.Millisecond; got != want || time.Since(start) != 0 || sent > 10_000 {
			t.Errorf("%d bytes, told to wait %s after %s, want at most ten seconds' worth and %s at once", sent, got, time.Since(start), want)
		}
		ask[*kmsg.MetadataResponse](c, kmsg.NewPtrMetadataRequest())
		if took := time.Since(start); took != want {
			t.Errorf("the next request was read after %s, want %s", took, want)
		}
		time.Sleep(5 * time.Minute)
		again := fetchRequest(12, "orders", id, 0)
		again.Topics[0].Partitions[0].FetchOffset = 4 // nothing is there
		if resp := ask[*kmsg.FetchResponse](c, again); resp.ThrottleMillis != 0 {
			t.Errorf("nothing was sent, and the client waits %d ms", resp.ThrottleMillis)
		}
	})
}

func TestAHeldClientDoesNotHoldTheServer(t *testing.T) {
	inBubble(t, func(t *testing.T, f *face, dial func() *rawConn) {
		id := f.addTopic("orders", 1)
		c := dial()
		setQuota(t, c, "user=", metadata.ProducerByteRate, 1)
		start := time.Now()
		resp := ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, "a")))
		if got := time.Duration(resp.ThrottleMillis) * time.Millisecond; got != throttleMax {
			t.Errorf("held for %s, want at most %s", got, throttleMax)
		}
		if err := f.server.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("the end of the server took %s", took)
		}
	})
}

func TestConnectionsOverTheRateOfTheirAddressAreHeldAndClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, f *face, dial func() *rawConn) {
		c := dial()
		setQuota(t, c, "ip=", metadata.ConnectionCreationRate, 2)
		start := time.Now()
		for range 2 {
			ask[*kmsg.MetadataResponse](dial(), kmsg.NewPtrMetadataRequest())
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("two connections a second took %s", took)
		}
		if _, err := dial().reader.ReadByte(); !errors.Is(err, io.EOF) || time.Since(start) != time.Second/2 {
			t.Errorf("the third: %v after %s", err, time.Since(start))
		}
		time.Sleep(2 * time.Second)
		ask[*kmsg.MetadataResponse](dial(), kmsg.NewPtrMetadataRequest())
	})
}

func TestTheQuotaThatSaysMostOfAClientHolds(t *testing.T) {
	order := []string{
		"user=u,client-id=c", "user=u,client-id=", "user=u", "user=,client-id=c", "user=,client-id=", "user=", "client-id=c", "client-id=",
	}
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	for i := len(order) - 1; i >= 0; i-- {
		setQuota(t, c, order[i], metadata.ProducerByteRate, float64(i+1))
		value, share, found := f.Image().Quotas().Bound("u", "c", metadata.ProducerByteRate)
		if !found || value != float64(i+1) || share.User.Given != strings.Contains(order[i], "user") || share.ClientID.Given != strings.Contains(order[i], "client-id") {
			t.Errorf("with %s: %v shared by %+v", order[i], value, share)
		}
	}
	if _, _, found := f.Image().Quotas().Bound("u", "c", metadata.ConsumerByteRate); found {
		t.Error("a bound that nobody set")
	}
	for _, entity := range order {
		setQuota(t, c, entity, metadata.ProducerByteRate, -1)
	}
	if f.Image().Quotas() != nil {
		t.Error("quotas are left")
	}
}

func TestQuotasAreToldAsTheFilterAsks(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	for i, entity := range []string{"user=u", "user=", "user=u,client-id=c", "client-id=c", "ip=10.0.0.1", "ip="} {
		key := metadata.ProducerByteRate
		if strings.HasPrefix(entity, "ip") {
			key = metadata.ConnectionCreationRate
		}
		setQuota(t, c, entity, key, float64(i+1))
	}
	setQuota(t, c, "user=u", metadata.RequestPercentage, 12.5)
	u := "u"
	for _, tc := range []struct {
		kind   string
		match  kmsg.QuotasMatchType
		name   *string
		strict bool
		want   string
	}{
		{"user", matchExact, &u, false, "user=u:producer_byte_rate=1,request_percentage=12.5 user=u,client-id=c:producer_byte_rate=3 "},
		{"user", matchExact, &u, true, "user=u:producer_byte_rate=1,request_percentage=12.5 "},
		{"user", matchDefault, nil, false, "user=:producer_byte_rate=2 "},
		{"ip", matchAny, nil, true, "ip=:connection_creation_rate=6 ip=10.0.0.1:connection_creation_rate=5 "},
		{"client-id", matchAny, nil, true, "client-id=c:producer_byte_rate=4 "},
	} {
		for version := range int16(2) {
			req := kmsg.NewPtrDescribeClientQuotasRequest()
			req.SetVersion(version)
			req.Strict = tc.strict
			component := kmsg.NewDescribeClientQuotasRequestComponent()
			component.EntityType, component.MatchType, component.Match = tc.kind, tc.match, tc.name
			req.Components = append(req.Components, component)
			resp := ask[*kmsg.DescribeClientQuotasResponse](c, req)
			if got := quotaText(resp); got != tc.want || resp.ErrorCode != 0 {
				t.Errorf("%+v: %s, want %s", tc, got, tc.want)
			}
		}
	}
	all := kmsg.NewPtrDescribeClientQuotasRequest()
	all.SetVersion(1)
	if got := len(ask[*kmsg.DescribeClientQuotasResponse](c, all).Entries); got != 6 {
		t.Errorf("without a filter: %d", got)
	}
	for _, tc := range []struct {
		kinds []string
		want  broker.Code
	}{
		{[]string{"role"}, broker.UnsupportedVersion}, {[]string{""}, broker.InvalidRequest}, {[]string{"user", "ip"}, broker.InvalidRequest},
		{[]string{"ip", "client-id"}, broker.InvalidRequest}, {[]string{"user", "user"}, broker.InvalidRequest},
	} {
		all.Components = nil
		for _, kind := range tc.kinds {
			component := kmsg.NewDescribeClientQuotasRequestComponent()
			component.EntityType, component.MatchType = kind, matchAny
			all.Components = append(all.Components, component)
		}
		if code := broker.Code(ask[*kmsg.DescribeClientQuotasResponse](c, all).ErrorCode); code != tc.want {
			t.Errorf("types %q: code %d, want %d", tc.kinds, code, tc.want)
		}
	}
}

func quotaText(resp *kmsg.DescribeClientQuotasResponse) string {
	text := ""
	for _, e := range resp.Entries {
		var parts, values []string
		for _, p := range e.Entity {
			name := ""
			if p.Name != nil {
				name = *p.Name
			}
			parts = append(parts, p.Type+"="+name)
		}
		for _, v := range e.Values {
			values = append(values, fmt.Sprintf("%s=%v", v.Key, v.Value))
		}
		text += strings.Join(parts, ",") + ":" + strings.Join(values, ",") + " "
	}
	return text
}

func TestQuotasThatMakeNoSenseAreRefused(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	for _, e := range []kmsg.AlterClientQuotasRequestEntry{
		quotaOf("role=x", metadata.ProducerByteRate, 1), quotaOf("user=u,user=v", metadata.ProducerByteRate, 1), quotaOf("user=u,ip=", metadata.ConnectionCreationRate, 1),
		quotaOf("user=u", "bytes", 1), quotaOf("user=u", metadata.ConnectionCreationRate, 1), quotaOf("ip=", metadata.ProducerByteRate, 1),
		quotaOf("user=u", metadata.ProducerByteRate, 0), quotaOf("user=u", metadata.ProducerByteRate, 0.5), quotaOf("ip=localhost", metadata.ConnectionCreationRate, 1),
		quotaOf("ip=010.0.0.1", metadata.ConnectionCreationRate, 1), kmsg.NewAlterClientQuotasRequestEntry(),
	} {
		if codes := alterQuotas(c, e, quotaOf("user=fine", metadata.ProducerByteRate, 7)); codes[0] != broker.InvalidRequest || codes[1] != broker.None {
			t.Errorf("%+v: %v", e, codes)
		}
	}
	req := kmsg.NewPtrAlterClientQuotasRequest()
	req.Entries, req.ValidateOnly = []kmsg.AlterClientQuotasRequestEntry{quotaOf("user=dry", metadata.ProducerByteRate, 7)}, true
	ask[*kmsg.AlterClientQuotasResponse](c, req)
	if _, _, found := f.Image().Quotas().Bound("dry", "", metadata.ProducerByteRate); found {
		t.Error("a dry run sets a quota")
	}
}

func TestQuotasOutliveASnapshot(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	for _, entity := range []string{"user=u", "user=", "user=u,client-id="} {
		setQuota(t, c, entity, metadata.ProducerByteRate, 5)
	}
	img := f.Image()
	encoded, err := metadata.EncodeSnapshot(img, metadata.ConfState{})
	if err != nil {
		t.Fatal(err)
	}
	read, _, err := metadata.DecodeSnapshot(encoded)
	if err != nil || !metadata.Equal(img, read) || len(read.Quotas().Of(metadata.QuotaEntity{User: metadata.QuotaName{Given: true, Default: true}})) != 1 {
		t.Errorf("the snapshot holds others: %v", err)
	}
}

func TestBucketsAreForgottenBeforeTheyAreTooMany(t *testing.T) {
	var b buckets
	now := time.Now()
	for i := range 3 * quotaBucketsMax {
		now = now.Add(10 * time.Millisecond)
		key := bucketKey{"k", metadata.QuotaEntity{ClientID: metadata.QuotaName{Given: true, Name: fmt.Sprint(i)}}}
		b.take(key, 10, 1, now)
		if len(b.of) > quotaBucketsMax {
			t.Fatalf("%d buckets", len(b.of))
		}
	}
}

func TestReassignmentsOnOneNodeAreAnsweredHonestly(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 2)
	c := dialRaw(t, f.serveTCP())
	for _, tc := range []struct {
		topic     string
		partition int32
		replicas  []int32
		fixed     bool
		want      broker.Code
	}{
		{"orders", 0, []int32{1}, true, broker.None}, {"orders", 1, nil, false, broker.NoReassignmentInProgress}, {"orders", 0, []int32{2}, false, broker.InvalidReplicaAssignment},
		{"orders", 0, []int32{1, 2}, false, broker.InvalidReplicaAssignment}, {"orders", 0, []int32{1, 2}, true, broker.InvalidReplicationFactor},
		{"orders", 0, []int32{}, false, broker.InvalidReplicaAssignment}, {"orders", 0, []int32{1, 1}, false, broker.InvalidReplicaAssignment},
		{"orders", 2, []int32{1}, false, broker.UnknownTopicOrPartition}, {"nope", 0, []int32{1}, false, broker.UnknownTopicOrPartition},
	} {
		req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		req.SetVersion(1)
		req.AllowReplicationFactorChange = !tc.fixed
		rt := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		rt.Topic = tc.topic
		rp := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		rp.Partition, rp.Replicas = tc.partition, tc.replicas
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		got := ask[*kmsg.AlterPartitionAssignmentsResponse](c, req).Topics[0].Partitions[0]
		if broker.Code(got.ErrorCode) != tc.want || tc.want == broker.None && got.ErrorMessage != nil {
			t.Errorf("%+v: code %d, %v", tc, got.ErrorCode, got.ErrorMessage)
		}
	}
}

// KIP-599: what is asked for when the quota is used up is refused where the client can be told so, and else the client waits.
func TestChangesOverTheQuotaAreRefusedOrHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, f *face, dial func() *rawConn) {
		c := dial()
		setQuota(t, c, "user=ANONYMOUS", metadata.ControllerMutationRate, 2)
		create := func(version int16, names ...string) *kmsg.CreateTopicsResponse {
			req := kmsg.NewPtrCreateTopicsRequest()
			req.SetVersion(version)
			req.TimeoutMillis = 1000
			for _, name := range names {
				topic := kmsg.NewCreateTopicsRequestTopic()
				topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 5, 1
				req.Topics = append(req.Topics, topic)
			}
			return ask[*kmsg.CreateTopicsResponse](c, req)
		}
		start := time.Now()
		resp := create(7, "first", "second") // of 2 in stock the first takes 5
		if a, b := broker.Code(resp.Topics[0].ErrorCode), broker.Code(resp.Topics[1].ErrorCode); a != broker.None || b != broker.ThrottlingQuotaExceeded {
			t.Errorf("answered %v and %v", a, b)
		}
		if resp.ThrottleMillis != 1500 || time.Since(start) != 0 {
			t.Errorf("told to wait %d ms after %v, want 1500 at once", resp.ThrottleMillis, time.Since(start))
		}
		resp = create(7, "second") // read when the bound is level
		if code := broker.Code(resp.Topics[0].ErrorCode); code != broker.None || time.Since(start) != 1500*time.Millisecond {
			t.Errorf("answered %v after %v", code, time.Since(start))
		}
		resp = create(5, "third", "fourth") // knows no such error
		if a, b := resp.Topics[0].ErrorCode, resp.Topics[1].ErrorCode; a != 0 || b != 0 || resp.ThrottleMillis != 5000 {
			t.Errorf("version 5 is answered %d and %d, told to wait %d ms", a, b, resp.ThrottleMillis)
		}
		grow := kmsg.NewPtrCreatePartitionsRequest()
		grow.SetVersion(3)
		grow.TimeoutMillis = 1000
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic, topic.Count = "first", 7
		grow.Topics = append(grow.Topics, topic)
		if grown := ask[*kmsg.CreatePartitionsResponse](c, grow); grown.ThrottleMillis != 1000 {
			t.Errorf("two partitions more: told to wait %d ms", grown.ThrottleMillis)
		}
		remove := kmsg.NewPtrDeleteTopicsRequest()
		remove.SetVersion(5)
		remove.TimeoutMillis, remove.TopicNames = 1000, []string{"first"}
		if removed := ask[*kmsg.DeleteTopicsResponse](c, remove); removed.ThrottleMillis == 0 {
			t.Error("removing a topic is not counted")
		}
	})
}
