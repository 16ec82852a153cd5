package kafka

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Produce: v3-13 (listed from 0, T1)
//
// Behaviour:
//   - one record batch of format 2 for each partition, checked in full before it is submitted; zstd only from v7 (T10)
//   - requests are pipelined: submitted in order, answered in order, see outbox.go
//   - acks=0 gets no answer, and an error closes the connection (T7); acks other than -1, 0, 1 are refused
//   - idempotence passes through to the partition, which knows the producers
//   - a transactional id, or a batch with the transactional bit, gets TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Java, kgo
//     and librdkafka all take it for fatal, whereas INVALID_TXN_STATE has them abort and try again for ever
//   - control batches get INVALID_RECORD, internal topics INVALID_TOPIC, views POLICY_VIOLATION with the reason
//   - what is not replicated within the request's timeout is answered REQUEST_TIMED_OUT and may still be committed
//   - v8: error messages; v10: current leader and its address (KIP-951); v13: topic ids

// pendingProduce is a Produce request between submission and answer.
type pendingProduce struct {
	session  *session
	header   header
	request  *kmsg.ProduceRequest
	image    *metadata.Image
	frame    frame
	bytes    int
	start    time.Time
	deadline time.Time
	throttle time.Duration
	awaited  bool // nobody needs the session's goroutine before this is answered

	outcomes []produceOutcome
	open     atomic.Int32 // outcomes that are missing, and one for the submission itself
}

// produceOutcome is what became of one partition's batch. done is set last, so that a late outcome is never half read.
type produceOutcome struct {
	topic, partition int // positions in the request
	target           target
	appended         Appended
	done             atomic.Bool
}

// produce checks and submits a request and puts it into the outbox. It takes the frame.
func (s *session) produce(ctx context.Context, h header, req *kmsg.ProduceRequest, f *frame, start time.Time) error {
	p := &pendingProduce{
		session: s, header: h, request: req, image: s.Metadata.Image(), frame: *f, bytes: len(f.body), start: start,
	}
	*f = frame{}
	p.deadline = start.Add(min(time.Duration(max(req.TimeoutMillis, 0))*time.Millisecond, s.Limits.ProduceWaitMax))
	count := 0
	for i := range req.Topics {
		count += len(req.Topics[i].Partitions)
	}
	p.outcomes = make([]produceOutcome, count)
	p.open.Store(int32(count) + 1)
	p.awaited = count == 1 && s.awaits(p) && !s.work.on // a sync is no work of the client's
	o := 0
	for i := range req.Topics {
		topic := &req.Topics[i]
		found, code := s.resolve(p.image, req.Version >= 13, topic.TopicID, topic.Topic)
		for j := range topic.Partitions {
			outcome := &p.outcomes[o]
			o++
			outcome.topic, outcome.partition, outcome.target = i, j, found
			if code != broker.None {
				p.settle(outcome, Appended{Err: code})
				continue
			}
			p.submit(ctx, outcome, &topic.Partitions[j])
		}
	}
	s.throttle = s.use(metadata.ProducerByteRate, float64(p.bytes))
	s.chargeWork()
	p.throttle = s.throttle
	if err := s.outbox.add(p); err != nil || s.throttle == 0 {
		return err
	}
	return s.outbox.drain() // the answer goes out before the client is held
}

// awaits reports that the client waits for p's answer, as far as one can see: nothing before p is unanswered, and nothing had
// come behind it when it was read. The goroutine that would read more may as well sync.
func (s *session) awaits(p *pendingProduce) bool {
	return !p.silent() && p.bytes < readBufferBytes && s.reader.Buffered() == 0 && s.outbox.empty()
}

// submit checks one partition's batch and hands it to the partition.
func (p *pendingProduce) submit(ctx context.Context, outcome *produceOutcome, rp *kmsg.ProduceRequestTopicPartition) {
	view, err := p.check(ctx, outcome.target, rp)
	if err != nil {
		p.settle(outcome, Appended{Err: err})
		return
	}
	partition, err := p.session.Partitions.Partition(outcome.target.partition(rp.Partition))
	if err != nil {
		p.settle(outcome, Appended{Err: err})
		return
	}
	size, count := view.Len(), int64(view.Count())
	submit := partition.Submit
	if p.awaited {
		submit = partition.SubmitAndSync
	}
	submit(Append{Batches: view, Acks: p.request.Acks}, func(a Appended) {
		if a.Err == nil {
			p.session.Metrics.Produced(outcome.target.name, size, count)
		}
		p.settle(outcome, a)
	})
}

// check refuses what a client may not write, then everything that a reader could stumble over.
func (p *pendingProduce) check(ctx context.Context, t target, rp *kmsg.ProduceRequestTopicPartition) (batch.View, error) {
	req := p.request
	switch {
	case req.TransactionID != nil:
		return nil, broker.Errorf(broker.TransactionalIDAuthFailed, "transactions are not supported")
	case req.Acks < -1 || req.Acks > 1:
		return nil, broker.Errorf(broker.InvalidRequiredAcks, "acks is %d; -1, 0 and 1 are allowed", req.Acks)
	case t.view != nil:
		return nil, broker.Errorf(broker.PolicyViolation, "%q is a view and read-only; produce to %q", t.name, t.topic.Name)
	case t.topic.Internal:
		return nil, broker.Errorf(broker.InvalidTopic, "topic %q is internal; clients may only read it", t.name)
	}
	if _, exists := p.image.Partition(t.partition(rp.Partition)); !exists {
		return nil, broker.UnknownTopicOrPartition
	}
	view, err := batch.Parse(rp.Records)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, broker.Errorf(broker.InvalidRecord, "the record batch is cut short")
	case err != nil:
		return nil, err
	case len(view) != len(rp.Records):
		return nil, broker.Errorf(broker.InvalidRecord, "a partition of a produce request holds exactly one record batch")
	case view.Transactional():
		return nil, broker.Errorf(broker.TransactionalIDAuthFailed, "transactions are not supported")
	case view.Control():
		return nil, broker.Errorf(broker.InvalidRecord, "clients may not write control batches")
	case view.Codec() == batch.Zstd && req.Version < 7:
		return nil, broker.Errorf(broker.UnsupportedCompressionType, "zstd needs produce version 7 or later")
	}
	limits := batch.Limits{
		BatchBytesMax:        p.session.batchBytesMax(p.image, t.topic.Name),
		DecompressedBytesMax: p.session.Limits.DecompressedBytesMax,
		KeysRequired:         p.image.Compacted(t.topic.Name),
	}
	limits.TimestampMinMs, limits.TimestampMaxMs = timestampBounds(p.image, t.topic.Name, p.start.UnixMilli())
	return view, p.session.validate(ctx, view, limits)
}

// validate runs the full check of a batch, a compressed one behind the gate.
func (s *session) validate(ctx context.Context, view batch.View, limits batch.Limits) error {
	if view.Codec() != batch.None && s.Gate != nil {
		s.work.stop()
		leave, err := s.Gate(ctx)
		if s.work.start(); err != nil {
			return broker.Errorf(broker.RequestTimedOut, "the broker is stopping")
		}
		defer leave()
	}
	d := s.decompress.Get().(*batch.Decompressor)
	defer s.decompress.Put(d)
	return batch.Validate(view, limits, d)
}

// settle records an outcome. It may be called on any goroutine, once for each.
func (p *pendingProduce) settle(outcome *produceOutcome, a Appended) {
	outcome.appended = a
	outcome.done.Store(true)
	p.settled()
}

// settled counts an outcome, or the end of the submission, and wakes the outbox with the last.
func (p *pendingProduce) settled() {
	if p.open.Add(-1) == 0 {
		p.session.outbox.poke()
	}
}

// answered reports whether every outcome is known.
func (p *pendingProduce) answered() bool { return p.open.Load() == 0 }

// silent reports that the request gets no answer.
func (p *pendingProduce) silent() bool { return p.request.Acks == 0 }

// failed reports whether any partition refused.
func (p *pendingProduce) failed() bool {
	for i := range p.outcomes {
		if p.outcome(i).Err != nil {
			return true
		}
	}
	return false
}

// outcome returns what became of a partition, or that it took too long.
func (p *pendingProduce) outcome(i int) Appended {
	if o := &p.outcomes[i]; o.done.Load() {
		return o.appended
	}
	return Appended{Err: broker.RequestTimedOut}
}

func (p *pendingProduce) code() broker.Code {
	for i := range p.outcomes {
		if err := p.outcome(i).Err; err != nil {
			return broker.CodeOf(err)
		}
	}
	return broker.None
}

// finish gives the frame back, unless a partition may still be reading it.
func (p *pendingProduce) finish() {
	if p.answered() {
		p.frame.release()
	}
}

// encode makes the response.
func (p *pendingProduce) encode() []byte {
	req := p.request
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	resp.Topics = make([]kmsg.ProduceResponseTopic, len(req.Topics))
	hints := leaderHints{session: p.session, image: p.session.Metadata.Image()}
	for i := range req.Topics {
		rt := &resp.Topics[i]
		rt.Topic, rt.TopicID = req.Topics[i].Topic, req.Topics[i].TopicID
		rt.Partitions = make([]kmsg.ProduceResponseTopicPartition, 0, len(req.Topics[i].Partitions))
	}
	for i := range p.outcomes {
		o, a := &p.outcomes[i], p.outcome(i)
		sp := kmsg.NewProduceResponseTopicPartition()
		sp.Partition = req.Topics[o.topic].Partitions[o.partition].Partition
		if a.Err != nil {
			code := broker.CodeOf(a.Err)
			sp.ErrorCode, sp.ErrorMessage = int16(code), message(a.Err)
			sp.BaseOffset = -1
			if leader, ok := hints.hint(code, o.target, sp.Partition); ok && req.Version >= 10 {
				sp.CurrentLeader.LeaderID, sp.CurrentLeader.LeaderEpoch = leader.LeaderID, leader.LeaderEpoch
			}
		} else {
			sp.BaseOffset, sp.LogAppendTime, sp.LogStartOffset = int64(a.Base), a.AppendTimeMs, int64(a.LogStart)
		}
		rt := &resp.Topics[o.topic]
		rt.Partitions = append(rt.Partitions, sp)
	}
	for _, b := range hints.brokers() {
		sb := kmsg.NewProduceResponseBroker()
		sb.NodeID, sb.Host, sb.Port, sb.Rack = b.NodeID, b.Host, b.Port, b.Rack
		resp.Brokers = append(resp.Brokers, sb)
	}
	resp.ThrottleMillis = throttleMillis(p.throttle)
	return appendResponse(nil, p.header, resp)
}
