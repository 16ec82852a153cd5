package commitlog

import (
	"crypto/sha256"

	"github.com/millrace-io/millrace/broker"
)

// keyHash stands for a key: the first half of its SHA-256. Two keys that met in one hash would cost a record, so it is a
// hash that nobody can aim at, and 16 bytes are enough that nobody meets by chance.
type keyHash [16]byte

// keyOffsets remembers where each key was written last.
type keyOffsets struct{ last map[keyHash]broker.Offset }

func newKeyOffsets(n int) keyOffsets { return keyOffsets{make(map[keyHash]broker.Offset, n)} }

func (k keyOffsets) len() int { return len(k.last) }

func (k keyOffsets) set(key []byte, at broker.Offset) { k.last[hashOf(key)] = at }

// supersedes reports whether the key was written again behind at.
func (k keyOffsets) supersedes(key []byte, at broker.Offset) bool {
	last, ok := k.last[hashOf(key)]
	return ok && last > at
}

func hashOf(key []byte) keyHash {
	sum := sha256.Sum256(key)
	return keyHash(sum[:len(keyHash{})])
}
