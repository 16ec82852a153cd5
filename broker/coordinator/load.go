package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/group"
)

// loadBytesMax is what one read of a replay asks for.
const loadBytesMax = 1 << 20

// decompressedBytesMax bounds a batch of the partition once decompressed; the coordinator itself writes none compressed.
const decompressedBytesMax = 64 << 20

// replay gathers what a partition says, before it counts.
type replay struct {
	groups    map[string]*group.Group
	snapshots map[string]group.Snapshot
	records   int
	foreign   int
	broken    error // the last record that could not be read
}

// load reads the partition up to the end that it has now, waiting until that is committed, and begins to serve.
func (t *tenure) load(ctx context.Context) error {
	began := time.Now()
	r := replay{groups: map[string]*group.Group{}, snapshots: map[string]group.Snapshot{}}
	next, end, err := t.log.Bounds(t.epoch)
	if err != nil {
		return err
	}
	decompressor := &batch.Decompressor{BytesMax: decompressedBytesMax}
	for next < end {
		bytes, err := t.log.Read(ctx, next, loadBytesMax)
		if err != nil {
			return fmt.Errorf("read from %d: %w", next, err)
		}
		if next, err = t.replay(&r, bytes, next, decompressor); err != nil {
			return err
		}
	}
	event := t.logger.Info()
	if r.broken != nil {
		event = t.logger.Error().Err(r.broken)
	}
	loaded := t.begin(&r)
	event.Int("groups", loaded).Int("records", r.records).Int("foreign", r.foreign).Dur("took", time.Since(began)).
		Msg("group coordinator serves its partition")
	return nil
}

// replay takes the batches of one read and returns the offset behind them.
func (t *tenure) replay(r *replay, bytes []byte, next broker.Offset, d *batch.Decompressor) (broker.Offset, error) {
	from := next
	for view, err := range batch.All(bytes) {
		if err != nil {
			return 0, fmt.Errorf("batches from %d: %w", from, err)
		}
		if view.NextOffset() <= next {
			continue
		}
		next = view.NextOffset()
		if view.Control() {
			continue
		}
		if err := r.take(t, view, d); err != nil {
			return 0, fmt.Errorf("batch at %d: %w", view.BaseOffset(), err)
		}
	}
	if next == from {
		return 0, fmt.Errorf("nothing to read at %d", from)
	}
	return next, nil
}

func (r *replay) take(t *tenure, view batch.View, d *batch.Decompressor) error {
	records, err := view.Records(d)
	if err != nil {
		return err
	}
	var rec batch.Record
	for records.Next(&rec) {
		r.records++
		c, err := parse(rec.Key, rec.Value)
		switch {
		case errors.Is(err, errForeignRecord):
			r.foreign++
		case err != nil:
			// The key or value is not what its version says. The groups that can be read are still served.
			r.broken = err
		default:
			r.apply(t, c)
		}
	}
	return records.Err()
}

func (r *replay) apply(t *tenure, c change) {
	g := r.groups[c.group]
	if g == nil {
		g = group.New(c.group, t.config.Group, t.nowMs())
		r.groups[c.group] = g
	}
	switch {
	case c.consumer != nil:
		if c.consumer.Kind == group.EpochChange && !c.consumer.Removed {
			delete(r.snapshots, c.group)
		}
		g.OnChangeLoaded(*c.consumer)
	case c.offset && c.removed:
		g.OnRemovalLoaded(c.p)
	case c.offset:
		g.OnCommitLoaded(c.p, c.commit)
	case c.removed:
		delete(r.snapshots, c.group)
	default:
		g.OnChangeLoaded(group.Change{Kind: group.EpochChange, Removed: true}) // A group is of one type: the last that is told.
		r.snapshots[c.group] = c.snapshot
	}
}

// begin makes what was read the truth and starts to serve. It returns the number of groups.
func (t *tenure) begin(r *replay) int {
	nowMs := t.nowMs()
	wakeMs := group.Never
	t.mu.Lock()
	if t.phase != loading {
		t.mu.Unlock()
		return 0
	}
	for id, g := range r.groups {
		g.OnChangesLoaded(nowMs, t.config.Cluster.Timing(id).SessionTimeoutMs)
		if s, ok := r.snapshots[id]; ok {
			g.OnLoaded(nowMs, s)
		}
		if g.Vacant() {
			continue
		}
		h := &hosted{Group: g, dueMs: group.Never, index: -1}
		t.groups[id] = h
		t.schedule(h)
		wakeMs = min(wakeMs, h.dueMs)
	}
	t.phase = leading
	groups := len(t.groups)
	t.mu.Unlock()
	t.alarm(wakeMs)
	return groups
}
