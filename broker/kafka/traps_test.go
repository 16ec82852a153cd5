package kafka

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

func TestT1OldLibrdkafkaFindsTheVersionsItLooksFor(t *testing.T) {
	f := newFace(t, nil)
	resp := ask[*kmsg.ApiVersionsResponse](dialRaw(t, f.serveTCP()), kmsg.NewPtrApiVersionsRequest())
	for _, need := range []struct{ key, version int16 }{
		{keyProduce, 0}, {keyProduce, 3}, {keyProduce, 7}, {keyFetch, 4}, {keyFetch, 10}, {keyFindCoordinator, 0},
		{keyOffsetCommit, 2}, {keyOffsetFetch, 1}, {keyJoinGroup, 0}, {keySyncGroup, 0}, {keyHeartbeat, 0}, {keyLeaveGroup, 0},
		{keyListOffsets, 1}, {keyInitProducerID, 0},
	} {
		listed := slices.ContainsFunc(resp.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool {
			return k.ApiKey == need.key && k.MinVersion <= need.version && need.version <= k.MaxVersion
		})
		if !listed {
			t.Errorf("api %d version %d is not in the listed ranges", need.key, need.version)
		}
	}
}

func TestT2ApiVersionsResponseHeaderIsNeverFlexible(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, "test", "1"
	c.send(req)
	b, err := c.receiveBytes()
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{0, 0, 0, 1, 0, 0, byte(len(matrix) + 1)} // correlation id, no error, a compact count: no tags between
	if !bytes.HasPrefix(b, want) {
		t.Fatalf("response begins %x, want %x", b[:min(len(b), 8)], want)
	}
}

func TestT3FutureApiVersionsIsAnsweredInVersion0(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	c.raw([]byte{0, 0, 0, 14, 0, 18, 0, 9, 0, 0, 0, 7, 0xff, 0xff, 0, 9, 9, 9})
	b, err := c.receiveBytes()
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4}
	if !bytes.Equal(b, want) {
		t.Fatalf("response is %x, want %x", b, want)
	}
	ask[*kmsg.ApiVersionsResponse](c, kmsg.NewPtrApiVersionsRequest()) // the same connection goes on
}

func TestT3ClientSoftwareIsValidated(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	for name, want := range map[string]broker.Code{
		"apache-kafka-java": broker.None, "a": broker.None, "": broker.InvalidRequest, "-a": broker.InvalidRequest,
		"a.": broker.InvalidRequest, "a b": broker.InvalidRequest, "a\nb": broker.InvalidRequest,
	} {
		req := kmsg.NewPtrApiVersionsRequest()
		req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, name, "1.0"
		if got := ask[*kmsg.ApiVersionsResponse](c, req); broker.Code(got.ErrorCode) != want {
			t.Errorf("software name %q: code %d, want %d", name, got.ErrorCode, want)
		}
	}
}

func TestT6ApiVersionsIsNeverRequired(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	address := f.serveTCP()
	ask[*kmsg.FetchResponse](dialRaw(t, address), fetchRequest(11, "orders", id, 0))
	ask[*kmsg.FindCoordinatorResponse](dialRaw(t, address), kmsg.NewPtrFindCoordinatorRequest())
}

func TestT7AcksZeroGetsNoResponse(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	c.send(produceRequest(9, "orders", id, 0, makeBatch(t, batch.None, "a")))
	ask[*kmsg.MetadataResponse](c, kmsg.NewPtrMetadataRequest()) // its answer is the first that comes
	if end := f.log("orders", 0).Ends().HighWatermark; end != 1 {
		t.Fatalf("the log ends at %d, want 1", end)
	}
	c.send(produceRequest(9, "absent", id, 0, makeBatch(t, batch.None, "a")))
	c.closed()
}

func TestT7ProduceIsPipelinedAndAnsweredInOrder(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	log := f.log("orders", 0)
	log.hold = true
	c := dialRaw(t, f.serveTCP())
	req := produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, "a"))
	var sent []int32
	for range 5 {
		sent = append(sent, c.send(req))
	}
	waitUntil(t, "all five are submitted without an acknowledgement", func() bool { return log.Ends().HighWatermark == 5 })
	metadata := kmsg.NewPtrMetadataRequest()
	last := c.send(metadata)
	log.acknowledge() // the last first
	for i, correlation := range sent {
		resp := c.receive(req, correlation).(*kmsg.ProduceResponse)
		if base := resp.Topics[0].Partitions[0].BaseOffset; base != int64(i) {
			t.Errorf("response %d carries base offset %d", i, base)
		}
	}
	c.receive(metadata, last)
}

// TestConnectionSyncsOnlyForAClientThatWaits: a connection that syncs reads nothing meanwhile.
func TestConnectionSyncsOnlyForAClientThatWaits(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 2)
	log := f.log("orders", 0)
	synced := func() int {
		log.mu.Lock()
		defer log.mu.Unlock()
		return log.synced
	}
	a, large := makeBatch(t, batch.None, "a"), makeBatch(t, batch.None, string(make([]byte, readBufferBytes)))
	c := dialRaw(t, f.serveTCP())
	ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders", id, -1, a))
	ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders", id, 1, a))
	if n := synced(); n != 2 {
		t.Fatalf("it synced for %d of 2 requests that came alone", n)
	}
	ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders", id, -1, a, a))
	ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders", id, -1, large))
	c.send(produceRequest(9, "orders", id, 0, a))
	ask[*kmsg.MetadataResponse](c, kmsg.NewPtrMetadataRequest())
	if n := synced(); n != 2 {
		t.Fatalf("it synced for %d requests of several batches, of a large one, or without an answer", n-2)
	}
	log.mu.Lock()
	log.hold = true
	log.mu.Unlock()
	end := log.Ends().HighWatermark
	req := produceRequest(9, "orders", id, -1, a)
	first := c.send(req)
	waitUntil(t, "the first is submitted", func() bool { return log.Ends().HighWatermark == end+1 })
	second := c.send(req)
	waitUntil(t, "the second is submitted", func() bool { return log.Ends().HighWatermark == end+2 })
	log.acknowledge()
	c.receive(req, first)
	c.receive(req, second)
	if n := synced(); n != 3 {
		t.Fatalf("it synced for %d of two requests of which the second did not wait for the first, want 1", n-2)
	}
}

func TestProducePipelineIsBounded(t *testing.T) {
	f := newFace(t, func(c *Config) { c.Limits.PipelineDepth = 2 })
	id := f.addTopic("orders", 1)
	log := f.log("orders", 0)
	log.hold = true
	c := dialRaw(t, f.serveTCP())
	req := produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, "a"))
	const n = 20
	for range n {
		c.send(req)
	}
	// Two wait for their answers, and one is about to.
	waitUntil(t, "the pipeline is full", func() bool { return log.Ends().HighWatermark == 3 })
	log.acknowledge()
	for i := range n {
		c.receive(req, int32(i+1))
	}
	if end := log.Ends().HighWatermark; end != n {
		t.Fatalf("the log ends at %d, want %d", end, n)
	}
}

func TestProduceThatReplicasDoNotConfirmTimesOut(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 2)
	f.log("orders", 0).hold = true
	c := dialRaw(t, f.serveTCP())
	req := produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, "a"), makeBatch(t, batch.None, "b"))
	req.TimeoutMillis = 30
	resp := ask[*kmsg.ProduceResponse](c, req)
	got := resp.Topics[0].Partitions
	if broker.Code(got[0].ErrorCode) != broker.RequestTimedOut || got[1].ErrorCode != 0 {
		t.Fatalf("codes %d and %d, want the held partition timed out and the other fine", got[0].ErrorCode, got[1].ErrorCode)
	}
	f.log("orders", 0).acknowledge() // late, and into a request that is answered
	produced(t, c, "orders", makeBatch(t, batch.None, "c"))
}

func TestT7FetchParksNoLongerThanMaxWait(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	address := f.serveTCP()
	c := dialRaw(t, address)
	req := fetchRequest(12, "orders", id, 0)
	req.MaxWaitMillis = 50
	start := time.Now()
	ask[*kmsg.FetchResponse](c, req)
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("an empty fetch came back after %s", took)
	}
	req.MaxWaitMillis = 60_000
	correlation := c.send(req)
	log := f.log("orders", 0)
	waitUntil(t, "the fetch is parked", func() bool {
		log.mu.Lock()
		defer log.mu.Unlock()
		return len(log.watchers) == 1
	})
	produced(t, dialRaw(t, address), "orders", makeBatch(t, batch.None, "a"))
	if resp := c.receive(req, correlation).(*kmsg.FetchResponse); len(resp.Topics[0].Partitions[0].RecordBatches) == 0 {
		t.Error("a parked fetch was answered without the records that woke it")
	}
}

func TestParkedFetchEndsWithTheServer(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	req := fetchRequest(12, "orders", id, 0)
	req.MaxWaitMillis = 60_000
	c.send(req)
	log := f.log("orders", 0)
	waitUntil(t, "the fetch is parked", func() bool {
		log.mu.Lock()
		defer log.mu.Unlock()
		return len(log.watchers) == 1
	})
	if err := f.server.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestT8TopicsGoByID(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	req.Topics = []kmsg.MetadataRequestTopic{{TopicID: id}, {TopicID: broker.TopicID{9}}}
	resp := ask[*kmsg.MetadataResponse](c, req)
	if got := resp.Topics[0]; *got.Topic != "orders" || got.TopicID != id || got.ErrorCode != 0 {
		t.Errorf("lookup by id: %+v", got)
	}
	if got := resp.Topics[1]; broker.Code(got.ErrorCode) != broker.UnknownTopicID || got.TopicID != [16]byte{9} {
		t.Errorf("lookup by an unknown id: %+v", got)
	}
	good := makeBatch(t, batch.None, "a")
	if resp := ask[*kmsg.ProduceResponse](c, produceRequest(13, "", id, -1, good)); resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Errorf("produce by id: %+v", resp)
	}
	unknown := ask[*kmsg.ProduceResponse](c, produceRequest(13, "", broker.TopicID{9}, -1, good))
	if got := broker.Code(unknown.Topics[0].Partitions[0].ErrorCode); got != broker.UnknownTopicID {
		t.Errorf("produce by an unknown id: code %d", got)
	}
	if _, err := f.Submit(t.Context(), controller.DeleteTopic{ID: id}); err != nil {
		t.Fatal(err)
	}
	if again := f.addTopic("orders", 1); again == id {
		t.Error("a topic made again has the old id")
	}
	fetch := ask[*kmsg.FetchResponse](c, fetchRequest(13, "", id, 0))
	if got := broker.Code(fetch.Topics[0].Partitions[0].ErrorCode); got != broker.UnknownTopicID {
		t.Errorf("fetch by the id of a deleted topic: code %d", got)
	}
}

func TestT9WrongBrokerIsToldTheLeader(t *testing.T) {
	f := newFace(t, nil)
	f.addBroker(2, "other.example", 9192)
	id := broker.TopicID{7}
	f.fold(metadata.TopicFact(&metadata.Topic{ID: id, Name: "far", Partitions: 1}), metadata.PartitionFact(&metadata.Partition{
		TopicPartition: broker.TopicPartition{Topic: id}, Replicas: []metadata.Replica{{Node: 2}}, Leader: 2, LeaderEpoch: 9,
		ISR: []broker.NodeID{2}, MinISR: 1,
	}))
	c := dialRaw(t, f.serveTCP())
	p := ask[*kmsg.ProduceResponse](c, produceRequest(10, "far", id, -1, makeBatch(t, batch.None, "a")))
	part := p.Topics[0].Partitions[0]
	if broker.Code(part.ErrorCode) != broker.NotLeaderOrFollower || part.CurrentLeader.LeaderID != 2 || part.CurrentLeader.LeaderEpoch != 9 {
		t.Errorf("produce: %+v", part)
	}
	if len(p.Brokers) != 1 || p.Brokers[0].Host != "other.example" || p.Brokers[0].Port != 9192 {
		t.Errorf("produce: endpoints %+v", p.Brokers)
	}
	fetch := ask[*kmsg.FetchResponse](c, fetchRequest(16, "", id, 0))
	fp := fetch.Topics[0].Partitions[0]
	if broker.Code(fp.ErrorCode) != broker.NotLeaderOrFollower || fp.CurrentLeader.LeaderID != 2 || fp.CurrentLeader.LeaderEpoch != 9 {
		t.Errorf("fetch: %+v", fp)
	}
	if len(fetch.Brokers) != 1 || fetch.Brokers[0].Host != "other.example" || *fetch.Brokers[0].Rack != "rack-2" {
		t.Errorf("fetch: endpoints %+v", fetch.Brokers)
	}
}

func TestT10ZstdNeedsVersionsThatKnowIt(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	packed := makeBatch(t, batch.Zstd, "a")
	for version, want := range map[int16]broker.Code{6: broker.UnsupportedCompressionType, 7: broker.None} {
		resp := ask[*kmsg.ProduceResponse](c, produceRequest(version, "orders", id, -1, packed))
		if got := broker.Code(resp.Topics[0].Partitions[0].ErrorCode); got != want {
			t.Errorf("produce version %d: code %d, want %d", version, got, want)
		}
	}
	for version, want := range map[int16]broker.Code{9: broker.UnsupportedCompressionType, 10: broker.None} {
		resp := ask[*kmsg.FetchResponse](c, fetchRequest(version, "orders", id, 0))
		p := resp.Topics[0].Partitions[0]
		if got := broker.Code(p.ErrorCode); got != want || (want != broker.None) != (len(p.RecordBatches) == 0) {
			t.Errorf("fetch version %d: code %d with %d bytes, want code %d", version, got, len(p.RecordBatches), want)
		}
	}
}

func TestT11FullResponsesHoldEveryPartitionAndEmptyIsNotNull(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 3)
	c := dialRaw(t, f.serveTCP())
	for _, version := range []int16{4, 11, 12, 18} {
		req := fetchRequest(version, "orders", id, 0, 0, 0, 0) // partition 3 does not exist
		resp := ask[*kmsg.FetchResponse](c, req)
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 4 {
			t.Fatalf("version %d: %+v", version, resp)
		}
		for i, p := range resp.Topics[0].Partitions {
			want := broker.None
			if i == 3 {
				want = broker.UnknownTopicOrPartition
			}
			if p.Partition != int32(i) || broker.Code(p.ErrorCode) != want || p.RecordBatches == nil {
				t.Errorf("version %d: partition %d is %+v", version, i, p)
			}
			if p.PreferredReadReplica != -1 && version >= 11 {
				t.Errorf("version %d: partition %d prefers replica %d", version, i, p.PreferredReadReplica)
			}
		}
	}
}

func TestT13FetchLimitsAreSoft(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 2)
	c := dialRaw(t, f.serveTCP())
	one := makeBatch(t, batch.None, string(make([]byte, 1000)))
	for range 3 {
		produced(t, c, "orders", one, one)
	}
	sizes := func(maxBytes, partitionMax int32) [2]int {
		req := fetchRequest(12, "orders", id, 0, 0)
		req.MaxBytes = maxBytes
		for i := range req.Topics[0].Partitions {
			req.Topics[0].Partitions[i].PartitionMaxBytes = partitionMax
		}
		resp := ask[*kmsg.FetchResponse](c, req)
		return [2]int{len(resp.Topics[0].Partitions[0].RecordBatches) / len(one), len(resp.Topics[0].Partitions[1].RecordBatches) / len(one)}
	}
	for _, tc := range []struct {
		maxBytes, partitionMax int32
		want                   [2]int
	}{
		{1, 1, [2]int{1, 0}},              // the first batch comes whole, nothing else
		{1 << 20, 1, [2]int{1, 0}},        // so it does past a partition's limit
		{1 << 20, 2500, [2]int{2, 2}},     // the partition's limit
		{4 * 1100, 1 << 20, [2]int{3, 1}}, // the request's limit
		{1 << 20, 1 << 20, [2]int{3, 3}},
		{-1, -1, [2]int{1, 0}},
	} {
		if got := sizes(tc.maxBytes, tc.partitionMax); got != tc.want {
			t.Errorf("max bytes %d, partition max %d: %v batches, want %v", tc.maxBytes, tc.partitionMax, got, tc.want)
		}
	}
}

func TestT13MinBytesWaitsForBytesThatCanCome(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	produced(t, c, "orders", makeBatch(t, batch.None, string(make([]byte, 1000))))
	req := fetchRequest(12, "orders", id, 0)
	req.MinBytes, req.MaxWaitMillis = 100_000, 50
	start := time.Now()
	resp := ask[*kmsg.FetchResponse](c, req)
	if took := time.Since(start); took < 50*time.Millisecond || len(resp.Topics[0].Partitions[0].RecordBatches) == 0 {
		t.Errorf("a fetch that waits for more came back after %s with %d bytes", took, len(resp.Topics[0].Partitions[0].RecordBatches))
	}
	for range 5 {
		produced(t, c, "orders", makeBatch(t, batch.None, string(make([]byte, 1000))))
	}
	req.Topics[0].Partitions[0].PartitionMaxBytes, req.MaxWaitMillis = 2500, 60_000
	ask[*kmsg.FetchResponse](c, req) // would time out with the connection if it waited for what its limit keeps out
}

func TestX11ResponsesAreCappedWhateverIsAskedFor(t *testing.T) {
	f := newFace(t, func(c *Config) { c.Limits.FetchBytesMax = 5000 })
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	for range 10 {
		produced(t, c, "orders", makeBatch(t, batch.None, string(make([]byte, 1000))))
	}
	req := fetchRequest(12, "orders", id, 0)
	req.MaxBytes, req.Topics[0].Partitions[0].PartitionMaxBytes = 0x7fffffff, 0x7fffffff
	if got := len(ask[*kmsg.FetchResponse](c, req).Topics[0].Partitions[0].RecordBatches); got > 5000 {
		t.Errorf("%d bytes of records, want at most 5000", got)
	}
}

func TestT15LeaderEpochsAreChecked(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	log := f.log("orders", 0)
	log.epoch = 5
	c := dialRaw(t, f.serveTCP())
	for asked, want := range map[int32]broker.Code{-1: broker.None, 5: broker.None, 4: broker.FencedLeaderEpoch, 6: broker.UnknownLeaderEpoch} {
		fetch := fetchRequest(12, "orders", id, 0)
		fetch.Topics[0].Partitions[0].CurrentLeaderEpoch = asked
		if got := broker.Code(ask[*kmsg.FetchResponse](c, fetch).Topics[0].Partitions[0].ErrorCode); got != want {
			t.Errorf("fetch with epoch %d: code %d, want %d", asked, got, want)
		}
		list := listRequest("orders", -1)
		list.Topics[0].Partitions[0].CurrentLeaderEpoch = asked
		if got := broker.Code(ask[*kmsg.ListOffsetsResponse](c, list).Topics[0].Partitions[0].ErrorCode); got != want {
			t.Errorf("list offsets with epoch %d: code %d, want %d", asked, got, want)
		}
		end := epochRequest("orders", asked, 5)
		if got := broker.Code(ask[*kmsg.OffsetForLeaderEpochResponse](c, end).Topics[0].Partitions[0].ErrorCode); got != want {
			t.Errorf("offset for leader epoch with epoch %d: code %d, want %d", asked, got, want)
		}
	}
}

func TestT15TruncatedReadersLearnWhereTheirLogDiverged(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	f.log("orders", 0).epoch = 5
	c := dialRaw(t, f.serveTCP())
	produced(t, c, "orders", makeBatch(t, batch.None, "a", "b", "c", "d"))
	end := ask[*kmsg.OffsetForLeaderEpochResponse](c, epochRequest("orders", -1, 4)).Topics[0].Partitions[0]
	if end.LeaderEpoch != 3 || end.EndOffset != 2 {
		t.Errorf("epoch 4 ends at %d of epoch %d, want 2 of epoch 3", end.EndOffset, end.LeaderEpoch)
	}
	req := fetchRequest(12, "orders", id, 3)
	req.Topics[0].Partitions[0].LastFetchedEpoch = 4
	req.MaxWaitMillis = 60_000
	got := ask[*kmsg.FetchResponse](c, req).Topics[0].Partitions[0]
	if got.DivergingEpoch.Epoch != 3 || got.DivergingEpoch.EndOffset != 2 || len(got.RecordBatches) > 0 {
		t.Errorf("fetch behind a diverged epoch: %+v", got)
	}
}

func TestT18T19StoredBytesAreServedAsTheyLie(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	var want []byte
	for i, codec := range []batch.Codec{batch.None, batch.Gzip, batch.Snappy, batch.LZ4, batch.Zstd} {
		b := makeBatch(t, codec, "a", "b", "c")
		produced(t, c, "orders", b)
		batch.View(b).Stamp(broker.Offset(3*i), f.log("orders", 0).epoch)
		want = append(want, b...)
	}
	got := ask[*kmsg.FetchResponse](c, fetchRequest(12, "orders", id, 0)).Topics[0].Partitions[0].RecordBatches
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came back, want the %d that were sent with offsets and epoch stamped", len(got), len(want))
	}
	for v, err := range batch.All(got) {
		if err != nil || v.CheckCRC() != nil {
			t.Fatalf("a batch came back broken: %v, %v", err, v.CheckCRC())
		}
	}
}

func TestT21AnyBrokerAnswersAsTheController(t *testing.T) {
	f := newFace(t, nil)
	f.addBroker(2, "other.example", 9192)
	c := dialRaw(t, f.serveTCP())
	if resp := ask[*kmsg.MetadataResponse](c, kmsg.NewPtrMetadataRequest()); len(resp.Brokers) != 2 {
		t.Errorf("%d brokers, want 2", len(resp.Brokers))
	}
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 1
	if resp := ask[*kmsg.MetadataResponse](c, req); resp.ControllerID != int32(selfNode) {
		t.Errorf("controller is %d, want the broker that was asked", resp.ControllerID)
	}
}

func TestT22EachListenerAdvertisesItsOwnAddress(t *testing.T) {
	f := newFace(t, nil)
	ask[*kmsg.FindCoordinatorResponse](dialRaw(t, f.serveTCP()), kmsg.NewPtrFindCoordinatorRequest()) // makes the offsets topic, here
	f.addBroker(2, "other.example", 9192)
	for range 2 {
		address := f.serveTCP()
		_, port, _ := net.SplitHostPort(address)
		c := dialRaw(t, address)
		meta := kmsg.NewPtrMetadataRequest()
		meta.Version = 12
		resp := ask[*kmsg.MetadataResponse](c, meta)
		for _, b := range resp.Brokers {
			if b.NodeID == int32(selfNode) && itoa(b.Port) != port || b.NodeID == 2 && (b.Host != "other.example" || b.Port != 9192) {
				t.Errorf("listener %s: metadata says %+v", address, b)
			}
		}
		find := kmsg.NewPtrFindCoordinatorRequest()
		find.CoordinatorKey = "group"
		if found := ask[*kmsg.FindCoordinatorResponse](c, find); found.ErrorCode != 0 || itoa(found.Port) != port {
			t.Errorf("listener %s: coordinator is %+v", address, found)
		}
	}
}

func TestConnectionsOutliveManyFetches(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	produced(t, c, "orders", makeBatch(t, batch.None, "a"))
	req := fetchRequest(12, "orders", id, 0)
	frame := kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
	for i := range 500 {
		binary.BigEndian.PutUint32(frame[8:], uint32(i))
		c.raw(frame)
		c.receive(req, int32(i))
	}
}
