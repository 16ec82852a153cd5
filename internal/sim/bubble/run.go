package bubble

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/task"
)

// Times of a run.
const (
	settle = time.Second      // of load before anything goes wrong
	heal   = 90 * time.Second // within which everything must be well again
	still  = 2 * time.Second  // without load before the processes stop
)

// run is one cluster with its clients and its faults.
type run struct {
	plan    plan
	ctx     context.Context
	network *network
	cluster *cluster
	history *history
	tasks   *task.Group // faults and what undoes them
	clients int
	topicID broker.TopicID

	virtual   time.Duration // how long it took
	undecided int           // partitions whose history was too long to judge

	ended []string // why processes ended by themselves; guarded by the history's lock
	story []string // what went wrong and when; guarded by the history's lock

	rotted bool // a bit has flipped; of the goroutine that wreaks

	mu   sync.Mutex
	down map[*machine]bool // guarded by mu: claimed by a fault
}

// play runs a plan. It must be called inside a bubble, and returns when nothing runs any more: then the disks and what
// clients saw are there to be checked.
func play(ctx context.Context, p plan) *run {
	ctx = context.WithoutCancel(ctx)
	r := &run{
		plan: p, ctx: ctx, history: newHistory(), network: newNetwork(rand.New(rand.NewPCG(p.seed, 3))),
		tasks: task.NewGroup(ctx), down: map[*machine]bool{},
	}
	r.cluster = &cluster{network: r.network, began: time.Now(), tasks: task.NewGroup(ctx)}
	for i := range p.nodes {
		r.cluster.machines = append(r.cluster.machines, newMachine(broker.NodeID(i+1)))
	}
	r.note("%d partitions, %d producers, %d members, faults %v", p.partitions, p.producers, p.members, p.kinds)
	if err := r.all(rand.New(rand.NewPCG(p.seed, 4))); err != nil {
		r.wrong("run", "%v", err)
	}
	r.tasks.Stop()
	if err := r.tasks.Wait(); err != nil {
		r.wrong("run", "%v", err)
	}
	if err := r.cluster.stop(); err != nil && len(r.history.wrong) == 0 {
		r.wrong("stop", "%v", err)
	}
	_ = r.cluster.tasks.Wait() // processes that were killed end as they will
	r.virtual = r.history.now()
	return r
}

// String counts what happened.
func (r *run) String() string {
	acked := 0
	for _, s := range r.history.sends {
		if s.acked {
			acked++
		}
	}
	return fmt.Sprintf("%s virtual; %d packets, %d records sent (%d acknowledged), %d read, %d answers about ends, %d commits, %d undecided",
		r.virtual.Truncate(time.Millisecond), r.network.sent, len(r.history.sends), acked, len(r.history.reads), len(r.history.ends), r.history.commits, r.undecided)
}

// all is a run up to the stop of the processes; its error is something that makes no sense of the rest.
func (r *run) all(random *rand.Rand) error {
	founding, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	if err := r.cluster.found(founding); err != nil {
		return err
	}
	if err := r.createTopic(founding); err != nil {
		return err
	}
	if r.plan.bound {
		if err := r.bind(founding); err != nil {
			return err
		}
	}
	for _, m := range r.cluster.machines {
		r.supervise(m, m.life)
		if r.plan.forgetful {
			m.lies = m.disk.CrashClone(nil)
		}
	}
	load, readers := task.NewGroup(r.ctx), task.NewGroup(r.ctx)
	host := 1 // the first was the one that made the topic
	next := func() int { host++; return host }
	for range r.plan.producers {
		load.Go("producer", r.produce(next(), rand.New(rand.NewPCG(r.plan.seed, uint64(100+host)))))
	}
	members := r.plan.members
	if !membership {
		members = 1 // two that commit from outside would take each other back
	}
	for range members {
		readers.Go("member", r.join(next(), group, "member"))
	}
	if r.plan.bound {
		readers.Go("member of the bound group", r.join(next(), boundGroup, "bound"))
	}
	readers.Go("reader", r.read(next()))
	readers.Go("watcher", r.watch(next()))
	r.clients = host
	rest(r.ctx, settle)
	r.wreak(r.ctx, random)
	r.note("the faults are over")
	load.Stop()
	err := r.recover(load)
	readers.Stop()
	if waitErr := readers.Wait(); waitErr != nil && err == nil {
		err = waitErr
	}
	return err
}

// recover waits until every record has found its end, everybody has read everything, and every replica is in sync.
func (r *run) recover(load *task.Group) error {
	deadline := time.Now().Add(heal + lengthMax)
	for r.history.open() > 0 {
		if time.Now().After(deadline) {
			return fmt.Errorf("stuck: %d records have no end %s after the faults", r.history.open(), heal)
		}
		rest(r.ctx, 100*time.Millisecond)
	}
	if err := load.Wait(); err != nil {
		return err
	}
	r.note("every record has an end")
	client, done, err := r.cluster.client(clientHost(1), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer done()
	last, cancel := context.WithDeadline(r.ctx, deadline)
	defer cancel()
	if err := r.sentinel(last, client); err != nil {
		return err
	}
	admin := kadm.NewClient(client)
	why := "nothing was looked at"
	for why != "" {
		if time.Now().After(deadline) {
			return fmt.Errorf("stuck: %s, %s after the faults", why, heal)
		}
		rest(r.ctx, 200*time.Millisecond)
		ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
		why = r.notYet(ctx, admin)
		cancel()
	}
	r.note("everything is well")
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
	defer cancel()
	for _, group := range r.groups() {
		r.askCommits(ctx, admin, group)
	}
	if r.plan.bound {
		r.checkDecisions(ctx)
	}
	rest(r.ctx, still)
	return nil
}

// underWay says which machine a fault still has, or whose process starts. ISRs do not tell: they name who is about to lose
// power, and for a moment who has just lost it.
func (r *run) underWay() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.cluster.machines {
		if r.down[m] {
			return fmt.Sprintf("the fault of node %d is not over", m.id)
		}
		select {
		case <-m.life.serving:
		default:
			return fmt.Sprintf("node %d starts", m.id)
		}
	}
	return ""
}

// notYet says what is not well yet, or nothing.
func (r *run) notYet(ctx context.Context, admin *kadm.Client) string {
	if why := r.underWay(); why != "" {
		return why
	}
	topics, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return err.Error()
	}
	if err := topics.Error(); err != nil {
		return err.Error()
	}
	for _, p := range topics[topic].Partitions {
		if p.Err != nil || len(p.ISR) != r.plan.nodes {
			return fmt.Sprintf("partition %d: in sync %v, %v", p.Partition, p.ISR, p.Err)
		}
	}
	if len(topics[topic].Partitions) != int(r.plan.partitions) {
		return "partitions are missing"
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err.Error()
	}
	for _, group := range r.groups() {
		if err := r.learnCommits(ctx, admin, group); err != nil {
			return err.Error()
		}
	}
	read := map[int32]broker.Offset{}
	r.history.change(func() {
		for _, g := range r.history.reads {
			if g.who[0] == 'r' {
				read[g.partition] = max(read[g.partition], g.offset+1)
			}
		}
	})
	for partition := range r.plan.partitions {
		end, _ := ends.Lookup(topic, partition)
		if int64(read[partition]) < end.Offset {
			return fmt.Sprintf("partition %d ends at %d, the reader has %d", partition, end.Offset, read[partition])
		}
		for _, group := range r.groups() {
			if low := r.history.low(group); int64(low[partition]) < end.Offset {
				return fmt.Sprintf("partition %d ends at %d, group %s committed %d", partition, end.Offset, group, low[partition])
			}
		}
	}
	return ""
}

// groups are those that read.
func (r *run) groups() []string {
	if r.plan.bound {
		return []string{group, boundGroup}
	}
	return []string{group}
}

func (r *run) createTopic(ctx context.Context) error {
	client, done, err := r.cluster.client(clientHost(1))
	if err != nil {
		return err
	}
	defer done()
	segment := "32768"
	made, err := kadm.NewClient(client).CreateTopic(ctx, r.plan.partitions, int16(r.plan.nodes), map[string]*string{"segment.bytes": &segment}, topic)
	if err != nil {
		return fmt.Errorf("make the topic: %w", err)
	}
	r.topicID = broker.TopicID(made.ID)
	return nil
}
