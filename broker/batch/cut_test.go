package batch

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// Records of common forms are cut by code of their own.
func TestRecordsAreCutAlikeWhateverTheirForm(t *testing.T) {
	for seed := range uint64(20_000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		part := func() []byte {
			if rng.IntN(4) == 0 {
				return nil
			}
			return make([]byte, rng.IntN([]int{1, 64, 300, 9000}[rng.IntN(4)]))
		}
		r := Record{OffsetDelta: int32(rng.IntN(1 << rng.IntN(20))), TimestampDelta: rng.Int64N(1<<rng.IntN(40)) - 5, Key: part(), Value: part()}
		if rng.IntN(3) == 0 {
			r.Headers = []Header{{Key: part(), Value: part()}}
		}
		b := append(appendRecord(nil, r, recordBytes(r)), 1, 2, 3)
		for range rng.IntN(3) {
			at := rng.IntN(min(len(b), 12))
			b[at] ^= 1 << rng.IntN(8)
		}
		b = b[:len(b)-rng.IntN(4)]
		var got, want Parts
		gotRest, gotErr := cut(b, &got)
		wantRest, wantErr := cutAny(b, &want)
		if gotErr != wantErr || !bytes.Equal(gotRest, wantRest) {
			t.Fatalf("seed %d: %d bytes left, %v; want %d, %v", seed, len(gotRest), gotErr, len(wantRest), wantErr)
		}
		same := got.OffsetDelta == want.OffsetDelta && got.TimestampDelta == want.TimestampDelta &&
			(got.Key == nil) == (want.Key == nil) && bytes.Equal(got.Key, want.Key) &&
			(got.Value == nil) == (want.Value == nil) && bytes.Equal(got.Value, want.Value) && bytes.Equal(got.Headers, want.Headers)
		if gotErr == nil && !same {
			t.Fatalf("seed %d: %+v, want %+v", seed, got, want)
		}
	}
}
