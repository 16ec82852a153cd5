package node

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
	"github.com/millrace-io/millrace/raftctl/inspect"
)

// clinic is three nodes with one partition of small segments, to which records were acknowledged.
type clinic struct {
	*trio
	tp     broker.TopicPartition
	client *kgo.Client
	acked  []string
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	c := &clinic{trio: newSettledTrio(t)}
	request := controller.CreateTopic{Name: "orders", Partitions: 1, ReplicationFactor: 3, Configs: map[string]string{"segment.bytes": "20000"}}
	c.tp = broker.TopicPartition{Topic: c.create(request)}
	c.level(c.tp.Topic)
	var seeds []string
	for _, n := range c.nodes {
		seeds = append(seeds, n.Addresses().Client)
	}
	c.client = c.seats[0].client(c.nodes[0], kgo.SeedBrokers(seeds...), kgo.MetadataMinAge(100*time.Millisecond), kgo.ProducerBatchCompression(kgo.NoCompression()))
	for range 3 { // A follower that is behind appends more than a segment's worth at once.
		c.produce(22)
		c.caughtUp()
	}
	for i := range c.nodes {
		if segments := c.segments(i); len(segments) < 3 {
			t.Fatalf("node %d has %v", i+1, segments)
		}
	}
	return c
}

// caughtUp returns when every running replica has everything.
func (c *clinic) caughtUp() {
	c.t.Helper()
	for _, n := range c.running() {
		c.await("the whole log", func() bool {
			r, err := n.set.Get(c.tp)
			return err == nil && r.Err() == nil && int(r.Ends().LogEnd) == len(c.acked)
		})
	}
}

func (c *clinic) produce(records int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	for range records {
		value := fmt.Sprintf("%06d %s", len(c.acked), strings.Repeat("x", 1000))
		if err := c.client.ProduceSync(ctx, record("orders", 0, value)).FirstErr(); err != nil {
			c.logs()
			c.t.Fatalf("record %d: %v", len(c.acked), err)
		}
		c.acked = append(c.acked, value)
	}
}

// dir is where a node keeps the partition.
func (c *clinic) dir(i int) string {
	return filepath.Join(c.seats[i].config.Data, "topics", c.tp.Topic.Hex(), "0")
}

// segments are the files of a node's copy, oldest first.
func (c *clinic) segments(i int) []string {
	c.t.Helper()
	names, err := filepath.Glob(filepath.Join(c.dir(i), "*.log")) // sorted, as their names are by offset
	if err != nil || len(names) == 0 {
		c.t.Fatalf("segments %v: %v", names, err)
	}
	return names
}

// flip changes a byte of a record's value in the middle of a file, and returns what the file then holds.
func (c *clinic) flip(name string) []byte {
	c.t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		c.t.Fatal(err)
	}
	b[len(b)/2] ^= 0x10
	if err := os.WriteFile(name, b, 0o640); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// kill ends a node without a word, and takes away what a clean stop leaves beside the open segment, so that recovery reads it.
func (c *clinic) kill(i int) {
	c.t.Helper()
	_ = c.nodes[i].stop(false)
	c.nodes[i] = nil
	segments := c.segments(i)
	if err := os.Remove(strings.TrimSuffix(segments[len(segments)-1], ".log") + ".index"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *clinic) start(i int) { c.nodes[i] = c.seats[i].start() }

// leader is who leads; between two leaders it waits for the next.
func (c *clinic) leader() (leader int) {
	c.t.Helper()
	c.await("a leader", func() bool {
		return slices.ContainsFunc(c.running(), func(n *Node) bool {
			p, ok := n.quorum.Image().Partition(c.tp)
			if !ok || p.Leader == broker.NoNode {
				return false
			}
			leader = int(p.Leader) - 1
			return true
		})
	})
	return leader
}

// follower is some node that does not lead.
func (c *clinic) follower() int { return (c.leader() + 1) % 3 }

// rid is the identity of a node's replica.
func (c *clinic) rid(i int) broker.ReplicaID {
	p, _ := c.running()[0].quorum.Image().Partition(c.tp)
	r, _ := p.ReplicaOn(broker.NodeID(i + 1))
	return r.ID
}

// read has one consumer read the partition from its start.
func (c *clinic) read() []string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	consumer := stock(c.t, c.running()[0], kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(100*time.Millisecond))
	defer consumer.Close()
	var got []string
	for len(got) < len(c.acked) {
		fetches := consumer.PollFetches(ctx)
		if ctx.Err() != nil {
			c.t.Fatalf("read %d records of %d", len(got), len(c.acked))
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	return got
}

// bytes are all batches of a node's copy as they lie in its files, without the zeros that may follow them.
func (c *clinic) bytes(i int) []byte {
	c.t.Helper()
	segments, err := inspect.Segments(os.DirFS(c.dir(i)), ".")
	if err != nil {
		c.t.Fatal(err)
	}
	var all []byte
	for b, err := range inspect.Batches(os.DirFS(c.dir(i)), segments) {
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, b.View...)
	}
	return all
}

// whole checks that all replicas are in sync, hold the same bytes, and that those are what was acknowledged.
func (c *clinic) whole() {
	c.t.Helper()
	c.level(c.tp.Topic)
	if got := c.read(); !slices.Equal(got, c.acked) {
		c.t.Fatalf("%d records are read, not what was acknowledged", len(got))
	}
	c.caughtUp()
	for i := range c.nodes {
		if got := c.log(i, c.tp); !slices.Equal(got, c.acked) {
			c.t.Errorf("node %d holds %d records, not what was acknowledged", i+1, len(got))
		}
		if !bytes.Equal(c.bytes(i), c.bytes(0)) {
			c.t.Errorf("node %d has other bytes than node 1", i+1)
		}
	}
}

// setAside checks that a damaged file lies below stray/ as it was, and returns the names beside it.
func (c *clinic) setAside(i int, name string, want []byte) []string {
	c.t.Helper()
	found, err := filepath.Glob(filepath.Join(c.seats[i].config.Data, "stray", "*", filepath.Base(name)))
	if err != nil || len(found) != 1 {
		c.t.Fatalf("the damaged %s is set aside as %v (%v)", filepath.Base(name), found, err)
	}
	if got, err := os.ReadFile(found[0]); err != nil || !bytes.HasPrefix(got, want) {
		c.t.Errorf("%s was changed: %v", found[0], err)
	}
	beside, err := filepath.Glob(filepath.Join(filepath.Dir(found[0]), "*.log"))
	if err != nil {
		c.t.Fatal(err)
	}
	return beside
}

// A byte that flipped while the node was down, below the flush point of the segment that recovery reads: the replica gets
// another identity, keeps the segments before, and fetches the rest; the damaged file is set aside as it was.
func TestAReplicaDamagedAtRestIsRepairedFromAPeer(t *testing.T) {
	for _, leads := range []bool{false, true} {
		t.Run(fmt.Sprintf("leader %v", leads), func(t *testing.T) {
			c := newClinic(t)
			i := c.follower()
			if leads {
				i = c.leader()
			}
			before := c.rid(i)
			c.kill(i)
			c.produce(5)
			segments := c.segments(i)
			last := segments[len(segments)-1]
			want := c.flip(last)
			c.start(i)
			c.whole()
			if c.rid(i) == before {
				t.Error("the replica kept its identity")
			}
			if beside := c.setAside(i, last, want); len(beside) != 1 {
				t.Errorf("segments before the damage were given up: %v", beside)
			}
			c.produce(3)
			c.whole()
		})
	}
}

// Damage that a reader finds while the node runs, at the leader: the record is never served from there, another replica
// leads, and the damaged one comes back.
func TestAReplicaDamagedWhileItLeadsIsRepairedWithoutARestart(t *testing.T) {
	c := newClinic(t)
	for i := range c.nodes {
		c.kill(i)
	}
	c.startAll() // Nothing is in memory any more.
	c.level(c.tp.Topic)
	i := c.leader()
	before := c.rid(i)
	first := c.segments(i)[0]
	want := c.flip(first)
	if got := c.read(); !slices.Equal(got, c.acked) {
		t.Fatal("other records are read than were acknowledged")
	}
	c.await("another identity", func() bool { return c.rid(i) != before })
	c.produce(5)
	c.whole()
	c.setAside(i, first, want)
}

// Two of three copies are damaged: the third leads, and both are repaired from it. The damaged ones register first: while the
// other two are enough for min.insync.replicas, who registers leaves the ISR without a place in the ELR, since they may
// have gone on without it (KIP-966); so the third, if it came first, would wait for an operator's word.
func TestTwoDamagedReplicasAreRepairedFromTheThird(t *testing.T) {
	c := newClinic(t)
	const well = 2 // The last to be killed: in the ISR for sure.
	for i := range c.nodes {
		c.kill(i)
	}
	for i := range c.nodes {
		if i != well {
			segments := c.segments(i)
			c.flip(segments[len(segments)-1])
		}
	}
	c.startSome([]int{0, 1})
	c.start(well)
	c.whole()
}

// startAll starts nodes side by side: none is up before a majority is.
func (c *clinic) startAll() { c.startSome([]int{0, 1, 2}) }

func (c *clinic) startSome(which []int) {
	c.t.Helper()
	started := make(chan func(), len(which))
	for _, i := range which {
		go func() {
			n, err := c.seats[i].tryStart(context.WithoutCancel(c.t.Context()))
			started <- func() {
				if err != nil {
					c.t.Fatal(err)
				}
				c.nodes[i] = n
			}
		}()
	}
	for range which {
		(<-started)()
	}
}

// Every copy is damaged: the partition is offline and says which file and where, nothing is cut, moved or served, and the
// rest of the cluster goes on.
func TestDamageOfEveryCopyTakesThePartitionOfflineAndCutsNothing(t *testing.T) {
	c := newClinic(t)
	for i := range c.nodes {
		c.kill(i)
	}
	var damaged [3]string
	var want [3][]byte
	for i := range c.nodes {
		segments := c.segments(i)
		damaged[i] = segments[len(segments)-1]
		want[i] = c.flip(damaged[i])
	}
	c.startAll()
	c.await("every broker serves", func() bool {
		return !slices.ContainsFunc(c.nodes[0].quorum.Image().Brokers(), func(r *metadata.Registration) bool { return r.Fenced })
	})
	other := c.replicated("payments", 1) // What is damaged concerns nobody else.
	c.level(other)
	p, _ := c.nodes[0].quorum.Image().Partition(c.tp)
	if p.Leader != broker.NoNode || len(p.ISR)+len(p.ELR) > 0 {
		t.Errorf("the partition is %+v", p)
	}
	for i, n := range c.nodes {
		failed := n.set.Failed()
		if len(failed) != 1 || !strings.Contains(failed[0].Err.Error(), damaged[i]) {
			t.Errorf("node %d: %+v does not name %s", i+1, failed, damaged[i])
		}
		if got, err := os.ReadFile(damaged[i]); err != nil || !bytes.Equal(got, want[i]) {
			t.Errorf("node %d: the damaged file was changed (%v)", i+1, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// Nobody reads an old segment of a follower. The scrubber does, also those bytes of a batch that its own checksum leaves open,
// and what it finds is repaired.
func TestAColdSegmentThatRotsIsFoundAndRepaired(t *testing.T) {
	c := newClinic(t)
	i := c.follower()
	c.kill(i)
	c.seats[i].config.ScrubInterval = 20 * time.Millisecond
	c.start(i)
	c.level(c.tp.Topic)
	before := c.rid(i)
	first := c.segments(i)[0]
	want, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	want[15] ^= 1 // of the first batch's leader epoch
	if err := os.WriteFile(first, want, 0o640); err != nil {
		t.Fatal(err)
	}
	c.await("another identity", func() bool { return c.rid(i) != before })
	c.whole()
	c.setAside(i, first, want)
}

// scarce is a file system whose free space a test decides about.
type scarce struct {
	vfs.OS
	full *atomic.Bool
}

// Space implements vfs.FS.
func (s scarce) Space(string) (free, total uint64, err error) {
	if s.full.Load() {
		return 1 << 20, 1 << 40, nil
	}
	return 1 << 39, 1 << 40, nil
}

// F14 on a cluster: a node that is short of space takes no records, so it leads nothing that another can lead; producers go
// on, everything can be read, and the node leads again when it has space and another has none.
func TestANodeShortOfSpaceHandsItsPartitionsOver(t *testing.T) {
	c := newClinic(t)
	var full [3]atomic.Bool
	for i := range c.nodes {
		c.kill(i)
		c.seats[i].fs = scarce{full: &full[i]}
	}
	c.startAll()
	c.level(c.tp.Topic)
	i := c.leader()
	full[i].Store(true)
	c.await("another leads", func() bool { return c.leader() != i })
	c.produce(5)
	for _, n := range c.running() {
		c.await("every node knows whose disk is full", func() bool {
			r, ok := n.quorum.Image().Broker(broker.NodeID(i + 1))
			return ok && r.ShortOfSpace
		})
	}
	health, err := adminapiconnect.NewClusterServiceClient(http.DefaultClient, "http://"+c.nodes[(i+1)%3].Addresses().Admin).GetHealth(t.Context(), &adminapi.GetHealthRequest{})
	if err != nil || !slices.ContainsFunc(health.Problems, func(p *adminapi.Problem) bool {
		return p.Subject == fmt.Sprint("node ", i+1) && strings.Contains(p.What, "short of disk space")
	}) {
		t.Errorf("another node's report of the cluster's health is %v (%v)", health, err)
	}
	elsewhere, err := c.nodes[(i+1)%3].cluster.Submit(c.t.Context(), controller.CreateTopic{Name: "two", Partitions: 3, ReplicationFactor: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.nodes[(i+1)%3].quorum.Image().Partitions(elsewhere.(controller.TopicCreated).ID) {
		if _, holds := p.ReplicaOn(broker.NodeID(i + 1)); holds {
			t.Errorf("a new replica of partition %d was placed where there is no space", p.Partition)
		}
	}
	for _, n := range c.running() {
		for topic := range n.quorum.Image().Topics() {
			for _, p := range n.quorum.Image().Partitions(topic.ID) {
				if int(p.Leader) == i+1 && len(p.ISR) > 1 {
					t.Errorf("the node that is full leads %s-%d", topic.Name, p.Partition)
				}
			}
		}
	}
	full[i].Store(false)
	c.await("there is space", func() bool { return !c.nodes[i].set.ReadOnly() })
	for other := range c.nodes {
		full[other].Store(other != i)
	}
	c.await("it leads again", func() bool { return c.leader() == i })
	c.produce(5)
	for other := range c.nodes {
		full[other].Store(false)
	}
	c.whole()
}

// F18: a partition's directory of an earlier time is put back. It is whole, and shorter than what the node acknowledged: it
// counts as damaged, takes no seat, and is brought up from a peer.
func TestADirectoryOfAnEarlierTimeIsNotTakenForTheReplica(t *testing.T) {
	c := newClinic(t)
	i := c.follower()
	c.kill(i)
	old := filepath.Join(t.TempDir(), "old")
	if err := os.CopyFS(old, os.DirFS(c.dir(i))); err != nil {
		t.Fatal(err)
	}
	c.start(i)
	c.level(c.tp.Topic)
	c.produce(5)
	c.caughtUp()
	before := c.rid(i)
	c.kill(i)
	if err := os.RemoveAll(c.dir(i)); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(c.dir(i), os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	c.start(i)
	c.await("another identity", func() bool { return c.rid(i) != before })
	c.whole()
}
