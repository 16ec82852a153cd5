package batch_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// forge changes a batch and gives it a CRC that fits again.
func forge(v batch.View, change func(b []byte)) batch.View {
	b := bytes.Clone(v)
	change(b)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func TestValidateRefusesBatchesThatLie(t *testing.T) {
	good := build(t, batch.Spec{BaseTimestamp: 1000, Producer: &batch.Producer{ID: 1}}, sampleRecords(8))
	put32 := func(at int, n int32) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint32(b[at:], uint32(n)) }
	}
	put64 := func(at int, n int64) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint64(b[at:], uint64(n)) }
	}
	cases := map[string]struct {
		change func(b []byte)
		want   broker.Code
	}{
		"nothing changed":             {func([]byte) {}, broker.None},
		"no records":                  {put32(57, 0), broker.InvalidRecord},
		"negative count":              {put32(57, -1), broker.InvalidRecord},
		"more records claimed":        {func(b []byte) { put32(57, 9)(b); put32(23, 8)(b) }, broker.InvalidRecord},
		"fewer records claimed":       {func(b []byte) { put32(57, 7)(b); put32(23, 6)(b) }, broker.InvalidRecord},
		"span and count differ":       {put32(23, 9), broker.InvalidRecord},
		"huge count":                  {func(b []byte) { put32(57, 1<<31-1)(b); put32(23, 1<<31-2)(b) }, broker.InvalidRecord},
		"unknown codec":               {func(b []byte) { b[22] |= 7 }, broker.UnsupportedCompressionType},
		"plain records called gzip":   {func(b []byte) { b[22] |= 1 }, broker.InvalidRecord},
		"plain records called snappy": {func(b []byte) { b[22] |= 2 }, broker.InvalidRecord},
		"plain records called lz4":    {func(b []byte) { b[22] |= 3 }, broker.InvalidRecord},
		"plain records called zstd":   {func(b []byte) { b[22] |= 4 }, broker.InvalidRecord},
		"negative sequence":           {put32(53, -1), broker.InvalidRecord},
		"transaction, no producer":    {func(b []byte) { put64(43, -1)(b); b[22] |= 0x10 }, broker.InvalidRecord},
		"timestamps over the end":     {put64(27, 1<<63-5), broker.InvalidTimestamp},
		"negative timestamps":         {put64(27, -1<<40), broker.InvalidTimestamp},
		"record length too long":      {func(b []byte) { b[61] = 0x7e }, broker.InvalidRecord},
		"record length negative":      {func(b []byte) { b[61] = 0x01 }, broker.InvalidRecord},
		"offset delta of another":     {func(b []byte) { b[64] = 4 }, broker.InvalidRecord},
		"key longer than the record":  {func(b []byte) { b[65] = 0x7e }, broker.InvalidRecord},
	}
	for name, c := range cases {
		err := batch.Validate(forge(good, c.change), batch.Limits{}, new(batch.Decompressor))
		if broker.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want code %d", name, err, c.want)
		}
	}
	if err := batch.Validate(good, batch.Limits{BatchBytesMax: good.Len() - 1}, nil); broker.CodeOf(err) != broker.MessageTooLarge {
		t.Errorf("a batch over the limit: %v", err)
	}
	trailing := append(bytes.Clone(good), 0, 0)
	if err := batch.Validate(forge(trailing, func([]byte) {}), batch.Limits{}, nil); broker.CodeOf(err) != broker.InvalidRecord {
		t.Errorf("bytes behind the last record: %v", err)
	}
}

func TestParseRefusesOtherFormats(t *testing.T) {
	good := build(t, batch.Spec{}, sampleRecords(1))
	for name, c := range map[string]struct {
		change func(b []byte)
		want   broker.Code
	}{
		"message set":     {func(b []byte) { b[16] = 1 }, broker.InvalidRecord},
		"later format":    {func(b []byte) { b[16] = 3 }, broker.CorruptMessage},
		"negative length": {func(b []byte) { b[8] = 0xff }, broker.CorruptMessage},
		"short length":    {func(b []byte) { copy(b[8:], []byte{0, 0, 0, 48}) }, broker.CorruptMessage},
		"negative span":   {func(b []byte) { b[23] = 0x80 }, broker.CorruptMessage},
	} {
		b := bytes.Clone(good)
		c.change(b)
		if _, err := batch.Parse(b); broker.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want code %d", name, err, c.want)
		}
	}
}

func TestBuilderRefusesWhatNoReaderCouldUse(t *testing.T) {
	b := batch.NewBuilder(batch.Spec{})
	if _, err := b.Finish(); err == nil {
		t.Error("a batch without records was built")
	}
	if err := b.Append(batch.Record{OffsetDelta: 3}); err != nil {
		t.Fatal(err)
	}
	if err := b.Append(batch.Record{OffsetDelta: 3}); err == nil {
		t.Error("two records at one offset were built")
	}
}

func TestValidatingPlainBatchesDoesNotAllocate(t *testing.T) {
	v := build(t, batch.Spec{BaseTimestamp: 1}, sampleRecords(100))
	var d batch.Decompressor
	if n := testing.AllocsPerRun(20, func() {
		if err := batch.Validate(v, batch.Limits{}, &d); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Fatalf("%v allocations a batch", n)
	}
}

// FuzzBatch: whatever Validate lets through can be read to its end, and nothing panics on the rest.
func FuzzBatch(f *testing.F) {
	for _, codec := range codecs {
		f.Add([]byte(build(f, batch.Spec{Codec: codec}, sampleRecords(5))))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := batch.Decompressor{BytesMax: 1 << 20}
		if len(b) >= batch.HeaderBytes {
			b[16] = 2 // the random walk should not die at the magic and the CRC
			b = forge(b, func([]byte) {})
		}
		for v, err := range batch.All(b) {
			if err != nil {
				return
			}
			valid := batch.Validate(v, batch.Limits{DecompressedBytesMax: 1 << 20}, &d)
			r, err := v.Records(&d)
			if err != nil {
				if valid == nil {
					t.Fatalf("valid, but %v", err)
				}
				continue
			}
			n := int32(0)
			for rec := new(batch.Record); r.Next(rec); n++ {
				_ = r.HasHeaders()
			}
			if valid == nil && (r.Err() != nil || n != v.Count()) {
				t.Fatalf("valid, but %d of %d records read: %v", n, v.Count(), r.Err())
			}
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	for _, size := range []int{100, 1000} {
		bb := batch.NewBuilder(batch.Spec{BaseTimestamp: 1})
		for i := range 1_000_000 / size {
			if err := bb.Append(batch.Record{OffsetDelta: int32(i), Key: []byte("key"), Value: make([]byte, size)}); err != nil {
				b.Fatal(err)
			}
		}
		out, err := bb.Finish()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(map[int]string{100: "100B", 1000: "1KiB"}[size], func(b *testing.B) {
			b.SetBytes(int64(len(out)))
			for b.Loop() {
				if err := batch.Validate(out, batch.Limits{}, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
