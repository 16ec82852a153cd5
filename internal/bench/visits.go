package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"
)

// part is one scenario, or some that belong together, on one system at rest with an empty directory.
type part struct {
	name    string // as -scenarios has it
	about   string
	seconds float64             // about what it takes on our broker
	slower  map[string]float64  // and on others, where they take longer or less
	when    func(size int) bool // nil: at any size
	run     func(context.Context, *visit) error
}

// itinerary is what is done with one system before the next has its turn. All of its parts together write 600 MB at most.
type itinerary struct {
	parts      []part
	sized      bool              // once for each size
	on         func(system) bool // nil: every system
	peerRounds int               // rounds in which others than our broker take part; 0: all
	pause      bool              // the disk is not given half a minute of rest: little is written, or nothing compared
}

// itineraries are all that can be chosen, in the order of a round.
func itineraries() []itinerary {
	large := func(size int) bool { return size >= 512 }
	return []itinerary{
		{sized: true, parts: []part{
			{name: "load", about: "produce and consume at full speed, one partition and six", seconds: 12,
				slower: map[string]float64{"kafka": 22, "kafka-fsync": 22, "nats": 26, "nats-fsync": 400}, run: loadPart},
			{name: "sync", about: "one record at a time, one producer and sixteen", seconds: 6, slower: map[string]float64{"kafka": 11},
				when: large, run: syncPart},
		}},
		{pause: true, parts: []part{
			{name: "start", about: "exec to the first acknowledged record, three times", seconds: 2, slower: map[string]float64{"kafka": 14},
				run: startPart},
		}},
		{pause: true, peerRounds: 1, parts: []part{
			{name: "idle", about: "memory and CPU at rest, with no topic and with 1,000 partitions", seconds: 35, slower: map[string]float64{
				"kafka": 45, "kfake": 11, "nats": 11, "nats-fsync": 11}, run: idlePart},
			{name: "partitions", about: "10,000 partitions made, and led again after kill -9", seconds: 25, slower: map[string]float64{
				"kafka": 90, "kafka-fsync": 90, "kfake": 0, "nats": 0, "nats-fsync": 0}, run: partitionsPart},
		}},
		{pause: true, sized: true, on: ours, parts: []part{
			{name: "plugin", about: "reading through the built-in dedup by key, never judged and judged, between plain readings", seconds: 80, run: pluginPart},
			{name: "variants", about: "the same with 5 % repeats, batches of 16, zstd, and a Go guest", seconds: 80, run: variantsPart},
		}},
		{pause: true, on: ours, parts: []part{
			{name: "crowd", about: "a steady load alone, and beside 10,000 idle and 1,000 slow connections, while they come and when they are there", seconds: 75, run: crowdPart},
		}},
		{pause: true, on: ours, parts: []part{
			{name: "guests", about: "hostile guests beside a fifth of the peak, in memory", seconds: 260, run: hostilePart},
		}},
	}
}

// visit is one system in one round, at one size.
type visit struct {
	*bench
	system system
	at     measure // what its measures have in common
}

// bench runs the chosen parts. It belongs to the driving goroutine.
type bench struct {
	settings
	work      string
	arguments []string // of the command line
	systems   []system
	measures  []measure
	failures  []string // of visits
	log       io.Writer
	save      func() error // what was measured so far
}

// all runs every round: systems take turns, so that a slow minute meets each of them. A visit that fails is reported, and
// the run goes on without its figures.
func (b *bench) all(ctx context.Context) error {
	err := b.each(func(v *visit, i *itinerary) error {
		if err := b.one(ctx, v, i); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			failure := fmt.Sprintf("%s, round %d, %d bytes: %v", v.system.Name(), v.at.Round+1, v.at.Size, err)
			fmt.Fprintln(b.log, "FAILED:", failure)
			b.failures = append(b.failures, failure)
		}
		return b.save()
	})
	if err == nil && len(b.failures) > 0 {
		err = fmt.Errorf("%d visits failed", len(b.failures))
	}
	return err
}

// each calls f for each visit of the run, in order.
func (b *bench) each(f func(*visit, *itinerary) error) error {
	for round := range b.rounds {
		for _, i := range b.itineraries() {
			sizes := b.sizes
			if !i.sized {
				sizes = b.sizes[:1]
			}
			for _, size := range sizes {
				for _, s := range b.systems {
					if i.on != nil && !i.on(s) || i.peerRounds > 0 && round >= i.peerRounds && !ours(s) || len(b.chosen(&i, size)) == 0 {
						continue
					}
					v := &visit{bench: b, system: s, at: measure{System: s.Name(), Round: round, Size: size}}
					if err := f(v, &i); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

func ours(s system) bool { return s.Name() == "millrace" }

// chosen are the parts that were asked for and make sense at the size.
func (b *bench) chosen(i *itinerary, size int) (parts []part) {
	for _, p := range i.parts {
		if slices.Contains(b.scenarios, p.name) && (p.when == nil || p.when(size)) {
			parts = append(parts, p)
		}
	}
	return parts
}

// one gives the disk its rest, takes the controls and runs the parts.
func (b *bench) one(ctx context.Context, v *visit, i *itinerary) error {
	b.settle(ctx, b.rest(v, i))
	c, err := takeControls(ctx, b.work)
	if err != nil {
		return fmt.Errorf("controls: %w", err)
	}
	v.at.Controls = c
	for _, p := range b.chosen(i, v.at.Size) {
		if err := p.run(ctx, v); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// rest is the idleness before a visit: none to speak of before a system that never touches the disk.
func (b *bench) rest(v *visit, i *itinerary) time.Duration {
	if i.pause || v.system.Name() == "kfake" {
		return min(pause, b.idle)
	}
	return b.idle
}

// pause is a rest in which clocks and writeback settle.
const pause = 2 * time.Second

// settle syncs and waits.
func (b *bench) settle(ctx context.Context, rest time.Duration) {
	syscall.Sync()
	select {
	case <-time.After(rest):
	case <-ctx.Done():
	}
}

// estimate is about how long the run takes.
func (b *bench) estimate() time.Duration {
	total := time.Duration(0)
	_ = b.each(func(v *visit, i *itinerary) error { // f never fails
		total += b.rest(v, i) + time.Second
		for _, p := range b.chosen(i, v.at.Size) {
			seconds := p.seconds
			if slower, ok := p.slower[v.system.Name()]; ok {
				seconds = slower
			}
			total += time.Duration(seconds * float64(time.Second))
		}
		return nil
	})
	return total
}

// fresh runs work on the system, started with an empty directory, and stops it.
func (v *visit) fresh(ctx context.Context, work func(execAt time.Time) error) (err error) {
	execAt, err := v.system.Start(ctx)
	defer func() { err = errors.Join(err, v.system.Stop()) }()
	if err != nil {
		return err
	}
	return work(execAt)
}

// step measures one piece of work. A time that work fills in counts instead of the whole.
func (v *visit) step(ctx context.Context, scenario string, work func(m *measure) error) error {
	m := v.at
	m.Scenario = scenario
	profile := v.profileOf(ctx, v.system, m)
	used, err := startUsage(v.system.Processes())
	if err == nil {
		err = work(&m)
	}
	counted := m.Seconds
	if err == nil {
		err = used.stop(&m)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", scenario, err), profile.Wait())
	}
	if counted > 0 {
		m.Seconds = counted
	}
	v.keep(m)
	return profile.Wait()
}

// keep adds a measure and shows it.
func (v *visit) keep(m measure) {
	v.measures = append(v.measures, m)
	fmt.Fprintf(v.log, "round %d  %5d B  %-11s %-24s %s\n", m.Round+1, m.Size, m.System, m.Scenario, m.figure())
}
