package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// writesConn keeps what is written to it, write by write.
type writesConn struct {
	net.Conn
	writes [][]byte
}

func (c *writesConn) SetWriteDeadline(time.Time) error { return nil }

func (c *writesConn) Write(b []byte) (int, error) {
	c.writes = append(c.writes, bytes.Clone(b))
	return len(b), nil
}

func TestStreamsGetLargeWrites(t *testing.T) {
	f := newFace(t, nil)
	for name, sizes := range map[string][]int{
		"small pieces":       {10, 20, 30},
		"one large":          {10, 300 << 10, 10},
		"exactly one buffer": {coalesceBytes / 2, coalesceBytes / 2},
		"many":               slices.Repeat([]int{7, 30_000, 100_000}, 20),
		"empty pieces":       {0, 5, 0},
	} {
		var pieces net.Buffers
		for i, size := range sizes {
			pieces = append(pieces, bytes.Repeat([]byte{byte(i + 1)}, size))
		}
		want := bytes.Join(pieces, nil)
		conn := &writesConn{}
		if err := f.server.writeAll(conn, pieces, len(want)); err != nil {
			t.Fatal(err)
		}
		if got := bytes.Join(conn.writes, nil); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes were written, want %d in order", name, len(got), len(want))
		}
		for i, w := range conn.writes {
			if len(w) < coalesceBytes && i < len(conn.writes)-1 {
				t.Errorf("%s: write %d of %d has %d bytes", name, i, len(conn.writes), len(w))
			}
		}
	}
}

func TestPipelineBytesAreBounded(t *testing.T) {
	f := newFace(t, func(c *Config) { c.Limits.PipelineBytesMax = 4 << 10 })
	id := f.addTopic("orders", 1)
	log := f.log("orders", 0)
	log.hold = true
	c := dialRaw(t, f.serveTCP())
	req := produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, string(make([]byte, 1500))))
	for range 8 {
		c.send(req)
	}
	waitUntil(t, "the bound is passed", func() bool { return log.Ends().HighWatermark == 3 })
	log.acknowledge()
	for i := range 8 {
		c.receive(req, int32(i+1))
	}
}

func TestServeEndsWithItsListenerAndWithTheServer(t *testing.T) {
	for _, first := range []string{"listener", "server"} {
		f := newFace(t, nil)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- f.server.Serve(Listener{Listener: l, Name: "client"}) }()
		c := dialRaw(t, l.Addr().String())
		ask[*kmsg.ApiVersionsResponse](c, kmsg.NewPtrApiVersionsRequest())
		if first == "listener" {
			l.Close()
			if err := <-done; err != nil {
				t.Errorf("serve after its listener: %v", err)
			}
			ask[*kmsg.ApiVersionsResponse](c, kmsg.NewPtrApiVersionsRequest()) // connections outlive the listener
		}
		if err := f.server.Close(); err != nil {
			t.Fatal(err)
		}
		c.closed()
		if first == "server" {
			if err := <-done; err != nil {
				t.Errorf("serve after the server: %v", err)
			}
		}
		again, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := f.server.Serve(Listener{Listener: again, Name: "client"}); err != nil {
			t.Errorf("serve on a closed server: %v", err)
		}
		if _, err := again.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed server left the listener open: %v", err)
		}
	}
}

func TestConnectionsEndWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cluster := newFakeCluster(t)
	server, err := New(ctx, Config{
		Node: selfNode, Metadata: cluster, Partitions: cluster, Groups: newFakeGroups(), Controller: cluster, Chains: cluster,
	})
	if err != nil {
		t.Fatal(err)
	}
	f := &face{fakeCluster: cluster, server: server}
	c := dialRaw(t, f.serveTCP())
	ask[*kmsg.ApiVersionsResponse](c, kmsg.NewPtrApiVersionsRequest())
	cancel()
	c.closed()
}

func TestConfigNamesEverythingThatIsMissing(t *testing.T) {
	_, err := New(t.Context(), Config{})
	for _, name := range []string{"Metadata", "Partitions", "Groups", "Controller", "Chains"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not say that %s is missing", err, name)
		}
	}
}

// counts keeps what was counted.
type counts struct {
	NoMetrics
	mu          sync.Mutex
	codes       map[string][]broker.Code
	produced    [2]int64 // bytes, records
	fetched     [2]int64
	unsupported [][2]int16
}

func (c *counts) Request(api string, code broker.Code, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.codes[api] = append(c.codes[api], code)
}

func (c *counts) Produced(_ string, bytes int, records int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.produced = [2]int64{c.produced[0] + int64(bytes), c.produced[1] + records}
}

func (c *counts) Fetched(_ string, bytes int, records int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetched = [2]int64{c.fetched[0] + int64(bytes), c.fetched[1] + records}
}

func (c *counts) UnsupportedVersion(api, version int16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsupported = append(c.unsupported, [2]int16{api, version})
}

func TestWhatIsServedIsCounted(t *testing.T) {
	m := &counts{codes: make(map[string][]broker.Code)}
	f := newFace(t, func(c *Config) { c.Metrics = m })
	id := f.addTopic("orders", 1)
	address := f.serveTCP()
	c := dialRaw(t, address)
	sent := makeBatch(t, batch.None, "a", "b", "c")
	produced(t, c, "orders", sent)
	produced(t, c, "orders", sent)
	ask[*kmsg.FetchResponse](c, fetchRequest(12, "orders", id, 0))
	ask[*kmsg.FetchResponse](c, fetchRequest(13, "", broker.TopicID{9}, 0))
	ask[*kmsg.ApiVersionsResponse](c, kmsg.NewPtrApiVersionsRequest()) // behind the counting of what was before
	for _, h := range [][]byte{{0, 3, 0x7f, 0}, {0x70, 0, 0, 5}} {
		other := dialRaw(t, address)
		other.raw(binary.BigEndian.AppendUint32(nil, 8), h, []byte{0, 0, 0, 1})
		other.closed()
	}
	want := [2]int64{int64(2 * len(sent)), 6}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.produced != want || m.fetched != want {
		t.Errorf("produced %v and fetched %v bytes and records, want %v", m.produced, m.fetched, want)
	}
	if got := m.codes["Fetch"]; !slices.Equal(got, []broker.Code{broker.None, broker.UnknownTopicID}) {
		t.Errorf("fetches were counted with codes %v", got)
	}
	if got := m.codes["Produce"]; !slices.Equal(got, []broker.Code{broker.None, broker.None}) {
		t.Errorf("produces were counted with codes %v", got)
	}
	if !slices.Equal(m.unsupported, [][2]int16{{keyMetadata, 14}, {-1, -1}}) {
		t.Errorf("unsupported versions were counted as %v", m.unsupported)
	}
}

func TestJoinAndSyncFollowTheirVersions(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.ProtocolType, join.SessionTimeoutMillis = "group", "consumer", 10_000
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte("metadata")}}
	join.Version = 3
	if got := ask[*kmsg.JoinGroupResponse](c, join); got.ErrorCode != 0 || got.Generation != 1 {
		t.Errorf("version 3 without a member id: %+v", got)
	}
	join.Version = 9
	first := ask[*kmsg.JoinGroupResponse](c, join)
	if broker.Code(first.ErrorCode) != broker.MemberIDRequired || first.MemberID != "test-1" || first.Protocol != nil {
		t.Errorf("version 9 without a member id: %+v", first)
	}
	join.MemberID = first.MemberID
	joined := ask[*kmsg.JoinGroupResponse](c, join)
	if joined.ErrorCode != 0 || *joined.ProtocolType != "consumer" || *joined.Protocol != "range" || string(joined.Members[0].ProtocolMetadata) != "metadata" {
		t.Errorf("version 9 with it: %+v", joined)
	}
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Version, sync.Group, sync.Generation, sync.MemberID = 5, "group", 1, joined.MemberID
	sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: joined.MemberID, MemberAssignment: []byte("assignment")}}
	if got := ask[*kmsg.SyncGroupResponse](c, sync); broker.Code(got.ErrorCode) != broker.InconsistentGroupProtocol {
		t.Errorf("sync version 5 without a protocol: code %d", got.ErrorCode)
	}
	sync.ProtocolType, sync.Protocol = joined.ProtocolType, joined.Protocol
	if got := ask[*kmsg.SyncGroupResponse](c, sync); got.ErrorCode != 0 || string(got.MemberAssignment) != "assignment" {
		t.Errorf("sync: %+v", got)
	}
	// The frames are used again; what the coordinator was given stays.
	ask[*kmsg.MetadataResponse](c, kmsg.NewPtrMetadataRequest())
	if kept := f.groups.members["group"].Protocols[0].Metadata; string(kept) != "metadata" {
		t.Errorf("the coordinator's metadata became %q", kept)
	}
	if kept := f.groups.assigned["group"+joined.MemberID]; string(kept) != "assignment" {
		t.Errorf("the coordinator's assignment became %q", kept)
	}
}

func TestMalformedPreambleEndsTheConnection(t *testing.T) {
	f := newFace(t, nil)
	address := f.serveTCP()
	for name, opening := range map[string]string{"too long": "MRS1\xff\xff", "not a message": "MRS1\x03\x00\xff\xff\xff"} {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, address)
			c.raw([]byte(opening))
			c.closed()
		})
	}
}

func TestDecompressionGoesThroughTheGate(t *testing.T) {
	var mu sync.Mutex
	entered, inside := 0, 0
	count := func(n int) { mu.Lock(); defer mu.Unlock(); inside += n; entered += max(n, 0) }
	gate := func(context.Context) (func(), error) {
		count(1)
		return func() { count(-1) }, nil
	}
	f := newFace(t, func(c *Config) { c.Gate = gate })
	f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	produced(t, c, "orders", makeBatch(t, batch.None, "a"))
	produced(t, c, "orders", makeBatch(t, batch.LZ4, "a"))
	mu.Lock()
	defer mu.Unlock()
	if entered != 1 || inside != 0 {
		t.Errorf("the gate was entered %d times and %d are inside, want 1 and 0", entered, inside)
	}
}

// TestClosedConnectionLeavesNobodyBehind: whoever writes a connection's answers ends with it, and not with the server.
func TestClosedConnectionLeavesNobodyBehind(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	log := f.log("orders", 0)
	log.hold = true
	c := dialRaw(t, f.serveTCP())
	req := produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, "a"))
	sent := c.send(req)
	writers := func() int {
		stacks := make([]byte, 1<<20)
		return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "(*outbox).run(")
	}
	waitUntil(t, "somebody waits to write the answer", func() bool { return writers() == 1 })
	log.acknowledge()
	c.receive(req, sent)
	c.Close()
	waitUntil(t, "it has ended", func() bool { return writers() == 0 })
}
