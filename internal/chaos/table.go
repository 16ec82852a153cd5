package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/sdk"
)

// The compacted topic: a table of few keys that are written again and again, and now and then deleted.
const (
	tableTopic = "table"
	tableKeys  = 40
)

// tableRow is one record of the table, numbered in the order in which its only producer wrote it.
type tableRow struct {
	number  int
	key     string
	deleted bool  // a tombstone
	offset  int64 // -1: not acknowledged
}

// table writes the compacted topic and knows what it wrote. It is safe for concurrent use.
type table struct {
	client *kgo.Client
	random *rand.Rand

	order sync.Mutex // held while a record is given to the client, which may wait for answers, and by a check

	mu       sync.Mutex
	sent     []tableRow // guarded by mu, by number
	problems []string   // guarded by mu
}

// newTable makes the topic and its producer.
func newTable(ctx context.Context, client *sdk.Client, seeds []string, seed uint64) (*table, error) {
	_, err := client.CreateTopic(ctx, tableTopic, 1, map[string]string{
		"cleanup.policy": "compact", "segment.bytes": "16384", "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "1500",
	})
	if err != nil {
		return nil, err
	}
	t := &table{random: rand.New(rand.NewPCG(seed, 41))}
	t.client, err = (&producer{seeds: seeds, codec: kgo.NoCompression()}).client()
	return t, err
}

// run writes until ctx ends.
func (t *table) run(ctx context.Context, pause time.Duration) error {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		t.order.Lock()
		for range 1 + t.random.IntN(8) {
			t.send(fmt.Sprintf("key%d", t.random.IntN(tableKeys)), t.random.IntN(12) == 0, nil)
		}
		t.order.Unlock()
	}
}

// send writes one record; done, if not nil, is told where it lies. The caller holds order.
func (t *table) send(key string, deleted bool, done chan<- int64) {
	t.mu.Lock()
	r := tableRow{len(t.sent), key, deleted, -1}
	t.sent = append(t.sent, r)
	t.mu.Unlock()
	record := &kgo.Record{Topic: tableTopic, Key: []byte(key), Headers: []kgo.RecordHeader{{Key: "n", Value: strconv.AppendInt(nil, int64(r.number), 10)}}}
	if !deleted {
		record.Value = fmt.Appendf(nil, "value %d %0200d", r.number, 0)
	}
	t.client.Produce(context.Background(), record, func(got *kgo.Record, err error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if err != nil {
			t.problems = append(t.problems, fmt.Sprintf("record %d of the table was refused: %v", r.number, err))
		} else {
			t.sent[r.number].offset = got.Offset
		}
		if done != nil {
			done <- got.Offset
		}
	})
}

// check writes a last record, reads the table up to it, and judges what it read. Nothing is written meanwhile: behind a slow
// reader what it has still to read may be removed for what is written behind its end.
func (t *table) check(ctx context.Context, seeds []string) (records int, wrong []string, err error) {
	t.order.Lock()
	defer t.order.Unlock()
	written := make(chan int64, 1)
	t.send("sentinel", false, written)
	var end int64
	select {
	case end = <-written:
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	case <-time.After(readLimit):
		return 0, nil, fmt.Errorf("the table's sentinel was not answered within %s", readLimit)
	}
	t.mu.Lock()
	sent, problems := slices.Clone(t.sent), t.problems
	t.problems = nil
	t.mu.Unlock()
	read, err := readRecords(ctx, seeds, source{topic: tableTopic}, []int64{end})
	if err != nil {
		return 0, problems, err
	}
	var log []tableRow
	for _, r := range read[0] {
		if len(r.Headers) != 1 {
			return 0, problems, fmt.Errorf("record %d of the table has %d headers", r.Offset, len(r.Headers))
		}
		number, err := strconv.Atoi(string(r.Headers[0].Value))
		if err != nil {
			return 0, problems, err
		}
		log = append(log, tableRow{number, string(r.Key), r.Value == nil, r.Offset})
	}
	return len(log), append(problems, judgeTable(log, sent, end)...), nil
}

// judgeTable compares a compacted log, read to end, with what was sent: records keep their offsets and their order, of each
// key the newest is there, and nothing is there that a tombstone deleted which is gone itself.
func judgeTable(log, sent []tableRow, end int64) (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf("table: "+format, args...)) }
	there := map[int]bool{}
	last := tableRow{number: -1, offset: -1}
	for _, r := range log {
		switch {
		case r.number >= len(sent) || sent[r.number].key != r.key || sent[r.number].deleted != r.deleted:
			complain("%+v was never sent", r)
			continue
		case sent[r.number].offset >= 0 && sent[r.number].offset != r.offset:
			complain("%+v was acknowledged at %d", r, sent[r.number].offset)
		}
		if r.offset <= last.offset || r.number <= last.number {
			complain("%+v stands behind %+v", r, last)
		}
		there[r.number], last = true, r
	}
	covered, deletedFor := map[string]bool{}, map[string]tableRow{} // by what was sent later
	for _, s := range slices.Backward(sent) {
		inRange := s.offset <= end
		switch by, gone := deletedFor[s.key]; {
		case there[s.number] && gone:
			complain("%+v is there, and %+v, which deleted it, is gone", s, by)
		case !there[s.number] && s.offset >= 0 && inRange && !covered[s.key] && !s.deleted:
			complain("%+v was acknowledged and is gone, and nothing took its place", s)
		}
		// Whatever deletes may have been cleaned away since, acknowledged or not.
		covered[s.key] = covered[s.key] || there[s.number] || s.deleted
		if _, gone := deletedFor[s.key]; s.deleted && s.offset >= 0 && inRange && !there[s.number] && !gone {
			deletedFor[s.key] = s
		}
	}
	return wrong
}

// startTable begins the table's load.
func (h *harness) startTable(ctx context.Context) (err error) {
	if h.table, err = newTable(ctx, h.sdk, h.seeds, h.options.seed); err != nil {
		return err
	}
	h.tableLoad = task.NewGroup(ctx)
	h.tableLoad.Go("table", func(ctx context.Context) error { return h.table.run(ctx, h.options.pause) })
	return nil
}

func (h *harness) checkTable(ctx context.Context) error {
	records, wrong, err := h.table.check(ctx, h.seeds)
	h.complain(wrong...)
	h.totals.comparisons++
	h.totals.tableReads += records
	return err
}

func (h *harness) stopTable() error {
	h.tableLoad.Stop()
	err := h.tableLoad.Wait()
	h.table.client.Close()
	return err
}
