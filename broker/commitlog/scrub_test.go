package commitlog_test

import (
	"errors"
	"testing"

	"github.com/millrace-io/millrace/broker/commitlog"
)

// Verify finds every damaged byte of a closed segment, says where, and asks its way through the bytes; the open segment and
// one that is gone are nothing to it.
func TestVerifyFindsEveryDamagedByteOfAClosedSegment(t *testing.T) {
	w, mem := inMemory(t)
	w.open()
	for i := range 30 {
		w.appendSized(3, 2000, byte(i))
	}
	w.sync()
	segments := w.log.Segments()
	if len(segments) < 4 {
		t.Fatalf("%d segments", len(segments))
	}
	steps := 0
	step := func(int) (func(), error) { steps++; return func() { steps += 100 }, nil }
	for _, seg := range segments {
		bytes, err := w.log.Verify(seg.Base, step)
		if err != nil || !seg.Active && bytes != seg.SizeBytes || seg.Active && bytes != 0 {
			t.Fatalf("of %+v %d bytes were gone through: %v", seg, bytes, err)
		}
	}
	if steps != 101*(len(segments)-1) {
		t.Fatalf("%d steps and leaves", steps)
	}
	if bytes, err := w.log.Verify(segments[1].Base+1, nil); bytes != 0 || err != nil {
		t.Fatalf("a segment that is not there: %d, %v", bytes, err)
	}
	name := w.segmentFile(segments[1].Base)
	whole := fileBytes(t, mem, name)
	for at := 0; at < len(whole); at += 1 + at/40 {
		overwrite(t, mem, name, []byte{whole[at] ^ 8}, int64(at))
		var corrupt *commitlog.CorruptError
		if _, err := w.log.Verify(segments[1].Base, nil); !errors.As(err, &corrupt) || corrupt.File != name {
			t.Fatalf("byte %d is damaged: %v", at, err)
		}
		overwrite(t, mem, name, whole[at:at+1], int64(at))
	}
	stop := errors.New("stop")
	if _, err := w.log.Verify(segments[1].Base, func(int) (func(), error) { return nil, stop }); !errors.Is(err, stop) {
		t.Fatalf("a step that refuses: %v", err)
	}
}
