package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// crashesAll runs every crash point instead of a sample: `make crashes`.
const crashesAll = "MILLRACE_CRASHES"

// crashPoint is a disk as a power loss left it, and what had happened by then.
type crashPoint struct {
	name  string
	disk  *vfs.Mem
	deeds []deed
	deep  bool // lose power again at every operation of the recovery
}

// crashes runs surveys on several goroutines and counts.
type crashes struct {
	config      Config
	failuresMax int

	mu       sync.Mutex
	phases   census  // guarded by mu
	again    census  // guarded by mu: second losses, during recovery
	failures []error // guarded by mu
}

// run surveys the points until they end or too many fail.
func (c *crashes) run(ctx context.Context, points <-chan crashPoint) error {
	workers := task.NewGroup(ctx)
	for range runtime.GOMAXPROCS(0) {
		workers.Go("survey", func(context.Context) error {
			for p := range points {
				if err := c.survey(p); err != nil {
					c.mu.Lock()
					c.failures = append(c.failures, fmt.Errorf("power lost before %s: %w", p.name, err))
					c.mu.Unlock()
				}
			}
			return nil
		})
	}
	return workers.Wait()
}

func (c *crashes) tooMany() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.failures) >= c.failuresMax
}

// survey looks at one point; a deep one again at every operation of its recovery.
func (c *crashes) survey(p crashPoint) error {
	s := &survey{config: c.config, deeds: p.deeds}
	if !p.deep {
		return s.run(p.disk)
	}
	before := p.disk.CrashClone(nil)
	tape := vfs.NewTape(p.disk)
	s.note = func(d deed) { tape.Remark(d) }
	if err := s.run(tape.Process()); err != nil {
		return err
	}
	player, rng := vfs.Player{Mem: before}, rand.New(rand.NewPCG(uint64(len(p.deeds)), 3))
	deeds := slices.Clone(p.deeds)
	for _, e := range tape.Entries() {
		if d, ok := e.Remark.(deed); ok {
			deeds = append(deeds, d)
		}
		if e.Changing() {
			again := &survey{config: c.config, deeds: deeds}
			if err := again.run(player.Mem.CrashClone(rng)); err != nil {
				return fmt.Errorf("and again before operation %d of recovery (%s %s): %w", e.Op.Number, e.Op.Kind, e.Op.Name, err)
			}
			c.mu.Lock()
			c.again[phaseOf(e.Op)]++
			c.mu.Unlock()
		}
		if err := player.Play(e); err != nil {
			return err
		}
	}
	return nil
}

// feed plays a tape and makes a point of every operation, or of one in every.
func (c *crashes) feed(tape *vfs.Tape, player *vfs.Player, every, deepEvery int, points chan<- crashPoint) error {
	defer close(points)
	var deeds []deed
	rng := rand.New(rand.NewPCG(1, 2))
	at, count := "", 0
	for _, e := range tape.Entries() {
		if d, ok := e.Remark.(deed); ok {
			if deeds = append(deeds, d); d.what == entering {
				at = d.value
			}
		}
		if e.Changing() && (player.Skip == nil || !player.Skip(e.Op)) {
			count++
			if count%every == 0 {
				if c.tooMany() {
					return nil
				}
				c.mu.Lock()
				c.phases[at+": "+phaseOf(e.Op)]++
				c.mu.Unlock()
				keep := rng
				if rng.IntN(4) == 0 {
					keep = nil // nothing but what was synced
				}
				points <- crashPoint{
					name: fmt.Sprintf("operation %d (%s: %s %s)", e.Op.Number, at, e.Op.Kind, e.Op.Name),
					disk: player.Mem.CrashClone(keep), deeds: deeds[:len(deeds):len(deeds)], deep: count/every%deepEvery == 0,
				}
			}
		}
		if err := player.Play(e); err != nil {
			return err
		}
	}
	return nil
}

// TestPowerLossAtEveryOperationOfANodeLosesNothing records a run of a whole node with producers, commits, a bound group,
// changes of topics and of the binding, compaction, retention, a clean stop and kills. Then it loses power before every
// file operation of the run, starts a node on what the disk has, and compares logs, commits, topics and the filtered log
// with what clients had been told. At some of the points power is lost again, before every operation of the recovery.
func TestPowerLossAtEveryOperationOfANodeLosesNothing(t *testing.T) {
	config := crashConfig(filepath.Join(t.TempDir(), "node"))
	tape := recordRun(t, config)
	every, deepEvery := 29, 41
	if os.Getenv(crashesAll) != "" {
		every, deepEvery = 1, 50
	}
	c := &crashes{config: config, failuresMax: 5, phases: census{}, again: census{}}
	c.lose(t, tape, &vfs.Player{Mem: vfs.NewMem()}, every, deepEvery)
	for _, err := range c.failures {
		t.Error(err)
	}
	t.Logf("%d crash points, by stage and operation:\n%s", c.phases.total(), c.phases)
	t.Logf("%d second crash points, in recovery, by operation:\n%s", c.again.total(), c.again)
}

// lose plays a tape and surveys what power losses leave.
func (c *crashes) lose(t *testing.T, tape *vfs.Tape, player *vfs.Player, every, deepEvery int) {
	t.Helper()
	points := make(chan crashPoint)
	feeder := task.NewGroup(t.Context())
	feeder.Go("feed", func(context.Context) error { return c.feed(tape, player, every, deepEvery, points) })
	if err := errors.Join(c.run(t.Context(), points), feeder.Wait()); err != nil {
		t.Fatal(err)
	}
}

// TestDisksThatLieAreNoticed plays the same run on disks that leave out some of what they were asked for, and expects the
// surveys to notice each: a checker that passes them would pass a broker that does not sync.
func TestDisksThatLieAreNoticed(t *testing.T) {
	config := crashConfig(filepath.Join(t.TempDir(), "node"))
	tape := recordRun(t, config)
	for name, skip := range map[string]func(vfs.Op) bool{
		"no sync of anything":    func(op vfs.Op) bool { return op.Kind == vfs.OpSync },
		"no sync of partitions":  func(op vfs.Op) bool { return op.Kind == vfs.OpSync && strings.Contains(op.Name, "/topics/") },
		"no sync of metadata":    func(op vfs.Op) bool { return op.Kind == vfs.OpSync && strings.Contains(op.Name, "/raft/log/") },
		"no sync before renames": func(op vfs.Op) bool { return op.Kind == vfs.OpSync && strings.HasSuffix(op.Name, ".tmp") },
		"no sync of names":       func(op vfs.Op) bool { return op.Kind == vfs.OpSyncDir },
	} {
		t.Run(name, func(t *testing.T) {
			c := &crashes{config: config, failuresMax: 1, phases: census{}, again: census{}}
			c.lose(t, tape, &vfs.Player{Mem: vfs.NewMem(), Skip: skip}, 11, 1<<30)
			if len(c.failures) == 0 {
				t.Fatalf("%d power losses, and nobody noticed", c.phases.total())
			}
			t.Logf("noticed at the %d. power loss", c.phases.total())
		})
	}
}
