package producer

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"testing"
)

func sample() *State {
	s := NewState()
	s.Apply(Batch{Producer: 1000, Epoch: 2, First: 5, Last: 6, Base: 10, End: 12, TimestampMs: 77, SeenMs: 99})
	s.Apply(Batch{Producer: 4, Epoch: 0, First: 0, Last: 0, Base: 12, End: 13, TimestampMs: 78, SeenMs: 100})
	return s
}

// TestSnapshotBytesAreFixed holds version 1 of the format as the package comment shows it.
func TestSnapshotBytesAreFixed(t *testing.T) {
	const golden = "4d5250524f444352" + "0100" + "02000000" + "0d00000000000000" +
		"0400000000000000" + "0000" + "6400000000000000" + "01" + "00000000" + "00000000" + "0c00000000000000" + "4e00000000000000" +
		"e803000000000000" + "0200" + "6300000000000000" + "01" + "06000000" + "01000000" + "0b00000000000000" + "4d00000000000000" +
		"db7ed485"
	if got := hex.EncodeToString(sample().Encode(13)); got != golden {
		t.Fatalf("snapshot bytes\n%s, want\n%s", got, golden)
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	whole := sample().Encode(13)
	for i := range whole {
		damaged := append([]byte(nil), whole...)
		damaged[i] ^= 0x10
		if _, _, err := Decode(damaged); err == nil {
			t.Fatalf("a flip in byte %d was not noticed", i)
		}
		if _, _, err := Decode(whole[:i]); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
}

func TestNewerSnapshotIsNotTakenForDamage(t *testing.T) {
	b := sample().Encode(13)
	b[8] = 2
	if _, _, err := Decode(b); !errors.Is(err, ErrSnapshot) || errors.Is(err, ErrVersion) {
		t.Fatalf("a flipped version: %v", err)
	}
	binary.LittleEndian.PutUint32(b[len(b)-trailerBytes:], crc32.Checksum(b[:len(b)-trailerBytes], castagnoli))
	if _, _, err := Decode(b); !errors.Is(err, ErrVersion) || errors.Is(err, ErrSnapshot) {
		t.Fatalf("a newer version: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode(13))
	f.Add(NewState().Encode(0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= headerBytes+trailerBytes { // let the fuzzer past the checksum
			binary.LittleEndian.PutUint32(b[len(b)-trailerBytes:], crc32.Checksum(b[:len(b)-trailerBytes], castagnoli))
		}
		s, end, err := Decode(b)
		if err == nil {
			again, _, err := Decode(s.Encode(end))
			if err != nil || again.Len() != s.Len() {
				t.Fatalf("a decoded snapshot does not survive being written: %v", err)
			}
		}
	})
}
