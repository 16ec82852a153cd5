package main

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/internal/task"
)

const (
	behindBytes = 1_000_000_000
	besideSpan  = 6 * time.Second // of the load alone
)

// trioCatchUpPart measures how fast a follower that is a gigabyte behind comes back beside a load of 20,000 records a second,
// what that does to the load, and, beside the same load, one raw QUIC stream.
func trioCatchUpPart(ctx context.Context, v *visit) error {
	return v.fresh(ctx, func(time.Time) error {
		s, d := v.system.(clustered), v.system.Driver().(kafkaDriver)
		l := load{topic: trioCatchUp, partitions: 1, records: behindBytes / v.at.Size / v.shorter, size: v.at.Size}
		if err := d.createAssigned(ctx, l.topic, [][]int32{{1, 2, trioNodes}}); err != nil {
			return err
		}
		if err := d.whole(ctx, l.topic); err != nil {
			return err
		}
		err := v.beside(ctx, d, trioCatchUp+"-load-alone", func(ctx context.Context) error { wait(ctx, besideSpan); return nil })
		if err != nil {
			return err
		}
		err = v.beside(ctx, d, trioCatchUp+"-load-raw", func(ctx context.Context) error {
			took, err := rawStream(ctx)
			v.moved(trioCatchUp+"-raw", rawBytes, took)
			return err
		})
		if err != nil {
			return err
		}
		if err := s.Signal(trioNodes, syscall.SIGTERM); err != nil {
			return err
		}
		if err := d.Produce(ctx, l); err != nil {
			return err
		}
		return v.beside(ctx, d, trioCatchUp+"-load-beside", func(ctx context.Context) error {
			began, err := s.StartNode(ctx, trioNodes)
			if err == nil {
				err = s.Whole(ctx, l.topic)
			}
			v.moved(trioCatchUp, l.records*l.size, time.Since(began))
			return err
		})
	})
}

// moved keeps how long bytes took, as records of the visit's size.
func (v *visit) moved(scenario string, bytes int, took time.Duration) {
	m := v.at
	m.Scenario, m.Records, m.Seconds = scenario, bytes/v.at.Size, took.Seconds()
	v.keep(m)
}

// beside writes at the rate for as long as f works. f has the visit to itself meanwhile.
func (v *visit) beside(ctx context.Context, d kafkaDriver, scenario string, f func(context.Context) error) error {
	return v.step(ctx, scenario, func(m *measure) error {
		group, over := task.NewGroup(ctx), make(chan struct{})
		group.Go("beside the load", func(ctx context.Context) error {
			defer close(over)
			return f(ctx)
		})
		goOn := func(time.Duration) bool {
			select {
			case <-over:
				return false
			default:
				return true
			}
		}
		found, err := d.openLoopWhile(ctx, trioCatchUp, v.at.Size, openRate, goOn, kgo.ProducerLinger(0))
		m.Records, m.Seconds, m.P50Millis, m.P99Millis, m.LateP99Millis = found.Records, found.Seconds, found.P50, found.P99, found.LateP99
		return errors.Join(err, group.Wait())
	})
}
