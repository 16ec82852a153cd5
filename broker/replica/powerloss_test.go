package replica

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/internal/vfs"
)

// sent is an append with acks=all.
type sent struct {
	pid   broker.ProducerID // negative: none
	seq   broker.Sequence
	count int
	base  broker.Offset // once it is acknowledged
}

// producers drives a replica from one goroutine: what is written becomes durable only by an explicit flush, so that at
// each file operation it is known what was acknowledged.
type producers struct {
	n      *node
	rng    *rand.Rand
	r      *Replica
	next   map[broker.ProducerID]broker.Sequence
	flying map[broker.ProducerID]int
	acked  []sent
	again  []sent // failed by a stop, to be sent again
	// started is the highest log start that was asked for: what lies below may be gone.
	started broker.Offset
}

var crashOptions = Options{SegmentBytes: 1500, RetentionMs: -1, RetentionBytes: -1}

func (p *producers) step(t *testing.T) {
	switch dice := p.rng.IntN(100); {
	case dice < 70:
		pid := broker.ProducerID(p.rng.IntN(4)) - 1
		if p.flying[pid] == 3 {
			return // so that the last acknowledged batch is always within the window
		}
		s := sent{pid: pid, seq: p.next[pid], count: 1 + p.rng.IntN(3)}
		p.next[pid] += broker.Sequence(s.count)
		p.send(t, s)
	case dice < 92:
		if err := p.n.flusher.Sync(); err != nil {
			t.Fatal(err)
		}
	case dice < 96:
		hw := p.r.Ends().HighWatermark
		p.started = max(p.started, hw-broker.Offset(p.rng.IntN(30)))
		if _, err := p.r.AdvanceStart(t.Context(), p.started); err != nil {
			t.Fatal(err)
		}
	default: // a stop in good order; clients send again what it failed
		p.n.stop()
		p.n.start(true)
		p.r = p.n.lead(crashOptions)
		again := p.again
		p.again = nil
		for _, s := range again {
			p.send(t, s)
		}
	}
}

func (p *producers) send(t *testing.T, s sent) {
	p.flying[s.pid]++
	p.r.Submit(Append{Batches: records(t, s.pid, s.seq, s.count, "x"), Acks: AcksAll, LeaderEpoch: broker.NoLeaderEpoch}, func(got Appended) {
		p.flying[s.pid]--
		switch broker.CodeOf(got.Err) {
		case broker.None:
			s.base = got.Base
			p.acked = append(p.acked, s)
		case broker.NotLeaderOrFollower:
			p.again = append(p.again, s)
		default:
			t.Errorf("append %+v: %v", s, got.Err)
		}
	})
}

// TestPowerLossAtAnyMomentLosesNothingAcknowledged loses power at file operations of a run with rolls, deleted records
// and restarts. What comes back has every acknowledged record at its offset, each batch of a producer once and in
// sequence, and answers a retry with the original offset.
func TestPowerLossAtAnyMomentLosesNothingAcknowledged(t *testing.T) {
	seed := uint64(1)
	if env := os.Getenv("MILLRACE_SEED"); env != "" {
		var err error
		if seed, err = strconv.ParseUint(env, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("replay: MILLRACE_SEED=%d go test -run %s ./broker/replica", seed, t.Name())
	rng := rand.New(rand.NewPCG(seed, 1))
	mem := vfs.NewMem()
	p := &producers{rng: rng, next: map[broker.ProducerID]broker.Sequence{}, flying: map[broker.ProducerID]int{}}
	p.n = memNode(t, mem)
	p.n.start(true)
	p.r = p.n.lead(crashOptions)
	crashes, missed := 0, 0
	var failed error
	var mu sync.Mutex // files are synced by several goroutines
	mem.Watch(func(op vfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind == vfs.OpRead || rng.IntN(6) != 0 {
			missed++
			return
		}
		crashes++
		// A sync may run on a goroutine of its own, so what is found is told by the goroutine of the test.
		if err := p.check(t, mem.CrashClone(rng)); err != nil && failed == nil {
			failed = fmt.Errorf("crash %d, before %s of %s: %w", crashes, op.Kind, op.Name, err)
		}
	})
	for range 1500 {
		p.step(t)
		if failed != nil {
			t.Fatal(failed)
		}
	}
	p.n.stop()
	if crashes < 200 || len(p.acked) < 200 {
		t.Fatalf("only %d crashes (%d operations left alone) with %d acknowledged", crashes, missed, len(p.acked))
	}
}

func memNode(t *testing.T, mem *vfs.Mem) *node {
	return &node{t: t, fs: mem, dir: "/data", clock: func() time.Time { return time.UnixMilli(1_000_000) }, fatal: make(chan error, 1)}
}

func (p *producers) check(t *testing.T, after *vfs.Mem) error {
	t.Helper()
	n := memNode(t, after)
	n.epoch = p.n.epoch
	n.start(true)
	r := n.lead(crashOptions)
	found := map[broker.Offset]sent{}
	next := map[broker.ProducerID]broker.Sequence{}
	for from := r.Ends().LogStart; ; {
		res, err := r.Read(Read{From: from, MaxBytes: 1 << 20, MinOne: true, LeaderEpoch: broker.NoLeaderEpoch})
		if err != nil {
			return err
		}
		if res.Slice == nil {
			break
		}
		for _, b := range res.Slice.Bytes {
			for v, err := range batch.All(b) {
				if err != nil {
					return err
				}
				if want, known := next[v.ProducerID()]; known && v.ProducerID() >= 0 && v.BaseSequence() != want {
					return fmt.Errorf("producer %d has sequence %d at %d, want %d", v.ProducerID(), v.BaseSequence(), v.BaseOffset(), want)
				}
				next[v.ProducerID()] = v.LastSequence() + 1
				found[v.BaseOffset()] = sent{pid: v.ProducerID(), seq: v.BaseSequence()}
			}
		}
		from = res.Slice.Next
		res.Slice.Release()
	}
	last := map[broker.ProducerID]sent{}
	for _, a := range p.acked {
		got, ok := found[a.base]
		if a.base >= p.started && (!ok || got.pid != a.pid || a.pid >= 0 && got.seq != a.seq) {
			return fmt.Errorf("%+v was acknowledged, its offset holds %+v (start %d, high watermark %d)", a, got, p.started, r.Ends().HighWatermark)
		}
		last[a.pid] = a
	}
	for pid, a := range last {
		if pid < 0 {
			continue
		}
		var answer Appended
		r.Submit(Append{Batches: records(t, pid, a.seq, a.count, "retry"), Acks: AcksAll, LeaderEpoch: -1}, func(got Appended) { answer = got })
		if err := n.flusher.Sync(); err != nil {
			return err
		}
		if answer.Err != nil || !answer.Duplicate || answer.Base != a.base {
			return fmt.Errorf("a retry of %+v is answered %+v", a, answer)
		}
	}
	n.stop()
	return nil
}
