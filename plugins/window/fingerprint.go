package window

import (
	"encoding/binary"
	"fmt"

	"github.com/dchest/siphash"
)

// An id has IDBytesMin to IDBytesMax bytes; whatever else a guest gives is that record's failure.
const (
	IDBytesMin = 1
	IDBytesMax = 1024
)

// FingerprintBytes is the size of a fingerprint in an .ids file.
const FingerprintBytes = 16

// Fingerprint stands for an id: 128 bits of a keyed hash. Two ids with one fingerprint count as equal.
type Fingerprint struct{ Lo, Hi uint64 }

// Function numbers the hash functions that a topic's creation fact may name. Numbers are never reused.
type Function uint8

// SipHash24 is SipHash-2-4 with 128 bits of output; the key is two little-endian words.
const SipHash24 Function = 1

// Check refuses a function that this program does not know.
func (f Function) Check() error {
	if f != SipHash24 {
		return fmt.Errorf("fingerprint function %d is unknown to this program", f)
	}
	return nil
}

// Hasher makes the fingerprints of one topic. It holds no state and may be shared.
type Hasher struct{ k0, k1 uint64 }

// NewHasher returns the hasher for the function and the 16 random bytes of a topic's creation fact.
func NewHasher(f Function, key [16]byte) (Hasher, error) {
	if err := f.Check(); err != nil {
		return Hasher{}, err
	}
	return Hasher{k0: binary.LittleEndian.Uint64(key[:8]), k1: binary.LittleEndian.Uint64(key[8:])}, nil
}

// Sum is the fingerprint of an id.
func (h Hasher) Sum(id []byte) Fingerprint {
	lo, hi := siphash.Hash128(h.k0, h.k1, id)
	return Fingerprint{Lo: lo, Hi: hi}
}

// put writes the fingerprint as it lies in an .ids file.
func (p Fingerprint) put(b []byte) {
	binary.LittleEndian.PutUint64(b[8:], p.Hi)
	binary.LittleEndian.PutUint64(b, p.Lo)
}

func fingerprintAt(b []byte) Fingerprint {
	return Fingerprint{Lo: binary.LittleEndian.Uint64(b), Hi: binary.LittleEndian.Uint64(b[8:])}
}
