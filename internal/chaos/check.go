package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace-io/millrace/broker/adminapi"
)

// checked is what one look at everything found.
type checked struct {
	ends      []int64
	records   int // in the log
	expected  map[string]seen
	visible   map[string]int
	rows      int
	duplicate int
	dropped   int
	letters   int
	behind    int // records that groups have yet to receive
	origins   int // partitions whose origin was moved
	took      time.Duration
	anomalies int
}

// check writes a sentinel to each partition, waits until every reader has seen them, and runs the checkers over all that
// lies in front, while the load goes on behind.
func (h *harness) check(ctx context.Context) (checked, error) {
	c := checked{expected: map[string]seen{}, visible: map[string]int{}}
	begun, before := time.Now(), h.wrong
	defer func() { c.took = time.Since(begun) }()
	sentinelCtx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	var err error
	if c.ends, err = h.sentinels.write(sentinelCtx); err != nil {
		return c, err
	}
	acked := h.ledger.snapshot()
	dump, err := readTo(ctx, h.seeds, source{topic: topic}, c.ends)
	if err != nil {
		return c, err
	}
	for _, entries := range dump {
		c.records += len(entries)
	}
	h.complain(h.log.check(dump, acked)...)
	dump = h.log.history
	for p, end := range c.ends {
		if int64(len(dump[p])) != end+1 {
			return c, fmt.Errorf("partition %d was dumped to %d, not to %d", p, len(dump[p]), end+1)
		}
	}
	_, _, _, problems := h.ledger.counts()
	h.complain(problems...)
	c.expected[topic] = rawOf(dump) // a group without a chain
	for _, b := range h.bounds {
		if err := h.checkBinding(ctx, b, dump, &c); err != nil {
			return c, err
		}
	}
	if h.options.retention {
		if err := h.checkOvertaken(ctx, h.slow, h.bounds[len(h.bounds)-1]); err != nil {
			return c, err
		}
	}
	for _, g := range h.groups {
		if g.nap == 0 {
			c.behind += g.behind(c.seenBy(g))
		}
		if err := h.checkGroup(ctx, g, c); err != nil {
			return c, err
		}
	}
	if h.table != nil {
		if err := h.checkTable(ctx); err != nil {
			return c, err
		}
	}
	c.took, c.anomalies = time.Since(begun), h.wrong-before
	h.totals.last = c
	return c, nil
}

// rawOf is a log as it is.
func rawOf(dump [][]entry) (of seen) {
	for _, entries := range dump {
		raw := asDelivered(entries)
		of.may, of.must = append(of.may, raw), append(of.must, raw)
	}
	return of
}

// checkBinding compares what readers of a binding see with the oracle, and its letters with what must be lettered. Where
// retention moves origins meanwhile, a verdict may change between a read and the dump of the decisions; then a read that
// differs is made again.
func (h *harness) checkBinding(ctx context.Context, b bound, dump [][]entry, c *checked) error {
	var r readings
	for attempt := 1; ; attempt++ {
		var err error
		if r, err = h.readBinding(ctx, b, dump, c.ends); err != nil {
			return fmt.Errorf("%w%s", err, h.status(ctx, b))
		}
		if len(r.differences) == 0 || !h.options.retention || attempt == 3 {
			break
		}
		if err := h.moment(ctx, 300, 600); err != nil {
			return err
		}
	}
	h.totals.comparisons += r.comparisons
	h.complain(r.differences...)
	for p, j := range r.judged {
		c.duplicate += j.duplicates
		c.dropped += j.dropped
		c.letters += len(j.letters)
		c.visible[b.name] += len(j.visible)
		h.totals.judged += len(j.visible)
		if r.rows[p].origin >= 0 {
			c.origins++
		}
	}
	c.rows += len(r.binding.Rows)
	c.expected[b.name] = r.expected
	if r.binding.DeadLetter == "" {
		return nil
	}
	letters, err := readLetters(ctx, h.plain, h.seeds, r.binding.DeadLetter)
	if err != nil {
		return err
	}
	repeats, wrong := checkLetters(r.binding.Id, r.binding.TopicId, dump, r.judged, r.expected.starts, letters)
	h.totals.repeatedLetters = max(h.totals.repeatedLetters, repeats)
	h.complain(wrong...)
	return nil
}

// readings is what was read of a binding once, beside what the oracle says.
type readings struct {
	binding     *adminapi.Binding
	rows        []decided
	judged      []judgement
	expected    seen
	comparisons int
	differences []string
}

func (h *harness) readBinding(ctx context.Context, b bound, dump [][]entry, ends []int64) (r readings, err error) {
	if r.binding, r.rows, err = decisions(ctx, h.sdk, b); err != nil {
		return r, err
	}
	sources := []source{{topic: b.view}, {topic: b.view, from: h.anywhere(r.rows, ends)}}
	if b.rack != "" {
		sources = append(sources, source{topic: topic, rack: b.rack})
		if h.random.IntN(2) == 0 {
			sources[1].topic, sources[1].rack = topic, b.rack
		}
	}
	reads := make([][][]entry, len(sources))
	for i, from := range sources {
		if reads[i], err = readTo(ctx, h.seeds, from, ends); err != nil {
			return r, err
		}
	}
	if r.binding, r.rows, err = decisions(ctx, h.sdk, b); err != nil {
		return r, err
	}
	if r.expected.starts, err = h.starts(ctx); err != nil {
		return r, err
	}
	r.judge(dump)
	for i, from := range sources {
		for p := range dump {
			want := r.expected.may[p]
			if from.rack == "" {
				want = r.judged[p].visible
			}
			first := r.expected.starts[p]
			if from.from != nil {
				first = max(first, from.from[p])
			}
			r.compare(fmt.Sprintf("%s partition %d from %d", from, p, first), since(want, first), since(asDelivered(reads[i][p]), first), r.rows[p])
		}
	}
	return r, nil
}

// judge asks the oracle: with the origins as they are now, and as they were in the beginning.
func (r *readings) judge(dump [][]entry) {
	for p := range dump {
		now, first := r.rows[p], r.rows[p]
		first.origin = -1
		var raw []delivered // a group reads what lies in front of its first row as it is
		for _, e := range dump[p] {
			if now.inForce(e.offset) == nil {
				raw = append(raw, delivered{e.offset, e.key, e.value})
			}
		}
		j := oracle(dump[p], now)
		r.judged = append(r.judged, j)
		r.expected.may = append(r.expected.may, slices.Concat(raw, j.visible))
		if now.origin >= 0 {
			j = oracle(dump[p], first)
		}
		r.expected.must = append(r.expected.must, slices.Concat(raw, j.visible))
	}
}

func (r *readings) compare(what string, want, got []delivered, rows decided) {
	r.comparisons++
	d := difference(want, got)
	if d == "" {
		return
	}
	text := ""
	for _, row := range rows.rows {
		text += fmt.Sprintf(" %d@%d", row.row, row.from)
	}
	r.differences = append(r.differences, fmt.Sprintf("%s: %s; %d records wanted, %d read; origin %d, rows%s", what, d, len(want), len(got), rows.origin, text))
}

// anywhere picks offsets to begin at, which may lie inside a batch: where a reader starts changes nothing behind (G1).
func (h *harness) anywhere(rows []decided, ends []int64) []int64 {
	from := make([]int64, partitions)
	for p := range from {
		first := rows[p].rows[0].from
		from[p] = first + h.random.Int64N(ends[p]+1-first)
	}
	return from
}

func asDelivered(entries []entry) []delivered {
	all := make([]delivered, 0, len(entries))
	for _, e := range entries {
		all = append(all, delivered{e.offset, e.key, e.value})
	}
	return all
}

// since leaves out what lies below an offset.
func since(log []delivered, first int64) []delivered {
	at, _ := slices.BinarySearchFunc(log, first, func(d delivered, first int64) int { return cmp.Compare(d.offset, first) })
	return log[at:]
}

// starts returns the log starts of the base topic.
func (h *harness) starts(ctx context.Context) ([]int64, error) {
	offsets, err := kadm.NewClient(h.plain).ListStartOffsets(ctx, topic)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("starts of %s: %w", topic, err)
	}
	all := make([]int64, partitions)
	for p := range all {
		start, _ := offsets.Lookup(topic, int32(p))
		all[p] = start.Offset
	}
	return all, nil
}

// checkGroup runs checker 5 on a group; one that reads a view sees the filtered log of the view's binding.
func (h *harness) checkGroup(ctx context.Context, g *group, c checked) error {
	before := g.acknowledged()
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	commits, err := g.commits(ctx, h.plain)
	if err != nil {
		return err
	}
	h.complain(g.check(c.seenBy(g), c.ends, before, commits)...)
	return nil
}

// seenBy returns what a group sees: the log of its own binding, or of the view that it reads.
func (c *checked) seenBy(g *group) seen {
	if of, ok := c.expected[g.name]; ok {
		return of
	}
	return c.expected[g.topic]
}

// checkOvertaken is rule H9: where the log starts above what a bound group committed, the origin moved to the start before
// the records went, so that no copy deleted unread suppresses a later one.
func (h *harness) checkOvertaken(ctx context.Context, g *group, b bound) error {
	starts, err := h.starts(ctx)
	if err != nil {
		return err
	}
	commits, err := g.commits(ctx, h.plain)
	if err != nil {
		return err
	}
	_, rows, err := decisions(ctx, h.sdk, b)
	if err != nil {
		return err
	}
	for p, start := range starts {
		committed, ok := commits[int32(p)]
		if !ok || committed < 0 || committed >= start {
			continue
		}
		h.totals.overtaken++
		if rows[p].origin < start {
			h.complain(fmt.Sprintf("group %s partition %d: the log starts at %d, above the commit %d, and the origin is %d", g.name, p, start, committed, rows[p].origin))
		}
	}
	return nil
}
