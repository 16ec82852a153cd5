package golden

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Pair is a question with both answers and what differs in them.
type Pair struct {
	Kafka, Ours Exchange
	Found       []Difference
}

// Brokers are the addresses of the two.
type Brokers struct{ Kafka, Ours string }

// Ask asks both brokers everything. Both must be new, have an authorizer, and take who asks for a superuser.
func Ask(ctx context.Context, brokers Brokers) ([]Pair, error) {
	return ask(ctx, brokers, func(s *script) error {
		if err := s.prepare(); err != nil {
			return err
		}
		return s.tellAll()
	})
}

// ask has two scripts told the same, one after the other, and compares what they got.
func ask(ctx context.Context, brokers Brokers, tell func(*script) error) ([]Pair, error) {
	started := time.Now()
	kafka, err := open(ctx, brokers.Kafka, started)
	if err != nil {
		return nil, err
	}
	defer kafka.close()
	ours, err := open(ctx, brokers.Ours, started)
	if err != nil {
		return nil, err
	}
	defer ours.close()
	both := common(kafka.listed, ours.listed)
	for _, s := range []*script{kafka, ours} {
		s.both = both
		if err := tell(s); err != nil {
			return nil, err
		}
	}
	if len(kafka.log) != len(ours.log) {
		return nil, fmt.Errorf("%d questions to one and %d to the other", len(kafka.log), len(ours.log))
	}
	pairs := make([]Pair, len(kafka.log))
	for i := range pairs {
		pairs[i] = Pair{Kafka: kafka.log[i], Ours: ours.log[i], Found: Compare(kafka.log[i], ours.log[i])}
	}
	return pairs, nil
}

// common is what both list and kmsg can encode.
func common(a, b map[int16]span) map[int16]span {
	both := map[int16]span{}
	for key, one := range a {
		two, ok := b[key]
		req := kmsg.RequestForKey(key)
		if !ok || req == nil {
			continue
		}
		if s := (span{max(one.min, two.min), min(one.max, two.max, req.MaxVersion())}); s.min <= s.max {
			both[key] = s
		}
	}
	return both
}
