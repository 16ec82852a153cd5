package delivery_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/engine"
)

var (
	topicID = broker.TopicID{1, 2, 3}
	tp      = broker.TopicPartition{Topic: topicID}
)

// world is a broker's surroundings for one partition: log, metadata, groups, dead letters, and a host among them.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	fs      *vfs.Mem
	dir     string
	log     *memoryLog
	control *controller
	groups  *groupOffsets
	engine  *nativeEngine
	gate    *engine.Gate // nil: the host's own
	mu      sync.Mutex
	dead    map[string]*memoryLog
	host    *delivery.Host
	epoch   broker.LeaderEpoch

	records []stored
	forces  map[broker.BindingID][]force
	bits    uint8
	blocks  uint32
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), fs: vfs.NewMem(), dir: "/data", log: newMemoryLog(),
		control: &controller{next: 100, epoch: 1, now: &image{
			topics:  map[broker.TopicID]*metadata.Topic{topicID: {ID: topicID, Name: "orders", Partitions: 1, Fingerprint: metadata.FingerprintKey{Function: 1}}},
			rows:    map[broker.BindingID][]*metadata.Row{},
			origins: map[broker.BindingID]map[int32]broker.Offset{},
			configs: map[string]string{},
		}},
		groups: &groupOffsets{committed: map[string]broker.Offset{}},
		engine: &nativeEngine{}, dead: map[string]*memoryLog{}, epoch: 1,
		forces: map[broker.BindingID][]force{}, bits: 3, blocks: 2,
	}
	return w
}

func (w *world) deadLetters(topic string, _ int32) (delivery.Log, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead[topic] == nil {
		w.dead[topic] = newMemoryLog()
	}
	return w.dead[topic], nil
}

func (w *world) start() {
	w.t.Helper()
	host, err := delivery.New(delivery.Config{
		FS: w.fs, Dir: w.dir, Metadata: w.control, Engine: w.engine, Groups: w.groups, OpenLog: w.deadLetters,
		Gate: w.gate, Logger: zerolog.Nop(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.host = host
	if err := host.Lead(tp, w.epoch, w.log); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stop(kill bool) {
	w.t.Helper()
	end := w.host.Close
	if kill {
		end = w.host.Kill
	}
	if err := end(); err != nil {
		w.t.Fatal(err)
	}
}

// settle returns when nothing is left to do.
func (w *world) settle() { synctest.Wait() }

// bind makes a binding with its first row.
func (w *world) bind(group, version string, change func(*metadata.Row)) broker.BindingID {
	w.control.next++
	id := broker.BindingID(w.control.next)
	w.control.edit(func(next *image) {
		next.bindings = append(next.bindings, &metadata.Binding{ID: id, Group: group, Topic: topicID, DeadLetter: "orders.dlq." + group})
	})
	w.update(id, version, func(row *metadata.Row) {
		row.AtLogStart = !w.groups.active(group, "orders") // as bind create decides it
		if change != nil {
			change(row)
		}
	})
	return id
}

// update adds a row; from where it is in force is read from the image once it is decided.
func (w *world) update(id broker.BindingID, version string, change func(*metadata.Row)) {
	w.control.next++
	row := &metadata.Row{
		ID: broker.RowID(w.control.next), Binding: id, Limits: metadata.Limits(plugins.DefaultLimits()),
		Policy: metadata.PolicyDeadLetter, WindowBlocks: w.blocks,
	}
	row.Limits.BlockBits = w.bits
	if version != "" {
		row.Stages = []metadata.Stage{{Plugin: "native", Version: version, Metered: metadata.Digest{version[1]}, Projection: 3}}
	}
	if change != nil {
		change(row)
	}
	w.control.edit(func(next *image) { next.rows[id] = append(slices.Clone(next.rows[id]), row) })
	w.host.OnImage()
}

// oracle is the oracle for a binding, from what the image decided.
func (w *world) oracle(id broker.BindingID) *oracle {
	w.control.mu.Lock()
	defer w.control.mu.Unlock()
	out := &oracle{log: w.records, origin: -1}
	for _, row := range w.control.now.rows[id] {
		from, decided := row.From[0]
		if !decided {
			break
		}
		f := force{from: int64(from), bits: int64(row.Limits.BlockBits), blocks: int64(row.WindowBlocks), within: row.WithinMs, policy: row.Policy, row: row.ID}
		if len(row.Stages) > 0 {
			f.version = row.Stages[0].Version
		}
		out.forces = append(out.forces, f)
	}
	if origin, decided := w.control.now.origins[id][0]; decided {
		out.origin = int64(origin)
	}
	return out
}

// append stores a batch of records "key=value".
func (w *world) append(codec batch.Codec, pairs ...string) {
	w.t.Helper()
	base, now := w.log.Ends().LogEnd, int64(1_000_000+1_000*len(w.records))
	b := batch.NewBuilder(batch.Spec{BaseOffset: base, LeaderEpoch: w.epoch, BaseTimestamp: now, Codec: codec})
	for i, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		spread := int64(w.rng.IntN(2000)) - 1000
		err := b.Append(batch.Record{OffsetDelta: int32(i), TimestampDelta: spread, Key: []byte(key), Value: []byte(value), Headers: []batch.Header{{Key: []byte("h"), Value: []byte("v")}}})
		if err != nil {
			w.t.Fatal(err)
		}
		w.records = append(w.records, stored{offset: base + broker.Offset(i), timestamp: now + spread, key: key, value: value})
	}
	raw, err := b.Finish()
	if err != nil {
		w.t.Fatal(err)
	}
	v := append(batch.View(nil), raw...)
	w.log.change(func() { w.log.batches = append(w.log.batches, v) })
}

// read does one filtered read and decodes what it sends.
func (w *world) read(id broker.BindingID, r delivery.FilteredRead) ([]stored, delivery.FilteredResult, []batch.View, error) {
	w.t.Helper()
	f, err := w.host.Filtered(id, tp)
	if err != nil {
		w.t.Fatal(err)
	}
	result, err := f.Read(r)
	if err != nil {
		return nil, result, nil, err
	}
	var flat []byte
	for _, piece := range result.Bytes {
		flat = append(flat, piece...)
	}
	if len(flat) != result.Size {
		w.t.Fatalf("%d bytes sent, size says %d", len(flat), result.Size)
	}
	result.Release()
	records, views := w.decode(flat, r.From)
	return records, result, views, nil
}

func (w *world) decode(flat []byte, from broker.Offset) ([]stored, []batch.View) {
	w.t.Helper()
	var records []stored
	var views []batch.View
	for v, err := range batch.All(flat) {
		if err != nil {
			w.t.Fatal(err)
		}
		if err := v.CheckCRC(); err != nil {
			w.t.Fatalf("a client would refuse this batch: %v", err)
		}
		views = append(views, v)
		reader, err := v.Records(new(batch.Decompressor))
		if err != nil {
			w.t.Fatal(err)
		}
		var r batch.Record
		n := 0
		for reader.Next(&r) {
			n++
			if len(r.Headers) != 1 || string(r.Headers[0].Key) != "h" {
				w.t.Fatalf("headers of a record are lost: %v", r.Headers)
			}
			if o := v.BaseOffset() + broker.Offset(r.OffsetDelta); o >= from {
				records = append(records, stored{offset: o, timestamp: v.Timestamp(r.TimestampDelta), key: string(r.Key), value: string(r.Value)})
			}
		}
		if reader.Err() != nil || n != int(v.Count()) {
			w.t.Fatalf("batch at %d: %d records of %d, %v", v.BaseOffset(), n, v.Count(), reader.Err())
		}
	}
	return records, views
}

// readAll follows the filtered log as a client does, until its end.
func (w *world) readAll(id broker.BindingID, from broker.Offset, view bool) []stored {
	w.t.Helper()
	var all []stored
	position := from
	for range 10_000 {
		got, result, views, err := w.read(id, delivery.FilteredRead{From: position, MaxBytes: 1 + w.rng.IntN(600), MinOne: true, View: view})
		if err != nil {
			w.t.Fatalf("binding %d, read at %d: %v", id, position, err)
		}
		all = append(all, got...)
		if len(views) == 0 {
			if result.HighWatermark > position {
				w.settle() // a splice is being made again
				got, _, views, err = w.read(id, delivery.FilteredRead{From: position, MaxBytes: 1 << 20, MinOne: true, View: view})
				if err != nil || len(views) == 0 {
					w.t.Fatalf("binding %d stands still at %d, told end %d: %v; %+v", id, position, result.HighWatermark, err, w.host.Describe(id))
				}
				all = append(all, got...)
			} else {
				return all
			}
		}
		position = views[len(views)-1].NextOffset()
	}
	w.t.Fatal("a reader goes in circles")
	return nil
}

// check compares everything a binding delivers with the oracle.
func (w *world) check(id broker.BindingID) {
	w.t.Helper()
	ends := w.log.Ends()
	oracle := w.oracle(id)
	for _, view := range []bool{false, true} {
		from := ends.LogStart
		if view {
			f, err := w.host.Filtered(id, tp)
			if err != nil {
				w.t.Fatal(err)
			}
			from = f.Ends(true).LogStart
		}
		want := oracle.filtered(from, ends.LastStable)
		if got := w.readAll(id, from, view); !slices.Equal(got, want) {
			w.t.Fatalf("binding %d from %d (view %v), forces %+v, origin %d:\ngot  %v\nwant %v\nstatus %+v", id, from, view, oracle.forces, oracle.origin, got, want, w.host.Describe(id))
		}
	}
	w.checkLetters(id, oracle)
}

// checkLetters finds a letter for every offset that the oracle wants one for, and none else.
func (w *world) checkLetters(id broker.BindingID, oracle *oracle) {
	w.t.Helper()
	found := w.lettersOf(id)
	for _, o := range oracle.letters() {
		if !slices.Contains(found, o) {
			w.t.Fatalf("binding %d: no letter for offset %d; there are %v, %+v", id, o, found, w.host.Describe(id))
		}
	}
	for _, o := range found {
		if !slices.Contains(oracle.letters(), o) {
			w.t.Fatalf("binding %d: a letter for offset %d, which was not dead-lettered", id, o)
		}
	}
}

func (w *world) lettersOf(id broker.BindingID) []broker.Offset {
	b, _ := w.control.Image().Binding(id)
	w.mu.Lock()
	log := w.dead[b.DeadLetter]
	w.mu.Unlock()
	if log == nil {
		return nil
	}
	var found []broker.Offset
	for _, v := range log.batches {
		reader, err := v.Records(nil)
		if err != nil {
			w.t.Fatal(err)
		}
		var r batch.Record
		for reader.Next(&r) {
			for _, h := range r.Headers {
				if string(h.Key) == delivery.HeaderOffset {
					o, err := strconv.ParseInt(string(h.Value), 10, 64)
					if err != nil {
						w.t.Fatal(err)
					}
					found = append(found, broker.Offset(o))
				}
			}
		}
	}
	return found
}

func (w *world) dropCaches() {
	w.t.Helper()
	if err := w.fs.RemoveAll(w.dir + "/chains"); err != nil {
		w.t.Fatal(err)
	}
}

// retain moves the log start as retention does.
func (w *world) retain(start broker.Offset) {
	w.t.Helper()
	if err := w.host.BeforeStartAdvance(w.t.Context(), tp, start); err != nil {
		w.t.Fatal(err)
	}
	w.log.change(func() {
		w.log.start = start
		for len(w.log.batches) > 1 && w.log.batches[0].NextOffset() <= start {
			w.log.batches = w.log.batches[1:]
		}
	})
}

func inBubble(t *testing.T, seed uint64, body func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed)
		w.start()
		defer func() {
			if w.host != nil {
				w.stop(false)
			}
		}()
		body(w)
	})
}

func overSeeds(t *testing.T, n int, body func(w *world)) {
	t.Helper()
	for seed := range uint64(n) {
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { inBubble(t, seed, body) }) {
			t.Fatalf("replay with: go test ./broker/delivery -run '%s/seed=%d$'", t.Name(), seed)
		}
	}
}
