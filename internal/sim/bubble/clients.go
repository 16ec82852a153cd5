package bubble

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

const (
	topic = "orders"
	group = "billing"
)

// clientHost is where a client runs: each has a host of its own, and so an own place in a partition of the network.
func clientHost(number int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 1, byte(number)}) }

// produce sends records until ctx ends, and waits then until the client knows the end of each.
func (r *run) produce(number int, random *rand.Rand) func(context.Context) error {
	pause, linger := time.Duration(2+random.IntN(60))*time.Millisecond, time.Duration(random.IntN(3)*5)*time.Millisecond
	return func(ctx context.Context) error {
		client, done, err := r.cluster.client(clientHost(number), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(linger),
			kgo.UnknownTopicRetries(-1), kgo.MetadataMinAge(250*time.Millisecond))
		if err != nil {
			return err
		}
		defer done()
		for n := 1; ctx.Err() == nil; n++ {
			value := fmt.Sprintf("%d-%06d-", number, n)
			value += strings.Repeat("x", 8<<random.IntN(9))
			s := &sent{producer: number, value: value, partition: int32(random.IntN(int(r.plan.partitions))), call: r.history.now()}
			r.history.change(func() { r.history.sends = append(r.history.sends, s) })
			record := &kgo.Record{Topic: topic, Partition: s.partition, Key: keyOf(n), Value: []byte(value)}
			client.Produce(context.WithoutCancel(ctx), record, func(record *kgo.Record, err error) {
				now := r.history.now()
				r.history.change(func() { s.ret, s.acked, s.offset, s.err = now, err == nil, broker.Offset(record.Offset), err })
			})
			rest(ctx, time.Duration(random.Int64N(int64(2*pause))))
		}
		return client.Flush(context.WithoutCancel(ctx))
	}
}

// rest waits a while, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// took notes what a poll brought.
func (r *run) took(who string, fetches kgo.Fetches) {
	fetches.EachError(func(_ string, partition int32, err error) {
		var lost *kgo.ErrDataLoss
		if !errors.As(err, &lost) {
			return // the client tries again
		}
		r.wrong("data-loss", "%s was told of at partition %d at %s: %v", who, partition, r.history.now(), err)
	})
	r.history.change(func() {
		fetches.EachRecord(func(record *kgo.Record) {
			r.history.reads = append(r.history.reads, got{who, record.Partition, broker.Offset(record.Offset), string(record.Value)})
		})
	})
}

// read follows every partition from its start, outside of any group.
func (r *run) read(number int) func(context.Context) error {
	return func(ctx context.Context) error {
		client, done, err := r.cluster.client(clientHost(number), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.FetchMaxWait(200*time.Millisecond), kgo.MetadataMinAge(250*time.Millisecond))
		if err != nil {
			return err
		}
		defer done()
		for ctx.Err() == nil {
			r.took(fmt.Sprint("reader ", number), client.PollFetches(ctx))
		}
		return nil
	}
}

// join reads for a group as whoever it is, and commits what it polled before it polls again. Where the client can wait inside
// a bubble it is one of the group's members; else it is alone, reads every partition, and commits from outside.
func (r *run) join(number int, group, who string) func(context.Context) error {
	options := []kgo.Opt{
		kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200 * time.Millisecond),
		kgo.MetadataMinAge(250 * time.Millisecond), kgo.Rack("group=" + group),
	}
	if membership {
		options = append(options, kgo.ConsumerGroup(group), kgo.DisableAutoCommit(), kgo.SessionTimeout(6*time.Second),
			kgo.HeartbeatInterval(time.Second), kgo.RebalanceTimeout(6*time.Second))
		if r.plan.consumers {
			//lint:ignore SA1029 the key is franz-go's
			options = append(options, kgo.WithContext(context.WithValue(r.ctx, "opt_in_kafka_next_gen_balancer_beta", true)))
		}
	}
	return func(ctx context.Context) error {
		client, done, err := r.cluster.client(clientHost(number), options...)
		if err != nil {
			return err
		}
		defer done()
		polled := kadm.Offsets{} // by one who commits from outside, and not acknowledged
		for ctx.Err() == nil {
			limited, cancel := context.WithTimeout(ctx, pollWithin)
			fetches := client.PollFetches(limited)
			cancel()
			r.took(fmt.Sprint(who, " ", number), fetches)
			if membership {
				r.commit(ctx, client, group)
			} else {
				kadm.OffsetsFromFetches(fetches).Each(polled.Add)
				r.commitFor(ctx, client, group, polled)
			}
		}
		return nil
	}
}

// pollWithin bounds a poll, so that a commit that failed is made again though nothing more comes.
const pollWithin = time.Second

// commit commits what a member polled and notes what was acknowledged.
func (r *run) commit(ctx context.Context, client *kgo.Client, group string) {
	at := client.UncommittedOffsets()
	if len(at) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client.CommitOffsetsSync(ctx, at, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			return
		}
		for _, t := range answer.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == 0 {
					r.history.commit(group, p.Partition, broker.Offset(at[t.Topic][p.Partition].Offset))
				}
			}
		}
	})
}

// commitFor commits for a group without members, and forgets what was acknowledged.
func (r *run) commitFor(ctx context.Context, client *kgo.Client, group string, polled kadm.Offsets) {
	if len(polled) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answers, err := kadm.NewClient(client).CommitOffsets(ctx, group, polled)
	if err != nil || answers.Error() != nil {
		return
	}
	answers.Each(func(answer kadm.OffsetResponse) { r.history.commit(group, answer.Partition, broker.Offset(answer.At)) })
	clear(polled)
}

// askEvery is how often the watcher asks.
const askEvery = 300 * time.Millisecond

// watch asks leaders where their logs end.
func (r *run) watch(number int) func(context.Context) error {
	return func(ctx context.Context) error {
		client, done, err := r.cluster.client(clientHost(number), kgo.MetadataMinAge(250*time.Millisecond))
		if err != nil {
			return err
		}
		defer done()
		admin := kadm.NewClient(client)
		for ; ctx.Err() == nil; rest(ctx, askEvery) {
			limited, cancel := context.WithTimeout(ctx, 5*time.Second)
			r.askEnds(limited, admin)
			cancel()
		}
		return nil
	}
}

func (r *run) askEnds(ctx context.Context, admin *kadm.Client) {
	call := r.history.now()
	ends, err := admin.ListEndOffsets(ctx, topic)
	ret := r.history.now()
	if err != nil {
		return
	}
	r.history.change(func() {
		ends.Each(func(o kadm.ListedOffset) {
			if o.Err == nil && o.LeaderEpoch >= 0 {
				r.history.ends = append(r.history.ends, told{o.Partition, broker.Offset(o.Offset), broker.LeaderEpoch(o.LeaderEpoch), call, ret})
			}
		})
	})
}

// learnCommits takes what the coordinator tells for acknowledged: a commit whose answer was lost is one. A member that is given
// the partition anew goes on behind it, and has nothing to commit.
func (r *run) learnCommits(ctx context.Context, admin *kadm.Client, group string) error {
	found, err := admin.FetchOffsets(ctx, group)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		return fmt.Errorf("ask what group %s committed: %w", group, err)
	}
	found.Each(func(answer kadm.OffsetResponse) { r.history.commit(group, answer.Partition, broker.Offset(answer.At)) })
	return nil
}

// askCommits holds what the coordinator answers against what was acknowledged before it was asked (30). It is asked when all is
// well: one that was deposed and does not know may tell of an earlier commit, as a leader may of an earlier end (RH9).
func (r *run) askCommits(ctx context.Context, admin *kadm.Client, group string) {
	low, call := r.history.low(group), r.history.now()
	found, err := admin.FetchOffsets(ctx, group)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		r.wrong("commit-lost", "the coordinator does not tell what is committed: %v", err)
		return
	}
	for partition, least := range low {
		at, ok := found.Lookup(topic, partition)
		if !ok || at.At < int64(least) {
			r.wrong("commit-lost", "partition %d: a commit of %d of group %s was acknowledged before %s, the coordinator tells of %d (%t)", partition, least, group, call, at.At, ok)
		}
	}
}
