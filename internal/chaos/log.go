package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// readLimit is how long a full read may take before it counts as stalled.
const readLimit = 90 * time.Second

// source is a topic as one kind of reader sees it.
type source struct {
	topic string
	rack  string // names a group in every Fetch
	// from is where to begin, by partition; nil is the start.
	from []int64
}

// readTo reads each partition of a topic from its start until it has seen the offset in ends, with a plain client that is
// in no group. Records behind that are left out.
func readTo(ctx context.Context, seeds []string, from source, ends []int64) ([][]entry, error) {
	records, err := readRecords(ctx, seeds, from, ends)
	read := make([][]entry, len(ends))
	for p := range records {
		for _, r := range records[p] {
			read[p] = append(read[p], entry{r.Offset, r.Timestamp.UnixMilli(), string(r.Key), string(r.Value), r.LeaderEpoch})
		}
	}
	return read, err
}

// readRecords is readTo with everything that a record has. An end of -1 is reached at once.
func readRecords(ctx context.Context, seeds []string, from source, ends []int64) ([][]*kgo.Record, error) {
	starts := map[int32]kgo.Offset{}
	for partition, end := range ends {
		if end >= 0 {
			starts[int32(partition)] = kgo.NewOffset().AtStart()
			if from.from != nil {
				starts[int32(partition)] = kgo.NewOffset().At(from.from[partition])
			}
		}
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{from.topic: starts}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(200 * time.Millisecond), kgo.MetadataMinAge(50 * time.Millisecond),
	}
	if from.rack != "" {
		opts = append(opts, kgo.Rack(from.rack))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()

	read := make([][]*kgo.Record, len(ends))
	done := make([]bool, len(ends))
	for reached := len(ends) - len(starts); reached < len(ends); {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return read, fmt.Errorf("%s: the read stalled: %s", from, progress(read, ends))
		}
		if err := fetches.Err(); err != nil {
			return read, fmt.Errorf("%s: %w", from, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			p := r.Partition
			if r.Offset <= ends[p] {
				read[p] = append(read[p], r)
			}
			if r.Offset >= ends[p] && !done[p] {
				done[p] = true
				reached++
			}
		})
	}
	return read, nil
}

func (s source) String() string {
	if s.rack != "" {
		return s.topic + " with rack " + s.rack
	}
	return s.topic
}

func progress(read [][]*kgo.Record, ends []int64) string {
	text := ""
	for p, records := range read {
		last := int64(-1)
		if n := len(records); n > 0 {
			last = records[n-1].Offset
		}
		text += fmt.Sprintf("partition %d at %d of %d; ", p, last, ends[p])
	}
	return text
}

// logChecker is checker 1. It keeps everything that any dump held, so that what retention deleted since is still known.
type logChecker struct {
	history [][]entry // entry i has offset i
}

// check adds a dump to the history and returns what is wrong with it, given what was acknowledged before it was made.
func (c *logChecker) check(dump [][]entry, acked map[name]place) []string {
	var wrong []string
	if c.history == nil {
		c.history = make([][]entry, len(dump))
	}
	for p := range dump {
		wrong = append(wrong, c.extend(int32(p), dump[p])...)
	}
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	seen := map[name]place{}
	for p, entries := range c.history {
		latest := map[int]int{} // producer → sequence
		for _, e := range entries {
			var of payload
			if err := json.Unmarshal([]byte(e.value), &of); err != nil {
				complain("partition %d offset %d: not a record that was produced: %v", p, e.offset, err)
				continue
			}
			n := name{of.Producer, of.Sequence}
			if first, twice := seen[n]; twice {
				complain("record %v lies at %v and again at partition %d offset %d", n, first, p, e.offset)
			}
			seen[n] = place{int32(p), e.offset}
			if last, some := latest[of.Producer]; some && last >= of.Sequence {
				complain("partition %d offset %d: producer %d's record %d stands behind its %d", p, e.offset, of.Producer, of.Sequence, last)
			}
			latest[of.Producer] = of.Sequence
		}
	}
	for n, at := range acked {
		if at.offset >= int64(len(c.history[at.partition])) {
			continue // acknowledged behind the end of this dump; the next has it
		}
		if lies, ok := seen[n]; !ok {
			complain("record %v was acknowledged at %v and is not in the log", n, at)
		} else if lies != at {
			complain("record %v was acknowledged at %v and lies at %v", n, at, lies)
		}
	}
	return wrong
}

// extend compares a partition of a dump with its history and adds what is new. A dump begins where the log does.
func (c *logChecker) extend(partition int32, entries []entry) (wrong []string) {
	known := c.history[partition]
	if len(entries) == 0 {
		return []string{fmt.Sprintf("partition %d: a dump that reached its end holds nothing", partition)}
	}
	next := entries[0].offset
	if next > int64(len(known)) {
		return []string{fmt.Sprintf("partition %d begins at %d, and no dump held what lies between %d and there: let retention keep more", partition, next, len(known))}
	}
	if last := entries[len(entries)-1].offset; last < int64(len(known))-1 {
		wrong = append(wrong, fmt.Sprintf("partition %d: offset %d was read before and is gone", partition, len(known)-1))
	}
	for _, e := range entries {
		switch {
		case e.offset != next:
			return append(wrong, fmt.Sprintf("partition %d: offset %d stands where %d must be", partition, e.offset, next))
		case next == int64(len(known)):
			known = append(known, e)
		case known[next] != e:
			wrong = append(wrong, fmt.Sprintf("partition %d: offset %d was read before and is another record now", partition, next))
		}
		next++
	}
	c.history[partition] = known
	return wrong
}
