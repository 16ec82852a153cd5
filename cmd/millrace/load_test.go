package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	loadTopic      = "load"
	loadGroup      = "readers"
	loadPartitions = 4
	loadEvery      = time.Millisecond // a record is produced
)

// load is an idempotent producer that waits for all replicas in sync, and the only member of a group, which commits. Both are
// told of all three brokers.
type load struct {
	trio          *trio
	producer      *kgo.Client
	reader        *kgo.Client
	stopProducing func() // and waits for the last to be sent

	mu     sync.Mutex
	sent   int                             // guarded by mu
	failed []error                         // guarded by mu
	acked  [loadPartitions]map[int64]int   // guarded by mu: which number was acknowledged at an offset
	acks   [loadPartitions][]time.Time     // guarded by mu: when
	read   [loadPartitions]map[int64][]int // guarded by mu: the numbers that the group was given at an offset
}

func (c *trio) newLoad() *load {
	c.t.Helper()
	if _, err := c.nodes[0].sdk.CreateTopic(c.t.Context(), loadTopic, loadPartitions, nil); err != nil {
		c.t.Fatal(err)
	}
	c.level(loadTopic)
	l := &load{trio: c}
	for p := range l.acked {
		l.acked[p], l.read[p] = map[int64]int{}, map[int64][]int{}
	}
	l.producer = c.franz(kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	l.reader = c.franz(kgo.ConsumeTopics(loadTopic), kgo.ConsumerGroup(loadGroup), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	producing, stopProducing := context.WithCancel(c.t.Context())
	reading, stopReading := context.WithCancel(c.t.Context())
	var produces, reads sync.WaitGroup
	produces.Go(func() { l.produce(producing) })
	reads.Go(func() { l.consume(reading) })
	l.stopProducing = func() { stopProducing(); produces.Wait() }
	c.t.Cleanup(func() {
		l.stopProducing()
		stopReading()
		reads.Wait()
		l.producer.Close()
		l.reader.Close()
	})
	return l
}

// franz makes a client that looks around sooner than by default.
func (c *trio) franz(more ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	client, err := kgo.NewClient(append(more, kgo.SeedBrokers(c.nodes[0].client, c.nodes[1].client, c.nodes[2].client),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }))...)
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// produce writes numbered records to all partitions in turn.
func (l *load) produce(ctx context.Context) {
	ticker := time.NewTicker(loadEvery)
	defer ticker.Stop()
	for number := 0; ; number++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		l.mu.Lock()
		l.sent++
		l.mu.Unlock()
		record := &kgo.Record{Topic: loadTopic, Partition: int32(number % loadPartitions), Value: strconv.AppendInt(nil, int64(number), 10)}
		l.producer.Produce(context.WithoutCancel(ctx), record, func(r *kgo.Record, err error) { l.acknowledged(r, number, err) })
	}
}

func (l *load) acknowledged(r *kgo.Record, number int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := r.Partition
	other, taken := l.acked[p][r.Offset]
	switch {
	case err != nil:
		l.failed = append(l.failed, fmt.Errorf("record %d: %w", number, err))
		return
	case taken:
		l.failed = append(l.failed, fmt.Errorf("records %d and %d are both at offset %d of partition %d", other, number, r.Offset, p))
	}
	l.acked[p][r.Offset] = number
	l.acks[p] = append(l.acks[p], time.Now())
}

// consume reads as a group's only member and commits what it has read. A commit that fails is made good by the next.
func (l *load) consume(ctx context.Context) {
	for {
		fetches := l.reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		fetches.EachRecord(func(r *kgo.Record) {
			number, err := strconv.Atoi(string(r.Value))
			l.mu.Lock()
			defer l.mu.Unlock()
			if err != nil {
				l.failed = append(l.failed, err)
			}
			l.read[r.Partition][r.Offset] = append(l.read[r.Partition][r.Offset], number)
		})
		if err := l.reader.CommitUncommittedOffsets(ctx); err != nil && ctx.Err() == nil {
			l.trio.t.Logf("a commit failed: %v", err)
		}
	}
}

// await returns when every partition has an acknowledgement that is younger than since, and says when the first came.
func (l *load) await(since time.Time) (first time.Time) {
	l.trio.t.Helper()
	l.trio.eventually("acknowledgements on all partitions", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for p, all := range l.acks {
			if len(all) == 0 || !all[len(all)-1].After(since) {
				return fmt.Errorf("partition %d has none", p)
			}
			at, _ := slices.BinarySearchFunc(all, since, time.Time.Compare)
			if first.IsZero() || all[at].Before(first) {
				first = all[at]
			}
		}
		return nil
	})
	return first
}

// longest is the longest gap between two acknowledgements of one partition.
func (l *load) longest() (gap time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, all := range l.acks {
		for i := range max(len(all)-1, 0) {
			gap = max(gap, all[i+1].Sub(all[i]))
		}
	}
	return gap.Round(time.Millisecond)
}

// check ends the load: no acknowledgement failed, the log holds exactly what was acknowledged, each record once and where it
// was acknowledged, and the group has been given all of it and has committed so.
func (l *load) check() {
	t := l.trio.t
	t.Helper()
	l.stopProducing()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := l.producer.Flush(ctx); err != nil {
		t.Fatalf("records are not acknowledged: %v", err)
	}
	admin := kadm.NewClient(l.producer)
	ends, err := admin.ListEndOffsets(ctx, loadTopic)
	if err = errors.Join(err, ends.Error()); err != nil {
		t.Fatal(err)
	}
	l.trio.eventually("the group's commits of everything", func() error {
		committed, err := admin.FetchOffsets(ctx, loadGroup)
		if err = errors.Join(err, committed.Error()); err != nil {
			return err
		}
		for p := range l.acked {
			end, _ := ends.Lookup(loadTopic, int32(p))
			if at, _ := committed.Lookup(loadTopic, int32(p)); at.At != end.Offset {
				return fmt.Errorf("partition %d ends at %d, the group has committed %d", p, end.Offset, at.At)
			}
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failed) > 0 {
		t.Errorf("%d failures, the first: %v", len(l.failed), l.failed[0])
	}
	total := 0
	for p, acked := range l.acked {
		if end, _ := ends.Lookup(loadTopic, int32(p)); int(end.Offset) != len(acked) {
			t.Errorf("partition %d ends at %d, %d records of it were acknowledged", p, end.Offset, len(acked))
		}
		for offset, number := range acked {
			if read := l.read[p][offset]; len(read) == 0 || slices.ContainsFunc(read, func(n int) bool { return n != number }) {
				t.Fatalf("partition %d, offset %d: record %d was acknowledged, the group was given %d", p, offset, number, read)
			}
		}
		total += len(acked)
	}
	if total != l.sent {
		t.Errorf("%d records were sent, %d acknowledged", l.sent, total)
	}
	t.Logf("%d records acknowledged, each is there once", total)
}
