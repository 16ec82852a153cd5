package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
)

// Compaction is a topic's part of Options that concerns cleanup.policy=compact; the names are those of the topic configs.
type Compaction struct {
	Compact           bool // cleanup.policy holds compact
	MinDirtyRatio     float64
	MinLagMs          int64
	MaxLagMs          int64
	DeleteRetentionMs int64
}

// Cleaner says how a node compacts.
type Cleaner struct {
	KeysMax        int   // remembered at once; 0 = a million
	BytesPerSecond int64 // gone through; 0 = no limit
	// Gate waits for a place among the few long computations that run at a time (D15); nil: there is always one.
	Gate func(ctx context.Context) (leave func(), err error)
	// Done is told of every log that was compacted, DirtiestRatio of the largest dirty share at the start of a turn.
	Done          func(tp broker.TopicPartition, done commitlog.Cleaned)
	DirtiestRatio func(ratio float64)
}

// Clean is one turn of compaction over the partitions that this node leads, the dirtiest first: the leader's clock decides
// (RC17). Segments that reached their age are closed on the way, of every partition that it leads. One call at a time.
func (s *Set) Clean(ctx context.Context, cleaner Cleaner) error {
	type dirty struct {
		*Replica
		cfg  commitlog.CleanConfig
		dirt commitlog.Dirt
	}
	var due []dirty
	var errs []error
	ratio := 0.0
	for _, r := range s.All() {
		cfg, ok := r.prepareClean()
		if !ok {
			continue
		}
		cfg.KeysMax, cfg.Step = cleaner.KeysMax, throttle{cleaner.BytesPerSecond, cleaner.Gate}.step
		dirt, err := r.log.Dirt(cfg)
		if err != nil {
			errs = append(errs, r.cleanError(err))
			continue
		}
		ratio = max(ratio, dirt.Ratio())
		if dirt.Due(cfg.MinDirtyRatio) {
			due = append(due, dirty{r, cfg, dirt})
		}
	}
	if cleaner.DirtiestRatio != nil {
		cleaner.DirtiestRatio(ratio)
	}
	slices.SortStableFunc(due, func(a, b dirty) int { return cmp.Compare(b.dirt.Ratio(), a.dirt.Ratio()) })
	for _, d := range due {
		if ctx.Err() != nil {
			break
		}
		done, err := d.clean(ctx, d.cfg)
		if done.Passes > 0 && cleaner.Done != nil {
			cleaner.Done(d.tp, done)
		}
		if err != nil && ctx.Err() == nil {
			errs = append(errs, d.cleanError(err))
		}
	}
	return errors.Join(errs...)
}

// prepareClean closes a segment that is old enough, and says by what the log is to be compacted; ok is false if it is not.
// The limit and the producers are of one moment: every batch below the limit is in what is known of them.
func (r *Replica) prepareClean() (cfg commitlog.CleanConfig, ok bool) {
	r.do(func() {
		o := &r.owner
		if o.failed != nil || o.leader == nil {
			return
		}
		options := &o.options
		if ageMs := options.segmentAgeMs(); ageMs > 0 {
			if _, err := r.log.RollAged(r.nowMs(), ageMs); err != nil {
				r.fail(err)
				return
			}
		}
		if !options.Compact {
			return
		}
		ok = true
		cfg = commitlog.CleanConfig{
			Limit: o.highWatermark, MinDirtyRatio: options.MinDirtyRatio, MinLagMs: options.MinLagMs, MaxLagMs: options.MaxLagMs,
			DeleteRetentionMs: options.DeleteRetentionMs, Producers: o.producers.LastOffsets(), Now: r.now,
		}
	})
	return cfg, ok
}

// segmentAgeMs is the age at which a segment is closed: what is to be compacted by then must not lie in an open one.
func (o *Options) segmentAgeMs() int64 {
	if o.Compact && o.MaxLagMs > 0 && (o.SegmentMs == 0 || o.MaxLagMs < o.SegmentMs) {
		return o.MaxLagMs
	}
	return o.SegmentMs
}

func (r *Replica) clean(ctx context.Context, cfg commitlog.CleanConfig) (commitlog.Cleaned, error) {
	begun := r.now()
	done, err := r.log.Clean(ctx, cfg)
	if done.Passes > 0 {
		r.logger.Info().Int64("from", int64(done.From)).Int64("to", int64(done.End)).Int("passes", done.Passes).
			Int64("records", done.Records).Int64("removed", done.Removed).Int64("bytes", done.BytesBefore).Int64("left", done.BytesAfter).
			Dur("took", r.now().Sub(begun)).Msg("log compacted")
	}
	return done, err
}

// cleanError passes on what is to be told; a log that was closed meanwhile is nobody's error.
func (r *Replica) cleanError(err error) error {
	if errors.Is(err, commitlog.ErrClosed) {
		return nil
	}
	var corrupt *commitlog.CorruptError
	if errors.As(err, &corrupt) {
		err = r.readError(err)
	}
	return fmt.Errorf("compact partition %s: %w", r.tp, err)
}

// throttle holds a compaction's speed down, and has it wait for its turn at the gate.
type throttle struct {
	bytesPerSecond int64
	gate           func(ctx context.Context) (leave func(), err error)
}

func (t throttle) step(ctx context.Context, bytes int) (leave func(), err error) {
	if t.bytesPerSecond > 0 && bytes > 0 {
		pause := time.NewTimer(time.Duration(float64(bytes) / float64(t.bytesPerSecond) * float64(time.Second)))
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if t.gate == nil {
		return nil, ctx.Err()
	}
	return t.gate(ctx)
}
