package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/plugins/builtin"
	"github.com/millrace-io/millrace/plugins/tck"
	"github.com/millrace-io/millrace/sdk"
)

const mib = int64(1) << 20

// The bounds below are for what an attack may cost, not how fast it is served: each is several times what was seen, and
// far below what the attack asks for.
func TestBadInputFromClientsIsBoundedInMemoryAndTime(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process and throws a lot at it")
	}
	p := startProcess(t)
	p.survives("X1 promises of large frames", bound{memory: 96 * mib, took: 30 * time.Second}, func(t *testing.T) { promises(t, p) })
	p.survives("X2 counts beyond the bytes", bound{memory: 64 * mib, took: 60 * time.Second}, func(t *testing.T) { counts(t, p) })
	p.survives("X4 bombs of every codec", bound{memory: 128 * mib, took: 60 * time.Second}, func(t *testing.T) { bombs(t, p) })
	p.survives("X5 random batches", bound{memory: 64 * mib, took: 60 * time.Second}, func(t *testing.T) { randomBatches(t, p) })
	p.survives("X10 slow senders and readers that read nothing", bound{memory: 448 * mib, took: 60 * time.Second},
		func(t *testing.T) { slow(t, p) })
	p.survives("X11 expensive requests", bound{memory: 160 * mib, took: 60 * time.Second}, func(t *testing.T) { expensive(t, p) })
	p.survives("X11 groups and sessions by the thousand", bound{memory: 512 * mib, took: 60 * time.Second},
		func(t *testing.T) { hoards(t, p) })
}

// promises opens connections that announce frames of 100 MiB and send little of them, and some that announce nonsense.
func promises(t *testing.T, p *process) {
	produce := kmsg.NewRequestFormatter().AppendRequest(nil, &kmsg.ProduceRequest{Version: 9, Acks: -1, TimeoutMillis: 1000}, 1)
	for range 500 {
		c := p.dial(t)
		frame := append(binary.BigEndian.AppendUint32(nil, 100<<20), produce[4:]...)
		if _, err := c.Write(append(frame, make([]byte, 1000)...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []uint32{0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0, 3, 100<<20 + 1} {
		c := p.dial(t)
		if _, err := c.Write(binary.BigEndian.AppendUint32(nil, size)); err != nil {
			t.Fatal(err)
		}
		mustClose(t, c, fmt.Sprintf("a frame of %d bytes", size))
	}
}

// mustClose waits for the broker to close a connection.
func mustClose(t *testing.T, c net.Conn, what string) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: the connection is still open", what)
	}
}

// counts sends requests of every key and version that the broker lists, with a count or length in them made huge.
func counts(t *testing.T, p *process) {
	keys := listed(t, p)
	var tries [][]byte
	for _, key := range keys {
		for version := key.MinVersion; version <= key.MaxVersion; version++ {
			request := kmsg.RequestForKey(key.ApiKey)
			if request == nil {
				t.Fatalf("nobody knows key %d", key.ApiKey)
			}
			request.SetVersion(version)
			whole := kmsg.NewRequestFormatter(kmsg.FormatterClientID("x")).AppendRequest(nil, request, 1)
			for at := 15; at < len(whole); at += 3 {
				for _, huge := range [][]byte{{0x7F, 0xFF, 0xFF, 0xFF}, {0xFF, 0xFF, 0xFF, 0xFF, 0x0F}} {
					spoiled := append(append(whole[:at:at], huge...), make([]byte, 256)...)
					binary.BigEndian.PutUint32(spoiled, uint32(len(spoiled)-4))
					tries = append(tries, spoiled)
				}
			}
		}
	}
	t.Logf("%d requests", len(tries))
	inParallel(8, tries, func(b []byte) {
		c, err := net.Dial("tcp", p.client)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = c.Write(b) // the broker may have closed the connection before all was written
		_ = c.(*net.TCPConn).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("key %d version %d: neither answered nor closed", binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]))
		}
	})
}

func inParallel[T any](workers int, items []T, do func(T)) {
	queue := make(chan T)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for item := range queue {
				do(item)
			}
		})
	}
	for _, item := range items {
		queue <- item
	}
	close(queue)
	group.Wait()
}

// listed asks which keys and versions the broker serves.
func listed(t *testing.T, p *process) []kmsg.ApiVersionsResponseApiKey {
	t.Helper()
	response, err := kmsg.NewPtrApiVersionsRequest().RequestWith(t.Context(), p.good.Kafka())
	if err != nil {
		t.Fatal(err)
	}
	return response.ApiKeys
}

// sealed is a record batch of one record whose compressed bytes are given: all of it is right but what it unpacks to.
func sealed(attributes int16, compressed []byte) []byte {
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: attributes, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
		NumRecords: 1, Records: compressed, Length: int32(49 + len(compressed)),
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// bombs produces batches that unpack to 256 MiB, of each codec, many at a time.
func bombs(t *testing.T, p *process) {
	const unpacked = 256 << 20
	compressed := map[int16][]byte{}
	for codec, open := range map[int16]func(io.Writer) io.WriteCloser{
		1: func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		3: func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) },
		4: func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	} {
		var b bytes.Buffer
		w := open(&b)
		zeros := make([]byte, 1<<20)
		for range unpacked / len(zeros) {
			if _, err := w.Write(zeros); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		compressed[codec] = b.Bytes()
	}
	// Snappy says its length in front: four gigabytes of nothing.
	compressed[2] = []byte{0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0x00, 0x00}
	var tries []kmsg.ProduceRequest
	for codec, bytes := range compressed {
		for range 8 {
			tries = append(tries, produceOf("good", sealed(codec, bytes)))
		}
	}
	inParallel(16, tries, func(r kmsg.ProduceRequest) {
		response, err := r.RequestWith(t.Context(), p.good.Kafka())
		if err != nil || response.Topics[0].Partitions[0].ErrorCode == 0 {
			t.Errorf("a bomb was taken, or not answered: %v", err)
		}
	})
}

func produceOf(topic string, records []byte) kmsg.ProduceRequest {
	r := kmsg.NewProduceRequest()
	r.Acks, r.TimeoutMillis = -1, 10_000
	rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	rt.Topic, rp.Records = topic, records
	rt.Partitions = append(rt.Partitions, rp)
	r.Topics = append(r.Topics, rt)
	return r
}

// randomBatches produces batches with good checksums and random bytes behind them, of every codec.
func randomBatches(t *testing.T, p *process) {
	random := rand.New(rand.NewPCG(5, 6))
	var tries []kmsg.ProduceRequest
	for i := range 2000 {
		records := make([]byte, random.IntN(2000))
		for i := range records {
			records[i] = byte(random.Uint32())
		}
		tries = append(tries, produceOf("good", sealed(int16(i%5), records)))
	}
	inParallel(8, tries, func(r kmsg.ProduceRequest) {
		response, err := r.RequestWith(t.Context(), p.good.Kafka())
		if err != nil || response.Topics[0].Partitions[0].ErrorCode == 0 {
			t.Errorf("random bytes were taken for records, or not answered: %v", err)
		}
	})
}

// slow opens connections that send a byte at a time, and consumers that ask for everything and read nothing.
func slow(t *testing.T, p *process) {
	if _, err := p.good.CreateTopic(t.Context(), "bulk", 4, nil); err != nil {
		t.Fatal(err)
	}
	for range 64 {
		record := &sdk.Record{Topic: "bulk", Value: make([]byte, 900_000)}
		if err := p.good.Produce(t.Context(), record); err != nil {
			t.Fatal(err)
		}
	}
	metadata := kmsg.NewRequestFormatter().AppendRequest(nil, &kmsg.MetadataRequest{Version: 9}, 1)
	var slowest []net.Conn
	for range 500 {
		slowest = append(slowest, p.dial(t))
	}
	for i := range len(metadata) - 1 { // the last byte never comes
		for _, c := range slowest {
			if _, err := c.Write(metadata[i : i+1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	fetch := kmsg.NewFetchRequest()
	fetch.Version, fetch.MaxBytes, fetch.MaxWaitMillis, fetch.MinBytes, fetch.ReplicaID = 12, 0x7FFFFFFF, 100, 1, -1
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = "bulk"
	for i := range int32(4) {
		partition := kmsg.NewFetchRequestTopicPartition()
		partition.Partition, partition.PartitionMaxBytes, partition.CurrentLeaderEpoch = i, 0x7FFFFFFF, -1
		topic.Partitions = append(topic.Partitions, partition)
	}
	fetch.Topics = append(fetch.Topics, topic)
	whole := kmsg.NewRequestFormatter().AppendRequest(nil, &fetch, 1)
	for range 100 {
		c := p.dial(t)
		for range 3 { // a second and a third answer that nobody reads
			if _, err := c.Write(whole); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.serves(t)
}

// expensive asks for much with little.
func expensive(t *testing.T, p *process) {
	fetch := kmsg.NewPtrFetchRequest()
	fetch.MaxBytes, fetch.MaxWaitMillis, fetch.MinBytes, fetch.ReplicaID = 0x7FFFFFFF, 1000, 0x7FFFFFFF, -1
	offsets := kmsg.NewPtrListOffsetsRequest()
	offsets.ReplicaID = -1
	ft, ot := kmsg.NewFetchRequestTopic(), kmsg.NewListOffsetsRequestTopic()
	ft.Topic, ot.Topic = "good", "good"
	for i := range int32(10_000) {
		fp, op := kmsg.NewFetchRequestTopicPartition(), kmsg.NewListOffsetsRequestTopicPartition()
		fp.Partition, fp.PartitionMaxBytes, fp.CurrentLeaderEpoch = i, 0x7FFFFFFF, -1
		op.Partition, op.Timestamp, op.CurrentLeaderEpoch = i, 1, -1
		ft.Partitions, ot.Partitions = append(ft.Partitions, fp), append(ot.Partitions, op)
	}
	fetch.Topics, offsets.Topics = append(fetch.Topics, ft), append(offsets.Topics, ot)
	fetch.Version = 12
	topics := kmsg.NewPtrCreateTopicsRequest()
	for _, n := range []int32{0x7FFFFFFF, 1_000_000, -5} {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = fmt.Sprint("huge", n), n, 1
		topics.Topics = append(topics.Topics, topic)
	}
	all := kmsg.NewPtrMetadataRequest()
	var tries []kmsg.Request
	for range 25 {
		tries = append(tries, fetch, offsets, topics, all)
	}
	inParallel(8, tries, func(r kmsg.Request) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		response, err := p.good.Kafka().Request(ctx, r)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%T is not answered", r)
		}
		if made, ok := response.(*kmsg.CreateTopicsResponse); ok {
			for _, topic := range made.Topics {
				if topic.ErrorCode == 0 {
					t.Errorf("topic %s was made", topic.Topic)
				}
			}
		}
	})
}

// hoards makes groups, producer ids and fetch sessions that nobody will use.
func hoards(t *testing.T, p *process) {
	var groups []int
	for i := range 5000 {
		groups = append(groups, i)
	}
	client := p.good.Kafka()
	inParallel(16, groups, func(i int) {
		join := kmsg.NewPtrJoinGroupRequest()
		join.Group, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis, join.ProtocolType = fmt.Sprint("hoard", i), 6000, 6000, "consumer"
		protocol := kmsg.NewJoinGroupRequestProtocol()
		protocol.Name, protocol.Metadata = "range", make([]byte, 4096)
		join.Protocols = append(join.Protocols, protocol)
		if _, err := client.Request(t.Context(), join); err != nil {
			t.Error(err)
		}
		if _, err := client.Request(t.Context(), kmsg.NewPtrInitProducerIDRequest()); err != nil {
			t.Error(err)
		}
	})
	fetch := kmsg.NewFetchRequest()
	fetch.Version, fetch.MaxBytes, fetch.MaxWaitMillis, fetch.ReplicaID = 12, 1, 0, -1
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = "good"
	for i := range int32(1000) {
		partition := kmsg.NewFetchRequestTopicPartition()
		partition.Partition, partition.CurrentLeaderEpoch = i, -1
		topic.Partitions = append(topic.Partitions, partition)
	}
	fetch.Topics = append(fetch.Topics, topic)
	whole := kmsg.NewRequestFormatter().AppendRequest(nil, &fetch, 1)
	for range 1500 {
		if _, err := p.dial(t).Write(whole); err != nil {
			t.Fatal(err)
		}
	}
	p.serves(t)
}

// manifestOf is a manifest for a module that promises nothing.
func manifestOf(name string) []byte {
	return fmt.Appendf(nil, "name: %s\nversion: 1.0.0\nabi: 1\nlanguage: c\nprojection: [key, value]\nverdicts: [unique, drop, replace, dead-letter]\n", name)
}

func TestBadModulesAreBoundedInMemoryAndTime(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process and throws a lot at it")
	}
	p := startProcess(t)
	good, err := builtin.Open("dedup-key")
	if err != nil {
		t.Fatal(err)
	}
	p.survives("W1 W2 W4 W7 W8 W10 guests that break every promise", bound{memory: 320 * mib, took: 120 * time.Second},
		func(t *testing.T) { brokenPromises(t, p) })
	p.survives("W3 W5 W6 modules too large", bound{memory: 256 * mib, took: 60 * time.Second}, func(t *testing.T) {
		body := append(bytes.Repeat([]byte{0x41, 0, 0x1A}, 1<<21), 0x42, 0)
		for name, module := range map[string][]byte{
			"one large function": moduleOf(body),
			"random bytes":       append([]byte("\x00asm\x01\x00\x00\x00"), bytes.Repeat([]byte{0xC7, 1, 0xFF}, 1<<20)...),
			"too long":           make([]byte, 64<<20),
		} {
			if _, err := p.good.PushPlugin(t.Context(), manifestOf("large"), module); err == nil {
				t.Errorf("%s: taken", name)
			}
		}
	})
	p.survives("W11 cut and flipped modules", bound{memory: 256 * mib, took: 120 * time.Second}, func(t *testing.T) {
		random := rand.New(rand.NewPCG(3, 4))
		for i := range 200 {
			module := append([]byte(nil), good.Module...)
			if i%2 == 0 {
				module = module[:random.IntN(len(module))]
			} else {
				module[random.IntN(len(module))] ^= 1 << random.IntN(8)
			}
			began := time.Now()
			_, err := p.good.PushPlugin(t.Context(), manifestOf(fmt.Sprint("damaged", i)), module)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("module %d: an answer (%v) after %s", i, err, took)
			}
		}
	})
}

// moduleOf is the least module that is a plugin, with a body of millrace_process.
func moduleOf(process []byte) []byte {
	uleb := func(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, body []byte) { out = append(append(append(out, id), uleb(len(body))...), body...) }
	section(1, []byte{3, 0x60, 0, 1, 0x7F, 0x60, 1, 0x7F, 1, 0x7F, 0x60, 2, 0x7F, 0x7F, 1, 0x7E})
	section(3, []byte{3, 0, 1, 2})
	section(5, []byte{1, 0, 2})
	exports := []byte{4}
	for i, name := range []string{"memory", "millrace_abi_version", "millrace_alloc", "millrace_process"} {
		kind, index := byte(0), byte(i-1)
		if i == 0 {
			kind, index = 2, 0
		}
		exports = append(append(append(append(exports, byte(len(name))), name...), kind), index)
	}
	section(7, exports)
	code := []byte{3}
	for _, body := range [][]byte{{0x41, 1}, {0x41, 0x80, 0x20}, process} {
		code = append(append(append(code, uleb(len(body)+2)...), 0), append(body, 0x0B)...)
	}
	section(10, code)
	return out
}

// brokenPromises pushes the conformance kit's hostile modules, binds those that are taken to a group, and waits until
// each has been let loose on records.
func brokenPromises(t *testing.T, p *process) {
	let := map[string]tck.HostileCase{}
	for i, hostile := range tck.Hostile() {
		name := fmt.Sprint("hostile", i)
		if _, err := p.good.PushPlugin(t.Context(), manifestOf(name), hostile.Module); err != nil {
			continue // refused at once is as good
		}
		if _, err := p.good.CreateTopic(t.Context(), name, 1, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := p.good.Bind(t.Context(), name, name, nil, name); err == nil {
			let[name] = hostile
		}
	}
	const each = 3
	var records []*sdk.Record
	for name := range let {
		for range each {
			records = append(records, &sdk.Record{Topic: name, Key: []byte("k"), Value: []byte("v")})
		}
	}
	t.Logf("%d of %d hostile modules are let loose", len(let), len(tck.Hostile()))
	if err := p.good.Produce(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
	for name, hostile := range let {
		accounted(t, p, name, hostile, each)
	}
}

// accounted waits until every record that a hostile plugin was given is delivered or a letter.
func accounted(t *testing.T, p *process, name string, hostile tck.HostileCase, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	reader, err := kgo.NewClient(kgo.SeedBrokers(p.client), kgo.Rack("group="+name),
		kgo.ConsumeTopics(name, name+".dlq."+name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for got := 0; got < want; {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			described, err := p.good.Bindings().DescribeBinding(t.Context(), &adminapi.DescribeBindingRequest{Group: name, Topic: name})
			t.Fatalf("%s: %d of %d records delivered or lettered; %v %v", hostile.Name, got, want, described, err)
		}
		got += fetches.NumRecords()
	}
}
