package delivery

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/plugins/window"
)

// lead is a partition that this node leads, with the tracks and channels of its bindings.
type lead struct {
	host   *Host
	tp     broker.TopicPartition
	epoch  broker.LeaderEpoch
	source Source
	group  *task.Group
	stale  bell // rung when a channel wants the newest image taken up

	// turn orders adopt calls. It is held over their short reads of the log and over the end of tracks.
	turn    sync.Mutex
	pumping bool // from the first binding on: a partition without one has no goroutine
	keys    map[broker.RowID]JudgeKey
	borders map[broker.RowID]broker.Offset

	mu       sync.RWMutex
	tracks   map[JudgeKey]*running[*track]
	channels map[broker.BindingID]*running[*channel]
}

// running is a track or channel with its goroutine.
type running[T any] struct {
	it    T
	group *task.Group
}

func (r *running[T]) stop() error {
	r.group.Stop()
	return r.group.Wait()
}

func (l *lead) ended() bool { return l.group.Context().Err() != nil }

func (l *lead) track(key JudgeKey) *track {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if r := l.tracks[key]; r != nil {
		return r.it
	}
	return nil
}

func (l *lead) channel(id broker.BindingID) *channel {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if r := l.channels[id]; r != nil {
		return r.it
	}
	return nil
}

// changed wakes the channels: a track has moved.
func (l *lead) changed() {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, r := range l.channels {
		r.it.bell.ring()
	}
}

// pump wakes everything when the log's ends move, and takes up images that channels ask for. Channels do not do that
// themselves, as taking up an image may wait for their end.
func (l *lead) pump(ctx context.Context) error {
	moved := make(chan struct{}, 1)
	cancel := l.source.Watch(moved)
	defer cancel()
	select {
	case moved <- struct{}{}: // for what moved before the watch
	default:
	}
	for {
		select {
		case <-moved:
		case <-l.stale:
			l.adopt()
		case <-ctx.Done():
			return nil
		}
		l.mu.RLock()
		for _, r := range l.tracks {
			r.it.bell.ring()
		}
		l.mu.RUnlock()
		l.changed()
	}
}

// wanted is what bindings need of a judge key.
type wanted struct {
	row      *metadata.Row
	low, end broker.Offset
}

// adopt brings tracks and channels in line with the newest image.
func (l *lead) adopt() {
	l.turn.Lock()
	defer l.turn.Unlock()
	if l.ended() {
		return
	}
	image := l.host.metadata.Image()
	topic, known := image.Topic(l.tp.Topic)
	plans := map[broker.BindingID]*plan{}
	tracks := map[JudgeKey]wanted{}
	start := l.source.Ends().LogStart
	var bindings []*metadata.Binding
	for _, b := range image.Bindings() {
		if !known || b.Topic != l.tp.Topic || b.Detached {
			continue
		}
		p := l.plan(image, topic, b)
		bindings = append(bindings, b)
		plans[b.ID] = p
		for _, r := range p.runs(start) {
			w, there := tracks[r.key]
			if !there {
				w = wanted{row: r.row, low: r.need, end: r.end}
			}
			tracks[r.key] = wanted{row: w.row, low: min(w.low, r.need), end: max(w.end, r.end)}
		}
	}
	l.setTracks(topic, tracks)
	l.setChannels(bindings, plans)
	if !l.pumping && len(bindings) > 0 {
		l.pumping = true
		l.group.Go("pump", l.pump)
	}
}

// plan reads a binding's rows for this partition.
func (l *lead) plan(image Image, topic *metadata.Topic, b *metadata.Binding) *plan {
	kind := FrameBatch
	policy, _ := image.Config(metadata.Resource{Kind: metadata.ResourceTopic, Name: topic.Name}, "cleanup.policy")
	if strings.Contains(policy, "compact") {
		kind = FrameRecord
	}
	rows := image.Rows(b.ID)
	for _, row := range rows {
		if from, decided := row.From[l.tp.Partition]; decided {
			l.findBorder(row.ID, from)
		}
	}
	origin, decided := image.Origin(b.ID, l.tp.Partition)
	if !decided {
		origin = broker.NoOffset
	}
	keyOf := func(row *metadata.Row) JudgeKey {
		key, known := l.keys[row.ID]
		if !known {
			key = KeyOf(l.tp.Topic, kind, row)
			l.keys[row.ID] = key
		}
		return key
	}
	return planOf(rows, l.tp.Partition, keyOf, origin, l.borders)
}

// findBorder notes to which batch border a row's offset is moved up.
func (l *lead) findBorder(row broker.RowID, from broker.Offset) {
	ends := l.source.Ends()
	if _, known := l.borders[row]; known || from >= ends.HighWatermark {
		return
	}
	l.borders[row] = l.border(max(from, ends.LogStart), from)
}

// border returns the first batch border at or above from, found in the batch that holds at.
func (l *lead) border(at, from broker.Offset) broker.Offset {
	slice, err := l.source.Read(at, at+1, 1)
	if err != nil {
		return from
	}
	defer slice.release()
	v, err := firstBatch(slice)
	if err != nil || v == nil || v.BaseOffset() >= from || v.NextOffset() <= from {
		return from
	}
	return v.NextOffset()
}

// setTracks starts, moves and ends tracks.
func (l *lead) setTracks(topic *metadata.Topic, want map[JudgeKey]wanted) {
	for key, r := range l.tracks {
		w, needed := want[key]
		if needed && w.low >= r.it.lowest() {
			r.it.reach(w.end)
			continue
		}
		l.mu.Lock()
		delete(l.tracks, key)
		l.mu.Unlock()
		if err := r.stop(); err != nil {
			l.host.logger.Warn().Err(err).Msg("end a track")
		}
		if !needed {
			if err := l.host.fs.RemoveAll(r.it.shelf.dir); err != nil {
				l.host.logger.Warn().Err(err).Msg("remove the files of a judge key")
			}
		}
	}
	for key, w := range want {
		if l.track(key) == nil {
			l.startTrack(topic, key, w)
		}
	}
}

func (l *lead) startTrack(topic *metadata.Topic, key JudgeKey, w wanted) {
	hasher, err := window.NewHasher(window.Function(topic.Fingerprint.Function), topic.Fingerprint.Key)
	if err != nil {
		l.host.logger.Error().Err(err).Msg("chain not served")
		return
	}
	kind := FrameBatch
	if KeyOf(l.tp.Topic, FrameRecord, w.row) == key {
		kind = FrameRecord
	}
	geometry := window.Geometry{BlockBits: w.row.Limits.BlockBits, Reach: w.row.WindowBlocks}
	t := newTrack(key, l.tp, geometry, l.source, judge{engine: l.host.engine, row: w.row, hasher: hasher, framer: newFramer(kind, w.row)})
	t.shelf, t.gate = shelfOf(l.host.fs, l.host.dir, key, l.tp), l.host.gate
	t.logger, t.metrics, t.changed, t.killed = l.host.logger, l.host.metrics, l.changed, &l.host.killed
	t.kept.node = &l.host.kept
	t.low, t.end = w.low, w.end
	r := &running[*track]{it: t, group: task.NewGroup(l.group.Context())}
	l.mu.Lock()
	l.tracks[key] = r
	l.mu.Unlock()
	r.group.Go("track", t.run)
	r.group.Go("track files", t.writeFiles)
}

// lowest is the lowest offset that the track was made to judge from.
func (t *track) lowest() broker.Offset {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.low
}

// reach moves the end of what is judged.
func (t *track) reach(end broker.Offset) {
	t.mu.Lock()
	t.end = end
	t.mu.Unlock()
	t.bell.ring()
}

// setChannels starts, changes and ends channels.
func (l *lead) setChannels(bindings []*metadata.Binding, plans map[broker.BindingID]*plan) {
	for id, r := range l.channels {
		if plans[id] != nil {
			continue
		}
		l.mu.Lock()
		delete(l.channels, id)
		l.mu.Unlock()
		if err := r.stop(); err != nil {
			l.host.logger.Warn().Err(err).Msg("end a channel")
		}
	}
	for _, b := range bindings {
		p := plans[b.ID]
		first := broker.Offset(0)
		if p.undecided != nil {
			first = l.firstOffset(p)
		}
		if c := l.channel(b.ID); c != nil {
			c.adopt(b, p, first)
			continue
		}
		c := newChannel(l, b)
		c.adopt(b, p, first)
		r := &running[*channel]{it: c, group: task.NewGroup(l.group.Context())}
		l.mu.Lock()
		l.channels[b.ID] = r
		l.mu.Unlock()
		r.group.Go("channel", c.run)
	}
}

// firstOffset is what the leader proposes for an undecided row: its log end, or the log start for a first row whose
// readers have read nothing yet (H34): whoever made the row knew.
func (l *lead) firstOffset(p *plan) broker.Offset {
	ends := l.source.Ends()
	if p.undecided.BehindBatch {
		from := p.pieces[len(p.pieces)-1].from
		if from >= ends.HighWatermark {
			return from
		}
		return l.border(max(from, ends.LogStart), from+1)
	}
	if p.firstRow() != forever || !p.undecided.AtLogStart {
		return ends.LogEnd
	}
	return l.border(ends.LogStart, ends.LogStart)
}

// moveOrigin commits a new origin. It takes effect when the image is taken up.
func (l *lead) moveOrigin(ctx context.Context, id broker.BindingID, origin broker.Offset) error {
	err := l.host.metadata.ProposeOrigin(ctx, Proposal{
		Binding: id, Partition: l.tp.Partition, LeaderEpoch: l.epoch, Offset: origin,
	})
	if err != nil {
		return fmt.Errorf("move the origin of binding %d to %d: %w", id, origin, err)
	}
	return nil
}

// record returns the record at o, in memory of its own.
func (l *lead) record(o broker.Offset) (batch.Record, error) {
	slice, err := l.source.Read(o, o+1, 1)
	if err != nil {
		return batch.Record{}, err
	}
	defer slice.release()
	v, err := firstBatch(slice)
	if err != nil {
		return batch.Record{}, err
	}
	if v == nil {
		return batch.Record{}, broker.Errorf(broker.OffsetOutOfRange, "no record at offset %d", o)
	}
	v = append(batch.View(nil), v...)
	records, err := v.Records(new(batch.Decompressor))
	if err != nil {
		return batch.Record{}, err
	}
	for r := (batch.Record{}); records.Next(&r); r = (batch.Record{}) {
		if v.BaseOffset()+broker.Offset(r.OffsetDelta) == o {
			return r, nil
		}
	}
	return batch.Record{}, broker.Errorf(broker.OffsetOutOfRange, "no record at offset %d", o)
}
