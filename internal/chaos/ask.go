package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/internal/task"
)

// answer is what a leader told an asker of its partition: where the committed log ends, and records from an offset on. The
// leader's epoch is known, since each question names it, and a node that leads in another does not answer.
type answer struct {
	call, ret  time.Duration // on the ledger's clock
	epoch      int32
	from       int64 // noFrom where the end alone was asked for
	values     []string
	high       int64
	outOfRange bool // nothing is said to lie at from, and no end
}

const noFrom = -1

// asker asks the leader of one partition all the time. Its answers are its goroutine's until that has ended.
type asker struct {
	partition int32
	client    *kgo.Client
	ledger    *ledger
	random    *rand.Rand
	answers   []answer
	high      int64 // the highest end that it was told
}

// leadership is who is believed to lead a partition.
type leadership struct {
	node  int32
	epoch int32
	topic kadm.TopicID
}

const (
	askEvery = 100 * time.Millisecond
	// beliefs is for how many questions an asker believes in a leader that goes on answering: one that was deposed may.
	beliefs = 30
	// askBytes is how much a Fetch may bring: a few batches.
	askBytes = 2048
)

func startAskers(tasks *task.Group, seeds []string, l *ledger, seed uint64) (all []*asker, err error) {
	for partition := range int32(partitions) {
		a := &asker{partition: partition, ledger: l, random: rand.New(rand.NewPCG(seed, 50+uint64(partition)))}
		if a.client, err = kgo.NewClient(append(quickly(), kgo.SeedBrokers(seeds...))...); err != nil {
			return all, err
		}
		all = append(all, a)
		tasks.Go(fmt.Sprintf("asker of partition %d", partition), a.run)
	}
	return all, nil
}

func (a *asker) run(ctx context.Context) error {
	defer a.client.Close()
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	var leader leadership
	for left := 0; ; left-- {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		askCtx, cancel := context.WithTimeout(ctx, soon)
		var err error
		if left <= 0 {
			if leader, err = a.leader(askCtx); err == nil {
				left = beliefs
			}
		}
		if err == nil {
			err = a.ask(askCtx, leader)
		}
		cancel()
		if err != nil {
			left = 0 // nobody answers while leaders change
		}
	}
}

func (a *asker) leader(ctx context.Context) (leadership, error) {
	m, err := kadm.NewClient(a.client).Metadata(ctx, topic)
	if err != nil {
		return leadership{}, err
	}
	p, ok := m.Topics[topic].Partitions[a.partition]
	if !ok || p.Leader < 0 || p.Err != nil {
		return leadership{}, fmt.Errorf("partition %d has no leader", a.partition)
	}
	return leadership{p.Leader, p.LeaderEpoch, m.Topics[topic].ID}, nil
}

// ask asks once: for the end, for what lies near it, or for what lies anywhere.
func (a *asker) ask(ctx context.Context, leader leadership) (err error) {
	got := answer{epoch: leader.epoch, from: noFrom, call: a.ledger.now()}
	switch choice := a.random.IntN(4); choice {
	case 0:
		err = a.askEnd(ctx, leader, &got)
	case 1:
		got.from = a.random.Int64N(a.high + 1)
		err = a.askRecords(ctx, leader, &got)
	default:
		got.from = max(0, a.high-a.random.Int64N(20))
		err = a.askRecords(ctx, leader, &got)
	}
	if err != nil {
		return err
	}
	got.ret = a.ledger.now()
	a.high = max(a.high, got.high)
	a.answers = append(a.answers, got)
	return nil
}

func (a *asker) askEnd(ctx context.Context, leader leadership, got *answer) error {
	part := kmsg.NewListOffsetsRequestTopicPartition()
	part.Partition, part.CurrentLeaderEpoch, part.Timestamp = a.partition, leader.epoch, -1
	of := kmsg.NewListOffsetsRequestTopic()
	of.Topic, of.Partitions = topic, append(of.Partitions, part)
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.Topics = -1, append(req.Topics, of)
	response, err := a.client.Broker(int(leader.node)).Request(ctx, req)
	if err != nil {
		return err
	}
	resp := response.(*kmsg.ListOffsetsResponse)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return fmt.Errorf("%d topics are answered", len(resp.Topics))
	}
	p := resp.Topics[0].Partitions[0]
	got.high = p.Offset
	return kerr.ErrorForCode(p.ErrorCode)
}

func (a *asker) askRecords(ctx context.Context, leader leadership, got *answer) error {
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.CurrentLeaderEpoch, part.FetchOffset, part.PartitionMaxBytes = a.partition, leader.epoch, got.from, askBytes
	of := kmsg.NewFetchRequestTopic()
	of.Topic, of.TopicID, of.Partitions = topic, leader.topic, append(of.Partitions, part)
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MinBytes, req.MaxBytes, req.Topics = -1, 1, askBytes, append(req.Topics, of)
	response, err := a.client.Broker(int(leader.node)).Request(ctx, req)
	if err != nil {
		return err
	}
	resp := response.(*kmsg.FetchResponse)
	if resp.ErrorCode != 0 || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return fmt.Errorf("%d topics are answered: %w", len(resp.Topics), kerr.ErrorForCode(resp.ErrorCode))
	}
	p := &resp.Topics[0].Partitions[0]
	if p.ErrorCode == kerr.OffsetOutOfRange.Code {
		got.outOfRange = true
		return nil
	}
	read, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: topic, Partition: a.partition, Offset: got.from},
		p, kgo.DefaultDecompressor(), nil)
	got.high = read.HighWatermark
	for _, r := range read.Records {
		got.values = append(got.values, string(r.Value))
	}
	return read.Err
}
