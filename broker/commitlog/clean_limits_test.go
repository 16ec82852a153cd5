package commitlog_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

func TestCompactionHeedsLagsAndRatio(t *testing.T) {
	k, _ := newKeyed(t)
	k.fill(100)
	cfg := k.cleanConfig()
	dirt := func() commitlog.Dirt {
		t.Helper()
		d, err := k.log.Dirt(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	all := dirt()
	if all.Ratio() != 1 || all.End >= k.log.End() || all.From != 0 {
		t.Fatalf("%+v", all)
	}
	cfg.MinLagMs = 50_000 // fill writes one batch a second
	if d := dirt(); d.End >= all.End || d.End < 100 || d.Overdue {
		t.Fatalf("with a lag: %+v", d)
	}
	cfg.MinLagMs = 1 << 40
	if d := dirt(); d.DirtyBytes != 0 {
		t.Fatalf("too young, and yet %+v", d)
	}
	cfg.MinLagMs, cfg.Limit = 0, all.End-1
	if d := dirt(); d.End >= all.End || d.End == 0 {
		t.Fatalf("above the limit: %+v", d)
	}
	cfg.Limit = k.log.Durable()
	k.clean()
	k.fill(40)
	cfg.Limit, cfg.MinDirtyRatio, cfg.MaxLagMs = k.log.Durable(), 0.9, 1<<40
	if d := dirt(); d.DirtyBytes == 0 || d.Due(cfg.MinDirtyRatio) {
		t.Fatalf("due at %f: %+v", d.Ratio(), d)
	}
	if done, err := k.log.Clean(context.Background(), cfg); err != nil || done.Passes != 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	cfg.MaxLagMs = 1000
	if d := dirt(); !d.Overdue || !d.Due(cfg.MinDirtyRatio) {
		t.Fatalf("not overdue: %+v", d)
	}
}

func TestCutVoidsTheCleanPointAboveIt(t *testing.T) {
	k, m := newKeyed(t)
	k.fill(200)
	k.clean()
	segments := k.log.Segments()
	to := segments[len(segments)/2].Base
	if err := k.log.Truncate(to); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if d, err := k.log.Dirt(k.cleanConfig()); err != nil || d.From != 0 {
			t.Fatalf("after a cut at %d the log is clean to %d, %v", to, d.From, err)
		}
		k.fs = m.CrashClone(nil)
		k.reopenSmall()
	}
}

func TestFullDiskStopsACompactionAndNothingElse(t *testing.T) {
	k, m := newKeyed(t)
	k.fill(200)
	m.SetSpace(1 << 20)
	if _, err := k.log.Clean(context.Background(), k.cleanConfig()); !errors.Is(err, commitlog.ErrFull) {
		t.Fatalf("want no space, got %v", err)
	}
	m.SetSpace(1 << 40)
	m.Inject(func(op vfs.Op) *vfs.Fault {
		if op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".cleaned") {
			return &vfs.Fault{Err: vfs.ErrNoSpace}
		}
		return nil
	})
	if _, err := k.log.Clean(context.Background(), k.cleanConfig()); !errors.Is(err, commitlog.ErrFull) {
		t.Fatalf("want no space, got %v", err)
	}
	m.Inject(nil)
	k.check("after a full disk", false)
	k.produce(50, batch.None, "a", "b")
	k.flush()
	k.clean()
	k.check("with room again", true)
	if k.fatal != nil {
		t.Fatal(k.fatal)
	}
}

func TestCloseEndsACompactionUnderWay(t *testing.T) {
	k, _ := newKeyed(t)
	k.fill(200)
	begun := make(chan struct{})
	cfg := k.cleanConfig()
	cfg.Step = func(ctx context.Context, _ int) (func(), error) {
		close(begun)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	result := make(chan error, 1)
	g := task.NewGroup(context.Background())
	g.Go("cleaner", func(ctx context.Context) error {
		_, err := k.log.Clean(ctx, cfg)
		result <- err
		return nil
	})
	<-begun
	if err := k.log.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, commitlog.ErrClosed) {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil || k.fatal != nil {
		t.Fatal(err, k.fatal)
	}
}

func TestDamagedRecordStopsACompaction(t *testing.T) {
	k, m := newKeyed(t)
	k.fill(200)
	overwrite(t, m, k.segmentFile(0), []byte{0xff}, 100)
	var corrupt *commitlog.CorruptError
	if _, err := k.log.Clean(context.Background(), k.cleanConfig()); !errors.As(err, &corrupt) {
		t.Fatalf("a flipped byte was compacted: %v", err)
	}
	if d, err := k.log.Dirt(k.cleanConfig()); err != nil || d.From != 0 {
		t.Fatalf("%+v, %v", d, err)
	}
}

func TestSegmentIsClosedByAge(t *testing.T) {
	k, m := newKeyed(t)
	roll := func(age time.Duration) bool {
		t.Helper()
		rolled, err := k.log.RollAged(k.now.UnixMilli(), age.Milliseconds())
		if err != nil {
			t.Fatal(err)
		}
		return rolled
	}
	if roll(0) {
		t.Fatal("an empty segment was closed")
	}
	k.produce(1, batch.None, "a", "b")
	if roll(time.Minute) {
		t.Fatal("closed at once")
	}
	k.now = k.now.Add(59 * time.Second)
	if roll(time.Minute) {
		t.Fatal("closed before its time")
	}
	k.flush()
	m = m.CrashClone(nil)
	k.fs = m
	k.reopenSmall()
	k.now = k.now.Add(time.Second)
	if !roll(time.Minute) || len(k.log.Segments()) != 2 {
		t.Fatal("not closed by the age that its first record tells after a restart")
	}
	k.flush()
	if d, err := k.log.Dirt(k.cleanConfig()); err != nil || d.DirtyBytes == 0 {
		t.Fatalf("what was closed cannot be compacted: %+v, %v", d, err)
	}
}
