package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/coordinator"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/replica"
	"github.com/millrace-io/millrace/internal/vfs"
)

// survey starts a node on what a disk holds and compares what it finds with what deeds promised. files is the disk as a
// process has it.
type survey struct {
	config Config
	deeds  []deed
	// tolerates, if not nil, says whether trouble of one partition is what a damaged disk may cause.
	tolerates func(error) bool
	note      func(deed) // told what the survey itself does; may be nil

	node  *Node
	found map[place][]stored // by topic name
	lost  []error            // what was tolerated
}

// run is a whole survey. It stops the node cleanly, unless the process is killed before.
func (s *survey) run(files vfs.FS) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	promised := fold(s.deeds)
	if !promised.formatted {
		if err := EnsureFormatted(files, s.config, time.Now()); err != nil {
			return fmt.Errorf("init again: %w", err)
		}
	}
	var log *journal
	if s.node, log, err = startOn(ctx, files, s.config); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err = s.look(ctx, promised); err == nil {
		err = s.goOn(ctx)
	}
	if stopErr := s.node.Stop(); stopErr != nil {
		err = errors.Join(err, fmt.Errorf("stop: %w", stopErr))
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, log)
	}
	return nil
}

// look compares everything that a client can see.
func (s *survey) look(ctx context.Context, promised *promises) error {
	image := s.node.quorum.Image()
	for name, last := range promised.topics {
		_, exists := image.TopicNamed(name)
		if last == made && !exists || last == deleted && exists {
			return fmt.Errorf("the last about topic %s was %q; it exists: %v", name, last, exists)
		}
	}
	s.found = map[place][]stored{}
	for topic := range image.Topics() {
		if _, ours := promised.topics[topic.Name]; !ours {
			continue
		}
		for i := range topic.Partitions {
			at := place{topic.Name, int32(i)}
			err := s.lookAt(promised, at, broker.TopicPartition{Topic: topic.ID, Partition: int32(i)})
			if err != nil && s.tolerates != nil && s.tolerates(err) {
				s.lost = append(s.lost, err)
				continue
			}
			if err != nil {
				return err
			}
		}
	}
	if err := s.lookAtCommits(ctx, promised); err != nil {
		for _, failed := range s.node.set.Failed() { // of the offsets topic
			if s.tolerates != nil && s.tolerates(failed.Err) {
				s.lost, err = append(s.lost, failed.Err), nil
			}
		}
		if err != nil {
			return err
		}
	}
	return s.lookAtChain(ctx, promised, image)
}

// lookAt compares one partition.
func (s *survey) lookAt(promised *promises, at place, tp broker.TopicPartition) error {
	r, err := s.node.set.Get(tp)
	if err != nil {
		return err
	}
	if err := r.Err(); err != nil {
		return err
	}
	var found []stored
	for b, err := range (internalLog{r}).Batches(context.Background()) {
		if err != nil {
			return err
		}
		more, err := storedIn(b)
		if err != nil {
			return err
		}
		found = append(found, more...)
	}
	ends := r.Ends()
	for len(found) > 0 && found[0].offset < int64(ends.LogStart) {
		found = found[1:] // of a batch that the log start cuts
	}
	s.found[at] = found
	return promised.checkLog(at, int64(ends.LogStart), int64(ends.HighWatermark), found)
}

func storedIn(b batch.View) ([]stored, error) {
	records, err := b.Records(new(batch.Decompressor))
	if err != nil {
		return nil, err
	}
	var all []stored
	for r := (batch.Record{}); records.Next(&r); {
		all = append(all, stored{int64(b.BaseOffset()) + int64(r.OffsetDelta), string(r.Key), string(r.Value)})
	}
	return all, records.Err()
}

// lookAtCommits expects the last acknowledged commit of each partition, or one that was under way.
func (s *survey) lookAtCommits(ctx context.Context, promised *promises) error {
	for at, possible := range promised.commits {
		ask := coordinator.FetchRequest{Group: runGroup, Partitions: []coordinator.PartitionToFetch{{NamedPartition: group.NamedPartition{Topic: at.topic, Partition: at.partition}}}}
		got, err := s.node.groups.FetchOffsets(ctx, ask)
		if err != nil {
			return fmt.Errorf("commits of %v: %w", at, err)
		}
		is := int64(got[0].Offset)
		ok := is == int64(broker.NoOffset) && !committedTold(s.deeds, at)
		for _, p := range possible {
			ok = ok || p == is
		}
		if !ok {
			return fmt.Errorf("group %s has committed %d of %v, want one of %v", runGroup, is, at, possible)
		}
	}
	return nil
}

// lookAtChain compares the filtered log of the bound group with the oracle.
func (s *survey) lookAtChain(ctx context.Context, promised *promises, image *metadata.Image) error {
	topic, ok := image.TopicNamed("orders")
	if !ok {
		return nil
	}
	binding, ok := image.BindingOf(runGroup, topic.ID)
	switch {
	case !ok && promised.bound:
		return errors.New("the binding is gone")
	case !ok:
		return nil
	}
	for partition := range int32(2) {
		found, readable := s.found[place{"orders", partition}]
		if !readable {
			continue // its damage was reported
		}
		got, err := s.filtered(ctx, binding.ID, broker.TopicPartition{Topic: topic.ID, Partition: partition})
		if err != nil {
			return fmt.Errorf("filtered log of partition %d: %w", partition, err)
		}
		if want := firstOfKeys(found); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("the group is given %v\nof partition %d, the oracle says %v", got, partition, want)
		}
	}
	return nil
}

// filtered reads a filtered log to its end.
func (s *survey) filtered(ctx context.Context, id broker.BindingID, tp broker.TopicPartition) ([]stored, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var log delivery.Filtered
	for { // a chain is taken up a moment after its partition
		var err error
		if log, err = s.node.chains.Filtered(id, tp); err == nil {
			break
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
	changed := make(chan struct{}, 1)
	defer log.Watch(changed)()
	var all []stored
	for from := log.Ends(false).LogStart; ; {
		result, err := log.Read(delivery.FilteredRead{From: from, MaxBytes: 1 << 20, MinOne: true})
		if err != nil {
			return nil, err
		}
		var bytes []byte
		for _, part := range result.Bytes {
			bytes = append(bytes, part...)
		}
		end := result.Size == 0 && result.HighWatermark == from
		result.Release()
		for b, err := range batch.All(bytes) {
			if err != nil {
				return nil, err
			}
			more, err := storedIn(b)
			if err != nil {
				return nil, err
			}
			all, from = append(all, more...), b.NextOffset()
		}
		if end {
			return all, nil
		}
		if len(bytes) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("judged no further than %d: %w: %+v", from, context.Cause(ctx), s.node.chains.Describe(id))
		}
	}
}

// goOn repeats the last batch of each partition, which must be known for one, and appends another.
func (s *survey) goOn(ctx context.Context) error {
	for at := range s.found {
		topic, _ := s.node.quorum.Image().TopicNamed(at.topic)
		r, err := s.node.set.Get(broker.TopicPartition{Topic: topic.ID, Partition: at.partition})
		if err != nil {
			return err
		}
		var last batch.View
		for b, err := range (internalLog{r}).Batches(ctx) {
			if err != nil {
				return err
			}
			last = append(last[:0], b...)
		}
		if last != nil && last.ProducerID() != broker.NoProducerID {
			base := last.BaseOffset()
			last.Stamp(0, 0)
			if got := r.Append(ctx, replica.Append{Batches: last, Acks: replica.AcksAll, LeaderEpoch: broker.NoLeaderEpoch}); got.Err != nil || got.Base != base {
				return fmt.Errorf("a repeat of the batch at %d of %v was put at %d: %w", base, at, got.Base, got.Err)
			}
		}
		b := batch.NewBuilder(batch.Spec{BaseTimestamp: time.Now().UnixMilli()})
		fresh := deed{what: sending, topic: at.topic, partition: at.partition, key: "fresh", value: fmt.Sprintf("~%09d", len(s.deeds)), offset: int64(r.Ends().LogEnd)}
		if err := b.Append(batch.Record{Key: []byte(fresh.key), Value: []byte(fresh.value)}); err != nil {
			return err
		}
		bytes, err := b.Finish()
		if err != nil {
			return err
		}
		s.tell(fresh)
		end := broker.Offset(fresh.offset)
		if got := r.Append(ctx, replica.Append{Batches: bytes, Acks: replica.AcksAll, LeaderEpoch: broker.NoLeaderEpoch}); got.Err != nil || got.Base != end {
			return fmt.Errorf("a record behind %d of %v was put at %d: %w", end, at, got.Base, got.Err)
		}
		fresh.what = sent
		s.tell(fresh)
	}
	return nil
}

func (s *survey) tell(d deed) {
	s.deeds = append(s.deeds[:len(s.deeds):len(s.deeds)], d)
	if s.note != nil {
		s.note(d)
	}
}
