package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// checkEnds appends records that the chains leave out and looks at the ends once the load is over: a view's latest offset
// is one past its last visible record (G9), though its base topic goes on behind it. Nothing else may write meanwhile.
func (h *harness) checkEnds(ctx context.Context) error {
	for partition := range int32(partitions) {
		for range 5 {
			n := name{0, h.sentinels.next}
			h.sentinels.next++
			// The id is the last sentinel's, so that a chain that only deduplicates leaves the record out as well.
			r := loadRecord(n, partition, h.sentinels.latest[partition], "bad", 1, time.Now())
			h.ledger.onSend(n)
			err := h.plain.ProduceSync(ctx, r).FirstErr()
			h.ledger.onResult(n, r, err)
			if err != nil {
				return fmt.Errorf("write what is left out: %w", err)
			}
		}
	}
	ends, err := h.latest(ctx, topic)
	if err != nil {
		return err
	}
	dump, err := readTo(ctx, h.seeds, source{topic: topic}, ends)
	if err != nil {
		return err
	}
	h.complain(h.log.check(dump, h.ledger.snapshot())...)
	dump = h.log.history
	for _, b := range h.bounds {
		if err := h.checkEndsOf(ctx, b, dump); err != nil {
			return err
		}
	}
	return nil
}

func (h *harness) checkEndsOf(ctx context.Context, b bound, dump [][]entry) error {
	_, rows, err := decisions(ctx, h.sdk, b)
	if err != nil {
		return err
	}
	want := make([]int64, partitions)
	for p := range want {
		visible := oracle(dump[p], rows[p]).visible
		want[p] = visible[len(visible)-1].offset
	}
	var got []int64
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if got, err = h.latest(ctx, b.view); err != nil {
			return err
		}
		if equal := fmt.Sprint(got) == fmt.Sprint(want); equal {
			h.totals.comparisons++
			return nil
		}
		if err := h.moment(ctx, 50, 100); err != nil {
			return err
		}
	}
	h.complain(fmt.Sprintf("view %s: its last offsets are %v by ListOffsets, %v by the oracle%s", b.view, got, want, h.status(ctx, b)))
	return nil
}

// latest returns the offset of the last record of each partition, as ListOffsets tells it.
func (h *harness) latest(ctx context.Context, of string) ([]int64, error) {
	offsets, err := kadm.NewClient(h.plain).ListCommittedOffsets(ctx, of)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ends of %s: %w", of, err)
	}
	ends := make([]int64, partitions)
	for p := range ends {
		end, _ := offsets.Lookup(of, int32(p))
		ends[p] = end.Offset - 1
	}
	return ends, nil
}
