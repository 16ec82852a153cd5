package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/sdk"
)

// group is a consumer group with what its members received and committed. It is safe for concurrent use.
type group struct {
	name  string
	topic string // the base topic, or a view
	how   string
	// nap is how long a member sleeps at most after each commit, until woken; a group that naps lags and is overtaken.
	nap   time.Duration
	awake chan struct{}

	mu          sync.Mutex
	received    map[place]delivered
	committed   map[int32]int64 // the highest commit that was acknowledged
	redelivered int
	unlike      []string // redeliveries that were not the same bytes
	troubles    int      // polls and commits that ended with an error, as they do when the broker is killed
}

func newGroup(name, topic, how string) *group {
	return &group{name: name, topic: topic, how: how, awake: make(chan struct{}), received: map[place]delivered{}, committed: map[int32]int64{}}
}

func (g *group) onRecords(records []*kgo.Record) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range records {
		at, d := place{r.Partition, r.Offset}, delivered{r.Offset, string(r.Key), string(r.Value)}
		before, again := g.received[at]
		if again {
			g.redelivered++
			if before != d {
				g.unlike = append(g.unlike, fmt.Sprintf("group %s: partition %d was delivered as %s, then as %s", g.name, at.partition, describe(before), describe(d)))
			}
			continue
		}
		g.received[at] = d
	}
}

func (g *group) onCommit(offsets map[string]map[int32]kgo.EpochOffset, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.troubles++
		return
	}
	for partition, o := range offsets[g.topic] {
		g.committed[partition] = max(g.committed[partition], o.Offset)
	}
}

// member is one consumer of a group, over whichever transport.
type member interface {
	// poll returns what came until ctx ended, and an error if more than time was the matter.
	poll(ctx context.Context) ([]*kgo.Record, error)
	commit(ctx context.Context) error
	committed() map[string]map[int32]kgo.EpochOffset
	close() error
}

// run polls until ctx ends, and commits after every third poll, so that a crash finds records that must come again.
func (g *group) run(ctx context.Context, m member) error {
	defer func() { _ = m.close() }() // the broker may be gone
	for polls := 1; ctx.Err() == nil; polls++ {
		pollCtx, cancel := context.WithTimeout(ctx, time.Second)
		records, err := m.poll(pollCtx)
		cancel()
		g.onRecords(records)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			g.onCommit(nil, err)
		}
		if len(records) > 0 && polls%3 != 0 {
			continue
		}
		commitCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
		err = m.commit(commitCtx)
		cancel()
		g.onCommit(m.committed(), err)
		g.rest(ctx)
	}
	return nil
}

func (g *group) rest(ctx context.Context) {
	if g.nap == 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-g.awake:
	case <-time.After(g.nap):
	}
}

// overQUIC is a member through the SDK.
type overQUIC struct{ *sdk.Consumer }

func (m overQUIC) poll(ctx context.Context) ([]*kgo.Record, error) { return m.Poll(ctx) }
func (m overQUIC) commit(ctx context.Context) error                { return m.Commit(ctx) }
func (m overQUIC) close() error                                    { return m.Close() }
func (m overQUIC) committed() map[string]map[int32]kgo.EpochOffset {
	return m.Kafka().CommittedOffsets()
}

// overTCP is a member with an ordinary Kafka client, which names its group by rack or reads a view.
type overTCP struct{ client *kgo.Client }

func (m overTCP) poll(ctx context.Context) ([]*kgo.Record, error) {
	m.client.AllowRebalance()
	fetches := m.client.PollFetches(ctx)
	return fetches.Records(), fetches.Err()
}
func (m overTCP) commit(ctx context.Context) error                { return m.client.CommitUncommittedOffsets(ctx) }
func (m overTCP) close() error                                    { m.client.CloseAllowingRebalance(); return nil }
func (m overTCP) committed() map[string]map[int32]kgo.EpochOffset { return m.client.CommittedOffsets() }

// quickly makes a group client notice soon that the broker is back.
func quickly() []kgo.Opt {
	return []kgo.Opt{
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }), kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.FetchMaxWait(200 * time.Millisecond), kgo.SessionTimeout(8 * time.Second), kgo.HeartbeatInterval(time.Second),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.DialTimeout(soon), kgo.RequestTimeoutOverhead(soon),
	}
}

// joinQUIC starts a member over QUIC that insists on the group's chain.
func (g *group) joinQUIC(tasks *task.Group, client *sdk.Client) error {
	consumer, err := client.Consume(g.name, []string{g.topic}, sdk.RequireChain(), sdk.ConsumeWith(quickly()...))
	if err != nil {
		return err
	}
	tasks.Go("member of "+g.name, func(ctx context.Context) error { return g.run(ctx, overQUIC{consumer}) })
	return nil
}

// joinTCP starts a member over TCP.
func (g *group) joinTCP(tasks *task.Group, seeds []string, rack string) error {
	client, err := kgo.NewClient(append(quickly(), kgo.SeedBrokers(seeds...), kgo.Rack(rack), kgo.ConsumerGroup(g.name),
		kgo.ConsumeTopics(g.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll())...)
	if err != nil {
		return err
	}
	tasks.Go("member of "+g.name, func(ctx context.Context) error { return g.run(ctx, overTCP{client}) })
	return nil
}

// commits asks the broker for the group's commits.
func (g *group) commits(ctx context.Context, client *kgo.Client) (map[int32]int64, error) {
	offsets, err := kadm.NewClient(client).FetchOffsets(ctx, g.name)
	if err != nil {
		return nil, fmt.Errorf("commits of group %s: %w", g.name, err)
	}
	commits := map[int32]int64{}
	for partition, o := range offsets[g.topic] {
		if o.Err != nil {
			return nil, fmt.Errorf("commit of group %s in partition %d: %w", g.name, partition, o.Err)
		}
		commits[partition] = o.At
	}
	return commits, nil
}

// seen is the filtered log as a group sees it. An origin that moved makes more visible, never less: what is visible
// now may have been delivered, what was visible from the beginning must have been.
type seen struct {
	may, must [][]delivered
	// starts are the offsets below which a group that lags may have been overtaken; nil if retention takes nothing.
	starts []int64
}

// check is checker 5 over the offsets up to ends. before holds the commits that had been acknowledged before commits were
// asked for.
func (g *group) check(expected seen, ends []int64, before, commits map[int32]int64) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	wrong := g.unlike
	g.unlike = nil
	for partition, acknowledged := range before {
		if commits[partition] < acknowledged {
			wrong = append(wrong, fmt.Sprintf("group %s partition %d: a commit of %d was acknowledged, and the commit is %d", g.name, partition, acknowledged, commits[partition]))
		}
	}
	visible := map[place]delivered{}
	for p, log := range expected.may {
		for _, d := range log {
			visible[place{int32(p), d.offset}] = d
		}
	}
	for p, log := range expected.must {
		partition := int32(p)
		for _, d := range log {
			at := place{partition, d.offset}
			if g.nap > 0 && d.offset < expected.starts[p] {
				continue
			}
			if _, got := g.received[at]; !got && d.offset < commits[partition] {
				wrong = append(wrong, fmt.Sprintf("group %s partition %d: lost below its commit %d: offset %s", g.name, partition, commits[partition], describe(d)))
			}
		}
	}
	for at, got := range g.received {
		if at.offset > ends[at.partition] {
			continue
		}
		if want, ok := visible[at]; !ok {
			wrong = append(wrong, fmt.Sprintf("group %s partition %d: received what is not in its filtered log: offset %s", g.name, at.partition, describe(got)))
		} else if want != got {
			wrong = append(wrong, fmt.Sprintf("group %s partition %d: received %s, the filtered log has %s", g.name, at.partition, describe(got), describe(want)))
		}
	}
	return wrong
}

// acknowledged returns a copy of the highest acknowledged commits.
func (g *group) acknowledged() map[int32]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	commits := map[int32]int64{}
	for partition, o := range g.committed {
		commits[partition] = o
	}
	return commits
}

// counts returns how many records were delivered and how many came again.
func (g *group) counts() (received, redelivered, troubles int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.received), g.redelivered, g.troubles
}

// behind counts what the group has yet to receive.
func (g *group) behind(expected seen) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	missing := 0
	for p, log := range expected.must {
		for _, d := range log {
			if _, got := g.received[place{int32(p), d.offset}]; !got {
				missing++
			}
		}
	}
	return missing
}

// caughtUp reports whether the group has received the last of what is expected.
func (g *group) caughtUp(expected seen) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p, log := range expected.must {
		if n := len(log); n > 0 {
			if _, got := g.received[place{int32(p), log[n-1].offset}]; !got {
				return false
			}
		}
	}
	return true
}
