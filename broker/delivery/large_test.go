package delivery

import (
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/task"
)

// countedLog counts reads.
type countedLog struct {
	*benchLog
	reads int
}

func (l *countedLog) Read(from, limit broker.Offset, bytesMax int) (Slice, error) {
	l.reads++
	return l.benchLog.Read(from, limit, bytesMax)
}

// One batch of 10,000 records, whose answers come in three pieces.
func newLargeBatch(t *testing.T) (*channel, *countedLog, func(from, end broker.Offset)) {
	log := &countedLog{benchLog: newBenchLog(t, 1, 10_000, 20, 0)}
	row := &metadata.Row{ID: 1, From: map[int32]broker.Offset{0: 0}, Stages: []metadata.Stage{{Projection: 1}}}
	keyOf := func(r *metadata.Row) JudgeKey { return KeyOf(broker.TopicID{1}, FrameBatch, r) }
	c := newChannel(&lead{host: &Host{}, source: log, group: task.NewGroup(t.Context())}, &metadata.Binding{})
	c.adopt(c.binding, planOf([]*metadata.Row{row}, 0, keyOf, 0, nil), 0)
	return c, log, func(from, end broker.Offset) {
		a := answer{visible: newBitset(int(end - from)), altered: newBitset(int(end - from))}
		a.visible.setRange(0, int(end-from))
		c.settle(c.now(), from, end, a, false)
	}
}

func TestABatchThatIsAnsweredInPartIsReadOnce(t *testing.T) {
	c, log, settle := newLargeBatch(t)
	read := func() int {
		r, err := Filtered{c}.Read(FilteredRead{MaxBytes: 1 << 20, MinOne: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release()
		return r.Records
	}
	settle(0, 4096)
	for range 3 {
		if n := read(); n != 0 {
			t.Fatalf("%d records of a batch that is answered in part", n)
		}
	}
	settle(4096, 8192)
	if n := read(); n != 0 || log.reads != 1 {
		t.Fatalf("%d records, after %d reads of the log", n, log.reads)
	}
	settle(8192, 10_000)
	if n := read(); n != 10_000 || log.reads != 2 {
		t.Fatalf("%d records, after %d reads of the log", n, log.reads)
	}
}

func TestABatchIsKnownToBeUntouchedOverSeveralChunks(t *testing.T) {
	c, log, settle := newLargeBatch(t)
	settle(0, 4096)
	settle(4096, 8192)
	if s := c.now(); c.untouched(s, 0, 10_000, 10_000) {
		t.Fatal("untouched before the whole batch is answered")
	}
	settle(8192, 10_000)
	if s := c.now(); !c.untouched(s, 0, 10_000, 10_000) || c.untouched(s, 0, 10_000, 9_999) {
		t.Fatal("not untouched, or so with a record missing")
	}
	for _, o := range []int{0, 4095, 4096, 5000, 9999} {
		k := c.chunks[broker.Offset(o>>chunkBits<<chunkBits)]
		k.visible.clear(o % (1 << chunkBits))
		if c.untouched(c.now(), 0, 10_000, 10_000) {
			t.Fatalf("untouched without %d", o)
		}
		k.visible.set(o % (1 << chunkBits))
	}
	v, err := batch.Parse(log.bytes)
	if err != nil || !(&reading{channel: c, s: c.now(), read: FilteredRead{MaxBytes: 1 << 20, MinOne: true}}).takes(v) {
		t.Fatal(err)
	}
}

// takes reports whether the batch is sent as it lies.
func (r *reading) takes(v batch.View) bool {
	return r.batch(v) == nil && len(r.result.Bytes) == 1 && &r.result.Bytes[0][0] == &v[0]
}
