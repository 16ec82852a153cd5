package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/millrace-io/millrace/internal/task"
)

// measure is one scenario in one round.
type measure struct {
	System           string   `json:"system"`
	Scenario         string   `json:"scenario"`
	Round            int      `json:"round"`
	Size             int      `json:"size_bytes"`
	Records          int      `json:"records"`
	Seconds          float64  `json:"seconds"`
	BrokerCPUSeconds float64  `json:"broker_cpu_seconds"`
	DriverCPUSeconds float64  `json:"driver_cpu_seconds"`
	ResidentMB       float64  `json:"broker_resident_mb"`
	P50Millis        float64  `json:"p50_ms,omitempty"`
	P99Millis        float64  `json:"p99_ms,omitempty"`
	GuestCalls       *uint64  `json:"guest_calls,omitempty"`
	PrepareSeconds   float64  `json:"prepare_seconds,omitempty"` // binding; not part of Seconds
	Control          *control `json:"control,omitempty"`
}

func (m *measure) perSecond() float64 { return float64(m.Records) / m.Seconds }
func (m *measure) megabytes() float64 { return float64(m.Records) * float64(m.Size) / 1e6 / m.Seconds }

// bench runs the scenarios. It belongs to the driving goroutine.
type bench struct {
	settings
	work     string
	systems  []system
	measures []measure
	log      io.Writer
}

// all runs every round: systems take turns, so that a slow minute meets each of them.
func (b *bench) all(ctx context.Context) error {
	for round := range b.rounds {
		for _, size := range b.sizes {
			for _, s := range b.systems {
				if err := b.round(ctx, s, round, size); err != nil {
					return fmt.Errorf("%s, round %d, %d bytes: %w", s.Name(), round+1, size, err)
				}
			}
		}
	}
	return nil
}

// round runs a system once from start to stop.
func (b *bench) round(ctx context.Context, s system, round, size int) (err error) {
	b.settle(ctx)
	execAt, err := s.Start(ctx)
	if err != nil {
		return errors.Join(err, s.Stop())
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	at := measure{System: s.Name(), Round: round, Size: size}
	if err := b.first(ctx, s, at, execAt); err != nil {
		return err
	}
	for _, partitions := range []int32{1, 6} {
		if err := b.throughput(ctx, s, at, partitions); err != nil {
			return err
		}
	}
	for _, producers := range []int{1, 16} {
		if err := b.latency(ctx, s, at, producers); err != nil {
			return err
		}
	}
	return nil
}

// first measures from exec to the first acknowledged record, making its topic included.
func (b *bench) first(ctx context.Context, s system, at measure, execAt time.Time) error {
	one := load{topic: "first", partitions: 1, records: 1, size: at.Size}
	if err := one.createTopic(ctx, s.Address()); err != nil {
		return err
	}
	if err := one.produce(ctx, s.Address()); err != nil {
		return err
	}
	at.Scenario, at.Records, at.Seconds = "start", 1, time.Since(execAt).Seconds()
	var err error
	at.ResidentMB, err = residentMB(s.Process())
	b.measures = append(b.measures, at)
	return err
}

// throughput writes one topic and reads it: plainly, and through the plugin, never judged and judged.
func (b *bench) throughput(ctx context.Context, s system, at measure, partitions int32) error {
	suffix := fmt.Sprintf("-%dp", partitions)
	produce, consume := "produce"+suffix, "consume"+suffix
	fresh, judged := "consume-never-judged"+suffix, "consume-judged"+suffix
	l := load{topic: "load" + suffix, partitions: partitions, records: b.count(at.Size), size: at.Size}
	at.Records = l.records
	if !b.wanted(produce, consume, fresh, judged) {
		return nil
	}
	if err := l.createTopic(ctx, s.Address()); err != nil {
		return err
	}
	at.Scenario = produce
	disk := func() (control, error) { return diskControl(b.work, l.bytes()) }
	if err := b.step(ctx, s, at, disk, func(*measure) error { return l.produce(ctx, s.Address()) }); err != nil {
		return err
	}
	loop := func() (control, error) { return loopControl(ctx, l.bytes()) }
	if b.wanted(consume, fresh, judged) {
		at.Scenario = consume
		if err := b.step(ctx, s, at, loop, func(*measure) error { return l.consume(ctx, s.Address(), "") }); err != nil {
			return err
		}
	}
	c, ok := s.(chained)
	if !ok || !b.wanted(fresh, judged) {
		return nil
	}
	group := "reader" + suffix
	wasm := func() (control, error) { return judgeControl(ctx, l.size) }
	at.Scenario = fresh
	read := func(*measure) error { return l.consume(ctx, s.Address(), group) }
	// Bound in the last moment, since judging begins at once.
	if err := b.guests(ctx, c, at, wasm, read, func() error { return c.Bind(ctx, group, l.topic) }); err != nil {
		return err
	}
	at.Scenario = judged
	return b.guests(ctx, c, at, loop, read, func() error { return nil })
}

// guests is a step that counts guest calls.
func (b *bench) guests(ctx context.Context, s chained, at measure, side func() (control, error), work func(*measure) error, prepare func() error) error {
	before, err := s.GuestCalls(ctx)
	if err != nil {
		return err
	}
	if err := b.step(ctx, s, at, side, work, prepare); err != nil {
		return err
	}
	after, err := s.GuestCalls(ctx)
	calls := after - before
	m := &b.measures[len(b.measures)-1]
	m.GuestCalls = &calls
	return err
}

// latency has producers write one record after another.
func (b *bench) latency(ctx context.Context, s system, at measure, producers int) error {
	at.Scenario = fmt.Sprintf("one-at-a-time-%d", producers)
	if !b.wanted(at.Scenario) {
		return nil
	}
	l := load{topic: at.Scenario, partitions: 1, size: at.Size}
	if err := l.createTopic(ctx, s.Address()); err != nil {
		return err
	}
	disk := func() (control, error) { return syncControl(b.work) }
	var counted time.Duration
	err := b.step(ctx, s, at, disk, func(m *measure) error {
		took, span, err := oneAtATime(ctx, s.Address(), l.topic, producers, l.size)
		m.Records, counted = len(took), span
		m.P50Millis, m.P99Millis = quantile(took, 0.5), quantile(took, 0.99)
		return err
	})
	if err == nil {
		b.measures[len(b.measures)-1].Seconds = counted.Seconds()
	}
	return err
}

// step measures one piece of work, with the control taken before, and what must come right before it not counted.
func (b *bench) step(
	ctx context.Context, s system, at measure, side func() (control, error), work func(*measure) error, prepare ...func() error,
) error {
	c, err := side()
	if err != nil {
		return fmt.Errorf("control of %s: %w", at.Scenario, err)
	}
	at.Control = &c
	b.settle(ctx)
	profile := b.profileOf(ctx, s, at)
	begin := time.Now()
	for _, f := range prepare {
		if err := f(); err != nil {
			return errors.Join(fmt.Errorf("prepare %s: %w", at.Scenario, err), profile.Wait())
		}
	}
	at.PrepareSeconds = time.Since(begin).Seconds()
	m, err := startUsage(s.Process())
	if err != nil {
		return errors.Join(err, profile.Wait())
	}
	if err := work(&at); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", at.Scenario, err), profile.Wait())
	}
	if err := m.stop(&at); err != nil {
		return err
	}
	b.measures = append(b.measures, at)
	fmt.Fprintf(b.log, "round %d  %5d B  %-26s %10.0f records/s\n", at.Round+1, at.Size, at.Scenario, at.perSecond())
	return profile.Wait()
}

func (b *bench) wanted(scenarios ...string) bool {
	for _, name := range scenarios {
		if b.only.MatchString(name) {
			return true
		}
	}
	return false
}

// profiled is a system whose CPU can be profiled from outside.
type profiled interface{ ProfileURL(seconds int) string }

// profileSeconds is how long a profile runs: about a scenario.
const profileSeconds = 2

// profileOf takes a CPU profile of the broker in the last round, if that was asked for, beside what comes next.
func (b *bench) profileOf(ctx context.Context, s system, at measure) *task.Group {
	group := task.NewGroup(ctx)
	p, ok := s.(profiled)
	if !ok || b.profile == "" || at.Round != b.rounds-1 {
		return group
	}
	name := filepath.Join(b.profile, fmt.Sprintf("%s-%s-%d.pprof", at.System, at.Scenario, at.Size))
	group.Go("profile", func(ctx context.Context) (err error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.ProfileURL(profileSeconds), nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, response.Body.Close()) }()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("the broker answered %s", response.Status)
		}
		if err := os.MkdirAll(b.profile, 0o700); err != nil {
			return err
		}
		file, err := os.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, response.Body)
		return errors.Join(err, file.Close())
	})
	return group
}
