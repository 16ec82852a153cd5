package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// checked is what one look at everything found.
type checked struct {
	ends      []int64
	records   int // in the log
	expected  map[string][][]delivered
	visible   map[string]int
	rows      int
	duplicate int
	dropped   int
	letters   int
	took      time.Duration
	anomalies int
}

// check writes a sentinel to each partition, waits until every reader has seen them, and runs the checkers over all that
// lies in front, while the load goes on behind.
func (h *harness) check(ctx context.Context) (checked, error) {
	c := checked{expected: map[string][][]delivered{}, visible: map[string]int{}}
	begun, before := time.Now(), h.wrong
	defer func() { c.took = time.Since(begun) }()
	sentinelCtx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	var err error
	if c.ends, err = h.sentinels.write(sentinelCtx); err != nil {
		return c, err
	}
	acked := h.ledger.snapshot()
	dump, err := readTo(ctx, h.broker.client, source{topic: topic}, c.ends)
	if err != nil {
		return c, err
	}
	for _, entries := range dump {
		c.records += len(entries)
	}
	h.complain(h.log.check(dump, acked)...)
	_, _, _, problems := h.ledger.counts()
	h.complain(problems...)
	for _, b := range h.bounds {
		if err := h.checkBinding(ctx, b, dump, &c); err != nil {
			return c, err
		}
	}
	for _, g := range h.groups {
		if err := h.checkGroup(ctx, g, c); err != nil {
			return c, err
		}
	}
	c.took, c.anomalies = time.Since(begun), h.wrong-before
	h.totals.last = c
	return c, nil
}

// checkBinding compares what readers of a binding see with the oracle, and its letters with what must be lettered.
func (h *harness) checkBinding(ctx context.Context, b bound, dump [][]entry, c *checked) error {
	viewed, err := readTo(ctx, h.broker.client, source{topic: b.view}, c.ends)
	if err != nil {
		return fmt.Errorf("%w%s", err, h.status(ctx, b))
	}
	var fetched [][]entry
	if b.rack != "" {
		if fetched, err = readTo(ctx, h.broker.client, source{topic: topic, rack: b.rack}, c.ends); err != nil {
			return fmt.Errorf("%w%s", err, h.status(ctx, b))
		}
	}
	binding, rows, err := decisions(ctx, h.sdk, b)
	if err != nil {
		return err
	}
	middle, err := h.readFromTheMiddle(ctx, b, rows, c.ends)
	if err != nil {
		return err
	}
	judged := make([]judgement, partitions)
	expected := make([][]delivered, partitions)
	for p := range judged {
		judged[p] = oracle(dump[p], rows[p])
		for _, e := range dump[p] { // a group reads what lies in front of its first row as it is
			if b.rack != "" && rows[p].inForce(e.offset) == nil {
				expected[p] = append(expected[p], delivered{e.offset, e.key, e.value})
			}
		}
		expected[p] = append(expected[p], judged[p].visible...)
		h.compare(b, fmt.Sprintf("view %s partition %d", b.view, p), judged[p].visible, viewed[p], rows[p])
		if b.rack != "" {
			h.compare(b, fmt.Sprintf("rack %s partition %d", b.rack, p), expected[p], fetched[p], rows[p])
		}
		h.compare(b, fmt.Sprintf("%s from %d partition %d", middle.source, middle.source.from[p], p),
			slices.DeleteFunc(slices.Clone(expected[p]), func(d delivered) bool { return d.offset < middle.source.from[p] }), middle.read[p], rows[p])
		c.duplicate += judged[p].duplicates
		c.dropped += judged[p].dropped
		c.letters += len(judged[p].letters)
		c.visible[b.name] += len(judged[p].visible)
	}
	c.rows += len(binding.Rows)
	c.expected[b.name] = expected
	if binding.DeadLetter == "" {
		return nil
	}
	letters, err := readLetters(ctx, h.plain, h.broker.client, binding.DeadLetter)
	if err != nil {
		return err
	}
	repeats, wrong := checkLetters(binding.Id, binding.TopicId, dump, judged, letters)
	h.totals.repeatedLetters = max(h.totals.repeatedLetters, repeats)
	h.complain(wrong...)
	return nil
}

// middle is a read that began anywhere.
type middle struct {
	source source
	read   [][]entry
}

// readFromTheMiddle reads a binding's filtered log from random offsets on, which may lie inside a batch: where a reader
// starts changes nothing behind it (G1).
func (h *harness) readFromTheMiddle(ctx context.Context, b bound, rows []decided, ends []int64) (middle, error) {
	m := middle{source: source{topic: b.view, from: make([]int64, partitions)}}
	if b.rack != "" && h.random.IntN(2) == 0 {
		m.source.topic, m.source.rack = topic, b.rack
	}
	for p := range m.source.from {
		first := rows[p].rows[0].from
		m.source.from[p] = first + h.random.Int64N(ends[p]+1-first)
	}
	var err error
	if m.read, err = readTo(ctx, h.broker.client, m.source, ends); err != nil {
		return m, fmt.Errorf("%w%s", err, h.status(ctx, b))
	}
	return m, nil
}

func (h *harness) compare(b bound, what string, want []delivered, read []entry, rows decided) {
	h.totals.comparisons++
	h.totals.judged += len(want)
	got := make([]delivered, 0, len(read))
	for _, e := range read {
		got = append(got, delivered{e.offset, e.key, e.value})
	}
	if d := difference(want, got); d != "" {
		text := ""
		for _, r := range rows.rows {
			text += fmt.Sprintf(" %d@%d", r.row, r.from)
		}
		h.complain(fmt.Sprintf("%s (binding %s, start %d of the broker): %s; %d records wanted, %d read; origin %d, rows%s",
			what, b.name, h.broker.starts, d, len(want), len(got), rows.origin, text))
	}
}

// checkGroup runs checker 4 on a group; one that reads a view sees the filtered log of the view's binding.
func (h *harness) checkGroup(ctx context.Context, g *group, c checked) error {
	expected, ok := c.expected[g.name]
	if !ok {
		expected = c.expected[g.topic]
	}
	before := g.acknowledged()
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	commits, err := g.commits(ctx, h.plain)
	if err != nil {
		return err
	}
	h.complain(g.check(expected, c.ends, before, commits)...)
	return nil
}
