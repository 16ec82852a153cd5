package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/chain"
)

// memoryLog is a partition in memory, as source and as dead-letter partition.
type memoryLog struct {
	mu       sync.Mutex
	batches  []batch.View
	start    broker.Offset
	stable   broker.Offset // -1: the log end
	watchers map[chan<- struct{}]struct{}
	down     bool
	reads    int
	looked   func() // if set, called whenever the ends were read
}

func newMemoryLog() *memoryLog {
	return &memoryLog{stable: -1, watchers: map[chan<- struct{}]struct{}{}}
}

func (l *memoryLog) end() broker.Offset {
	if len(l.batches) == 0 {
		return l.start
	}
	return l.batches[len(l.batches)-1].NextOffset()
}

func (l *memoryLog) Ends() delivery.Ends {
	l.mu.Lock()
	looked := l.looked
	defer func() {
		if l.mu.Unlock(); looked != nil {
			looked()
		}
	}()
	e := delivery.Ends{LogStart: l.start, HighWatermark: l.end(), LastStable: l.end(), LogEnd: l.end()}
	if l.stable >= 0 {
		e.LastStable = l.stable
	}
	return e
}

func (l *memoryLog) lookedBy(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looked = f
}

func (l *memoryLog) Read(from, limit broker.Offset, bytesMax int) (delivery.Slice, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if from < l.start {
		return delivery.Slice{}, broker.Errorf(broker.OffsetOutOfRange, "%d is below %d", from, l.start)
	}
	s := delivery.Slice{Cold: true}
	size := 0
	for _, v := range l.batches {
		if v.NextOffset() <= from {
			continue
		}
		if v.BaseOffset() >= limit || size > 0 && size+v.Len() > bytesMax {
			break
		}
		s.Bytes = append(s.Bytes, slices.Clone(v))
		size += v.Len()
	}
	held := s.Bytes
	s.Release = func() { // whoever reads after Release reads nonsense
		for _, b := range held {
			clear(b)
		}
	}
	return s, nil
}

func (l *memoryLog) EpochAt(o broker.Offset) (broker.LeaderEpoch, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.batches {
		if o >= l.start && v.BaseOffset() <= o && o < v.NextOffset() {
			return v.LeaderEpoch(), true
		}
	}
	return 0, false
}

func (l *memoryLog) Watch(ch chan<- struct{}) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers[ch] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers, ch)
	}
}

func (l *memoryLog) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	for ch := range l.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

var errDown = errors.New("the partition is down")

func (l *memoryLog) Append(_ context.Context, batches []byte) error {
	var err error
	l.change(func() {
		if l.down {
			err = errDown
			return
		}
		for v := range batch.All(batches) {
			own := slices.Clone(v)
			own.Stamp(l.end(), 1)
			l.batches = append(l.batches, own)
		}
	})
	return err
}

func (l *memoryLog) Batches(context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		l.mu.Lock()
		all, down := slices.Clone(l.batches), l.down
		l.mu.Unlock()
		if down {
			yield(nil, errDown)
			return
		}
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// image is what a metadata image says; it is replaced, never changed.
type image struct {
	topics   map[broker.TopicID]*metadata.Topic
	bindings []*metadata.Binding
	rows     map[broker.BindingID][]*metadata.Row
	origins  map[broker.BindingID]map[int32]broker.Offset
	views    []*metadata.View
	configs  map[string]string
}

func (m *image) Topic(id broker.TopicID) (*metadata.Topic, bool) { t, ok := m.topics[id]; return t, ok }
func (m *image) Config(_ metadata.Resource, name string) (string, bool) {
	v, ok := m.configs[name]
	return v, ok
}
func (m *image) Binding(id broker.BindingID) (*metadata.Binding, bool) {
	for _, b := range m.bindings {
		if b.ID == id {
			return b, true
		}
	}
	return nil, false
}
func (m *image) Bindings() []*metadata.Binding            { return m.bindings }
func (m *image) Rows(id broker.BindingID) []*metadata.Row { return m.rows[id] }
func (m *image) Views() []*metadata.View                  { return m.views }
func (m *image) Origin(id broker.BindingID, p int32) (broker.Offset, bool) {
	o, ok := m.origins[id][p]
	return o, ok
}

// controller is the metadata log: it commits proposals at once.
type controller struct {
	mu    sync.Mutex
	now   *image
	epoch broker.LeaderEpoch
	next  uint64
	moved int // origins
}

func (c *controller) Image() delivery.Image {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *controller) edit(f func(next *image)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.editLocked(f)
}

func (c *controller) editLocked(f func(next *image)) {
	next := *c.now
	next.bindings, next.views = slices.Clone(next.bindings), slices.Clone(next.views)
	next.rows, next.origins = maps.Clone(next.rows), maps.Clone(next.origins)
	f(&next)
	c.now = &next
}

var errFenced = errors.New("leader epoch is over")

func (c *controller) ProposeFrom(_ context.Context, p delivery.Proposal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.LeaderEpoch != c.epoch {
		return errFenced
	}
	c.editLocked(func(next *image) {
		rows := slices.Clone(next.rows[p.Binding])
		for i, row := range rows {
			old, had := row.From[p.Partition]
			if row.ID != p.Row || had && (!p.Clamp || old <= p.Offset) {
				continue
			}
			changed := *row
			changed.From = maps.Clone(row.From)
			if changed.From == nil {
				changed.From = map[int32]broker.Offset{}
			}
			changed.From[p.Partition] = p.Offset
			rows[i] = &changed
		}
		next.rows[p.Binding] = rows
	})
	return nil
}

func (c *controller) ProposeTrip(_ context.Context, p delivery.Proposal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.LeaderEpoch != c.epoch {
		return errFenced
	}
	c.editLocked(func(next *image) {
		rows := slices.Clone(next.rows[p.Binding])
		for i, row := range rows {
			if _, tripped := row.Tripped[p.Partition]; row.ID == p.Row && !tripped {
				changed := *row
				changed.Tripped = map[int32]broker.Offset{p.Partition: p.Offset}
				rows[i] = &changed
			}
		}
		next.rows[p.Binding] = rows
	})
	return nil
}

func (c *controller) ProposeOrigin(_ context.Context, p delivery.Proposal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.LeaderEpoch != c.epoch {
		return errFenced
	}
	c.moved++
	c.editLocked(func(next *image) {
		of := maps.Clone(next.origins[p.Binding])
		if of == nil {
			of = map[int32]broker.Offset{}
		}
		if old, had := of[p.Partition]; !had || old < p.Offset {
			of[p.Partition] = p.Offset
		}
		next.origins[p.Binding] = of
	})
	return nil
}

// groupOffsets are committed offsets by group and topic name.
type groupOffsets struct {
	mu        sync.Mutex
	committed map[string]broker.Offset
}

func (g *groupOffsets) commit(group, topic string, o broker.Offset) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.committed[group+"/"+topic] = o
}

func (g *groupOffsets) active(group, topic string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.committed[group+"/"+topic]
	return ok
}

func (g *groupOffsets) LowestCommitted(group, topic string, _ int32) (broker.Offset, bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	lowest, found := broker.Offset(0), false
	for name, o := range g.committed {
		of, on, _ := strings.Cut(name, "/")
		if on == topic && (group == "" || of == group) && (!found || o < lowest) {
			lowest, found = o, true
		}
	}
	return lowest, found, nil
}

// native is a plugin in Go. A record's value is a set of letters: x drop, L dead-letter, T trap, r replace, n no id;
// its id is the key, or under version v2 the key's first byte.
type native struct {
	version string
	engine  *nativeEngine
}

func (native) Projection() abi.Projection { return abi.ProjectKey | abi.ProjectValue }

func (s native) Judge(frame *abi.Frame, answer *abi.Answer) (uint64, error) {
	s.engine.mu.Lock()
	s.engine.frames = append(s.engine.frames, len(frame.Records))
	trouble := s.engine.trouble
	s.engine.mu.Unlock()
	if trouble != nil {
		return 0, trouble
	}
	answer.Verdicts = answer.Verdicts[:0]
	for i, r := range frame.Records {
		value := string(r.Value)
		if strings.Contains(value, "T") {
			return 7, &plugins.Fault{Reason: plugins.ReasonTrap, Record: i, Text: "trapped", Stderr: []byte("oh")}
		}
		v := abi.Verdict{Kind: abi.Pass}
		switch {
		case strings.Contains(value, "x"):
			v.Kind = abi.Drop
		case strings.Contains(value, "L"):
			v = abi.Verdict{Kind: abi.DeadLetter, Output: &abi.Output{Text: "unwanted"}}
		case strings.Contains(value, "r"):
			v.Kind, v.Output = abi.Replace, &abi.Output{Key: r.Key, Value: []byte("R" + value), Headers: r.Headers}
		}
		if !strings.Contains(value, "n") && v.Kind != abi.DeadLetter {
			v.Unique, v.ID = abi.UniqueByID, r.Key
			if s.version == "v2" {
				v.ID = r.Key[:1]
			}
		}
		answer.Verdicts = append(answer.Verdicts, v)
	}
	return uint64(len(frame.Records)), nil
}

type nativeEngine struct {
	mu      sync.Mutex
	frames  []int // records of each
	trouble error
	missing bool
}

func (e *nativeEngine) Open(_ context.Context, row *metadata.Row) ([]chain.Stage, func(), error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.missing {
		return nil, nil, errors.New("the module is not here")
	}
	var stages []chain.Stage
	for _, s := range row.Stages {
		stages = append(stages, native{version: s.Version, engine: e})
	}
	return stages, func() {}, nil
}

func (e *nativeEngine) set(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

func (e *nativeEngine) calls() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.frames)
}

// stored is one record of the log as the tests made it.
type stored struct {
	offset    broker.Offset
	timestamp int64
	key       string
	value     string
}

func (r stored) String() string { return fmt.Sprintf("%d:%s=%s", r.offset, r.key, r.value) }
