package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

const (
	strikesPerRound  = 3 // nine over three rounds
	restartsPerRound = 3
	trioTopic        = "kept"
)

// strikes are the kinds of a part, in order.
type strikes struct {
	scenario string
	strike
	on func(system) bool // nil: every system
}

// trioKillPart kills leaders.
func trioKillPart(ctx context.Context, v *visit) error {
	likeKafka := func(s system) bool { return s.Name() != "nats" }
	return v.struck(ctx, []strikes{
		{scenario: trioKill + "-leader", strike: strike{signal: syscall.SIGKILL}},
		{scenario: trioKill + "-both", strike: strike{signal: syscall.SIGKILL, both: true}, on: likeKafka},
		{scenario: trioKill + "-defaults", strike: strike{signal: syscall.SIGKILL, defaults: true}, on: likeKafka},
	})
}

// trioPausePart stops leaders without ending them.
func trioPausePart(ctx context.Context, v *visit) error {
	return v.struck(ctx, []strikes{{scenario: trioPause + "-leader", strike: strike{signal: syscall.SIGSTOP}}})
}

// struck strikes again and again, each time at a whole cluster.
func (v *visit) struck(ctx context.Context, kinds []strikes) error {
	return v.fresh(ctx, func(time.Time) error {
		s := v.system.(clustered)
		for _, kind := range kinds {
			if kind.on != nil && !kind.on(v.system) {
				continue
			}
			for n := range max(1, strikesPerRound/v.shorter) {
				kind.topic, kind.size = fmt.Sprintf("%s-%d", kind.scenario, n), v.at.Size
				found, err := s.Strike(ctx, kind.strike)
				if err != nil {
					return fmt.Errorf("%s: %w", kind.scenario, err)
				}
				m := v.at
				m.Scenario, m.Seconds = kind.scenario, found.Gap
				v.keep(m)
				if err = errors.Join(undo(ctx, s, kind.strike, found.Node), s.Whole(ctx, kind.topic)); err != nil {
					return fmt.Errorf("%s: after it: %w", kind.scenario, err)
				}
			}
		}
		return nil
	})
}

// undo makes a broker that was struck serve again.
func undo(ctx context.Context, on clustered, s strike, node int) error {
	switch {
	case s.cut:
		on.Heal()
		return nil
	case s.signal == syscall.SIGSTOP:
		return on.Signal(node, syscall.SIGCONT)
	}
	_, err := on.StartNode(ctx, node)
	return err
}

// trioRestartPart ends all nodes and starts them together, from which the time counts until all replicas are in sync and a
// record is acknowledged.
func trioRestartPart(ctx context.Context, v *visit) error {
	return v.fresh(ctx, func(time.Time) error {
		s := v.system.(clustered)
		d := s.Driver()
		l := load{topic: trioTopic, partitions: strikePartitions, records: v.count(v.at.Size) / warmShare, size: v.at.Size}
		one := l
		one.records = 1
		if err := d.CreateTopic(ctx, l.topic, l.partitions); err != nil {
			return err
		}
		if err := d.Produce(ctx, l); err != nil {
			return err
		}
		for range max(1, restartsPerRound/v.shorter) {
			for node := range trioNodes {
				if err := s.Signal(node+1, syscall.SIGKILL); err != nil {
					return err
				}
			}
			began := time.Now()
			for node := range trioNodes {
				if _, err := s.StartNode(ctx, node+1); err != nil {
					return err
				}
			}
			if err := s.Whole(ctx, l.topic); err != nil {
				return err
			}
			if err := d.Produce(ctx, one); err != nil {
				return err
			}
			m := v.at
			m.Scenario, m.Seconds = trioRestart, time.Since(began).Seconds()
			var err error
			m.ResidentMB, err = residentMB(s.Processes()...)
			v.keep(m)
			if err != nil {
				return err
			}
		}
		return nil
	})
}
