package delivery

import (
	"sync/atomic"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// keptSlice is a read of batches of ten offsets each, and whether it was given back.
func keptSlice(t *testing.T, from broker.Offset, batches, bytes int) (s Slice, released *atomic.Int32) {
	t.Helper()
	var run []byte
	for i := range batches {
		b := batch.NewBuilder(batch.Spec{BaseOffset: from + 10*broker.Offset(i)})
		for delta := range int32(10) {
			if err := b.Append(batch.Record{OffsetDelta: delta, Value: make([]byte, bytes/10)}); err != nil {
				t.Fatal(err)
			}
		}
		built, err := b.Finish()
		if err != nil {
			t.Fatal(err)
		}
		run = append(run, built...)
	}
	released = new(atomic.Int32)
	return Slice{Bytes: [][]byte{run}, Cold: true, Release: func() { released.Add(1) }}, released
}

func TestWhatIsKeptIsGivenBackOnceByItsLastUser(t *testing.T) {
	k := kept{node: new(atomic.Int64)}
	first, firstBack := keptSlice(t, 0, 2, 100)
	second, secondBack := keptSlice(t, 20, 2, 100)
	if !k.add(0, 20, first) || !k.add(20, 40, second) {
		t.Fatal("not kept")
	}
	got, ok := k.read(13)
	if v, err := firstBatch(got); !ok || err != nil || v.BaseOffset() != 10 {
		t.Fatalf("offset 13 is read from %v, %v", v, err)
	}
	k.passed(20)
	if firstBack.Load() != 0 {
		t.Fatal("given back while it is read")
	}
	if _, ok := k.read(13); ok {
		t.Fatal("what was passed is still there")
	}
	got.release()
	if firstBack.Load() != 1 || secondBack.Load() != 0 {
		t.Fatalf("given back %d and %d times", firstBack.Load(), secondBack.Load())
	}
	k.passed(39)
	if _, ok := k.read(39); !ok {
		t.Fatal("let go of before it was passed")
	} else if k.passed(forever); secondBack.Load() != 0 {
		t.Fatal("given back while it is read")
	}
	if k.bytes != 0 || k.node.Load() != 0 {
		t.Fatalf("%d bytes are counted, %d of the node", k.bytes, k.node.Load())
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	node := new(atomic.Int64)
	const piece = 1 << 20
	taken := 0
	for range 2 * nodeKeptBytesMax / keptBytesMax {
		k, at := kept{node: node}, broker.Offset(0)
		for range 2 * keptBytesMax / piece {
			s, _ := keptSlice(t, at, 1, piece)
			if k.add(at, at+10, s) {
				taken++
			}
			at += 10
		}
		if k.bytes > keptBytesMax+piece {
			t.Fatalf("a track keeps %d bytes", k.bytes)
		}
	}
	if node.Load() > nodeKeptBytesMax || taken != nodeKeptBytesMax/piece-1 {
		t.Fatalf("the node keeps %d bytes in %d pieces", node.Load(), taken)
	}
}
