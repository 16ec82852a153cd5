package commitlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/internal/vfs"
)

// CleanConfig is what a compaction goes by. The names are those of Kafka's topic configs.
type CleanConfig struct {
	// Limit is the last stable offset: nothing at or above it is touched. Nor is the active segment (RC16).
	Limit             broker.Offset
	MinDirtyRatio     float64 // min.cleanable.dirty.ratio
	MinLagMs          int64   // min.compaction.lag.ms
	MaxLagMs          int64   // max.compaction.lag.ms; 0 = never because of age
	DeleteRetentionMs int64   // delete.retention.ms
	// Producers says where the last batch of every live producer ends; those batches stay, if without records.
	Producers map[broker.ProducerID]broker.Offset
	// KeysMax bounds the keys that are remembered at once, at about 64 bytes each; 0 = a million. More keys take more
	// passes.
	KeysMax int
	Now     func() time.Time
	// Step is called before every stretch of work, with the bytes that the stretch before it went through; leave is called
	// when the stretch ends. It is where the CPU gate is entered and speed is held down. nil: no limits.
	Step func(ctx context.Context, bytes int) (leave func(), err error)
}

const (
	keysMaxDefault = 1 << 20
	// stepBytes is how much of a log is gone through between two calls of Step: a few milliseconds.
	stepBytes = 256 << 10
)

// Cleaned says what a compaction did.
type Cleaned struct {
	Passes                   int
	From, End                broker.Offset // the dirty range that it dealt with
	BytesBefore, BytesAfter  int64         // of the segments that were replaced
	Records, Removed         int64         // records looked at, and removed, in the segments that were gone through
	SegmentsBefore, Segments int
}

// Dirt is how much of a log is waiting to be compacted.
type Dirt struct {
	From, End              broker.Offset // what can be compacted now and was not
	DirtyBytes, CleanBytes int64
	Overdue                bool // a record is older than max.compaction.lag.ms
}

// Ratio is the share of the log's closed bytes that is dirty.
func (d Dirt) Ratio() float64 {
	if d.DirtyBytes == 0 {
		return 0
	}
	return float64(d.DirtyBytes) / float64(d.DirtyBytes+d.CleanBytes)
}

// Due reports whether the log should be compacted now.
func (d Dirt) Due(minRatio float64) bool {
	return d.DirtyBytes > 0 && (d.Overdue || d.Ratio() > minRatio)
}

// cleaning serialises compactions of one log and lets Close end the one under way.
type cleaning struct {
	running sync.Mutex // held by a compaction; taken before every other lock

	mu     sync.Mutex
	cancel context.CancelFunc
	ended  bool
}

// begin returns the context of a compaction; done is to be called when it ends.
func (c *cleaning) begin(ctx context.Context) (inner context.Context, done func(), ok bool) {
	c.running.Lock()
	inner, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel = cancel
	return inner, func() { cancel(); c.running.Unlock() }, !c.ended
}

// end stops the compaction under way, waits for it, and lets none begin.
func (c *cleaning) end() {
	c.mu.Lock()
	c.ended = true
	cancel := c.cancel
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	c.running.Lock()
	defer c.running.Unlock()
}

// Dirt tells how much could be compacted. It may be called on any goroutine.
func (l *Log) Dirt(cfg CleanConfig) (Dirt, error) {
	d, _, err := l.findDirt(&cfg)
	if errors.Is(err, errMoved) {
		return Dirt{}, nil
	}
	return d, err
}

// Clean compacts the closed segments below the limit if enough of them is dirty (Dirt.Due): of every key only the newest
// record stays, at its offset, and a tombstone goes once delete.retention.ms have passed since a compaction first saw it.
// Records without a key go. Batches keep their offsets, leader epoch, producer and sequences; what has no records left
// becomes a hole (batch.Hole), so that offsets still follow one another and every leader epoch still has a batch.
//
// Clean may run on any goroutine beside everything else; a second one waits for the first. Close and Remove stop it.
// Whenever the power fails, each segment is found either as it was or compacted, and older ones are replaced first, so
// that a tombstone never goes before what it deletes.
//
// Errors: *CorruptError for bytes that do not hold; ErrFull, wrapped, where there is no space for the copy of a segment;
// ErrClosed; the context's. What was replaced before stays so.
func (l *Log) Clean(ctx context.Context, cfg CleanConfig) (done Cleaned, err error) {
	if cfg.KeysMax <= 0 {
		cfg.KeysMax = keysMaxDefault
	}
	outer := ctx
	ctx, finish, ok := l.cleaning.begin(ctx)
	defer finish()
	if !ok {
		return done, ErrClosed
	}
	for {
		more, err := l.cleanPass(ctx, &cfg, &done)
		switch {
		case errors.Is(err, context.Canceled) && outer.Err() == nil:
			err = ErrClosed
		case errors.Is(err, errMoved):
			l.logger.Debug().Msg("the log changed while it was compacted, the next turn begins anew")
			return done, nil
		}
		if err != nil || !more {
			return done, err
		}
		// What the keys had no room for is dirty still, whatever its share.
		cfg.MinDirtyRatio = -1
	}
}

// cleanPass is one pass: as many dirty keys as fit in memory, and every closed segment below the last of them.
func (l *Log) cleanPass(ctx context.Context, cfg *CleanConfig, done *Cleaned) (more bool, err error) {
	dirt, c, err := l.findDirt(cfg)
	if err != nil || !dirt.Due(cfg.MinDirtyRatio) {
		return false, err
	}
	c.pace = pacer{ctx: ctx, step: cfg.Step}
	defer c.pace.leave()
	defer c.release()
	if err := c.hold(); err != nil {
		return false, err
	}
	if err := c.collect(dirt); err != nil {
		return false, err
	}
	if done.Passes == 0 {
		done.From = dirt.From
	}
	for _, group := range c.groups() {
		if err := c.replace(group, done); err != nil {
			return false, err
		}
	}
	c.pace.leave()
	if err := c.note(); err != nil {
		return false, err
	}
	done.Passes++
	done.End = c.end
	return c.end < dirt.End, nil
}

// findDirt finds what can be compacted, and prepares a pass over it.
func (l *Log) findDirt(cfg *CleanConfig) (Dirt, *cleaner, error) {
	if err := l.usable(); err != nil {
		return Dirt{}, nil, err
	}
	l.files.Lock()
	point, err := l.loadCleaned()
	l.files.Unlock()
	if err != nil {
		return Dirt{}, nil, fmt.Errorf("read how far %s was compacted: %w", l.cfg.Dir, err)
	}
	c := &cleaner{log: l, cfg: cfg, point: point}
	l.mu.Lock()
	c.gen, c.start = l.gen, l.start
	limit := min(cfg.Limit, l.durable)
	for _, s := range l.segments {
		if !s.rolled || !s.sealed || s.end > limit {
			break
		}
		c.segments = append(c.segments, closedSegment{s, s.end, s.size})
	}
	l.mu.Unlock()
	d := Dirt{From: max(point.end(), c.start)}
	d.End = d.From
	nowMs := cfg.Now().UnixMilli()
	for i, s := range c.segments {
		if s.end <= d.From {
			d.CleanBytes += s.size
			continue
		}
		if cfg.MinLagMs > 0 {
			maxMs, _, _, err := l.newest(s.segment)
			if err != nil {
				return Dirt{}, nil, c.failed(s, err)
			}
			if maxMs > nowMs-cfg.MinLagMs {
				c.segments = c.segments[:i]
				break
			}
		}
		if cfg.MaxLagMs > 0 && cfg.MaxLagMs < math.MaxInt64 && !d.Overdue {
			firstMs, err := l.firstTimestamp(s.segment)
			if err != nil {
				return Dirt{}, nil, c.failed(s, err)
			}
			d.Overdue = nowMs-firstMs > cfg.MaxLagMs
		}
		d.DirtyBytes += s.size
		d.End = s.end
	}
	return d, c, nil
}

// cleaner is one pass over a log.
type cleaner struct {
	log      *Log
	cfg      *CleanConfig
	point    cleanPoint
	gen      uint64
	start    broker.Offset
	segments []closedSegment // those below the limit
	held     []*segment
	keys     keyOffsets
	end      broker.Offset // every key below it is in keys
	pace     pacer
	sieve    batch.Sieve
}

// closedSegment is a segment with its extent when the pass began, which a cut may change.
type closedSegment struct {
	*segment
	end  broker.Offset
	size int64
}

// hold keeps the segments' files open and their indexes in memory while the pass lasts: whoever still reads a segment
// that was replaced then never looks for it by name.
func (c *cleaner) hold() error {
	for _, s := range c.segments {
		c.log.mu.Lock()
		gone := s.doomed
		if !gone {
			s.refs++
		}
		c.log.mu.Unlock()
		if gone {
			return errMoved
		}
		c.held = append(c.held, s.segment)
		if _, err := c.log.acquire(s.segment); err != nil {
			return c.failed(s, err)
		}
		if _, _, _, err := c.log.newest(s.segment); err != nil {
			return c.failed(s, err)
		}
	}
	return nil
}

func (c *cleaner) release() {
	for _, s := range c.held {
		c.log.release(s)
	}
}

// errMoved tells that segments were removed or cut while they were compacted. The next turn begins anew.
var errMoved = errors.New("the log changed while it was compacted")

// failed says what an error about a segment means: nothing, if the segment is not the log's any more.
func (c *cleaner) failed(s closedSegment, err error) error {
	l := c.log
	l.mu.Lock()
	moved := s.doomed || l.gen != c.gen
	l.mu.Unlock()
	switch {
	case l.closed.Load():
		return ErrClosed
	case moved:
		return errMoved
	}
	return err
}

// spoilt says what a failed write of a new file means. A full disk passes; anything else is the node's end, as for
// every write.
func (c *cleaner) spoilt(what string, err error) error {
	l := c.log
	err = fmt.Errorf("compact %s: %s: %w", l.cfg.Dir, what, err)
	switch {
	case l.closed.Load():
		return ErrClosed
	case errors.Is(err, vfs.ErrNoSpace):
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	l.flusher.fail(err)
	return err
}

// collect remembers where each key of the dirty range was written last, until the range or the room for keys ends.
func (c *cleaner) collect(d Dirt) error {
	c.keys = newKeyOffsets(int(min(int64(c.cfg.KeysMax), int64(d.End-d.From))))
	c.end = d.From
	for _, s := range c.segments {
		if s.end <= d.From {
			continue
		}
		full := false
		err := c.walk(s, func(v batch.View) (bool, error) {
			if v.NextOffset() <= d.From {
				return true, nil
			}
			if c.keys.len() > 0 && c.keys.len()+int(v.Count()) > c.cfg.KeysMax {
				full = true
				return false, nil
			}
			if err := c.remember(v); err != nil {
				return false, err
			}
			c.end = v.NextOffset()
			return true, nil
		})
		if err != nil || full {
			return err
		}
	}
	return nil
}

func (c *cleaner) remember(v batch.View) error {
	if v.Control() || v.Count() == 0 {
		return nil
	}
	_, _, err := c.sieve.Keep(v, func(r *batch.Record) bool {
		if r.Key != nil {
			c.keys.set(r.Key, v.BaseOffset()+broker.Offset(r.OffsetDelta))
		}
		return false
	})
	return err
}

// walk visits the batches of a segment until visit says false.
func (c *cleaner) walk(s closedSegment, visit func(batch.View) (goOn bool, err error)) error {
	l := c.log
	l.mu.Lock()
	file, list := s.file, l.epochs
	l.mu.Unlock()
	scan := scanner{file: file, end: s.size, want: s.base, last: list.at(s.base)}
	for {
		if err := c.pace.spend(); err != nil {
			return err
		}
		v, pos, ok := scan.next()
		if !ok {
			break
		}
		if v.LeaderEpoch() != list.at(v.BaseOffset()) {
			scan.bad, scan.pos = fmt.Sprintf("leader epoch %d where the log has %d", v.LeaderEpoch(), list.at(v.BaseOffset())), pos
			break
		}
		c.pace.done(v.Len())
		goOn, err := visit(v)
		if err != nil {
			return c.failed(s, err)
		}
		if !goOn {
			return nil
		}
	}
	switch {
	case scan.err != nil:
		return c.failed(s, fmt.Errorf("read %s at %d: %w", s.name+logSuffix, scan.pos, scan.err))
	case scan.bad != "" || scan.want != s.end:
		return c.failed(s, &CorruptError{File: s.name + logSuffix, Position: scan.pos, Offset: scan.want, Reason: scan.bad})
	}
	return nil
}

// note records the pass. It counts only if no cut came between: offsets below its end may be given again after one.
func (c *cleaner) note() error {
	l := c.log
	l.files.Lock()
	defer l.files.Unlock()
	l.mu.Lock()
	moved := l.gen != c.gen
	l.mu.Unlock()
	switch {
	case l.closed.Load():
		return ErrClosed
	case moved:
		return errMoved
	}
	pass := cleanPass{end: c.end, ms: c.cfg.Now().UnixMilli()}
	if err := l.saveCleaned(l.cleaned.add(pass, c.cfg.DeleteRetentionMs)); err != nil {
		return c.spoilt("note the pass", err)
	}
	return nil
}

// pacer calls Step between stretches of work.
type pacer struct {
	ctx   context.Context
	step  func(ctx context.Context, bytes int) (leave func(), err error)
	spent int
	inner func() // leave of the stretch under way
	begun bool
}

// spend begins the next stretch when the one under way is over.
func (p *pacer) spend() error {
	if p.begun && p.spent < stepBytes {
		return nil
	}
	p.leave()
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if p.step != nil {
		leave, err := p.step(p.ctx, p.spent)
		if err != nil {
			return err
		}
		p.inner = leave
	}
	p.begun, p.spent = true, 0
	return nil
}

// done counts work.
func (p *pacer) done(bytes int) { p.spent += bytes }

// leave ends the stretch under way, before something that waits.
func (p *pacer) leave() {
	if p.inner != nil {
		p.inner()
		p.inner = nil
	}
	p.begun = false
}
