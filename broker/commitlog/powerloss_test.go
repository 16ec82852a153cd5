package commitlog_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/vfs"
)

// promise is what the log told the world, against which what a power loss left is held.
type promise struct {
	batches [][]byte // everything that is or may be in the log, by offset
	durable broker.Offset
	start   broker.Offset
	ends    []broker.Offset // of batches
}

func (p *promise) add(b []byte) {
	v, err := batch.Parse(b)
	if err != nil {
		panic(err)
	}
	p.batches = append(p.batches, b)
	p.ends = append(p.ends, v.NextOffset())
}

func (p *promise) cut(end broker.Offset) {
	for n := len(p.ends); n > 0 && p.ends[n-1] > end; n-- {
		p.batches, p.ends = p.batches[:n-1], p.ends[:n-1]
	}
}

// check opens what is left on a file system and compares. It returns the log's end.
func (p *promise) check(t *testing.T, fs vfs.FS, dir, when string) broker.Offset {
	t.Helper()
	w := &world{t: t, fs: fs, dir: dir}
	if err := w.tryOpen(); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	l := w.log
	start, durable, end := l.Ends()
	if start > p.start || end < p.durable || durable != end || l.RecoveredHW() > end {
		t.Fatalf("%s: recovered [%d, %d), durable %d, high watermark %d; promised [%d, %d)", when, start, end, durable, l.RecoveredHW(), p.start, p.durable)
	}
	var want []byte
	for i, b := range p.batches {
		if p.ends[i] > start && p.ends[i] <= end {
			want = append(want, b...)
		}
	}
	if got := readAll(t, l, start, 4000); !bytes.Equal(got, want) {
		t.Fatalf("%s: the log [%d, %d) holds other bytes than were appended", when, start, end)
	}
	if bad := l.CheckDerived(); bad != "" {
		t.Fatalf("%s: %s", when, bad)
	}
	return end
}

// crashes checks a file system after a power loss, and again after a second one during the recovery from the first.
func (p *promise) crashes(t *testing.T, m *vfs.Mem, dir string, op vfs.Op) {
	rng := rand.New(rand.NewPCG(uint64(op.Number), 1))
	when := fmt.Sprintf("power lost before operation %d (%s %s)", op.Number, op.Kind, path.Base(op.Name))
	first := m.CrashClone(rng)
	again, spare := first.CrashClone(nil), first.CrashClone(nil)
	end := p.check(t, first, dir, when)
	if op.Number%11 != 0 {
		return
	}
	// Recovered means durable: nothing of it may go with another power loss, in the middle of recovery or behind it.
	after := *p
	after.durable = end
	after.check(t, first.CrashClone(nil), dir, when+", recovered, and lost again")
	var inner []*vfs.Mem
	again.Watch(func(op vfs.Op) {
		if op.Kind != vfs.OpRead && op.Kind != vfs.OpOpen {
			inner = append(inner, again.CrashClone(rng))
		}
	})
	p.check(t, again, dir, when)
	for i, fs := range inner {
		p.check(t, fs, dir, fmt.Sprintf("%s, and again at step %d of recovery", when, i))
	}
	p.check(t, spare, dir, when)
}

func TestPowerLossAtEveryOperationKeepsWhatWasReportedDurable(t *testing.T) {
	t.Run("partition", func(t *testing.T) { runPowerLoss(t, 1000, 0) })
	t.Run("metadata log", func(t *testing.T) { runPowerLoss(t, 400, 2) })
}

// runPowerLoss appends, rolls, cuts and retains, and loses power before every operation that could be lost.
func runPowerLoss(t *testing.T, appends, spares int) {
	m := vfs.NewMem()
	w := &world{t: t, fs: m, dir: "data"}
	w.open()
	p := &promise{}
	var mu sync.Mutex // syncs of one group run at once
	cfg := w.config()
	cfg.SpareSegments = spares
	cfg.OnDurable = func(end broker.Offset) { mu.Lock(); p.durable = end; mu.Unlock() }
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.log, err = commitlog.Open(cfg); err != nil {
		t.Fatal(err)
	}
	checked, ahead := 0, 0
	m.Watch(func(op vfs.Op) {
		if op.Kind == vfs.OpRead || op.Kind == vfs.OpOpen || testing.Short() && op.Number%7 != 0 {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		checked++
		p.crashes(t, m, w.dir, op)
	})
	rng := rand.New(rand.NewPCG(2, 3))
	epoch := broker.LeaderEpoch(1)
	for i := range appends {
		if rng.IntN(60) == 0 {
			epoch++
		}
		b := makeBatch(w.log.End(), epoch, 1+rng.IntN(6), byte(i))
		mu.Lock()
		p.add(b)
		mu.Unlock()
		if err := w.log.Append(b); err != nil {
			t.Fatal(err)
		}
		step(t, w, p, &mu, rng)
		if i%10 == 0 && w.behind() > 0 {
			ahead++
		}
	}
	if w.log.Start() == 0 || len(w.log.Segments()) < 2 || checked < 100 || (ahead > appends/50) != (spares == 0) {
		t.Fatalf("the run did too little: start %d, %d segments, %d crashes, zeros ahead of %d tenths of its appends",
			w.log.Start(), len(w.log.Segments()), checked, ahead)
	}
	t.Logf("%d crashes, zeros ahead of %d of %d appends", checked, 10*ahead, appends)
}

// step does, now and then, what happens to a log besides appends.
func step(t *testing.T, w *world, p *promise, mu *sync.Mutex, rng *rand.Rand) {
	l := w.log
	var err error
	switch n := rng.IntN(100); {
	case n < 30:
		err = w.flusher.FlushGroup(n < 10)
	case n < 33: // retention
		if segments := l.Segments(); len(segments) > 3 {
			to := segments[len(segments)-3].Base + broker.Offset(rng.IntN(30))
			mu.Lock()
			p.start = max(p.start, to)
			mu.Unlock()
			err = l.AdvanceStart(to)
		}
	case n < 36: // a cut, sometimes below what is durable
		mu.Lock()
		at := len(p.ends) - 1 - rng.IntN(min(12, len(p.ends)-1))
		to := p.ends[at]
		p.durable = min(p.durable, to)
		mu.Unlock()
		if to < l.Start() {
			return
		}
		if err = l.Truncate(to); err == nil {
			mu.Lock()
			p.cut(to)
			mu.Unlock()
		}
	case n < 40:
		l.SetHighWatermark(l.Durable())
	}
	if err != nil {
		t.Fatal(err)
	}
}
