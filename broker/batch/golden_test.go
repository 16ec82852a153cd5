package batch_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

var update = flag.Bool("update", false, "make testdata/*.batch again with a franz-go producer")

const goldenBaseMillis = 1_700_000_000_000

// goldenRecords are what the client under testdata sent.
func goldenRecords() []*kgo.Record {
	var records []*kgo.Record
	for i := range 50 {
		r := &kgo.Record{
			Topic:     "golden",
			Timestamp: time.UnixMilli(goldenBaseMillis + int64(i)*3),
			Key:       fmt.Appendf(nil, "customer-%d", i%7),
			Value:     bytes.Repeat(fmt.Appendf(nil, `{"order":%d,"state":"placed"}`, i), 1+i%9),
		}
		switch i % 5 {
		case 1:
			r.Key = nil
		case 2:
			r.Value = nil
		case 3:
			r.Headers = []kgo.RecordHeader{{Key: "trace", Value: []byte{0, 1, 2, 0xff}}, {Key: "", Value: nil}}
		}
		records = append(records, r)
	}
	return records
}

func goldenPath(codec batch.Codec) string {
	return filepath.Join("testdata", "franz-go-"+codec.String()+".batch")
}

// makeGolden lets a franz-go producer send the records and keeps the bytes that it put on the wire.
func makeGolden(t *testing.T, codec batch.Codec) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "golden"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	var sent []byte
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		sent = bytes.Clone(req.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records)
		return nil, nil, false
	})
	with := map[batch.Codec]kgo.CompressionCodec{
		batch.None: kgo.NoCompression(), batch.Gzip: kgo.GzipCompression(), batch.Snappy: kgo.SnappyCompression(),
		batch.LZ4: kgo.Lz4Compression(), batch.Zstd: kgo.ZstdCompression(),
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ProducerBatchCompression(with[codec]), kgo.ProducerLinger(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(context.Background(), goldenRecords()...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenPath(codec), sent, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestBatchesOfAKafkaClientValidateAndReadAsSent(t *testing.T) {
	want := goldenRecords()
	for _, codec := range codecs {
		if *update {
			makeGolden(t, codec)
		}
		b, err := os.ReadFile(goldenPath(codec))
		if err != nil {
			t.Fatal(err)
		}
		v, err := batch.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if v.Codec() != codec || int(v.Count()) != len(want) || v.Len() != len(b) || v.ProducerID() < 0 {
			t.Fatalf("%s: codec %s, %d records, %d of %d bytes", codec, v.Codec(), v.Count(), v.Len(), len(b))
		}
		if err := batch.Validate(v, batch.Limits{}, new(batch.Decompressor)); err != nil {
			t.Fatalf("%s: %v", codec, err)
		}
		for i, got := range read(t, v) {
			w := want[i]
			if !bytes.Equal(got.Key, w.Key) || (got.Key == nil) != (w.Key == nil) || !bytes.Equal(got.Value, w.Value) ||
				(got.Value == nil) != (w.Value == nil) || v.Timestamp(got.TimestampDelta) != w.Timestamp.UnixMilli() || len(got.Headers) != len(w.Headers) {
				t.Fatalf("%s: record %d differs: %+v", codec, i, got)
			}
			for j, h := range got.Headers {
				if string(h.Key) != w.Headers[j].Key || !bytes.Equal(h.Value, w.Headers[j].Value) {
					t.Fatalf("%s: header %d of record %d differs", codec, j, i)
				}
			}
		}
	}
}

func TestAnotherDecoderReadsWhatTheBuilderWrites(t *testing.T) {
	for _, codec := range codecs {
		spec := batch.Spec{BaseOffset: 5000, LeaderEpoch: 3, BaseTimestamp: goldenBaseMillis, Codec: codec,
			Producer: &batch.Producer{ID: 9, Epoch: 2, BaseSequence: 40}, Transactional: true, LastOffsetDelta: 70}
		v := build(t, spec, sampleRecords(60))
		var other kmsg.RecordBatch
		if err := other.ReadFrom(v); err != nil {
			t.Fatalf("%s: %v", codec, err)
		}
		if other.FirstOffset != 5000 || other.PartitionLeaderEpoch != 3 || other.Magic != 2 || other.Attributes != int16(codec)|0x10 ||
			other.LastOffsetDelta != 70 || other.FirstTimestamp != goldenBaseMillis || other.MaxTimestamp != goldenBaseMillis+59*7 ||
			other.ProducerID != 9 || other.ProducerEpoch != 2 || other.FirstSequence != 40 || other.NumRecords != 60 ||
			uint32(other.CRC) != crc32.Checksum(v[21:], crc32.MakeTable(crc32.Castagnoli)) {
			t.Fatalf("%s: kmsg reads %+v", codec, other)
		}
		plain, err := kgo.DefaultDecompressor().Decompress(other.Records, kgo.CompressionCodecType(codec))
		if err != nil {
			t.Fatalf("%s: %v", codec, err)
		}
		var first kmsg.Record
		if err := first.ReadFrom(plain); err != nil || string(first.Key) != "key-0" {
			t.Fatalf("%s: first record %q, %v", codec, first.Key, err)
		}
		if codec == batch.LZ4 && v[61+4]&0x20 == 0 {
			t.Fatal("lz4 blocks depend on one another: Kafka's Java client refuses that")
		}
	}
}

// TestRawSnappyIsRead: librdkafka and others send one snappy block without Java's framing.
func TestRawSnappyIsRead(t *testing.T) {
	plain := bytes.Repeat([]byte("abcdefgh"), 100)
	framed, err := new(batch.Compressor).Append(nil, batch.Snappy, plain)
	if err != nil {
		t.Fatal(err)
	}
	var d batch.Decompressor
	for name, src := range map[string][]byte{"framed": framed, "raw": framed[20:]} { // header 16, block length 4
		got, err := d.Decompress(batch.Snappy, src)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestDecompressionBombsAreStoppedAtTheLimit(t *testing.T) {
	records := []batch.Record{{Value: make([]byte, 8<<20)}}
	for _, codec := range codecs[1:] {
		v := build(t, batch.Spec{Codec: codec}, records)
		var d batch.Decompressor
		if err := batch.Validate(v, batch.Limits{DecompressedBytesMax: 1 << 20}, &d); broker.CodeOf(err) != broker.MessageTooLarge {
			t.Fatalf("%s: %v", codec, err)
		}
		if err := batch.Validate(v, batch.Limits{DecompressedBytesMax: 9 << 20}, &d); err != nil {
			t.Fatalf("%s under its limit: %v", codec, err)
		}
	}
}
