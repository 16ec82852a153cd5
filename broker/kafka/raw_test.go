package kafka

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// rawConn speaks frames of bytes.
type rawConn struct {
	net.Conn
	t      *testing.T
	reader *bufio.Reader
	next   int32
}

func dialRaw(t *testing.T, address string) *rawConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &rawConn{Conn: conn, t: t, reader: bufio.NewReader(conn)}
}

func (c *rawConn) raw(parts ...[]byte) {
	c.t.Helper()
	for _, b := range parts {
		if _, err := c.Write(b); err != nil {
			c.t.Fatal(err)
		}
	}
}

// send writes a request and returns its correlation id.
func (c *rawConn) send(req kmsg.Request) int32 {
	c.t.Helper()
	c.next++
	c.raw(kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, c.next))
	return c.next
}

// receive reads one response to req and checks its correlation id.
func (c *rawConn) receive(req kmsg.Request, correlation int32) kmsg.Response {
	c.t.Helper()
	b, err := c.receiveBytes()
	if err != nil {
		c.t.Fatalf("read response: %v", err)
	}
	if got := int32(binary.BigEndian.Uint32(b)); got != correlation {
		c.t.Fatalf("response carries correlation id %d, want %d", got, correlation)
	}
	b = b[4:]
	resp := req.ResponseKind()
	if resp.IsFlexible() && req.Key() != keyApiVersions {
		if len(b) == 0 || b[0] != 0 {
			c.t.Fatalf("api %d version %d: response header has no tag section", req.Key(), req.GetVersion())
		}
		b = b[1:]
	}
	if err := resp.ReadFrom(b); err != nil {
		c.t.Fatalf("api %d version %d: decode response: %v", req.Key(), req.GetVersion(), err)
	}
	if again := resp.AppendTo(nil); len(again) != len(b) {
		c.t.Errorf("api %d version %d: response has %d bytes, %d of them understood", req.Key(), req.GetVersion(), len(b), len(again))
	}
	return resp
}

func (c *rawConn) receiveBytes() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c.reader, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(c.reader, b)
	return b, err
}

// ask sends a request and returns its response.
func ask[R kmsg.Response](c *rawConn, req kmsg.Request) R {
	c.t.Helper()
	return c.receive(req, c.send(req)).(R)
}

// closed demands that the server ends the connection without another byte.
func (c *rawConn) closed() {
	c.t.Helper()
	n, err := c.reader.Read(make([]byte, 1))
	if n > 0 {
		c.t.Fatal("the connection answered, want it closed")
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatal("the connection stayed open")
	}
}

func produceRequest(version int16, topic string, id broker.TopicID, acks int16, batches ...[]byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, acks, 10_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = topic, id
	for i, b := range batches {
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = int32(i), b
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	return req
}

func fetchRequest(version int16, topic string, id broker.TopicID, offsets ...int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.ReplicaID, req.MaxBytes, req.MinBytes = version, -1, 1<<20, 1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic, id
	for i, o := range offsets {
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch, rp.LastFetchedEpoch = int32(i), o, 1<<20, -1, -1
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	return req
}

func produced(t *testing.T, c *rawConn, topic string, batches ...[]byte) {
	t.Helper()
	resp := ask[*kmsg.ProduceResponse](c, produceRequest(9, topic, broker.TopicID{}, -1, batches...))
	for _, p := range resp.Topics[0].Partitions {
		if p.ErrorCode != 0 {
			t.Fatalf("produce to %s-%d: error %d", topic, p.Partition, p.ErrorCode)
		}
	}
}

func TestX1SizePrefixesAreBounded(t *testing.T) {
	f := newFace(t, nil)
	address := f.serveTCP()
	for name, prefix := range map[string]uint32{
		"2 GiB": 0x7fffffff, "negative": 0xffffffff, "zero": 0, "below a header": 7, "over the cap": 100<<20 + 1,
	} {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, address)
			c.raw(binary.BigEndian.AppendUint32(nil, prefix))
			c.closed()
		})
	}
}

func TestX1OnlyProduceMayBeLarge(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	c.raw(binary.BigEndian.AppendUint32(nil, 50<<20), []byte{0, 3, 0, 9, 0, 0, 0, 1})
	c.closed()
}

func TestX1MemoryFollowsTheBytesThatArrive(t *testing.T) {
	f := newFace(t, nil)
	reader, writer := io.Pipe()
	arrived := make(chan struct{})
	go func() {
		writer.Write(make([]byte, 200<<10))
		close(arrived)
		writer.CloseWithError(io.ErrUnexpectedEOF)
	}()
	before := memory()
	_, err := f.server.frames.readFrame(bufio.NewReader(reader), 100<<20, 0, frameRules{
		first: func([]byte) error { return nil },
		room:  func(int, *claim) error { return nil },
	})
	after := memory()
	<-arrived
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("read of a frame cut short: %v", err)
	}
	if took := after - before; took > 8<<20 {
		t.Fatalf("200 KiB of a 100 MiB promise took %d bytes of memory", took)
	}
}

func TestX1BeforeAuthenticationFramesAreSmallAndOnlyApiVersionsIsAnswered(t *testing.T) {
	f := newFace(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.server.Serve(Listener{Listener: l, Name: "client", RequireAuthentication: true}) }()
	defer func() { l.Close(); <-done }()

	c := dialRaw(t, l.Addr().String())
	if resp := ask[*kmsg.ApiVersionsResponse](c, kmsg.NewPtrApiVersionsRequest()); resp.ErrorCode != 0 {
		t.Errorf("ApiVersions before authentication: error %d", resp.ErrorCode)
	}
	c.send(kmsg.NewPtrMetadataRequest())
	c.closed()

	c = dialRaw(t, l.Addr().String())
	c.raw(binary.BigEndian.AppendUint32(nil, 128<<10+1))
	c.closed()
}

func TestX2CountBombsAreRefused(t *testing.T) {
	f := newFace(t, nil)
	address := f.serveTCP()
	huge := []byte{0x7f, 0xff, 0xff, 0xff}
	many := binary.BigEndian.AppendUint32(nil, 60_000) // fits the bytes that are left, not as elements
	padding := make([]byte, 64<<10)
	for name, body := range map[string][]byte{
		"metadata v1, more topics than bytes":       append([]byte{0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff}, huge...),
		"produce v3, more topics than fit":          append(append([]byte{0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 9}, many...), padding...),
		"delete groups v2, overlong varint":         {0, 42, 0, 2, 0, 0, 0, 1, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"metadata v9, four billion tags":            {0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 7},
		"find coordinator v4, a million empty keys": append([]byte{0, 10, 0, 4, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0xc1, 0x84, 0x3d}, bytes.Repeat([]byte{1}, 1_000_001)...),
		"header v2, four billion tags":              {0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 7},
		"heartbeat v0, string past the end":         {0, 12, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 'g'},
		"api versions v3, cut in the client id":     {0, 18, 0, 3, 0, 0, 0, 1, 0, 40, 'x'},
		"find coordinator v4, more keys than fit":   {0, 10, 0, 4, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0x40, 'a', 'b'},
	} {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, address)
			before := memory()
			c.raw(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body)
			c.closed()
			if took := memory() - before; took > 16<<20 {
				t.Errorf("refusing it took %d bytes", took)
			}
		})
	}
}

func TestUnknownApisAndVersionsCloseTheConnection(t *testing.T) {
	f := newFace(t, nil)
	address := f.serveTCP()
	for name, h := range map[string][]byte{
		"unknown api":          {0, 99, 0, 0, 0, 0, 0, 1, 0xff, 0xff},
		"negative api":         {0xff, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff},
		"metadata v14":         {0, 3, 0, 14, 0, 0, 0, 1, 0xff, 0xff},
		"fetch v3":             {0, 1, 0, 3, 0, 0, 0, 1, 0xff, 0xff},
		"produce v2 (T1)":      {0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff},
		"metadata version -1":  {0, 3, 0xff, 0xff, 0, 0, 0, 1, 0xff, 0xff},
		"controller api vote":  {0, 52, 0, 0, 0, 0, 0, 1, 0xff, 0xff},
		"leader and isr":       {0, 4, 0, 0, 0, 0, 0, 1, 0xff, 0xff},
		"write txn markers":    {0, 27, 0, 1, 0, 0, 0, 1, 0xff, 0xff},
		"consumer group heart": {0, 68, 0, 1, 0, 0, 0, 1, 0xff, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, address)
			c.raw(binary.BigEndian.AppendUint32(nil, uint32(len(h))), h)
			c.closed()
		})
	}
}

func TestFramesMayArriveByteByByte(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	for _, b := range kmsg.NewRequestFormatter().AppendRequest(nil, req, 7) {
		c.raw([]byte{b})
	}
	if resp := c.receive(req, 7).(*kmsg.MetadataResponse); len(resp.Topics) != 1 {
		t.Fatalf("%d topics, want 1", len(resp.Topics))
	}
}

func TestFrameCutShortEndsTheConnectionOnly(t *testing.T) {
	f := newFace(t, nil)
	address := f.serveTCP()
	c := dialRaw(t, address)
	c.raw([]byte{0, 0, 1, 0, 0, 3})
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.closed()
	ask[*kmsg.ApiVersionsResponse](dialRaw(t, address), kmsg.NewPtrApiVersionsRequest())
}

func TestBadBatchesAreRefusedAndTheConnectionGoesOn(t *testing.T) {
	f := newFace(t, func(c *Config) { c.Limits.DecompressedBytesMax = 4 << 20 })
	id := f.addTopic("orders", 1)
	f.fold(configFact("orders", "max.message.bytes", "100000"))
	c := dialRaw(t, f.serveTCP())
	good := makeBatch(t, batch.None, "a", "b")
	change := func(at int, to byte) []byte {
		b := append([]byte(nil), good...)
		b[at] = to
		return b
	}
	zeros := make([]byte, 5<<20)
	bomb := buildBatch(t, batch.Spec{Codec: batch.Gzip}, string(zeros))
	for name, tc := range map[string]struct {
		records []byte
		want    broker.Code
	}{
		"X5 flipped CRC":                 {change(len(good)-1, 0x55), broker.CorruptMessage},
		"X5 magic 1":                     {change(16, 1), broker.InvalidRecord},
		"X5 magic 3":                     {change(16, 3), broker.CorruptMessage},
		"X5 length past the end":         {change(9, 1), broker.InvalidRecord},
		"cut short":                      {good[:30], broker.InvalidRecord},
		"empty":                          {[]byte{}, broker.InvalidRecord},
		"null":                           {nil, broker.InvalidRecord},
		"two batches":                    {append(append([]byte(nil), good...), good...), broker.InvalidRecord},
		"X5 control batch from a client": {buildBatch(t, batch.Spec{Control: true}, "x"), broker.InvalidRecord},
		"transactional batch": {buildBatch(t, batch.Spec{Transactional: true, Producer: &batch.Producer{ID: 1}}, "x"),
			broker.TransactionalIDAuthFailed},
		"over max.message.bytes": {makeBatch(t, batch.None, string(make([]byte, 100_001))), broker.MessageTooLarge},
		"X4 decompression bomb":  {bomb, broker.MessageTooLarge},
	} {
		resp := ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders", id, -1, tc.records))
		if got := broker.Code(resp.Topics[0].Partitions[0].ErrorCode); got != tc.want {
			t.Errorf("%s: code %d, want %d", name, got, tc.want)
		}
	}
	produced(t, c, "orders", good)
	if end := f.log("orders", 0).Ends().HighWatermark; end != 2 {
		t.Fatalf("the log ends at %d, want 2: a bad batch got in or the good one did not", end)
	}
}

func TestX13TopicNamesAreChecked(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	long := strings.Repeat("n", broker.TopicNameMax+1)
	for _, name := range []string{"", ".", "..", "a/b", "a b", "a\nb", "é", long} {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Version = 7
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, 1, 1
		req.Topics = append(req.Topics, rt)
		resp := ask[*kmsg.CreateTopicsResponse](c, req)
		if got := broker.Code(resp.Topics[0].ErrorCode); got != broker.InvalidTopic {
			t.Errorf("topic %q: code %d, want INVALID_TOPIC", name, got)
		}
	}
}

func TestX10ConsumerThatNeverReadsIsCutOff(t *testing.T) {
	f := newFace(t, func(c *Config) { c.Limits.Transfer, c.Limits.TransferRate = 200*time.Millisecond, 1<<30 })
	id := f.addTopic("orders", 1)
	f.fold(configFact("orders", "max.message.bytes", "20000000"))
	address := f.serveTCP()
	produced(t, dialRaw(t, address), "orders", makeBatch(t, batch.None, string(make([]byte, 1<<20))))
	c := dialRaw(t, address)
	if err := c.Conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	for range 40 { // far more than socket buffers hold; the writes fail once the server has let go
		req := fetchRequest(12, "orders", id, 0)
		req.MaxBytes, req.Topics[0].Partitions[0].PartitionMaxBytes = 10<<20, 10<<20
		if _, err := c.Write(kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)); err != nil {
			break
		}
	}
	waitUntil(t, "the connection is let go", func() bool {
		f.server.mu.Lock()
		defer f.server.mu.Unlock()
		return len(f.server.conns) <= 1
	})
}

func TestX10ConnectionsPerAddressAreBounded(t *testing.T) {
	f := newFace(t, func(c *Config) { c.Limits.ConnectionsPerIP = 2 })
	address := f.serveTCP()
	first, second := dialRaw(t, address), dialRaw(t, address)
	ask[*kmsg.ApiVersionsResponse](first, kmsg.NewPtrApiVersionsRequest())
	ask[*kmsg.ApiVersionsResponse](second, kmsg.NewPtrApiVersionsRequest())
	dialRaw(t, address).closed()
	first.Close()
	waitUntil(t, "the place is free again", func() bool {
		f.server.mu.Lock()
		defer f.server.mu.Unlock()
		return len(f.server.conns) == 1
	})
	ask[*kmsg.ApiVersionsResponse](dialRaw(t, address), kmsg.NewPtrApiVersionsRequest())
}

func itoa(n int32) string { return strconv.Itoa(int(n)) }

func listRequest(topic string, timestamps ...int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = 9, -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	for i, at := range timestamps {
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = int32(i), at, -1
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	return req
}

func epochRequest(topic string, current, epoch int32) *kmsg.OffsetForLeaderEpochRequest {
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.Version = 4
	rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	rp.CurrentLeaderEpoch, rp.LeaderEpoch = current, epoch
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}
