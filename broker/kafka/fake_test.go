package kafka

import (
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const selfNode broker.NodeID = 1

// fakeCluster is everything behind the face: an image that facts are folded into, partitions in memory, groups of one
// member. It is safe for concurrent use.
type fakeCluster struct {
	t *testing.T

	mu         sync.Mutex
	img        *metadata.Image
	index      broker.Index
	partitions map[broker.TopicPartition]*fakePartition
	core       *controller.Core
	chains     map[broker.BindingID]*fakeChain
	err        error // what the controller answers, if set
}

func newFakeCluster(t *testing.T) *fakeCluster {
	c := &fakeCluster{
		t: t, img: metadata.NewImage(), core: controller.New(controller.Config{}, rand.Reader),
		partitions: make(map[broker.TopicPartition]*fakePartition), chains: make(map[broker.BindingID]*fakeChain),
	}
	c.fold(metadata.ClusterFact(broker.ClusterID{1, 2, 3}), metadata.FeatureLevelFact(1))
	c.addBroker(selfNode, "self.example", 9092)
	return c
}

func (c *fakeCluster) fold(facts ...*metadata.Fact) broker.Index {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	next, _, err := metadata.Fold(c.img, c.index, 1, facts)
	if err != nil {
		c.t.Fatalf("fold: %v", err)
	}
	c.img = next
	return c.index
}

func (c *fakeCluster) addBroker(node broker.NodeID, host string, port int32) {
	r := &metadata.Registration{
		Node: node, Rack: "rack-" + strconv.Itoa(int(node)), Incarnation: broker.UUID{byte(node)}, Directory: broker.UUID{byte(node)},
		Endpoints: []metadata.Endpoint{{Listener: "client", Host: host, Port: port}, {Listener: "cluster", Host: host, Port: port + 1}},
	}
	r.Epoch = broker.BrokerEpoch(c.fold(metadata.RegistrationFact(r)))
	c.fold(metadata.BrokerStateFact(r))
}

func (c *fakeCluster) Image() *metadata.Image {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.img
}

func (c *fakeCluster) addTopic(name string, partitions int32) broker.TopicID {
	c.t.Helper()
	reply, err := c.Submit(c.t.Context(), controller.CreateTopic{Name: name, Partitions: partitions, ReplicationFactor: 1})
	if err != nil {
		c.t.Fatal(err)
	}
	return reply.(controller.TopicCreated).ID
}

// refuse has the controller answer everything with an error, or, with nil, no longer.
func (c *fakeCluster) refuse(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// Submit decides with the real controller core, and makes a partition in memory for each that is new.
func (c *fakeCluster) Submit(_ context.Context, request controller.Request) (controller.Reply, error) {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	decision, err := c.core.Decide(c.Image(), request, 0)
	if err != nil {
		return nil, err
	}
	for _, entry := range decision.Changes {
		c.fold(entry...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic := range c.img.Topics() {
		for _, p := range c.img.Partitions(topic.ID) {
			if c.partitions[p.TopicPartition] == nil {
				c.partitions[p.TopicPartition] = newFakePartition(p.LeaderEpoch)
			}
		}
	}
	return decision.Reply, nil
}

// bind gives a group, or with an empty group nobody, a binding on a topic whose chain drops what drop says.
func (c *fakeCluster) bind(group string, topic broker.TopicID, drop func(offset broker.Offset) bool) broker.BindingID {
	c.t.Helper()
	id := broker.BindingID(c.fold(metadata.BindingFact(&metadata.Binding{Group: group, Topic: topic})))
	if _, made := c.Image().Binding(id); !made {
		c.t.Fatal("binding did not enter the image")
	}
	c.chains[id] = &fakeChain{cluster: c, drop: drop}
	return id
}

func (c *fakeCluster) addView(name string, base broker.TopicID, binding broker.BindingID) broker.TopicID {
	c.t.Helper()
	view := &metadata.View{ID: broker.TopicID{0xee, byte(c.index)}, Name: name, Base: base, Binding: binding}
	c.fold(metadata.ViewFact(view))
	if _, made := c.Image().ViewNamed(name); !made {
		c.t.Fatal("view did not enter the image")
	}
	return view.ID
}

func (c *fakeCluster) Partition(tp broker.TopicPartition) (Partition, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, here := c.partitions[tp]
	if !here {
		return nil, broker.NotLeaderOrFollower
	}
	return p, nil
}

func (c *fakeCluster) log(topic string, partition int32) *fakePartition {
	c.t.Helper()
	found, ok := c.Image().TopicNamed(topic)
	if !ok {
		c.t.Fatalf("no topic %q", topic)
	}
	return c.partitions[broker.TopicPartition{Topic: found.ID, Partition: partition}]
}

func (c *fakeCluster) Filtered(id broker.BindingID, tp broker.TopicPartition) (Filtered, error) {
	chain, ok := c.chains[id]
	if !ok {
		return nil, broker.ResourceNotFound
	}
	return &fakeFiltered{chain: chain, base: c.partitions[tp]}, nil
}

// fakePartition is a log of batches in memory.
type fakePartition struct {
	mu       sync.Mutex
	batches  []batch.View
	start    broker.Offset
	end      broker.Offset
	epoch    broker.LeaderEpoch
	watchers map[int]chan<- struct{}
	nextKey  int
	held     []func() // acknowledgements kept back while hold is set
	hold     bool
	reads    int
	synced   int // submissions by a goroutine that had nothing else to do
	err      error
	holds    map[broker.NodeID]broker.Offset // how far followers are
}

func newFakePartition(epoch broker.LeaderEpoch) *fakePartition {
	return &fakePartition{epoch: epoch, watchers: make(map[int]chan<- struct{})}
}

func (p *fakePartition) SubmitAndSync(a Append, done func(Appended)) {
	p.mu.Lock()
	p.synced++
	p.mu.Unlock()
	p.Submit(a, done)
}

func (p *fakePartition) Submit(a Append, done func(Appended)) {
	p.mu.Lock()
	if p.err != nil {
		p.mu.Unlock()
		done(Appended{Err: p.err})
		return
	}
	base := p.end
	v := batch.View(slices.Clone(a.Batches))
	v.Stamp(base, p.epoch)
	p.batches = append(p.batches, v)
	p.end = v.NextOffset()
	answer := func() { done(Appended{Base: base, AppendTimeMs: -1, LogStart: p.start}) }
	if p.hold {
		p.held = append(p.held, answer)
		answer = func() {}
	}
	for _, w := range p.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	p.mu.Unlock()
	answer()
}

// acknowledge lets the held acknowledgements go, the last one first.
func (p *fakePartition) acknowledge() {
	p.mu.Lock()
	held := p.held
	p.held, p.hold = nil, false
	p.mu.Unlock()
	slices.Reverse(held)
	for _, answer := range held {
		answer()
	}
}

func (p *fakePartition) Read(r Read) (Records, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reads++
	if p.err != nil {
		return Records{}, p.err
	}
	if err := p.checkLeader(r.LeaderEpoch); err != nil {
		return Records{}, err
	}
	if r.From < p.start || r.From > p.end {
		return Records{}, broker.OffsetOutOfRange
	}
	records := Records{Ends: p.ends()}
	size := 0
	for _, v := range p.batches {
		if v.LastOffset() < r.From {
			continue
		}
		if size+len(v) > r.MaxBytes && !(size == 0 && r.MinOne) {
			break
		}
		size += len(v)
		half := len(v) / 2 // batches lie across chunk borders, as they may in the log
		records.Bytes = append(records.Bytes, v[:half], v[half:])
	}
	return records, nil
}

func (p *fakePartition) ends() Ends {
	return Ends{LogStart: p.start, HighWatermark: p.end, LastStable: p.end, LeaderEpoch: p.epoch}
}

func (p *fakePartition) Ends() Ends {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ends()
}

func (p *fakePartition) Watch(changed chan<- struct{}) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := p.nextKey
	p.nextKey++
	p.watchers[key] = changed
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, key)
	}
}

func (p *fakePartition) Holds(node broker.NodeID, offset broker.Offset) bool {
	end, follows := p.holds[node]
	return follows && end >= offset
}

func (p *fakePartition) EpochEnd(epoch broker.LeaderEpoch) (broker.EpochEnd, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case epoch > p.epoch:
		return broker.EpochEnd{Epoch: broker.NoLeaderEpoch, End: broker.NoOffset}, nil
	case epoch == p.epoch:
		return broker.EpochEnd{Epoch: p.epoch, End: p.end}, nil
	}
	return broker.EpochEnd{Epoch: 3, End: min(2, p.end)}, nil
}

// checkLeader is CheckLeader for callers that hold mu.
func (p *fakePartition) checkLeader(asked broker.LeaderEpoch) error {
	switch {
	case asked == broker.NoLeaderEpoch || asked == p.epoch:
		return nil
	case asked < p.epoch:
		return broker.FencedLeaderEpoch
	default:
		return broker.UnknownLeaderEpoch
	}
}

func (p *fakePartition) CheckLeader(asked broker.LeaderEpoch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checkLeader(asked)
}

func (p *fakePartition) SizeBytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	size := 0
	for _, v := range p.batches {
		size += len(v)
	}
	return int64(size)
}

func (p *fakePartition) Producers() ([]ActiveProducer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return []ActiveProducer{{ID: 7, Epoch: 1, LastSequence: 4, TimestampMs: 1002}}, p.err
}

func (p *fakePartition) DeleteRecords(_ context.Context, before broker.Offset) (broker.Offset, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.err != nil || before > p.end:
		return p.start, cmp.Or(p.err, error(broker.OffsetOutOfRange))
	case before == broker.NoOffset:
		before = p.end
	}
	p.start = max(p.start, before)
	return p.start, nil
}

func (p *fakePartition) EpochAt(broker.Offset) broker.LeaderEpoch { return broker.NoLeaderEpoch }

func (p *fakePartition) OffsetForTime(ms int64) (broker.Offset, int64, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.batches {
		reader, err := v.Records(new(batch.Decompressor))
		if err != nil {
			return broker.NoOffset, -1, false, err
		}
		var r batch.Record
		for reader.Next(&r) {
			if at := v.Timestamp(r.TimestampDelta); at >= ms {
				return v.BaseOffset() + broker.Offset(r.OffsetDelta), at, true, nil
			}
		}
	}
	return broker.NoOffset, -1, false, nil
}

// fakeChain drops whole batches, by the offset of their first record.
type fakeChain struct {
	cluster *fakeCluster
	drop    func(broker.Offset) bool
}

type fakeFiltered struct {
	chain *fakeChain
	base  *fakePartition
}

func (f *fakeFiltered) Read(r FilteredRead) (Records, error) {
	raw, err := f.base.Read(Read{From: min(r.From, f.base.Ends().HighWatermark), MaxBytes: 1 << 30, MinOne: true, LeaderEpoch: broker.NoLeaderEpoch})
	if err != nil {
		return raw, err
	}
	kept := Records{Ends: raw.Ends}
	for i := 0; i < len(raw.Bytes); i += 2 {
		v := batch.View(slices.Concat(raw.Bytes[i], raw.Bytes[i+1]))
		if !f.chain.drop(v.BaseOffset()) {
			kept.Bytes = append(kept.Bytes, v)
		}
	}
	if r.View {
		kept.Ends = f.Ends(true)
	} else if len(kept.Bytes) == 0 {
		kept.Ends.HighWatermark, kept.Ends.LastStable = r.From, r.From
	}
	return kept, nil
}

func (f *fakeFiltered) Ends(bool) Ends {
	ends := f.base.Ends()
	ends.HighWatermark = ends.LogStart
	f.base.mu.Lock()
	defer f.base.mu.Unlock()
	for _, v := range f.base.batches {
		if !f.chain.drop(v.BaseOffset()) {
			ends.HighWatermark = v.NextOffset()
		}
	}
	ends.LastStable = ends.HighWatermark
	return ends
}

func (f *fakeFiltered) Watch(chan<- struct{}) func() { return func() {} }

// face is a server in front of a fake cluster.
type face struct {
	*fakeCluster
	groups *fakeGroups
	server *Server
}

func newFace(t *testing.T, change func(*Config)) *face {
	t.Helper()
	f := &face{fakeCluster: newFakeCluster(t), groups: newFakeGroups()}
	config := Config{
		Node: selfNode, Metadata: f.fakeCluster, Partitions: f.fakeCluster, Groups: f.groups, Controller: f.fakeCluster,
		Chains: f.fakeCluster, Logger: zerolog.New(io.Discard),
	}
	if change != nil {
		change(&config)
	}
	server, err := New(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	f.server = server
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return f
}

// serve runs the server on a listener until the test ends, advertising the listener's own address.
func (f *face) serve(l net.Listener) string {
	f.t.Helper()
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	number, _ := strconv.Atoi(port)
	done := make(chan error, 1)
	go func() {
		done <- f.server.Serve(Listener{Listener: l, Name: "client", AdvertisedHost: host, AdvertisedPort: int32(number)})
	}()
	f.t.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			f.t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

func (f *face) serveTCP() string {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	return f.serve(l)
}

func (f *face) client(address string, opts ...kgo.Opt) *kgo.Client {
	f.t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(address)}, opts...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(client.Close)
	return client
}

// makeBatch builds a batch of records with the given values, one millisecond apart from time 1,000 on.
func makeBatch(t *testing.T, codec batch.Codec, values ...string) []byte {
	t.Helper()
	return buildBatch(t, batch.Spec{BaseTimestamp: 1000, Codec: codec}, values...)
}

func buildBatch(t *testing.T, spec batch.Spec, values ...string) []byte {
	t.Helper()
	b := batch.NewBuilder(spec)
	for i, v := range values {
		if err := b.Append(batch.Record{OffsetDelta: int32(i), TimestampDelta: int64(i), Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
	built, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return built
}

func configFact(topic, name, value string) *metadata.Fact {
	return metadata.ConfigFact(metadata.Resource{Kind: metadata.ResourceTopic, Name: topic}, name, value)
}

// memory is how many bytes were ever allocated on the heap.
func memory() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}

// waitUntil polls for what another goroutine is about to make true.
func waitUntil(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("timed out before %s", what)
		}
		runtime.Gosched()
	}
}
