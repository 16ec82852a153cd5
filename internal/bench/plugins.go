package main

import (
	"context"
	"fmt"
	"time"
)

// chained is a way of reading through a plugin that is compared with reading plainly.
type chained struct {
	name    string
	plugin  string
	writing writing
	divide  int // the load is so many times smaller
}

// pluginVariants are printed beside the built-in dedup by key on batches as kgo makes them.
func pluginVariants() []chained {
	return []chained{
		{name: "repeats5", plugin: "dedup-key", writing: writing{repeats: 20}, divide: 2},
		{name: "batch16", plugin: "dedup-key", writing: writing{batchRecords: 16}, divide: 4},
		{name: "zstd", plugin: "dedup-key", writing: writing{zstd: true}, divide: 2},
		{name: "goguest", plugin: guestName, divide: 2},
	}
}

// pluginPart compares reading through a plugin, never judged and judged, with reading plainly.
func pluginPart(ctx context.Context, v *visit) error {
	return v.fresh(ctx, func(time.Time) error {
		for _, partitions := range v.partitions {
			if err := v.plugin(ctx, chained{plugin: "dedup-key", divide: 1}, int32(partitions)); err != nil {
				return err
			}
		}
		return nil
	})
}

// variantsPart does the same with other batches and another plugin.
func variantsPart(ctx context.Context, v *visit) error {
	return v.fresh(ctx, func(time.Time) error {
		m, ok := v.system.(*millrace)
		if !ok {
			return nil
		}
		if err := m.pushGuest(ctx); err != nil {
			return err
		}
		for _, c := range pluginVariants() {
			if err := v.plugin(ctx, c, 1); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		return nil
	})
}

// plugin writes a topic, reads it plainly, through the plugin, again when all is judged, and plainly once more.
func (v *visit) plugin(ctx context.Context, c chained, partitions int32) error {
	m, ok := v.system.(*millrace)
	if !ok {
		return nil
	}
	suffix := fmt.Sprintf("-%dp", partitions)
	if c.name != "" {
		suffix = "-" + c.name + suffix
	}
	l := load{topic: "plugin" + suffix, partitions: partitions, records: max(v.count(v.at.Size)/c.divide, 100), size: v.at.Size, writing: c.writing}
	d := m.Driver()
	if err := d.CreateTopic(ctx, l.topic, l.partitions); err != nil {
		return err
	}
	if err := d.Produce(ctx, l); err != nil {
		return err
	}
	through := l
	through.group = "reader" + suffix
	if err := v.read(ctx, m, pluginOff+suffix, l); err != nil {
		return err
	}
	// Bound in the last moment, since judging begins at once.
	if err := m.Bind(ctx, through.group, c.plugin, l.topic); err != nil {
		return err
	}
	for _, scenario := range []string{pluginNew, pluginJudged} {
		if err := v.read(ctx, m, scenario+suffix, through); err != nil {
			return err
		}
	}
	return v.read(ctx, m, pluginOff+suffix, l)
}

// Names of the four readings.
const (
	pluginOff    = "plugin-off"
	pluginNew    = "plugin-never-judged"
	pluginJudged = "plugin-judged"
)

// read measures one reading, and counts guest calls.
func (v *visit) read(ctx context.Context, m *millrace, scenario string, l load) error {
	before, err := m.GuestCalls(ctx)
	if err != nil {
		return err
	}
	err = v.step(ctx, scenario, func(at *measure) error {
		at.Records = l.records
		if err := m.Driver().Consume(ctx, l); err != nil {
			return err
		}
		after, err := m.GuestCalls(ctx)
		calls := after - before
		at.GuestCalls = &calls
		return err
	})
	return err
}
