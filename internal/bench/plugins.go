package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/plugins"
)

// chained is a way of reading through a plugin that is compared with reading plainly.
type chained struct {
	name    string
	plugin  string
	writing writing
	divide  int // the history is so many times smaller
	pairs   int // readings of each kind
}

// pluginVariants are printed beside the built-in dedup by key on batches as kgo makes them.
func pluginVariants() []chained {
	return []chained{
		{name: "repeats5", plugin: "dedup-key", writing: writing{repeats: 20}, divide: 1, pairs: 1},
		{name: "batch16", plugin: "dedup-key", writing: writing{batchRecords: 16}, divide: 4, pairs: 1},
		{name: "zstd", plugin: "dedup-key", writing: writing{zstd: true}, divide: 2, pairs: 1},
		{name: "goguest", plugin: guestName, divide: 1, pairs: 1},
	}
}

// pluginPairs is how often a round reads a history in each way.
const pluginPairs = 2

// history is how many records a reading has: three seconds of them or more, so that what begins and ends it weighs little.
// It lies in the page cache: 2.7 GB at most.
func (s *settings) history(size int) int {
	switch {
	case s.records > 0:
		return s.records
	case size >= 512:
		return 2_500_000
	}
	return 10_000_000
}

// pluginPart compares reading through a plugin, never judged and judged, with reading plainly.
func pluginPart(ctx context.Context, v *visit) error {
	for _, partitions := range v.partitions {
		if err := v.plugin(ctx, chained{plugin: "dedup-key", divide: 1, pairs: pluginPairs}, int32(partitions)); err != nil {
			return err
		}
	}
	return nil
}

// variantsPart does the same with other batches and another plugin.
func variantsPart(ctx context.Context, v *visit) error {
	for _, c := range pluginVariants() {
		if err := v.plugin(ctx, c, 1); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// plugin writes a topic on a broker of its own and reads it, plainly in every other turn: a reading through the plugin is
// held against the mean of the plain ones right before and behind it.
func (v *visit) plugin(ctx context.Context, c chained, partitions int32) error {
	m, ok := v.system.(*millrace)
	if !ok {
		return nil
	}
	suffix := fmt.Sprintf("-%dp", partitions)
	if c.name != "" {
		suffix = "-" + c.name + suffix
	}
	l := load{topic: "plugin" + suffix, partitions: partitions, records: max(v.history(v.at.Size)/c.divide, 100), size: v.at.Size, writing: c.writing}
	return v.fresh(ctx, func(time.Time) error {
		if c.plugin == guestName {
			if err := m.pushGuest(ctx); err != nil {
				return err
			}
		}
		d := m.Driver()
		if err := d.CreateTopic(ctx, l.topic, l.partitions); err != nil {
			return err
		}
		if err := d.Produce(ctx, l); err != nil {
			return err
		}
		if err := d.Consume(ctx, l); err != nil { // warms client and broker
			return err
		}
		p := &paired{visit: v, broker: m, how: c, suffix: suffix, load: l}
		plain, err := p.read(ctx, pluginOff, l)
		if err != nil {
			return err
		}
		for turn := range c.pairs {
			if plain, err = p.turn(ctx, turn, plain); err != nil {
				return err
			}
		}
		return nil
	})
}

// paired is one history that is read in turns.
type paired struct {
	*visit
	how    chained
	broker *millrace
	suffix string
	load   load
}

// turn reads the history through a new binding that shares no verdict with those before it, and again when all is judged.
// plain and what it returns are the seconds of the plain readings before and behind.
func (p *paired) turn(ctx context.Context, turn int, plain float64) (float64, error) {
	through := p.load
	through.group = fmt.Sprintf("reader%s-%d", p.suffix, turn)
	// Fuel is in the judge key: with another budget, nothing of the history is judged yet.
	chain := &adminapi.ChainSpec{Stages: []*adminapi.Stage{{Plugin: p.how.plugin}}, RecordFuel: plugins.DefaultLimits().RecordFuel + uint64(turn)}
	p.settle(ctx, min(pluginPause, p.idle))
	// Bound in the last moment, since judging begins at once.
	if err := p.broker.Bind(ctx, through.group, through.topic, chain); err != nil {
		return 0, err
	}
	for _, scenario := range []string{pluginNew, pluginJudged} {
		took, err := p.read(ctx, scenario, through)
		if err != nil {
			return 0, err
		}
		reading := len(p.measures) - 1
		p.settle(ctx, min(pluginPause, p.idle))
		behind, err := p.read(ctx, pluginOff, p.load)
		if err != nil {
			return 0, err
		}
		ratio := (plain + behind) / 2 / took
		p.measures[reading].OverPlain, plain = ratio, behind
		fmt.Fprintf(p.log, "%s%s over the plain readings around it: %.3f\n", scenario, p.suffix, ratio)
	}
	return plain, p.broker.Unbind(ctx, through.group, through.topic)
}

// Names of the readings.
const (
	pluginOff    = "plugin-off"
	pluginNew    = "plugin-never-judged"
	pluginJudged = "plugin-judged"
)

// pluginPause lets what a reading left behind come to its end, files of verdicts above all.
const pluginPause = 300 * time.Millisecond

// read measures one reading, counts guest calls, and returns its seconds.
func (p *paired) read(ctx context.Context, scenario string, l load) (seconds float64, err error) {
	runtime.GC() // no reading pays for the one before
	before, err := p.broker.GuestCalls(ctx)
	if err != nil {
		return 0, err
	}
	err = p.step(ctx, scenario+p.suffix, func(at *measure) error {
		at.Records = l.records
		begin := time.Now()
		if err := p.broker.Driver().Consume(ctx, l); err != nil {
			return err
		}
		at.Seconds = time.Since(begin).Seconds()
		seconds = at.Seconds
		after, err := p.broker.GuestCalls(ctx)
		calls := after - before
		at.GuestCalls = &calls
		return err
	})
	return seconds, err
}
