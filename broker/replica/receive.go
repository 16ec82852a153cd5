package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/replica/wire"
)

// frameBytesSmall is the size from which on a frame counts against the node's receive memory.
const frameBytesSmall = 64 << 10

// errFlood ends a session whose leader sends more than it was given room for.
var errFlood = errors.New("the leader sends more than its window")

// read takes frames from one stream and gives each to the owner of its partition. It never waits for a partition (RH13):
// what it brings goes into an inbox, and the window bounds how much of that there is.
func (s *upSession) read(ctx context.Context, in *wire.Reader) error {
	var marks []wire.Mark
	for {
		t, n, err := in.Next()
		if err != nil {
			return fmt.Errorf("leader %d: %w", s.leader, err)
		}
		if t == wire.TypeData {
			if err := s.readData(ctx, in, n); err != nil {
				return err
			}
			continue
		}
		body, err := in.Body(n)
		if err != nil {
			return err
		}
		if t == wire.TypeMarks {
			if marks, err = wire.DecodeMarks(marks[:0], body); err == nil {
				s.takeMarks(marks)
			}
		} else {
			err = s.takeFrame(t, body)
		}
		if err != nil {
			return fmt.Errorf("leader %d: %w", s.leader, err)
		}
	}
}

// find returns a subscription that is not over, or counts a late frame.
func (s *upSession) find(sub partition.SubscriptionID) *incoming {
	s.mu.Lock()
	in := s.subs[sub]
	s.mu.Unlock()
	if in == nil {
		s.links.counts.lateFrames.Add(1)
	}
	return in
}

func (s *upSession) takeFrame(t wire.Type, body []byte) error {
	switch t {
	case wire.TypeOK:
		var ok wire.OK
		if err := ok.Decode(body); err != nil {
			return err
		}
		if in := s.find(ok.Subscription); in != nil && s.first(in) {
			in.replica.post(func() { in.replica.onLive(s, ok) })
		}
	case wire.TypeMove:
		var move wire.Move
		if err := move.Decode(body); err != nil {
			return err
		}
		return s.takeMove(move)
	case wire.TypeCut:
		var cut wire.Cut
		if err := cut.Decode(body); err != nil {
			return err
		}
		if in := s.find(cut.Subscription); in != nil {
			s.forget(in.replica, cut.Subscription)
			in.replica.postAside(func() { in.replica.onCut(s, cut) })
		}
	case wire.TypeReset:
		var reset wire.Reset
		if err := reset.Decode(body); err != nil {
			return err
		}
		if in := s.find(reset.Subscription); in != nil {
			s.forget(in.replica, reset.Subscription)
			in.replica.postAside(func() { in.replica.onReset(s, reset) })
		}
	case wire.TypeEnd:
		var end wire.End
		if err := end.Decode(body); err != nil {
			return err
		}
		if in := s.find(end.Subscription); in != nil {
			s.forget(in.replica, end.Subscription)
			in.replica.post(func() { in.replica.onEnd(s, end) })
		}
	default:
		return fmt.Errorf("%w: %s from a leader", wire.ErrMalformed, t)
	}
	return nil
}

// first reports that this is the first OK of a subscription.
func (s *upSession) first(in *incoming) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := in.answered
	in.answered = true
	return !was
}

func (s *upSession) takeMove(move wire.Move) error {
	in := s.find(move.Subscription)
	if in == nil {
		return nil
	}
	s.mu.Lock()
	again := in.moving
	in.moving = true
	s.mu.Unlock()
	if again {
		return fmt.Errorf("%w: MOVE before the last one was answered", wire.ErrMalformed)
	}
	in.replica.post(func() { in.replica.onMove(s, move) })
	return nil
}

// takeMarks merges marks into the latest of each subscription.
func (s *upSession) takeMarks(marks []wire.Mark) {
	for _, m := range marks {
		in := s.find(m.Subscription)
		if in == nil {
			continue
		}
		s.mu.Lock()
		in.mark = wire.Mark{
			Subscription: m.Subscription, HighWatermark: max(in.mark.HighWatermark, m.HighWatermark), Start: max(in.mark.Start, m.Start),
		}
		under := in.marked
		in.marked = true
		s.mu.Unlock()
		if !under {
			in.replica.post(func() { in.replica.onMark(s, in) })
		}
	}
}

// takeMark is for the owner.
func (s *upSession) takeMark(in *incoming) wire.Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	in.marked = false
	return in.mark
}

// readData reads a DATA frame and puts it into the inbox of its partition, with the memory that it lies in.
func (s *upSession) readData(ctx context.Context, in *wire.Reader, n int) error {
	p := &pushed{session: s, counted: n > frameBytesSmall}
	if p.counted {
		if err := s.links.memory.take(ctx, int64(n), s.links.cfg.ReceiveBytesMax); err != nil {
			return err
		}
		p.bytes = int64(n)
	}
	p.memory = s.links.frames.get(n)
	var err error
	*p.memory, err = in.Into(*p.memory, n)
	if err == nil {
		err = p.Decode(*p.memory)
	}
	if err != nil {
		p.release()
		return fmt.Errorf("leader %d: %w", s.leader, err)
	}
	to := s.find(p.Subscription)
	if to == nil {
		p.release()
		return nil
	}
	size := int64(len(p.Batches))
	s.links.counts.received.Add(size)
	s.mu.Lock()
	flood := to.bytes > 0 && to.bytes+size > subscriptionBytesMax
	to.bytes += size
	s.mu.Unlock()
	if flood {
		p.release()
		return errFlood
	}
	p.to, p.size = to, size
	if !to.replica.post(func() { to.replica.onData(p) }) {
		p.release()
	}
	return nil
}

// pushed is a DATA frame with its memory. release gives everything back.
type pushed struct {
	wire.Data
	session *upSession
	to      *incoming
	size    int64 // of the batches
	memory  *[]byte
	counted bool
	bytes   int64
}

func (p *pushed) release() {
	if p.to != nil {
		p.session.mu.Lock()
		p.to.bytes -= p.size
		p.session.mu.Unlock()
	}
	if p.counted {
		p.session.links.memory.give(p.bytes)
	}
	p.Batches = nil
	p.session.links.frames.put(p.memory)
	p.memory = nil
}
