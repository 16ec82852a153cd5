package bubble

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/task"
)

// seeds is how many runs the test makes; make bubble makes more.
const seeds = 6

// TestClustersKeepTheirPromises runs three whole nodes, their clients and what goes wrong, in virtual time, a seed each: no
// acknowledged record is lost, doubled or moved, each producer's are in order, nothing that was read vanishes, no commit is
// forgotten, every partition is linearizable, and when all is healed everything is well again and every replica the same.
func TestClustersKeepTheirPromises(t *testing.T) {
	from, count := uint64(1), uint64(seeds)
	if testing.Short() {
		count = 2
	}
	if env := os.Getenv("MILLRACE_SEED"); env != "" {
		n, err := fmt.Sscanf(env+"+1", "%d+%d", &from, &count) // N, or N+COUNT
		if n < 2 {
			t.Fatal(err)
		}
	}
	for seed := from; seed < from+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			began := time.Now()
			r := inBubble(t, newPlan(seed))
			r.check()
			t.Logf("%s, in %s", r, time.Since(began).Truncate(time.Millisecond))
			if len(r.ended) > 0 {
				t.Logf("started again by hand: %q", r.ended)
			}
			if len(r.history.wrong) > 0 {
				t.Errorf("replay: MILLRACE_SEED=%d go test -tags synctests -run TestClustersKeepTheirPromises ./internal/sim/bubble\n%s\n%s",
					seed, strings.Join(r.story, "\n"), strings.Join(r.history.wrong[:min(len(r.history.wrong), 20)], "\n"))
				keep(t, r)
			}
		})
	}
}

func inBubble(t *testing.T, p plan) (r *run) {
	synctest.Test(t, func(t *testing.T) { r = play(t.Context(), p) })
	return r
}

// keep writes what the nodes logged below the directory that the environment names: another run of the seed may be another.
func keep(t *testing.T, r *run) {
	dir := os.Getenv("MILLRACE_LOGS")
	if dir == "" {
		return
	}
	for _, m := range r.cluster.machines {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-node%d.log", r.plan.seed, m.id)), []byte(m.log.String()), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// quiet is a short run without faults.
func quiet() plan {
	p := newPlan(0)
	p.kinds, p.partitions, p.producers, p.chaos, p.bound = nil, 1, 2, 2*time.Second, false
	return p
}

// kinds are the kinds of what was found to be wrong.
func (r *run) foundKinds() (kinds []string) {
	for _, what := range r.history.wrong {
		kind, _, _ := strings.Cut(what, ":")
		kinds = append(kinds, kind)
	}
	return kinds
}

// The checkers are held against histories with one thing wrong at a time.
func TestCheckersTellGoodFromBad(t *testing.T) {
	p := quiet()
	p.bound = true
	r := inBubble(t, p)
	r.check()
	if len(r.history.wrong) > 0 {
		t.Fatal(r.history.wrong)
	}
	logs, err := r.dumps(0)
	if err != nil {
		t.Fatal(err)
	}
	log := logs[0].entries
	if len(log) < 50 || len(r.history.ends) < 3 || r.history.commits < 3 {
		t.Fatalf("%d records, %s: too little to judge by", len(log), r)
	}
	has := filtered(log)
	keptAt, copyAt := slices.Index(has, true), slices.Index(has, false)
	if keptAt < 0 || copyAt < 0 {
		t.Fatalf("of %d records the chain leaves out none or all", len(log))
	}
	again := func(change func(entries []entry) []entry) func(*run, *truth) {
		return func(_ *run, t *truth) { t.log = change(slices.Clone(log)) }
	}
	for _, c := range []struct {
		kind string
		do   func(r *run, t *truth)
	}{
		{"", func(*run, *truth) {}},
		{"lost", again(func(all []entry) []entry { return all[:len(all)-1] })},
		{"vanished", again(func(all []entry) []entry { all[7].value = "1-999999-"; return all })},
		{"gap", again(func(all []entry) []entry { return slices.Delete(all, 3, 4) })},
		{"gap", again(func(all []entry) []entry { all[3].epoch = 9; return all })},
		{"duplicate", again(func(all []entry) []entry {
			return append(all, entry{offset: broker.Offset(len(all)), value: all[3].value})
		})},
		{"reordered", again(func(all []entry) []entry { all[0].value, all[40].value = all[40].value, all[0].value; return all })},
		{"moved", func(r *run, _ *truth) { r.history.sends[3].offset++ }},
		{"failed", func(r *run, _ *truth) { r.history.sends[3].err = os.ErrClosed }},
		{"poll-skip", func(r *run, _ *truth) {
			r.history.reads = slices.DeleteFunc(r.history.reads, func(g got) bool { return g.who[0] == 'r' && g.offset == 5 })
		}},
		{"skipped", func(r *run, _ *truth) {
			r.history.reads = slices.DeleteFunc(r.history.reads, func(g got) bool { return g.who[0] == 'm' && g.offset == 5 })
		}},
		{"skipped", func(r *run, _ *truth) {
			r.history.reads = slices.DeleteFunc(r.history.reads, func(g got) bool { return g.who[0] == 'b' && int(g.offset) == keptAt })
		}},
		{"copy", func(r *run, _ *truth) {
			r.history.reads = append(r.history.reads, got{"bound 9", 0, broker.Offset(copyAt), log[copyAt].value})
		}},
		{"commit-ahead", func(r *run, _ *truth) { r.history.committed[group][0] = broker.Offset(len(log) + 1) }},
		{"not-linearizable", func(r *run, _ *truth) { r.history.ends[len(r.history.ends)-1].end = 0 }},
	} {
		copied := &history{reads: slices.Clone(r.history.reads), ends: slices.Clone(r.history.ends), committed: map[string]map[int32]broker.Offset{group: r.history.low(group), boundGroup: r.history.low(boundGroup)}}
		for _, s := range r.history.sends {
			one := *s
			copied.sends = append(copied.sends, &one)
		}
		broken := &run{plan: r.plan, history: copied}
		of := &truth{log: log, at: map[string]broker.Offset{}}
		c.do(broken, of)
		broken.checkPartition(of)
		if found := broken.foundKinds(); len(found) == 0 != (c.kind == "") || c.kind != "" && !slices.Contains(found, c.kind) {
			t.Errorf("%q: found %v", c.kind, found)
		}
	}
	r.history.wrong = nil
	logs[1].batches[2] = slices.Clone(logs[1].batches[2])
	logs[1].batches[2][70]++
	if r.checkSame(0, logs); !slices.Contains(r.foundKinds(), "logs-differ") {
		t.Error("logs that differ in a byte were taken for the same")
	}
}

func TestNothingIsWellWhileAFaultIsToCome(t *testing.T) {
	starts, serves := &life{serving: make(chan struct{})}, &life{serving: make(chan struct{})}
	close(serves.serving)
	for _, c := range []struct {
		name string
		life *life
		down bool
		well bool
	}{{"serves", serves, false, true}, {"loses power in a moment", serves, true, false}, {"starts", starts, false, false}} {
		m := &machine{id: 1, life: c.life}
		r := &run{cluster: &cluster{machines: []*machine{m}}, down: map[*machine]bool{m: c.down}}
		if why := r.underWay(); (why == "") != c.well {
			t.Errorf("%s: %q", c.name, why)
		}
	}
}

func TestAClusterStopsThoughANodeOfItWaitsForTheQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{network: newNetwork(rand.New(rand.NewPCG(1, 3))), began: time.Now(), tasks: task.NewGroup(t.Context())}
		for id := range broker.NodeID(3) {
			c.machines = append(c.machines, newMachine(id+1))
		}
		if err := c.found(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, m := range c.machines {
			c.kill(m)
		}
		alone := c.start(t.Context(), c.machines[0])
		late := time.AfterFunc(time.Minute, alone.cancel)
		if err := c.stop(); alone.served || !late.Stop() {
			t.Errorf("the node that cannot start ended late, or served: %v", err)
		}
		if err := c.tasks.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDisksThatLieAreNoticed has every disk forget at a loss of power what was synced since the load began.
func TestDisksThatLieAreNoticed(t *testing.T) {
	p := quiet()
	p.kinds, p.calm, p.forgetful = []fault{darkness}, time.Second, true
	r := inBubble(t, p)
	r.check()
	if found := r.foundKinds(); !slices.Contains(found, "lost") && !slices.Contains(found, "data-loss") && !slices.Contains(found, "vanished") {
		t.Errorf("disks lost what they had synced, and what was found is %v; %s", found, r)
	}
}

// TestEveryDiskFaultAndHoldIsWeathered plays those faults alone, and each of them.
func TestEveryDiskFaultAndHoldIsWeathered(t *testing.T) {
	p := quiet()
	p.seed, p.kinds, p.chaos, p.calm = 1, []fault{held, unsynced, full, rotten}, 30*time.Second, time.Second
	r := inBubble(t, p)
	r.check()
	story := strings.Join(r.story, "\n")
	for _, what := range []string{"hold of node", "fails, power lost as well", "no space on the disk", "is another: bit"} {
		if !strings.Contains(story, what) {
			t.Errorf("nothing like %q happened", what)
		}
	}
	if len(r.history.wrong) > 0 {
		t.Errorf("%s\n%s", story, strings.Join(r.history.wrong[:min(len(r.history.wrong), 20)], "\n"))
	}
}

// TestTheOracleKnowsTheWindow: blocks of 64 offsets, of which two in front of a record's own are looked at.
func TestTheOracleKnowsTheWindow(t *testing.T) {
	log := make([]entry, 400)
	for i := range log {
		log[i] = entry{offset: broker.Offset(i), key: fmt.Sprint(i)}
	}
	for _, at := range []int{10, 63, 191, 320, 350} { // 191 sees [0, 191), 320 sees [192, 320), 350 the same block's
		log[at].key = "again"
	}
	var left []int
	for i, has := range filtered(log) {
		if !has {
			left = append(left, i)
		}
	}
	if !slices.Equal(left, []int{63, 191, 350}) {
		t.Errorf("left out are %v", left)
	}
}
