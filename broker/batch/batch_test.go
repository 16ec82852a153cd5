package batch_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

var codecs = []batch.Codec{batch.None, batch.Gzip, batch.Snappy, batch.LZ4, batch.Zstd}

func sampleRecords(n int) []batch.Record {
	records := make([]batch.Record, n)
	for i := range records {
		records[i] = batch.Record{
			OffsetDelta:    int32(i),
			TimestampDelta: int64(i * 7),
			Key:            fmt.Appendf(nil, "key-%d", i),
			Value:          bytes.Repeat([]byte{byte(i)}, i*13%300),
		}
		switch i % 4 {
		case 1:
			records[i].Key = nil
		case 2:
			records[i].Value = nil
		case 3:
			records[i].Headers = []batch.Header{{Key: []byte("h"), Value: []byte("v")}, {Key: []byte{}, Value: nil}}
		}
	}
	return records
}

func build(t testing.TB, spec batch.Spec, records []batch.Record) batch.View {
	t.Helper()
	b := batch.NewBuilder(spec)
	for _, r := range records {
		if err := b.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	v, err := batch.Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func read(t testing.TB, v batch.View) []batch.Record {
	t.Helper()
	r, err := v.Records(new(batch.Decompressor))
	if err != nil {
		t.Fatal(err)
	}
	var all []batch.Record
	for {
		var rec batch.Record
		if !r.Next(&rec) {
			break
		}
		rec.Key, rec.Value = bytes.Clone(rec.Key), bytes.Clone(rec.Value)
		for i := range rec.Headers {
			rec.Headers[i].Key, rec.Headers[i].Value = bytes.Clone(rec.Headers[i].Key), bytes.Clone(rec.Headers[i].Value)
		}
		all = append(all, rec)
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return all
}

func TestBuiltBatchValidatesAndReadsBackUnderEveryCodec(t *testing.T) {
	records := sampleRecords(500)
	for _, codec := range codecs {
		spec := batch.Spec{BaseOffset: 1 << 40, LeaderEpoch: 9, BaseTimestamp: 1_700_000_000_000, Codec: codec,
			Producer: &batch.Producer{ID: 77, Epoch: 3, BaseSequence: 2147483600}}
		v := build(t, spec, records)
		if err := batch.Validate(v, batch.Limits{}, new(batch.Decompressor)); err != nil {
			t.Fatalf("%s: %v", codec, err)
		}
		if got := read(t, v); !reflect.DeepEqual(got, records) {
			t.Fatalf("%s: records differ", codec)
		}
		if v.BaseOffset() != 1<<40 || v.NextOffset() != 1<<40+500 || v.LeaderEpoch() != 9 || v.Codec() != codec ||
			v.ProducerID() != 77 || v.ProducerEpoch() != 3 || v.Count() != 500 || v.MaxTimestamp() != 1_700_000_000_000+499*7 {
			t.Fatalf("%s: header differs", codec)
		}
		if got := v.LastSequence(); got != 2147483600+499-2147483648 {
			t.Fatalf("last sequence %d does not wrap", got)
		}
	}
}

func TestStampLeavesTheCRCValid(t *testing.T) {
	v := build(t, batch.Spec{}, sampleRecords(3))
	v.Stamp(12345, 6)
	if err := v.CheckCRC(); err != nil || v.BaseOffset() != 12345 || v.LastOffset() != 12347 || v.LeaderEpoch() != 6 {
		t.Fatalf("after Stamp: %v, offsets %d-%d, leader epoch %d", err, v.BaseOffset(), v.LastOffset(), v.LeaderEpoch())
	}
	v.StampAppendTime(99)
	if err := v.CheckCRC(); err != nil || !v.LogAppendTime() || v.MaxTimestamp() != 99 || v.Timestamp(5) != 99 {
		t.Fatalf("after StampAppendTime: %v, timestamp %d", err, v.MaxTimestamp())
	}
}

func TestAllYieldsEveryBatchAndTellsATornEnd(t *testing.T) {
	one, two := build(t, batch.Spec{}, sampleRecords(3)), build(t, batch.Spec{BaseOffset: 3}, sampleRecords(2))
	joined := append(bytes.Clone(one), two...)
	for end := range len(joined) + 1 {
		var views int
		var last error
		for v, err := range batch.All(joined[:end]) {
			if last = err; v != nil {
				views++
			}
		}
		whole := end == 0 || end == len(one) || end == len(joined)
		if whole != (last == nil) || !whole && !errors.Is(last, io.ErrUnexpectedEOF) {
			t.Fatalf("first %d bytes: %d batches, error %v", end, views, last)
		}
	}
}

func TestEveryFlippedBitBehindTheUncoveredHeaderIsSeen(t *testing.T) {
	v := build(t, batch.Spec{}, sampleRecords(4))
	for at := batch.UncoveredBytes; at < v.Len(); at++ {
		bad := batch.View(bytes.Clone(v))
		bad[at] ^= 0x10
		if err := bad.CheckCRC(); !errors.Is(err, broker.CorruptMessage) {
			t.Fatalf("byte %d flipped: %v", at, err)
		}
	}
}
