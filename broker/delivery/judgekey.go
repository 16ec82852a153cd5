package delivery

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// rulesNumber is raised whenever the host's own part of judging changes an outcome or an id.
const rulesNumber = 1

// abiVersion is the plugin ABI whose answers this broker judges by.
const abiVersion = 1

// JudgeKey is the digest of everything that can change an outcome or an id: bindings with one key share all work and
// all files. Origin, the offsets of rows and `within` are not in it.
type JudgeKey [16]byte

// Hex returns the 32 hexadecimal digits that name the key's directory.
func (k JudgeKey) Hex() string { return hex.EncodeToString(k[:]) }

// IsZero reports whether k is the key of no chain.
func (k JudgeKey) IsZero() bool { return k == JudgeKey{} }

// ParseJudgeKey reads what Hex writes.
func ParseJudgeKey(text string) (JudgeKey, error) {
	var k JudgeKey
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(k) {
		return JudgeKey{}, fmt.Errorf("judge key %q is not 32 hexadecimal digits", text)
	}
	copy(k[:], raw)
	return k, nil
}

// FrameKind says what one frame holds at most.
type FrameKind uint8

// The kinds of frame; the numbers are in judge keys.
const (
	FrameBatch  FrameKind = 1 // one stored batch, cut at the row's limits
	FrameRecord FrameKind = 2 // one record: compacted topics, whose batches the cleaner changes
)

// KeyOf returns the judge key of a row's chain on a topic (formats.md section 5).
func KeyOf(topic broker.TopicID, kind FrameKind, row *metadata.Row) JudgeKey {
	var d keyDigest
	d.bytes([]byte("MRJK1"))
	d.bytes(topic[:])
	d.u32(rulesNumber)
	d.u32(abiVersion)
	d.u32(uint32(row.Policy))
	d.u32(uint32(row.Limits.BlockBits))
	d.u32(row.WindowBlocks)
	d.u32(uint32(kind))
	d.u32(row.Limits.FrameRecordsMax)
	d.u32(row.Limits.FrameBytesMax)
	d.u32(row.Limits.FrameFailuresMax)
	d.u32(row.Limits.RecordOutputMax)
	d.u32(row.Limits.FrameOutputMax)
	d.u64(row.Limits.RecordFuel)
	d.u64(row.Limits.SliceFuel)
	d.u32(row.Limits.CallDepthMax)
	d.u32(row.Limits.MemoryBytesMax)
	for _, stage := range row.Stages {
		d.bytes(stage.Metered[:])
		d.u32(uint32(stage.Projection))
		d.bytes(stage.Config)
	}
	sum := sha256.Sum256(d.buf)
	return JudgeKey(sum[:16])
}

// keyDigest collects the fields of a key, each behind its length, so that no two lists of fields are the same bytes.
type keyDigest struct{ buf []byte }

func (d *keyDigest) bytes(field []byte) {
	d.buf = binary.LittleEndian.AppendUint32(d.buf, uint32(len(field)))
	d.buf = append(d.buf, field...)
}

func (d *keyDigest) u32(v uint32) { d.bytes(binary.LittleEndian.AppendUint32(nil, v)) }
func (d *keyDigest) u64(v uint64) { d.bytes(binary.LittleEndian.AppendUint64(nil, v)) }
