package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/internal/vfs"
)

// quick lets consumer groups move in tests.
func quick(more ...string) []string {
	return append([]string{
		"group.consumer.min.heartbeat.interval.ms", "50", "group.consumer.heartbeat.interval.ms", "50",
		"group.consumer.min.session.timeout.ms", "500", "group.consumer.session.timeout.ms", "1000",
	}, more...)
}

// nextGeneration makes a client consume with the protocol of KIP-848.
func nextGeneration(group string, topics ...string) []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topics...), kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}
}

// collect polls until n values have come.
func collect(t *testing.T, client *kgo.Client, n int) map[string]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	got := map[string]int{}
	for len(got) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("have %d of %d records: %v", len(got), n, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got[string(r.Value)]++ })
	}
	return got
}

func TestAConsumerOfTheNextGenerationReadsATopic(t *testing.T) {
	n := serving(t, quick()...)
	admin, ctx := administrator(t, n)
	if _, err := admin.CreateTopic(ctx, 4, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	producer := stock(t, n, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range 20 {
		produceTo(t, producer, "orders", int32(i%4), fmt.Sprint(i))
	}
	consumer := stock(t, n, nextGeneration("billing", "orders")...)
	if got := collect(t, consumer, 20); len(got) != 20 {
		t.Fatalf("got %v", got)
	}
	if err := consumer.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}
	groups, err := admin.DescribeConsumerGroups(ctx, "billing")
	if err != nil {
		t.Fatal(err)
	}
	described := groups["billing"]
	if described.Err != nil || described.State != "Stable" || len(described.Members) != 1 {
		t.Fatalf("described as %+v", described)
	}
	offsets, err := admin.FetchOffsets(ctx, "billing")
	if err != nil {
		t.Fatal(err)
	}
	for p := range int32(4) {
		if at, ok := offsets.Lookup("orders", p); !ok || at.At != 5 {
			t.Errorf("partition %d is committed at %v", p, at.At)
		}
	}
}

// holders watches who has which partition: two members must never have the same one.
type holders struct {
	mu      sync.Mutex
	of      map[string]string // partition → member
	trouble []string
}

func newHolders() *holders { return &holders{of: map[string]string{}} }

func (h *holders) take(who string, partitions map[string][]int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for topic, numbers := range partitions {
		for _, p := range numbers {
			name := fmt.Sprint(topic, "-", p)
			if other, held := h.of[name]; held {
				h.trouble = append(h.trouble, fmt.Sprintf("%s takes %s, which %s has", who, name, other))
			}
			h.of[name] = who
		}
	}
}

func (h *holders) give(who string, partitions map[string][]int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for topic, numbers := range partitions {
		for _, p := range numbers {
			if name := fmt.Sprint(topic, "-", p); h.of[name] == who {
				delete(h.of, name)
			}
		}
	}
}

// shares counts the partitions of each member.
func (h *holders) shares() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	shares := map[string]int{}
	for _, who := range h.of {
		shares[who]++
	}
	return shares
}

func (h *holders) watch(who string) []kgo.Opt {
	return []kgo.Opt{
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { h.take(who, p) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { h.give(who, p) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, p map[string][]int32) { h.give(who, p) }),
	}
}

// become waits until the shares are so.
func (h *holders) become(t *testing.T, want map[string]int) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !maps.Equal(h.shares(), want) {
		if time.Now().After(deadline) {
			t.Fatalf("the shares are %v, want %v", h.shares(), want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// line is a connection that can be cut for good.
type line struct {
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, errors.New("the line is cut")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		l.conns = append(l.conns, conn)
	}
	return conn, err
}

func (l *line) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for _, conn := range l.conns {
		_ = conn.Close()
	}
}

// drain polls in the background until the test ends.
func drain(t *testing.T, client *kgo.Client) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil && !client.PollFetches(ctx).IsClientClosed() {
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// Members join, leave, lose their line and come back; topics grow: the partitions are dealt evenly every time, and no two
// members ever have the same one.
func TestNextGenerationGroupsRebalanceWithoutSharing(t *testing.T) {
	for _, balancer := range []kgo.GroupBalancer{kgo.StickyBalancer(), kgo.RangeBalancer()} {
		t.Run(balancer.ProtocolName(), func(t *testing.T) {
			n := serving(t, quick()...)
			admin, ctx := administrator(t, n)
			if _, err := admin.CreateTopic(ctx, 6, 1, nil, "orders"); err != nil {
				t.Fatal(err)
			}
			h := newHolders()
			member := func(name string, more ...kgo.Opt) *kgo.Client {
				opts := append(nextGeneration("billing", "orders"), h.watch(name)...)
				opts = append(opts, kgo.Balancers(balancer), kgo.MetadataMinAge(10*time.Millisecond))
				client := stock(t, n, append(opts, more...)...)
				drain(t, client)
				return client
			}
			member("a")
			h.become(t, map[string]int{"a": 6})
			b := member("b")
			h.become(t, map[string]int{"a": 3, "b": 3})
			cable := &line{}
			member("c", kgo.Dialer(cable.dial))
			h.become(t, map[string]int{"a": 2, "b": 2, "c": 2})
			b.Close()
			h.become(t, map[string]int{"a": 3, "c": 3})
			h.give("c", map[string][]int32{"orders": {0, 1, 2, 3, 4, 5}}) // It does not know that it has lost them.
			cable.sever()
			h.become(t, map[string]int{"a": 6})
			if _, err := admin.UpdatePartitions(ctx, 8, "orders"); err != nil {
				t.Fatal(err)
			}
			h.become(t, map[string]int{"a": 8})
			for _, what := range h.trouble {
				t.Error(what)
			}
		})
	}
}

// A static member that is closed keeps its partitions for its session; under its name it is back with the same.
func TestAStaticConsumerComesBackToItsPartitions(t *testing.T) {
	n := serving(t, quick("group.consumer.session.timeout.ms", "30000")...)
	admin, ctx := administrator(t, n)
	if _, err := admin.CreateTopic(ctx, 4, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	h := newHolders()
	static := append(nextGeneration("billing", "orders"), kgo.InstanceID("one"))
	first := stock(t, n, append(static, h.watch("first")...)...)
	drain(t, first)
	other := stock(t, n, append(nextGeneration("billing", "orders"), h.watch("other")...)...)
	drain(t, other)
	h.become(t, map[string]int{"first": 2, "other": 2})
	first.Close()
	h.become(t, map[string]int{"other": 2})
	drain(t, stock(t, n, append(static, h.watch("second")...)...))
	h.become(t, map[string]int{"other": 2, "second": 2})
	for _, what := range h.trouble {
		t.Error(what)
	}
	described, err := admin.DescribeConsumerGroups(ctx, "billing")
	if err != nil || described["billing"].Epoch != 2 {
		t.Errorf("coming back raised the group epoch: %+v, %v", described["billing"], err)
	}
}

// A consumer outlives its broker: the coordinator that takes over knows the group, and the member goes on without a
// rebalance.
func TestAConsumerGroupOutlivesItsBroker(t *testing.T) {
	s := newSeat(t, vfs.OS{}, filepath.Join(t.TempDir(), "node")).format()
	s.config.Client.Bind = lastingAddress(t)
	for pair := range slices.Chunk(quick("group.consumer.session.timeout.ms", "30000"), 2) {
		if err := s.config.Set(pair[0], pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	n := s.start()
	s.createTopic(n, "orders", 2, nil)
	h := newHolders()
	consumer := s.client(n, append(nextGeneration("billing", "orders"), h.watch("a")...)...)
	producer := s.client(n)
	h.become(t, map[string]int{"a": 2})
	s.stop(n)
	n = s.start()
	defer s.stop(n)
	if err := producer.ProduceSync(t.Context(), record("orders", 1, "after")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, consumer, 1); got["after"] != 1 {
		t.Errorf("read %v", got)
	}
	d, err := n.groups.DescribeConsumers(t.Context(), "billing")
	if err != nil || d.Epoch != 1 || d.State != group.Stable || len(d.Members) != 1 {
		t.Errorf("the group is %+v, %v", d, err)
	}
	if len(h.trouble) > 0 || h.shares()["a"] != 2 {
		t.Errorf("the shares are %v, %v", h.shares(), h.trouble)
	}
}

// What looks at groups looks at these too: the chain of a group filters what its members read, by its rack and by its view;
// its lag is that of the filtered log; and a seek is refused under its members.
func TestAChainServesAGroupOfTheNextGeneration(t *testing.T) {
	n := serving(t, quick()...)
	admin, ctx := administrator(t, n)
	if _, err := admin.CreateTopic(ctx, 2, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	where := "http://" + n.Addresses().Admin
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	bindings := adminapiconnect.NewBindingServiceClient(http.DefaultClient, where)
	chain := &adminapi.ChainSpec{Stages: []*adminapi.Stage{{Plugin: "dedup-key"}}}
	if _, err := bindings.CreateBinding(ctx, &adminapi.CreateBindingRequest{Group: "billing", Topics: []string{"orders"}, Chain: chain}); err != nil {
		t.Fatal(err)
	}
	views := adminapiconnect.NewViewServiceClient(http.DefaultClient, where)
	if _, err := views.CreateView(ctx, &adminapi.CreateViewRequest{Name: "billing-orders", Topic: "orders", Group: "billing"}); err != nil {
		t.Fatal(err)
	}
	producer := stock(t, n, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i, key := range []string{"k", "k", "l", "k", "m"} {
		record := &kgo.Record{Topic: "orders", Partition: int32(i % 2), Key: []byte(key), Value: fmt.Append(nil, i)}
		if err := producer.ProduceSync(ctx, record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	// Each partition has each key once: k, l and m on 0; k on 1.
	viaRack := stock(t, n, append(nextGeneration("billing", "orders"), kgo.Rack("group=billing"))...)
	viaView := stock(t, n, nextGeneration("watchers", "billing-orders")...)
	for name, client := range map[string]*kgo.Client{"rack": viaRack, "view": viaView} {
		if got := collect(t, client, 4); !maps.Equal(got, map[string]int{"0": 1, "1": 1, "2": 1, "4": 1}) {
			t.Errorf("by its %s the group reads %v", name, got)
		}
		if err := client.CommitUncommittedOffsets(ctx); err != nil {
			t.Fatal(err)
		}
	}
	groups := adminapiconnect.NewGroupServiceClient(http.DefaultClient, where)
	for name, topic := range map[string]string{"billing": "orders", "watchers": "billing-orders"} {
		d, err := groups.DescribeGroup(ctx, &adminapi.DescribeGroupRequest{Group: name})
		if err != nil {
			t.Fatal(err)
		}
		if s := d.Summary; s.State != "Stable" || s.Members != 1 || s.ProtocolType != "consumer" || s.TotalLag != 0 || d.Protocol != "uniform" {
			t.Errorf("group %s: %v, protocol %q", name, s, d.Protocol)
		}
		if got := d.Members[0].Assigned; !slices.Equal(got, []string{topic + "-0", topic + "-1"}) {
			t.Errorf("group %s: its member has %v", name, got)
		}
	}
	_, err := groups.SeekGroup(ctx, &adminapi.SeekGroupRequest{Group: "billing", Execute: true, Target: &adminapi.SeekTarget{To: &adminapi.SeekTarget_Start{Start: true}}})
	if err == nil || !strings.Contains(err.Error(), "1 members") {
		t.Errorf("a seek under a member: %v", err)
	}
	viaRack.Close()
	if deleted, err := admin.DeleteGroups(ctx, "billing"); err != nil || deleted["billing"].Err != nil {
		t.Errorf("the group is deleted with %v, %v", deleted["billing"].Err, err)
	}
}
