package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/coordinator"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/broker/replica"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// errIO is a disk that fails.
var errIO = errors.New("input/output error")

// diskFault is what a disk does from one operation on.
type diskFault struct {
	name string
	err  error // nil: the disk is full, for whoever needs more than he reserved
	ever bool  // it does not get better
	kind vfs.Kind
}

// errand is a short life on a disk that fails: what a node is asked, and what it answered.
type errand struct {
	config Config
	disk   *vfs.Mem
	deeds  []deed
	node   *Node
	number int
}

// patience ends when the node does.
func (e *errand) patience() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	stop := context.AfterFunc(e.node.base.Context(), cancel)
	return ctx, func() { stop(); cancel() }
}

func (e *errand) do(d deed, told what, ask func(context.Context) error) error {
	ctx, cancel := e.patience()
	defer cancel()
	e.deeds = append(e.deeds, d)
	err := ask(ctx)
	if err == nil {
		d.what = told
		e.deeds = append(e.deeds, d)
	}
	return err
}

// send appends one record.
func (e *errand) send(topic string, partition int32) error {
	e.number++
	d := deed{what: sending, topic: topic, partition: partition, key: fmt.Sprintf("k%d", e.number%5), value: fmt.Sprintf("errand-%04d", e.number)}
	t, ok := e.node.quorum.Image().TopicNamed(topic)
	if !ok {
		return errors.New("no topic")
	}
	r, err := e.node.set.Get(broker.TopicPartition{Topic: t.ID, Partition: partition})
	if err != nil {
		return err
	}
	b := batch.NewBuilder(batch.Spec{BaseTimestamp: time.Now().UnixMilli()})
	err = b.Append(batch.Record{Key: []byte(d.key), Value: []byte(d.value)})
	bytes, finishErr := b.Finish()
	if err = errors.Join(err, finishErr); err != nil {
		return err
	}
	e.deeds = append(e.deeds, d)
	ctx, cancel := e.patience()
	defer cancel()
	got := r.Append(ctx, replica.Append{Batches: bytes, Acks: replica.AcksAll, LeaderEpoch: broker.NoLeaderEpoch})
	if got.Err != nil {
		return got.Err
	}
	d.what, d.offset = sent, int64(got.Base)
	e.deeds = append(e.deeds, d)
	return nil
}

// run asks for a bit of everything. What is refused is refused; the error is nil if nothing was.
func (e *errand) run() error {
	var refused []error
	note := func(err error) { refused = append(refused, err) }
	for i := range 12 {
		note(e.send("orders", int32(i%2)))
	}
	at := deed{what: committing, topic: "orders", offset: 25}
	note(e.do(at, committed, func(ctx context.Context) error {
		codes, err := e.node.groups.CommitOffsets(ctx, coordinator.CommitRequest{Group: runGroup, Identity: group.Identity{Generation: group.NoGeneration},
			Offsets: []coordinator.OffsetToCommit{{NamedPartition: group.NamedPartition{Topic: "orders"}, Offset: 25}}})
		if err == nil && codes[0] != broker.None {
			err = fmt.Errorf("code %d", codes[0])
		}
		return err
	}))
	note(e.do(deed{what: making, topic: "errands"}, made, func(ctx context.Context) error {
		_, err := e.node.quorum.Submit(ctx, controller.CreateTopic{Name: "errands", Partitions: 1, ReplicationFactor: 1})
		return err
	}))
	note(e.do(deed{what: starting, topic: "passing", offset: 45}, started, func(ctx context.Context) error {
		t, _ := e.node.quorum.Image().TopicNamed("passing")
		r, err := e.node.set.Get(broker.TopicPartition{Topic: t.ID})
		if err == nil {
			_, err = r.AdvanceStart(ctx, 45)
		}
		return err
	}))
	for range 6 {
		note(e.send("table", 0))
	}
	ctx, cancel := e.patience()
	defer cancel()
	note(e.node.set.Clean(ctx, replica.Cleaner{}))
	note(e.do(deed{what: deleting, topic: "late"}, deleted, func(ctx context.Context) error {
		t, ok := e.node.quorum.Image().TopicNamed("late")
		if !ok {
			return errors.New("no topic")
		}
		_, err := e.node.quorum.Submit(ctx, controller.DeleteTopic{ID: t.ID})
		return err
	}))
	note(e.send("orders", 1))
	return errors.Join(refused...)
}

// failing runs an errand on a disk that fails at its k-th changing operation, starts again on what is there, loses power,
// and starts once more. It says how the errand ended, and what was wrong.
func failing(config Config, rest resting, f diskFault, k int) (how string, err error) {
	disk := rest.disk.CrashClone(nil)
	e := &errand{config: config, disk: disk, deeds: rest.deeds[:len(rest.deeds):len(rest.deeds)]}
	rng := rand.New(rand.NewPCG(uint64(k), 7))
	var count atomic.Int64
	var struck atomic.Pointer[vfs.Op]
	disk.Inject(func(op vfs.Op) *vfs.Fault {
		if op.Kind == vfs.OpRead || op.Kind == vfs.OpOpen || f.kind != "" && op.Kind != f.kind {
			return nil
		}
		n := count.Add(1)
		if n != int64(k) && !(f.ever && n > int64(k)) {
			return nil
		}
		struck.CompareAndSwap(nil, &op)
		return &vfs.Fault{Err: f.err, Written: rng.IntN(600)}
	})
	node, log, startErr := startOn(context.Background(), disk, config)
	how = "does not start"
	if startErr != nil && !errors.Is(startErr, f.err) {
		return how, fmt.Errorf("it does not say why: %w", startErr)
	}
	if startErr == nil {
		e.node, how = node, "goes on"
		refused := e.run()
		select {
		case <-node.Failed():
			how = "ends"
		default:
			if refused != nil {
				how = "refuses and goes on"
			}
		}
		if stopErr := node.Stop(); stopErr != nil && how == "goes on" {
			how = "ends as it stops"
		}
	}
	op := struck.Load()
	disk.Inject(nil)
	if op == nil {
		return "is not met", nil
	}
	if how == "goes on" && errors.Is(f.err, errIO) && critical(*op) {
		return how, fmt.Errorf("%s of %s failed and the node went on\n%s", op.Kind, op.Name, log)
	}
	for _, again := range []struct {
		name string
		disk *vfs.Mem
	}{{"power lost", disk.CrashClone(rng)}, {"started again", disk}} {
		s := &survey{config: config, deeds: e.deeds}
		if err := s.run(again.disk); err != nil {
			return how, fmt.Errorf("%s of %s failed, it %s; %s: %w", op.Kind, op.Name, how, again.name, err)
		}
		// What a restart found counts as told: a failed sync must not take it with the next power loss.
		s = &survey{config: config, deeds: s.deeds}
		if err := s.run(again.disk.CrashClone(nil)); err != nil {
			return how, fmt.Errorf("%s of %s failed, it %s; %s, and lost power: %w", op.Kind, op.Name, how, again.name, err)
		}
	}
	return how, nil
}

// critical says that a failure of an operation must end the process: what it was about may have been promised.
func critical(op vfs.Op) bool {
	durable := strings.Contains(op.Name, "/topics/") || strings.Contains(op.Name, "/raft/") || strings.Contains(op.Name, "/flush")
	return durable && (op.Kind == vfs.OpSync || op.Kind == vfs.OpWrite)
}

// TestADiskThatFailsEndsTheNodeAndLosesNothing fails every changing operation of a short life in turn, with errors of
// input and output and with a full disk that cannot reserve, once and for ever, with writes that are cut short.
func TestADiskThatFailsEndsTheNodeAndLosesNothing(t *testing.T) {
	config := crashConfig(filepath.Join(t.TempDir(), "node"))
	rest := lastRest(t, config)
	every := 11
	if os.Getenv(crashesAll) != "" {
		every = 1
	}
	var mu sync.Mutex
	outcomes := census{}
	for _, f := range []diskFault{
		{name: "EIO once", err: errIO}, {name: "EIO from there on", err: errIO, ever: true}, {name: "ENOSPC once", err: vfs.ErrNoSpace},
		{name: "EIO of a sync", err: errIO, kind: vfs.OpSync}, {name: "EIO of a write", err: errIO, kind: vfs.OpWrite},
	} {
		var next, met atomic.Int64
		workers := task.NewGroup(t.Context())
		for range runtime.GOMAXPROCS(0) {
			workers.Go("faults", func(context.Context) error {
				for {
					k := int(next.Add(1)) * every
					how, err := failing(config, rest, f, k)
					if how == "is not met" {
						return nil
					}
					met.Add(1)
					mu.Lock()
					outcomes[f.name+": the node "+how]++
					mu.Unlock()
					if err != nil {
						return fmt.Errorf("%s at %d: %w", f.name, k, err)
					}
				}
			})
		}
		if err := workers.Wait(); err != nil {
			t.Error(err)
		}
		if met.Load() == 0 {
			t.Errorf("%s: nothing failed", f.name)
		}
	}
	t.Logf("%d faults:\n%s", outcomes.total(), outcomes)
}

// lastRest is where a recorded run ended.
func lastRest(t *testing.T, config Config) resting {
	t.Helper()
	rest, err := restAt(recordRun(t, config), config, "last kill", 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return rest
}

// TestAFullDiskIsNoFailure fills the disk before every changing operation of a short life in turn: whoever reserved his
// space goes on, appends are refused, the node does not end, and when there is space again everything is taken again.
func TestAFullDiskIsNoFailure(t *testing.T) {
	config := crashConfig(filepath.Join(t.TempDir(), "node"))
	rest := lastRest(t, config)
	every := 3
	if os.Getenv(crashesAll) != "" {
		every = 1
	}
	outcomes, wrong := census{}, 0
	for k := every; ; k += every {
		how, err := full(config, rest, k)
		if how == "is not met" {
			break
		}
		outcomes["the node "+how]++
		if err != nil {
			t.Errorf("full before operation %d: %v", k, err)
			if wrong++; wrong > 5 {
				break
			}
		}
	}
	t.Logf("%d full disks:\n%s", outcomes.total(), outcomes)
}

// full runs an errand on a disk that is full from its k-th changing operation on.
func full(config Config, rest resting, k int) (how string, err error) {
	disk := rest.disk.CrashClone(nil)
	e := &errand{config: config, disk: disk, deeds: rest.deeds[:len(rest.deeds):len(rest.deeds)]}
	var count atomic.Int64
	var struck atomic.Pointer[vfs.Op]
	disk.Watch(func(op vfs.Op) {
		if op.Kind != vfs.OpRead && op.Kind != vfs.OpOpen && count.Add(1) == int64(k) {
			struck.Store(&op)
			disk.SetSpace(1)
		}
	})
	seams := SystemSeams()
	seams.FS = disk
	log := &journal{}
	node, err := Start(context.Background(), config, seams, zerolog.New(log))
	if err != nil && struck.Load() != nil {
		return "does not start", fmt.Errorf("%w\n%s", err, log)
	}
	if err != nil {
		return "", err
	}
	e.node, how = node, "goes on"
	if e.run() != nil {
		how = "refuses and goes on"
	}
	disk.SetSpace(0)
	select {
	case <-node.Failed():
		how, err = "ends", fmt.Errorf("%w\n%s", node.failedBecause(), log)
	default:
		err = node.set.CheckSpace()
		for partition := range int32(2) {
			err = errors.Join(err, e.send("orders", partition))
		}
		if err != nil {
			err = fmt.Errorf("with space again: %w\n%s", err, log)
		}
	}
	atStop := struck.Load() == nil
	if stopErr := node.Stop(); err == nil && stopErr != nil && !errors.Is(stopErr, vfs.ErrNoSpace) {
		err = fmt.Errorf("stop: %w\n%s", stopErr, log)
	}
	if struck.Load() == nil {
		return "is not met", err
	}
	if atStop {
		how = "stops, with or without the mark of a clean stop"
	}
	if err == nil {
		disk.Watch(nil)
		disk.SetSpace(0)
		err = (&survey{config: config, deeds: e.deeds}).run(disk)
	}
	return how, err
}
