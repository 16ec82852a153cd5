package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/internal/process"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/sdk"
)

// harness is one run.
type harness struct {
	options options
	random  *rand.Rand
	broker  *process.Broker
	seeds   []string // client listeners
	sdk     *sdk.Client
	plain   *kgo.Client // for sentinels and questions
	tasks   *task.Group // members and cutovers

	ledger    *ledger
	sentinels *sentinels
	load      *producers
	cutovers  *cutovers
	bounds    []bound
	groups    []*group
	slow      *group // with retention: one that lags
	table     *table
	tableLoad *task.Group
	log       logChecker

	kills   int
	started time.Time
	totals  totals
	wrong   int
	told    []string // what was wrong
}

// totals is what the summary counts.
type totals struct {
	comparisons, judged, repeatedLetters, cachesDeleted, killedStarting, cleanStops, pauses, overtaken, tableReads int
	last                                                                                                           checked
}

// run is the whole job; its error says that the run could not go on, or that a checker found something.
func run(ctx context.Context, o options) (err error) {
	h := &harness{options: o, random: rand.New(rand.NewPCG(o.seed, 0)), ledger: newLedger(), started: time.Now()}
	program := filepath.Join(o.dir, "millrace")
	if err := process.Build(ctx, program, "github.com/millrace-io/millrace/cmd/millrace", nil); err != nil {
		return err
	}
	if h.broker, err = process.Format(ctx, program, o.dir, "", "log.retention.check.interval.ms: 500", "log.cleaner.backoff.ms: 200"); err != nil {
		return err
	}
	if err := h.broker.Serve(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.broker.Stop()) }()
	h.seeds = []string{h.broker.Client}
	if err := h.setUp(ctx); err != nil {
		return err
	}
	err = h.rounds(ctx)
	h.tasks.Stop()
	err = errors.Join(err, h.tasks.Wait(), h.sdk.Close())
	h.plain.Close()
	h.summary(err)
	if err == nil && h.wrong > 0 {
		err = fmt.Errorf("%d anomalies", h.wrong)
	}
	return err
}

// setUp makes the topic, the plugins, and the bindings that exist from the start, and starts the load.
func (h *harness) setUp(ctx context.Context) (err error) {
	h.sdk, err = sdk.New(sdk.WithBrokers(h.seeds...), sdk.WithAdmin(h.broker.Admin), sdk.WithCAFile(h.broker.Authority()))
	if err != nil {
		return err
	}
	h.plain, err = kgo.NewClient(append(quickly()[:2], kgo.SeedBrokers(h.seeds...), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return err
	}
	h.tasks = task.NewGroup(ctx)
	h.sentinels = &sentinels{ledger: h.ledger, client: h.plain}
	var configs map[string]string
	if h.options.retention {
		configs = map[string]string{"segment.bytes": "16384", "retention.bytes": "100000"}
	}
	if _, err := h.sdk.CreateTopic(ctx, topic, partitions, configs); err != nil {
		return err
	}
	if err := push(ctx, h.sdk, h.options.dir); err != nil {
		return err
	}
	if err := h.bind(ctx, "alpha", adminapi.StartAt_START_AT_LOG_START); err != nil {
		return err
	}
	if err := h.joinAlpha(); err != nil {
		return err
	}
	_, err = h.sdk.Views().CreateView(ctx, &adminapi.CreateViewRequest{
		Name: "load-fields", Topic: topic, Chain: dedupField(""), StartAt: adminapi.StartAt_START_AT_LOG_START})
	if err != nil {
		return fmt.Errorf("create view load-fields: %w", err)
	}
	h.bounds = append(h.bounds, bound{name: "load-fields", view: "load-fields"})
	readers := newGroup("gamma", "load-fields", "a view over TCP")
	h.groups = append(h.groups, readers)
	if err := readers.joinTCP(h.tasks, h.seeds, ""); err != nil {
		return err
	}
	h.load = startProducers(ctx, h.seeds, h.ledger, h.options.seed, h.options.pause)
	return h.startTable(ctx)
}

// bind binds the plugin's first version to a group, with a view of it.
func (h *harness) bind(ctx context.Context, name string, at adminapi.StartAt) error {
	_, err := h.sdk.Bindings().CreateBinding(ctx, &adminapi.CreateBindingRequest{Group: name, Topics: []string{topic}, Chain: smallWindow("1"), StartAt: at})
	if err != nil {
		return fmt.Errorf("bind group %s: %w", name, err)
	}
	if _, err := h.sdk.CreateView(ctx, topic+"-"+name, topic, name); err != nil {
		return err
	}
	h.bounds = append(h.bounds, bound{name: name, view: topic + "-" + name, rack: "group=" + name, chain: smallWindow})
	return nil
}

func (h *harness) joinAlpha() error {
	alpha := newGroup("alpha", topic, "the SDK over QUIC")
	h.groups = append(h.groups, alpha)
	return errors.Join(alpha.joinQUIC(h.tasks, h.sdk), alpha.joinQUIC(h.tasks, h.sdk))
}

// bindSecond binds a second group with the same judge key and another first offset, and starts the cutovers.
func (h *harness) bindSecond(ctx context.Context) error {
	if err := h.bind(ctx, "beta", adminapi.StartAt_START_AT_LOG_END); err != nil {
		return err
	}
	beta := newGroup("beta", topic, "a rack over TCP")
	h.groups = append(h.groups, beta)
	if err := beta.joinTCP(h.tasks, h.seeds, "group=beta"); err != nil {
		return err
	}
	if h.options.retention {
		if err := h.bind(ctx, "slow", adminapi.StartAt_START_AT_LOG_START); err != nil {
			return err
		}
		h.slow = newGroup("slow", topic, "a rack over TCP, lagging")
		h.slow.nap = 40 * time.Second
		h.groups = append(h.groups, h.slow)
		if err := h.slow.joinTCP(h.tasks, h.seeds, "group=slow"); err != nil {
			return err
		}
	}
	h.cutovers = &cutovers{client: h.sdk, random: rand.New(rand.NewPCG(h.options.seed, 99))}
	for _, b := range h.bounds {
		if b.chain != nil {
			h.cutovers.bounds = append(h.cutovers.bounds, b)
		}
	}
	h.tasks.Go("cutovers", h.cutovers.run)
	return nil
}

// rounds kills, restarts and checks until there were enough kills, and checks once more when all is quiet.
func (h *harness) rounds(ctx context.Context) (err error) {
	h.header()
	if err := h.moment(ctx, 500, 1500); err != nil {
		return err
	}
	if err := h.bindSecond(ctx); err != nil {
		return err
	}
	for h.kills < h.options.kills {
		how, err := h.crash(ctx)
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := h.broker.Ready(ctx); err != nil {
			return err
		}
		readyIn := time.Since(begun)
		h.load.gently.Store(true)
		c, err := h.check(ctx)
		h.load.gently.Store(false)
		h.line(how, readyIn, c)
		if err != nil {
			return err
		}
	}
	if err := h.load.finish(); err != nil {
		return fmt.Errorf("the load: %w", err)
	}
	defer func() { err = errors.Join(err, h.stopTable()) }()
	c, err := h.check(ctx)
	if err == nil {
		err = errors.Join(h.drain(ctx, c), h.checkEnds(ctx))
	}
	h.line("at the end", 0, c)
	return err
}

// crash ends the broker once or more and leaves it started, not yet ready. Now and then it is first stopped as an operator
// would, which writes the caches of blocks that are not full; that counts as no kill.
func (h *harness) crash(ctx context.Context) (how string, err error) {
	if err := h.moment(ctx, 50, 2000); err != nil {
		return "", err
	}
	how = "under load"
	if h.random.IntN(6) == 0 {
		how = "after a clean stop"
		h.totals.cleanStops++
		if err := errors.Join(h.broker.Stop(), h.broker.Serve(ctx), h.moment(ctx, 50, 1000)); err != nil {
			return how, err
		}
	}
	for again := true; again; {
		if h.random.IntN(5) == 0 {
			how += ", paused"
			if err := h.pause(ctx); err != nil {
				return how, err
			}
		}
		if err := h.kill(); err != nil {
			return how, err
		}
		if h.kills%3 == 2 {
			h.totals.cachesDeleted++
			how += ", caches deleted"
			if err := os.RemoveAll(filepath.Join(h.broker.Data(), "chains")); err != nil {
				return how, err
			}
		}
		if err := h.broker.Start(); err != nil {
			return how, err
		}
		again = h.kills < h.options.kills && h.random.IntN(5) == 0
		if again {
			how += ", starting"
			h.totals.killedStarting++
			if err := h.moment(ctx, 0, 400); err != nil {
				return how, err
			}
		}
	}
	return how, nil
}

// pause stops the process for a moment, in the middle of whatever it was at; half of the pauses end with its death.
func (h *harness) pause(ctx context.Context) error {
	h.totals.pauses++
	if err := h.broker.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if err := h.moment(ctx, 50, 2500); err != nil {
		return err
	}
	if h.random.IntN(2) == 0 {
		return nil
	}
	if err := h.broker.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	return h.moment(ctx, 1, 500)
}

func (h *harness) kill() error {
	h.kills++
	if err := h.broker.End(syscall.SIGKILL); err != nil {
		return err
	}
	h.load.onKill()
	return nil
}

// moment waits for a random time.
func (h *harness) moment(ctx context.Context, minMillis, maxMillis int) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(minMillis+h.random.IntN(maxMillis-minMillis)) * time.Millisecond):
		return nil
	}
}

// drain waits until every group has everything, and checks the groups again.
func (h *harness) drain(ctx context.Context, c checked) error {
	deadline := time.Now().Add(30 * time.Second)
	if h.slow != nil {
		close(h.slow.awake)
	}
	for _, g := range h.groups {
		for !g.caughtUp(c.seenBy(g)) {
			if time.Now().After(deadline) {
				h.complain(fmt.Sprintf("group %s did not receive everything within 30 s of the end of the load", g.name))
				break
			}
			if err := h.moment(ctx, 20, 60); err != nil {
				return err
			}
		}
		if err := h.checkGroup(ctx, g, c); err != nil {
			return err
		}
	}
	return nil
}

// complain reports an anomaly; the first few in full.
func (h *harness) complain(problems ...string) {
	for _, p := range problems {
		h.wrong++
		h.told = append(h.told, strings.TrimSpace(p))
		if h.wrong <= 20 {
			fmt.Println("ANOMALY:", strings.TrimSpace(p))
		}
	}
}
