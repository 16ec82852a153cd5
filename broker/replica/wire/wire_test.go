package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
)

// codec is a frame with everything that it has.
type codec interface {
	Append(to []byte) []byte
	Decode(body []byte) error
}

var topic = broker.UUID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// samples are one frame of each type that has a type of its own, with the bytes that are fixed.
func samples() []struct {
	frame codec
	bytes string
} {
	return []struct {
		frame codec
		bytes string
	}{
		{&Hello{Cluster: topic, From: 2, To: 1, Directory: broker.UUID{9}, Broker: 300, Session: 4, Stream: Bulk, VersionMin: 1, VersionMax: 1, Window: 1 << 20},
			"2c00000001" + "0102030405060708090a0b0c0d0e0f10" + "0201" + "09000000000000000000000000000000" + "ac02" + "04" + "01" + "0101" + "808040"},
		{&HelloOK{Version: 1}, "020000000201"},
		{&Refused{Why: "no"}, "0400000003026e6f"},
		{&Subscribe{Partition: broker.TopicPartition{Topic: topic, Partition: 5}, Request: partition.Subscribe{
			Subscription: 7, Replica: 12, LeaderEpoch: 3, ImageIndex: 99, End: 1000, LastEpoch: broker.NoLeaderEpoch, Start: 1000}},
			"1b00000004" + "07" + "0102030405060708090a0b0c0d0e0f10" + "05" + "0c" + "04" + "63" + "e807" + "00" + "e807"},
		{&Moved{Subscription: 7, Sequence: 1}, "03000000060701"},
		{&Stop{Subscription: 7, Reason: StopSilence, LeaderEpoch: 3}, "0400000007070204"},
		{&Window{Bytes: 128}, "03000000088001"},
		{&OK{Subscription: 7, Stream: Bulk, HighWatermark: 9, Start: 2}, "06000000090701000902"},
		{&Move{Subscription: 7, Sequence: 1, At: 10, To: Bulk}, "050000000c07010a01"},
		{&Cut{Subscription: 7, Leaders: broker.EpochEnd{Epoch: 2, End: 8}}, "040000000d070308"},
		{&Reset{Subscription: 7, Start: 8}, "030000000e0708"},
		{&End{Subscription: 7, Reason: partition.EndFenced, LeaderEpoch: 5, ImageIndex: 20}, "050000000f07020614"},
	}
}

func TestFramesHaveTheirFixedBytesAndReadBackAsTheyWere(t *testing.T) {
	for _, sample := range samples() {
		b := sample.frame.Append(nil)
		if got := hex.EncodeToString(b); got != sample.bytes {
			t.Errorf("%T is %s, want %s", sample.frame, got, sample.bytes)
		}
		again := reflect.New(reflect.TypeOf(sample.frame).Elem()).Interface().(codec)
		if err := again.Decode(b[headerBytes:]); err != nil || !reflect.DeepEqual(again, sample.frame) {
			t.Errorf("%+v reads back as %+v, %v", sample.frame, again, err)
		}
	}
}

func TestListsAndDataReadBackAsTheyWere(t *testing.T) {
	var acks []partition.Ack
	var marks []Mark
	for i := range 3000 { // more than one frame holds
		o := broker.Offset(i) << 20
		acks = append(acks, partition.Ack{Subscription: partition.SubscriptionID(i + 1), Durable: o, Appended: o + 1, Start: 3})
		marks = append(marks, Mark{Subscription: partition.SubscriptionID(i + 1), HighWatermark: math.MaxInt64, Start: o})
	}
	data := Data{Subscription: 5, From: 10, HighWatermark: 9, Start: 1}
	stream := AppendMarks(AppendAcks(nil, acks), marks)
	stream = append(data.AppendHeader(stream, 300_000), bytes.Repeat([]byte("batches!"), 37_500)...)
	r := NewReader(bytes.NewReader(stream))
	var gotAcks []partition.Ack
	var gotMarks []Mark
	for {
		kind, n, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := r.Body(n)
		if err != nil {
			t.Fatal(err)
		}
		switch kind {
		case TypeAcks:
			gotAcks, err = DecodeAcks(gotAcks, body)
		case TypeMarks:
			gotMarks, err = DecodeMarks(gotMarks, body)
		case TypeData:
			var got Data
			if err = got.Decode(body); len(got.Batches) != 300_000 || got.From != 10 || got.HighWatermark != 9 || got.Start != 1 {
				t.Fatalf("data reads back as %+v", got)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(gotAcks, acks) || !slices.Equal(gotMarks, marks) {
		t.Fatal("a list reads back as another")
	}
}

// TestTruncatedAndPaddedFramesAreRefused cuts every sample at every byte, and adds one.
func TestTruncatedAndPaddedFramesAreRefused(t *testing.T) {
	for _, sample := range samples() {
		body := sample.frame.Append(nil)[headerBytes:]
		for n := range body {
			if err := sample.frame.Decode(body[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%T of %d bytes instead of %d: %v", sample.frame, n, len(body), err)
			}
		}
		if err := sample.frame.Decode(append(slices.Clone(body), 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%T with a byte too many: %v", sample.frame, err)
		}
	}
}

func TestImpossibleFieldsAreRefused(t *testing.T) {
	huge := binary.AppendUvarint(nil, math.MaxInt64+1)
	for name, err := range map[string]error{
		"subscription 0":            (&Moved{}).Decode([]byte{0, 1}),
		"a stream that is none":     (&Move{}).Decode([]byte{7, 1, 10, 2}),
		"a negative offset":         (&Reset{}).Decode(append([]byte{7}, huge...)),
		"an epoch beyond 31 bits":   (&Cut{}).Decode(append(append([]byte{7}, huge...), 1)),
		"a start behind the end":    (&Subscribe{}).Decode((&Subscribe{Request: partition.Subscribe{Subscription: 1, Start: 2, End: 1}}).Append(nil)[headerBytes:]),
		"another durability":        (&OK{}).Decode([]byte{7, 0, 1, 9, 2}),
		"data without batches":      (&Data{}).Decode([]byte{7, 1, 1, 1}),
		"a count beyond its bytes":  decodeAcksOf(binary.AppendUvarint(nil, 1000)),
		"a count beyond all bounds": decodeAcksOf(append(binary.AppendUvarint(nil, listMax+1), make([]byte, 8*listMax)...)),
	} {
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func decodeAcksOf(body []byte) error { _, err := DecodeAcks(nil, body); return err }

// TestLengthsAreJudgedBeforeMemoryIsTaken is X1 and X6: a length costs its sender as many bytes.
func TestLengthsAreJudgedBeforeMemoryIsTaken(t *testing.T) {
	header := func(length uint32, kind Type) io.Reader {
		b := binary.LittleEndian.AppendUint32(nil, length)
		return bytes.NewReader(append(b, byte(kind)))
	}
	for _, bad := range []io.Reader{
		header(0, TypeOK), header(ControlBytesMax+1, TypeAcks), header(BatchBytesMax+DataHeaderBytesMax+1, TypeData),
		header(math.MaxUint32, TypeData), header(10, 0), header(10, TypeEnd+1),
	} {
		if _, _, err := NewReader(bad).Next(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v", err)
		}
	}
	r := NewReader(header(BatchBytesMax, TypeData))
	_, n, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := r.Into(nil, n); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 2*growBytes {
		t.Fatalf("%d bytes were allocated for a frame of which none came", took)
	}
}

func TestLargeBodiesComeWhole(t *testing.T) {
	want := make([]byte, 3_000_001)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	got, err := NewReader(bytes.NewReader(want)).Into(make([]byte, 10), len(want))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

// FuzzFrames reads a stream of frames as both sides do: nothing panics, what is read is written again as it was read, and no
// more memory is taken than there are bytes.
func FuzzFrames(f *testing.F) {
	var all []byte
	for _, sample := range samples() {
		b := sample.frame.Append(nil)
		f.Add(b)
		all = append(all, b...)
	}
	all = AppendAcks(all, []partition.Ack{{Subscription: 1, Durable: 5, Appended: 6}, {Subscription: 2}})
	all = AppendMarks(all, []Mark{{Subscription: 1, HighWatermark: 4, Start: 2}})
	all = append((&Data{Subscription: 3, From: 7, HighWatermark: 6}).AppendHeader(all, 5), "batch"...)
	f.Add(all)
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReader(bytes.NewReader(stream))
		for {
			kind, n, err := r.Next()
			if err != nil {
				return
			}
			body, err := r.Body(n)
			if cap(body) > len(stream)+growBytes {
				t.Fatalf("%d bytes of memory for %d", cap(body), len(stream))
			}
			if err != nil {
				return
			}
			written, err := again(kind, body)
			if err != nil {
				return
			}
			second, err := again(kind, written[headerBytes:])
			if err != nil || !bytes.Equal(written, second) {
				t.Fatalf("%s: %x was written as %x, and that as %x, %v", kind, body, written, second, err)
			}
		}
	})
}

// again decodes a body and writes what it says.
func again(kind Type, body []byte) ([]byte, error) {
	var frame codec
	switch kind {
	case TypeAcks:
		acks, err := DecodeAcks(nil, body)
		if len(acks) == 0 {
			err = errors.Join(err, io.EOF)
		}
		return AppendAcks(nil, acks), err
	case TypeMarks:
		marks, err := DecodeMarks(nil, body)
		if len(marks) == 0 {
			err = errors.Join(err, io.EOF)
		}
		return AppendMarks(nil, marks), err
	case TypeData:
		var d Data
		err := d.Decode(body)
		return append(d.AppendHeader(nil, len(d.Batches)), d.Batches...), err
	case TypeHello:
		frame = &Hello{}
	case TypeHelloOK:
		frame = &HelloOK{}
	case TypeRefused:
		frame = &Refused{}
	case TypeSubscribe:
		frame = &Subscribe{}
	case TypeMoved:
		frame = &Moved{}
	case TypeStop:
		frame = &Stop{}
	case TypeWindow:
		frame = &Window{}
	case TypeOK:
		frame = &OK{}
	case TypeMove:
		frame = &Move{}
	case TypeCut:
		frame = &Cut{}
	case TypeReset:
		frame = &Reset{}
	case TypeEnd:
		frame = &End{}
	}
	err := frame.Decode(body)
	return frame.Append(nil), err
}
