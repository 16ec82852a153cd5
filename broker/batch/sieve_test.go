package batch

import (
	"fmt"
	"testing"

	"github.com/millrace-io/millrace/broker"
)

func sieved(t *testing.T, codec Codec, appendTime bool) View {
	t.Helper()
	b := NewBuilder(Spec{BaseOffset: 100, LeaderEpoch: 3, BaseTimestamp: 1000, Codec: codec, LogAppendTime: appendTime, MaxTimestamp: 5000,
		Producer: &Producer{ID: 9, Epoch: 2, BaseSequence: 40}})
	for i := range 20 {
		r := Record{OffsetDelta: int32(i), TimestampDelta: int64(i), Key: fmt.Append(nil, i), Value: []byte("value"), Headers: []Header{{Key: []byte("h")}}}
		if err := b.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSieveKeepsEverythingOfABatchButRecords(t *testing.T) {
	for _, codec := range []Codec{None, Gzip, Snappy, LZ4, Zstd} {
		for _, appendTime := range []bool{false, true} {
			v := sieved(t, codec, appendTime)
			var s Sieve
			out, kept, err := s.Keep(v, func(r *Record) bool { return r.OffsetDelta%7 == 3 })
			if err != nil || kept != 3 {
				t.Fatalf("%s: kept %d, %v", codec, kept, err)
			}
			parsed, err := Parse(out)
			if err != nil || len(parsed) != len(out) || parsed.CheckCRC() != nil {
				t.Fatalf("%s: not a whole batch: %v", codec, err)
			}
			want := int64(1017)
			if appendTime {
				want = 5000
			}
			if out.BaseOffset() != 100 || out.LastOffset() != 119 || out.LeaderEpoch() != 3 || out.Codec() != codec || out.ProducerID() != 9 ||
				out.ProducerEpoch() != 2 || out.BaseSequence() != 40 || out.LastSequence() != 59 || out.Count() != 3 || out.MaxTimestamp() != want {
				t.Fatalf("%s: the header changed: %v", codec, []byte(out[:HeaderBytes]))
			}
			r, err := out.Records(new(Decompressor))
			if err != nil {
				t.Fatal(err)
			}
			var rec Record
			for _, delta := range []int32{3, 10, 17} {
				if !r.Next(&rec) || rec.OffsetDelta != delta || string(rec.Key) != fmt.Sprint(delta) || len(rec.Headers) != 1 || rec.TimestampDelta != int64(delta) {
					t.Fatalf("%s: record %+v, want that at %d: %v", codec, rec, delta, r.Err())
				}
			}
			if r.Next(&rec) || r.Err() != nil {
				t.Fatalf("%s: more than was kept: %v", codec, r.Err())
			}
		}
	}
}

func TestSieveReturnsTheBatchItselfIfAllStay(t *testing.T) {
	v := sieved(t, Zstd, false)
	var s Sieve
	if out, kept, err := s.Keep(v, func(*Record) bool { return true }); err != nil || kept != 20 || &out[0] != &v[0] {
		t.Fatalf("%d, %v", kept, err)
	}
	if out, kept, err := s.Keep(v, func(*Record) bool { return false }); err != nil || kept != 0 || out != nil {
		t.Fatalf("%d, %v", kept, err)
	}
}

func TestEmptiedBatchAndHoleAreBatchesWithoutRecords(t *testing.T) {
	v := sieved(t, Gzip, true)
	emptied := View(AppendEmptied([]byte("before"), v)[len("before"):])
	if emptied.ProducerID() != 9 || emptied.LastSequence() != 59 || emptied.LastOffset() != 119 || emptied.MaxTimestamp() != 5000 || emptied.LeaderEpoch() != 3 {
		t.Fatal("the emptied batch says something else")
	}
	hole := View(AppendHole(nil, Hole{Base: 7, End: 12, LeaderEpoch: 4, MaxTimestamp: 77, LogAppendTime: true}))
	if hole.BaseOffset() != 7 || hole.NextOffset() != 12 || hole.LeaderEpoch() != 4 || hole.MaxTimestamp() != 77 || !hole.LogAppendTime() ||
		hole.ProducerID() != broker.NoProducerID || hole.Control() {
		t.Fatal("the hole says something else")
	}
	for _, b := range []View{emptied, hole} {
		parsed, err := Parse(b)
		if err != nil || len(parsed) != HeaderBytes || b.CheckCRC() != nil || b.Count() != 0 || b.Codec() != None {
			t.Fatalf("not a batch without records: %v", err)
		}
		r, err := b.Records(nil)
		var rec Record
		if err != nil || r.Next(&rec) || r.Err() != nil {
			t.Fatalf("it has records: %v", err)
		}
	}
}
