package tck

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// Report is what a kit run learned beside that the guest conforms.
type Report struct {
	Records     int
	Faults      int      // records at which the guest fails when they are judged alone
	Frames      int      // judged in all
	FrameFaults int      // frames that failed though none of their records fails alone: summed limits
	RecordFuel  []uint64 // of each record judged alone, sorted
}

// FuelAt is the fuel that a share of the records stays within: 0.5 the median, 1 the most.
func (r *Report) FuelAt(share float64) uint64 {
	if len(r.RecordFuel) == 0 {
		return 0
	}
	return r.RecordFuel[min(int(share*float64(len(r.RecordFuel))), len(r.RecordFuel)-1)]
}

// Rounds of random cutting and of random history. Each round judges every record about once.
const (
	cutRounds     = 6
	historyRounds = 6
)

// Conform checks that what the guest says about each record of a frame is a function of the record, its place under the
// frame's header, and nothing else. The first that is not is the error, with the seed that finds it again.
func Conform(ctx context.Context, g Guest, records []abi.Record, seed uint64) (*Report, error) {
	k := &kit{guest: g, records: records, rng: rand.New(rand.NewPCG(seed, 0)), report: &Report{Records: len(records)}}
	if len(records) == 0 {
		return k.report, nil
	}
	for _, check := range []func(context.Context) error{k.alone, k.cut, k.history} {
		if err := check(ctx); err != nil {
			return k.report, fmt.Errorf("seed %d: %w", seed, err)
		}
	}
	return k.report, nil
}

type kit struct {
	guest   Guest
	records []abi.Record
	rng     *rand.Rand
	report  *Report
	answer  abi.Answer
	single  []judgement // of each record alone
}

func (k *kit) judge(ctx context.Context, start, end int) (judgement, error) {
	k.report.Frames++
	return judge(ctx, k.guest, part(k.guest, k.records, start, end), &k.answer)
}

// alone judges each record by itself: what every other way of judging must agree with.
func (k *kit) alone(ctx context.Context) error {
	for i := range k.records {
		j, err := k.judge(ctx, i, i+1)
		if err != nil {
			return err
		}
		if j.fault != nil {
			k.report.Faults++
		}
		k.single = append(k.single, j)
		k.report.RecordFuel = append(k.report.RecordFuel, j.fuel)
	}
	slices.Sort(k.report.RecordFuel)
	return nil
}

// cut judges the frame as a whole and cut at random. A piece must be judged twice alike, to the unit of fuel.
func (k *kit) cut(ctx context.Context) error {
	for round := range cutRounds {
		for start := 0; start < len(k.records); {
			end := len(k.records)
			if round > 0 {
				end = min(end, start+1+k.rng.IntN(1<<k.rng.IntN(8)))
			}
			first, err := k.judge(ctx, start, end)
			if err != nil {
				return err
			}
			again, err := k.judge(ctx, start, end)
			if err != nil {
				return err
			}
			if first.fuel != again.fuel {
				return fmt.Errorf("records %d to %d took %d fuel, then %d", start, end-1, first.fuel, again.fuel)
			}
			if err := sameFault(first, again); err != nil {
				return fmt.Errorf("records %d to %d, judged twice: %w", start, end-1, err)
			}
			if err := k.agrees(first, start, end); err != nil {
				return fmt.Errorf("among records %d to %d: %w", start, end-1, err)
			}
			start = end
		}
	}
	return nil
}

// history judges each record alone again, in random orders, with pieces of other sizes between.
func (k *kit) history(ctx context.Context) error {
	for range historyRounds {
		for _, i := range k.rng.Perm(len(k.records)) {
			j, err := k.judge(ctx, i, i+1)
			if err != nil {
				return err
			}
			if err := k.agrees(j, i, i+1); err != nil {
				return fmt.Errorf("after other records: %w", err)
			}
			if j.fuel != k.single[i].fuel {
				return fmt.Errorf("record %d took %d fuel, after other records %d", i, k.single[i].fuel, j.fuel)
			}
			if k.rng.IntN(4) == 0 {
				start := k.rng.IntN(len(k.records))
				if _, err := k.judge(ctx, start, start+1+k.rng.IntN(len(k.records)-start)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// agrees holds a judgement of records [start, end) against those of the records alone.
func (k *kit) agrees(j judgement, start, end int) error {
	if end-start == 1 {
		if err := sameFault(k.single[start], j); err != nil {
			return fmt.Errorf("record %d: %w", start, err)
		}
	}
	if j.fault != nil {
		for i := start; i < end; i++ {
			if k.single[i].fault != nil {
				return nil
			}
		}
		k.report.FrameFaults++
		return nil
	}
	for i := start; i < end; i++ {
		switch alone := k.single[i]; {
		case alone.fault != nil && alone.fault.Reason == plugins.ReasonFuel:
			// Among others a record's budget is looked at once a slice, so it may end within the slice in which alone
			// it would have been stopped.
		case alone.fault != nil:
			return fmt.Errorf("record %d fails alone (%s), and does not here", i, alone.fault.Text)
		case j.verdicts[i-start] != alone.verdicts[0]:
			return fmt.Errorf("record %d (offset %d) is answered otherwise than alone", i, k.records[i].Offset)
		}
	}
	return nil
}

func sameFault(a, b judgement) error {
	switch {
	case (a.fault == nil) != (b.fault == nil):
		return fmt.Errorf("one fails, the other does not: %v, %v", a.fault, b.fault)
	case a.fault != nil && (a.fault.Reason != b.fault.Reason || a.fault.Record != b.fault.Record || a.fault.Fuel != b.fault.Fuel):
		return fmt.Errorf("failures differ: %v with %d fuel, %v with %d", a.fault, a.fault.Fuel, b.fault, b.fault.Fuel)
	}
	return nil
}
