package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/internal/task"
)

const (
	topic      = "load"
	partitions = 3
)

// place is where a record lies.
type place struct {
	partition int32
	offset    int64
}

// name is what makes a record of the load itself: no other record ever has the same.
type name struct{ producer, sequence int }

// soon is how long clients wait for an answer before they try again, beside what a request itself may wait.
const soon = 2 * time.Second

// try is when a record was given to the client and when the client knew, since the ledger began; ret is 0 where it never did.
type try struct{ call, ret time.Duration }

// beat is the rhythm of one partition's acknowledgements.
type beat struct {
	last    time.Time
	longest time.Duration // between two of them, since it was last asked for
}

func (b *beat) onAck(now time.Time) {
	if !b.last.IsZero() {
		b.longest = max(b.longest, now.Sub(b.last))
	}
	b.last = now
}

// ledger is what the producers know of their records. It is safe for concurrent use.
type ledger struct {
	began    time.Time
	mu       sync.Mutex
	tries    map[name]try
	acked    map[name]place
	beats    [partitions]beat
	unknown  int // never heard of: they may be in the log, once
	problems []string
}

func newLedger() *ledger {
	return &ledger{began: time.Now(), tries: map[name]try{}, acked: map[name]place{}}
}

// now is the time of the ledger.
func (l *ledger) now() time.Duration { return time.Since(l.began) }

func (l *ledger) onResult(n name, r *kgo.Record, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.acked[n] = place{r.Partition, r.Offset}
		l.tries[n] = try{l.tries[n].call, l.now()}
		l.beats[r.Partition].onAck(time.Now())
		return
	}
	l.unknown++
	for _, never := range []error{kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID, kerr.InvalidProducerEpoch, kerr.CorruptMessage, kerr.UnknownServerError} {
		if errors.Is(err, never) {
			l.problems = append(l.problems, fmt.Sprintf("producer %d record %d was refused: %v", n.producer, n.sequence, err))
		}
	}
}

// begin counts from now on.
func (l *ledger) begin(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.beats {
		l.beats[i].last = now
	}
}

// gap returns the longest time that a partition was without an acknowledgement since it was last asked for; one that goes
// on counts as far as it has come.
func (l *ledger) gap(now time.Time) (longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.beats {
		b := &l.beats[i]
		if b.last.IsZero() {
			continue
		}
		longest = max(longest, b.longest, now.Sub(b.last))
		b.longest = 0
	}
	return longest
}

// silent returns a partition that has acknowledged nothing since then.
func (l *ledger) silent(since time.Time) (partition int, is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.beats {
		if !l.beats[i].last.After(since) {
			return i, true
		}
	}
	return 0, false
}

func (l *ledger) onSend(n name) {
	l.mu.Lock()
	l.tries[n] = try{call: l.now()}
	l.mu.Unlock()
}

// counts returns what was sent, acknowledged and left unknown, and takes the problems.
func (l *ledger) counts() (sent, acked, unknown int, problems []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	problems, l.problems = l.problems, nil
	return len(l.tries), len(l.acked), l.unknown, problems
}

// snapshot returns the acknowledged records.
func (l *ledger) snapshot() map[name]place {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[name]place, len(l.acked))
	for n, p := range l.acked {
		all[n] = p
	}
	return all
}

// attempts returns when each record was sent and known of.
func (l *ledger) attempts() map[name]try {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.tries)
}

// producer writes records of the load. Its Kafka client lives through every kill, or, of a mayfly, is given up with its
// records in flight, whose fate nobody knows then.
type producer struct {
	id     int
	mayfly bool
	seeds  []string
	codec  kgo.CompressionCodec
	ledger *ledger
	random *rand.Rand
	giveUp chan struct{} // one slot: a broker was killed
	gently *atomic.Bool  // while the checkers read
	next   int
}

func (p *producer) client() (*kgo.Client, error) {
	return kgo.NewClient(
		kgo.SeedBrokers(p.seeds...), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(p.codec), kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(400),
		kgo.UnknownTopicRetries(-1), kgo.StopProducerOnDataLossDetected(), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }), kgo.DialTimeout(soon),
		kgo.ProduceRequestTimeout(soon), kgo.RequestTimeoutOverhead(soon),
	)
}

// run produces until stop is closed; then it waits for what is in flight.
func (p *producer) run(ctx context.Context, stop <-chan struct{}, pause time.Duration) error {
	client, err := p.client()
	if err != nil {
		return err
	}
	defer func() { client.Close() }()
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-stop:
			flushCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			if err := client.Flush(flushCtx); err != nil {
				return fmt.Errorf("records in flight were not answered: %w", err)
			}
			return nil
		case <-p.giveUp:
			if !p.mayfly {
				continue
			}
			client.Close()
			p.id += 100 // another producer, another order
			if client, err = p.client(); err != nil {
				return err
			}
		case <-ticker.C:
			if p.gently.Load() && p.random.IntN(8) > 0 {
				continue
			}
			for range 1 + p.random.IntN(12) {
				p.send(ctx, client)
			}
		}
	}
}

func (p *producer) send(ctx context.Context, client *kgo.Client) {
	n := name{p.id, p.next}
	p.next++
	p.ledger.onSend(n)
	r := p.record(n)
	client.Produce(ctx, r, func(r *kgo.Record, err error) { p.ledger.onResult(n, r, err) })
}

// record makes the next record: an event new or seen shortly before or long ago, and what shall become of it.
func (p *producer) record(n name) *kgo.Record {
	var id string
	switch choice := p.random.IntN(100); {
	case choice < 50:
		id = fmt.Sprintf("e%d-%d", n.producer, n.sequence)
	case choice < 85:
		id = fmt.Sprintf("near%d", n.sequence/40*10+p.random.IntN(20))
	default:
		id = fmt.Sprintf("far%d", p.random.IntN(400))
	}
	kind := "keep"
	switch choice := p.random.IntN(1000); {
	case choice < 60:
		kind = "drop"
	case choice < 120:
		kind = "odd"
	case choice < 220:
		kind = "swap"
	case choice < 260:
		kind = "anon"
	case choice < 272:
		kind = "bad"
	case choice < 275:
		kind = "trap"
	case choice < 276:
		kind = "spin"
	}
	return loadRecord(n, int32(p.random.IntN(partitions)), id, kind, 1+p.random.IntN(2), time.Now().Add(-time.Duration(p.random.IntN(3000))*time.Millisecond))
}

func loadRecord(n name, partition int32, id, kind string, revision int, when time.Time) *kgo.Record {
	return &kgo.Record{
		Topic: topic, Partition: partition, Timestamp: when, Key: []byte("k" + id[len(id)-1:]),
		Value: fmt.Appendf(nil, `{"id":%q,"rev":"%d","kind":%q,"p":%d,"n":%d}`, id, revision, kind, n.producer, n.sequence),
	}
}

// sentinels writes one record to each partition that every chain delivers, and returns where they lie: who has read up
// to them has read everything in front.
type sentinels struct {
	ledger *ledger
	next   int
	latest [partitions]string // ids
	client *kgo.Client
}

func (s *sentinels) write(ctx context.Context) ([]int64, error) {
	ends := make([]int64, partitions)
	for partition := range int32(partitions) {
		n := name{0, s.next}
		s.next++
		s.ledger.onSend(n)
		s.latest[partition] = fmt.Sprintf("sentinel%d", n.sequence)
		r := loadRecord(n, partition, s.latest[partition], "keep", 1, time.Now())
		err := s.client.ProduceSync(ctx, r).FirstErr()
		s.ledger.onResult(n, r, err)
		if err != nil {
			return nil, fmt.Errorf("write the sentinel of partition %d: %w", partition, err)
		}
		ends[partition] = r.Offset
	}
	return ends, nil
}

// producers is the load.
type producers struct {
	tasks *task.Group
	stop  chan struct{}
	all   []*producer
	// gently makes every producer write an eighth of its load, so that a slow machine's checks come to an end.
	gently atomic.Bool
}

func startProducers(ctx context.Context, seeds []string, l *ledger, seed uint64, pause time.Duration) *producers {
	set := &producers{tasks: task.NewGroup(ctx), stop: make(chan struct{})}
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.Lz4Compression(), kgo.NoCompression(), kgo.ZstdCompression()}
	for i, codec := range codecs {
		p := &producer{
			id: i + 1, mayfly: i == len(codecs)-1, seeds: seeds, codec: codec, ledger: l,
			random: rand.New(rand.NewPCG(seed, uint64(i))), giveUp: make(chan struct{}, 1), gently: &set.gently,
		}
		set.all = append(set.all, p)
		set.tasks.Go(fmt.Sprintf("producer %d", i+1), func(ctx context.Context) error { return p.run(ctx, set.stop, pause) })
	}
	return set
}

// onKill tells the producers that the broker was killed.
func (s *producers) onKill() {
	for _, p := range s.all {
		select {
		case p.giveUp <- struct{}{}:
		default: // it has not come to the one before
		}
	}
}

// finish ends the load and waits until every record was answered.
func (s *producers) finish() error {
	close(s.stop)
	return s.tasks.Wait()
}
