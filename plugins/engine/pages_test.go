package engine

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/millrace-io/millrace/plugins/abi"
)

// What is written anywhere, by guest or host, is gone after a restore, whatever was read and restored before.
func TestAMappedMemoryIsRestoredToItsLastByte(t *testing.T) {
	e := newEngine(t)
	if e.pager == nil {
		t.Skip("the kernel does not tell which pages were written")
	}
	m := script(t, e, "")
	i, err := m.take(t.Context(), enter(t, e.gate))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = i.close(t.Context()) }()
	i.restore(m.image)
	if i.memory.mapped == nil || !bytes.Equal(i.memory.bytes, m.image.memory) {
		t.Fatal("a new instance is not mapped, or not its image")
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	pages := len(i.memory.bytes) / os.Getpagesize()
	sum := byte(0)
	for range 500 {
		for range rng.IntN(4) {
			sum += i.memory.bytes[rng.IntN(len(i.memory.bytes))]
		}
		for range rng.IntN(4) { // mostly where it was written before, at page borders among others
			at := rng.IntN(1+pages/8)*8*os.Getpagesize() + rng.IntN(3) - 1
			i.memory.bytes[min(max(at, 0), len(i.memory.bytes)-1)] ^= sum | 1
		}
		i.restore(m.image)
		if !bytes.Equal(i.memory.bytes, m.image.memory) {
			t.Fatalf("seed %d: the memory differs from its image; pages %v were found", seed, i.memory.mapped.written)
		}
	}
	if n := len(i.memory.mapped.written); n == 0 || n > pages/2 {
		t.Errorf("%d of %d pages are restored", n, pages)
	}
}

// Where the kernel tells nothing, images are copied whole, with the same answers and fuel.
func TestMappedAndCopiedImagesAnswerAlike(t *testing.T) {
	mapped, copied := newEngine(t), newEngine(t)
	if copied.pager != nil {
		_ = copied.pager.close()
		copied.pager = nil
	}
	a, b := script(t, mapped, ""), script(t, copied, "")
	for _, frame := range []*abi.Frame{frameOf("p", "r=abc", "d", "k"), frameOf("k"), frameOf("r=abcdefgh", "p"), frameOf("p")} {
		var left, right abi.Answer
		fuelA, errA := a.Judge(context.Background(), frame, &left)
		fuelB, errB := b.Judge(context.Background(), frame, &right)
		if errA != nil || errB != nil || fuelA != fuelB || len(left.Verdicts) != len(right.Verdicts) {
			t.Fatalf("%d and %d fuel, %v and %v", fuelA, fuelB, errA, errB)
		}
		for n := range left.Verdicts {
			if left.Verdicts[n].Kind != right.Verdicts[n].Kind || !bytes.Equal(left.Verdicts[n].ID, right.Verdicts[n].ID) {
				t.Errorf("record %d: %+v and %+v", n, left.Verdicts[n], right.Verdicts[n])
			}
		}
	}
	if copied.pager == nil && b.image.file != nil {
		t.Error("an image without a pager is in a file")
	}
}
