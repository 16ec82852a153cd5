package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/internal/chaos/netns"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/sdk"
)

// recoverWithin is how long a cluster that was healed may take until every replica is in sync again.
const recoverWithin = 60 * time.Second

// trial is one cluster under load and under one fault, or under any of them.
type trial struct {
	*harness
	*cluster
	fault  fault
	dir    string
	faults *faultState

	askers  []*asker
	commits commitWatch
	lacked  error // what was the matter when the trial was last not healthy
	result  result
}

// newTrial starts a cluster and puts the load on it.
func newTrial(ctx context.Context, o options, f fault) (t *trial, err error) {
	t = &trial{fault: f, dir: filepath.Join(o.dir, f.name), faults: &faultState{}}
	t.harness = &harness{options: o, random: rand.New(rand.NewPCG(o.seed, 3)), ledger: newLedger(), started: time.Now()}
	t.result = result{Fault: f.name, What: f.what, Seed: o.seed}
	var router *netns.Router
	if netns.Inside() {
		if router, err = netns.NewRouter(ctx, clusterSize, o.seed); err != nil {
			return t, err
		}
	}
	t.cluster, err = newCluster(ctx, filepath.Join(o.dir, "millrace"), t.dir, router, f.disks())
	if err != nil {
		return t, err
	}
	for _, n := range t.nodes {
		t.seeds = append(t.seeds, n.Client)
	}
	if err := t.promote(ctx); err != nil {
		return t, err
	}
	return t, t.setUp(ctx)
}

// say tells what happens, and when.
func (t *trial) say(format string, args ...any) {
	fmt.Printf("%s %6.1f s  %s\n", t.fault.name, time.Since(t.started).Seconds(), fmt.Sprintf(format, args...))
}

// setUp makes the topic and a bound group, and starts producers and consumers.
func (t *trial) setUp(ctx context.Context) (err error) {
	founder := t.nodes[0]
	t.sdk, err = sdk.New(sdk.WithBrokers(t.seeds...), sdk.WithAdmin(founder.Admin), sdk.WithCAFile(founder.Authority()))
	if err != nil {
		return err
	}
	t.plain, err = kgo.NewClient(append(quickly(), kgo.SeedBrokers(t.seeds...), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return err
	}
	t.tasks = task.NewGroup(ctx)
	t.sentinels = &sentinels{ledger: t.ledger, client: t.plain}
	_, err = t.sdk.Topics().CreateTopic(ctx, &adminapi.CreateTopicRequest{Name: topic, Partitions: partitions, ReplicationFactor: clusterSize})
	if err != nil {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	chain := dedupField("")
	_, err = t.sdk.Bindings().CreateBinding(ctx, &adminapi.CreateBindingRequest{
		Group: "alpha", Topics: []string{topic}, Chain: chain, StartAt: adminapi.StartAt_START_AT_LOG_START})
	if err != nil {
		return fmt.Errorf("bind group alpha: %w", err)
	}
	if _, err := t.sdk.CreateView(ctx, topic+"-alpha", topic, "alpha"); err != nil {
		return err
	}
	t.bounds = []bound{{name: "alpha", view: topic + "-alpha", rack: "group=alpha"}}
	if err := t.joinGroups(); err != nil {
		return err
	}
	t.load = startProducers(ctx, t.seeds, t.ledger, t.options.seed, t.options.pause)
	t.ledger.begin(time.Now())
	if t.askers, err = startAskers(t.tasks, t.seeds, t.ledger, t.options.seed); err != nil {
		return err
	}
	t.tasks.Go("commits", func(ctx context.Context) error { return t.commits.run(ctx, t.plain, t.groups) })
	return t.healthy(ctx)
}

// joinGroups starts a group with a chain, over QUIC and over TCP, and one without.
func (t *trial) joinGroups() error {
	if err := t.joinAlpha(); err != nil {
		return err
	}
	plain := newGroup("plain", topic, "no chain, over TCP")
	t.groups = append(t.groups, plain)
	return errors.Join(t.groups[0].joinTCP(t.tasks, t.seeds, "group=alpha"), plain.joinTCP(t.tasks, t.seeds, ""), plain.joinTCP(t.tasks, t.seeds, ""))
}

// healthy waits until every node serves and every replica is in sync.
func (t *trial) healthy(ctx context.Context) error {
	admin := kadm.NewClient(t.plain)
	return until(ctx, recoverWithin, "every replica in sync", func(ctx context.Context) (err error) {
		defer func() {
			if err != nil {
				t.lacked = err
			}
		}()
		for _, n := range t.nodes {
			if n.gone() {
				return fmt.Errorf("node %d ended by itself: %s", n.id, n.Tail())
			}
			response, err := n.Get(ctx, "/readyz")
			if err == nil {
				err = response.Body.Close()
			}
			if err != nil || response.StatusCode != 200 {
				return errors.Join(fmt.Errorf("node %d is not ready", n.id), err)
			}
		}
		m, err := admin.Metadata(ctx)
		if err != nil {
			return err
		}
		if len(m.Brokers) < clusterSize {
			return fmt.Errorf("%d brokers", len(m.Brokers))
		}
		for _, topic := range m.Topics {
			for _, p := range topic.Partitions {
				if p.Err != nil || p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
					return errors.Join(fmt.Errorf("%s-%d: leader %d, in sync %v of %v", p.Topic, p.Partition, p.Leader, p.ISR, p.Replicas), p.Err)
				}
			}
		}
		return nil
	})
}

// leaderOf is the node that leads a partition of the load, as a client learns it.
func (t *trial) leaderOf(ctx context.Context, partition int32) (*node, error) {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	m, err := kadm.NewClient(t.plain).Metadata(ctx, topic)
	if err != nil {
		return nil, err
	}
	leader := m.Topics[topic].Partitions[partition].Leader
	if leader < 1 || int(leader) > clusterSize {
		return nil, fmt.Errorf("partition %d has no leader", partition)
	}
	return t.nodes[leader-1], nil
}

// run makes rounds of the fault until the time is over, and judges.
func (t *trial) run(ctx context.Context) error {
	for end := time.Now().Add(t.options.during); time.Now().Before(end) && t.wrong == 0; {
		if err := t.round(ctx); err != nil {
			return err
		}
	}
	t.result.During = time.Since(t.started).Seconds()
	if err := t.load.finish(); err != nil {
		t.complain(fmt.Sprintf("the load did not come to its end: %v", err))
		return nil
	}
	t.count()
	c, err := t.check(ctx)
	if err == nil {
		err = errors.Join(t.drain(ctx, c), t.checkEnds(ctx))
	}
	t.tasks.Stop()
	err = errors.Join(err, t.tasks.Wait())
	t.complain(t.commits.problems...)
	if err != nil {
		return err
	}
	t.result.Copies = c.duplicate
	return errors.Join(t.checkLinear(), t.compareReplicas())
}

// round makes one round: the fault, what heals it, and the way back to health.
func (t *trial) round(ctx context.Context) error {
	t.result.Rounds++
	f := t.fault
	if err := f.round(t, ctx); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	if err := t.healAll(ctx); err != nil {
		return err
	}
	healed := time.Now()
	if err := t.healthy(ctx); err != nil {
		t.complain(fmt.Sprintf("not healthy after round %d was healed: %v", t.result.Rounds, err))
		return nil
	}
	t.result.recovered(time.Since(healed))
	// A gap that went on would be told of this round and of the next.
	err := until(ctx, recoverWithin, "acknowledgements", func(context.Context) error {
		if p, is := t.ledger.silent(healed); is {
			return fmt.Errorf("partition %d has acknowledged nothing", p)
		}
		return nil
	})
	if err != nil {
		t.complain(fmt.Sprintf("after round %d was healed: %v", t.result.Rounds, err))
		return nil
	}
	gap := t.ledger.gap(time.Now()).Seconds()
	t.result.Gap = max(t.result.Gap, gap)
	t.say("round %d: no acknowledgement for %.1f s, all well %.1f s after it was healed", t.result.Rounds, gap, time.Since(healed).Seconds())
	if took := time.Since(healed); took > 4*time.Second {
		t.say("what took longest: %s", t.lacked)
	}
	return t.moment(ctx, 300, 1200)
}

// count takes the producers' figures once all is answered.
func (t *trial) count() {
	r := &t.result
	r.Produced, r.Acknowledged, r.Unknown, _ = t.counts()
	r.Rate = float64(r.Acknowledged) / r.During
}

// close ends everything that the trial started. If something was wrong the data is kept.
func (t *trial) close() error {
	var err error
	if t.tasks != nil {
		t.tasks.Stop()
		err = t.tasks.Wait()
	}
	if t.load != nil {
		t.load.tasks.Stop()
		_ = t.load.tasks.Wait() // finish has told, or the trial is broken off
	}
	if t.sdk != nil {
		err = errors.Join(err, t.sdk.Close())
	}
	if t.plain != nil {
		t.plain.Close()
	}
	if t.cluster != nil {
		_ = t.cluster.stop(syscall.SIGKILL) // compareReplicas has stopped what was well
		for _, n := range t.nodes {
			if n != nil && n.admin != nil {
				err = errors.Join(err, n.admin.Close())
			}
		}
		if t.router != nil {
			if t.wrong > 0 {
				err = errors.Join(err, t.keep())
			}
			err = errors.Join(err, t.router.Close())
		}
	}
	return err
}

// keep copies the volumes, which end with the sandbox.
func (t *trial) keep() error {
	var problems []error
	for _, n := range t.nodes {
		problems = append(problems, os.CopyFS(filepath.Join(n.Dir, "kept"), os.DirFS(n.Data())))
	}
	return errors.Join(problems...)
}

// healAll ends every fault and starts every node that is down; what is well already stays as it is.
func (t *trial) healAll(ctx context.Context) error {
	if t.router != nil {
		t.router.Heal()
	}
	problems := t.faults.undo()
	for _, n := range t.nodes {
		if n.runs && !n.gone() {
			problems = append(problems, n.Signal(syscall.SIGCONT))
			continue
		}
		if n.gone() {
			t.say("node %d had ended by itself", n.id)
			n.runs = false
		}
		problems = append(problems, t.start(ctx, n))
	}
	return errors.Join(problems...)
}

// pick chooses nodes at random.
func (t *trial) pick(count int) []*node {
	nodes := slices.Clone(t.nodes[:])
	t.random.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes[:count]
}
