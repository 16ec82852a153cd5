package delivery

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/plugins/window"
)

// fileKind is one of the three files of a block.
type fileKind int

const (
	fileVerdicts fileKind = iota
	fileIDs
	fileSplices
	fileKinds
)

// The kinds' names and magics.
var (
	fileExtensions = [fileKinds]string{".verdicts", ".ids", ".splices"}
	fileMagics     = [fileKinds]string{"MRVERDCT", "MRSIGHTS", "MRSPLICE"}
)

const (
	fileVersion = 1
	headerBytes = 8 + 2 + 2 + 4 + 16 + 3*8 + 4 + 4
)

// ErrFile is what reading a file of a judge key returns, wrapped, when its bytes are not what was written. Such a file
// is set aside and made again from the log.
var ErrFile = errors.New("damaged file of a judge key")

// fileHeader says what a file of a judge key is about.
type fileHeader struct {
	key       JudgeKey
	block     broker.Offset
	base, end broker.Offset
	epoch     broker.LeaderEpoch
	bits      uint8
}

func (b *block) header(key JudgeKey) fileHeader {
	return fileHeader{key: key, block: b.start, base: b.base, end: b.end, epoch: b.epoch, bits: b.bits}
}

// appendHeader writes the header that doc.go draws.
func appendHeader(dst []byte, kind fileKind, h fileHeader) []byte {
	le := binary.LittleEndian
	dst = append(dst, fileMagics[kind]...)
	dst = le.AppendUint16(dst, fileVersion)
	dst = le.AppendUint16(dst, uint16(kind))
	dst = le.AppendUint32(dst, 0)
	dst = append(dst, h.key[:]...)
	dst = le.AppendUint64(dst, uint64(h.block))
	dst = le.AppendUint64(dst, uint64(h.base))
	dst = le.AppendUint64(dst, uint64(h.end))
	dst = le.AppendUint32(dst, uint32(h.epoch))
	return append(dst, h.bits, 0, 0, 0)
}

// seal ends a file with the SHA-256 of everything before.
func seal(file []byte) []byte {
	sum := sha256.Sum256(file)
	return append(file, sum[:]...)
}

// open checks a whole file and returns its header and body.
func open(kind fileKind, file []byte) (fileHeader, []byte, error) {
	var h fileHeader
	if len(file) < headerBytes+sha256.Size || string(file[:8]) != fileMagics[kind] {
		return h, nil, fmt.Errorf("%w: not a %s file", ErrFile, fileExtensions[kind])
	}
	le := binary.LittleEndian
	if version := le.Uint16(file[8:]); version > fileVersion {
		return h, nil, fmt.Errorf("%s file has version %d, this program knows %d", fileExtensions[kind], version, fileVersion)
	}
	body, trailer := file[:len(file)-sha256.Size], file[len(file)-sha256.Size:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], trailer) {
		return h, nil, fmt.Errorf("%w: its SHA-256 does not fit", ErrFile)
	}
	copy(h.key[:], file[16:])
	h.block = broker.Offset(le.Uint64(file[32:]))
	h.base = broker.Offset(le.Uint64(file[40:]))
	h.end = broker.Offset(le.Uint64(file[48:]))
	h.epoch = broker.LeaderEpoch(le.Uint32(file[56:]))
	h.bits = file[60]
	if h.bits == 0 || h.bits > window.BlockBitsMax || h.block < 0 || h.block != blockOf(h.block, h.bits) ||
		h.end <= h.block || h.end > h.block+1<<h.bits || h.base < 0 || h.base >= h.end {
		return h, nil, fmt.Errorf("%w: impossible header", ErrFile)
	}
	return h, body[headerBytes:], nil
}

// encodeVerdicts writes a block's outcomes, two bits an offset from its first on (those below base are 1, absent), and
// its repeats:
//
//	u32 n, ⌈n/4⌉ bytes: offset i in bits 2(i%4) of byte i/4 · repeats as plugins/window draws them
func encodeVerdicts(key JudgeKey, b *block) []byte {
	file := appendHeader(nil, fileVerdicts, b.header(key))
	n := int(b.end - b.start)
	file = binary.LittleEndian.AppendUint32(file, uint32(n))
	at := len(file)
	file = append(file, make([]byte, (n+3)/4)...)
	for i := 0; i < n; i++ {
		if i&63 == 0 && b.withheld[i>>6]|b.special[i>>6] == 0 { // 64 that pass
			i += 63
			continue
		}
		file[at+i/4] |= byte(b.outcome(b.start+broker.Offset(i))) << (i % 4 * 2)
	}
	file = b.repeats.In(int64(b.start), int64(b.end)).AppendBinary(file, int64(b.start))
	return seal(file)
}

// decodeVerdicts reads what encodeVerdicts wrote.
func decodeVerdicts(file []byte, g window.Geometry) (fileHeader, *block, error) {
	h, body, err := open(fileVerdicts, file)
	if err != nil {
		return h, nil, err
	}
	n := int(h.end - h.block)
	if h.bits != g.BlockBits || len(body) < 4+(n+3)/4 || int(binary.LittleEndian.Uint32(body)) != n {
		return h, nil, fmt.Errorf("%w: outcomes do not fit the header", ErrFile)
	}
	b := newBlock(h.block, h.bits, h.base)
	b.splices = nil
	b.end, b.epoch = h.end, h.epoch
	outcomes, rest := body[4:4+(n+3)/4], body[4+(n+3)/4:]
	for i, four := range outcomes {
		for o := broker.Offset(4 * i); four != 0 && o < broker.Offset(n); o, four = o+1, four>>2 {
			b.setOutcome(b.start+o, Outcome(four&3))
		}
	}
	if b.repeats, rest, err = window.DecodeRepeats(rest, int64(b.start), g); err != nil || len(rest) != 0 {
		return h, nil, fmt.Errorf("%w: repeats: %d bytes left: %v", ErrFile, len(rest), err)
	}
	return h, b, nil
}

// encodeIDs writes the sightings of a block to room, which grows as needed; ids may be nil if it has none.
func encodeIDs(room []byte, key JudgeKey, b *block, ids *window.IDs) []byte {
	if ids == nil {
		ids = &window.IDs{Start: int64(b.start)}
	}
	n := int(b.end - b.start)
	room = slices.Grow(room[:0], headerBytes+4+(n+7)/8+n*(window.FingerprintBytes+8)+sha256.Size)
	return seal(ids.AppendBinary(appendHeader(room, fileIDs, b.header(key)), int64(b.end)))
}

func decodeIDs(file []byte, g window.Geometry) (fileHeader, *window.IDs, error) {
	h, body, err := open(fileIDs, file)
	if err != nil {
		return h, nil, err
	}
	ids, rest, err := window.DecodeIDs(body, int64(h.block), g)
	if err != nil || len(rest) != 0 || ids.End() != int64(h.end) {
		return h, nil, fmt.Errorf("%w: ids: %d bytes left: %v", ErrFile, len(rest), err)
	}
	return h, ids, nil
}

// encodeSplices writes a block's splices in order of base offset:
//
//	u32 n, then each: base:i64 length:u32 crc:u32 count:u32 last:u32 crcKept:u32 crcCut:u32 whole:u8
//	words:u32 sent:words×u64 · spans:u32 × (own:u8 at:u32 to:u32) · length:u32 bytes
func encodeSplices(key JudgeKey, b *block) []byte {
	le := binary.LittleEndian
	file := appendHeader(nil, fileSplices, b.header(key))
	file = le.AppendUint32(file, uint32(len(b.splices)))
	for _, base := range sortedOffsets(b.splices) {
		s := b.splices[base]
		file = le.AppendUint64(file, uint64(s.base))
		for _, v := range [...]uint32{s.stored, s.crc, s.count, s.last, s.crcKept, s.crcCut} {
			file = le.AppendUint32(file, v)
		}
		file = append(file, boolByte(s.whole))
		file = le.AppendUint32(file, uint32(len(s.sent)))
		for _, word := range s.sent {
			file = le.AppendUint64(file, word)
		}
		file = le.AppendUint32(file, uint32(len(s.spans)))
		for _, p := range s.spans {
			file = append(file, boolByte(p.own))
			file = le.AppendUint32(file, p.at)
			file = le.AppendUint32(file, p.to)
		}
		file = le.AppendUint32(file, uint32(len(s.bytes)))
		file = append(file, s.bytes...)
	}
	return seal(file)
}

func decodeSplices(file []byte) (fileHeader, map[broker.Offset]*splice, error) {
	h, body, err := open(fileSplices, file)
	if err != nil {
		return h, nil, err
	}
	r := reader{rest: body}
	n := r.u32()
	splices := make(map[broker.Offset]*splice)
	for range n {
		s := r.splice()
		if r.err != nil {
			return h, nil, fmt.Errorf("%w: splices: %v", ErrFile, r.err)
		}
		splices[s.base] = s
	}
	if len(r.rest) != 0 {
		return h, nil, fmt.Errorf("%w: %d bytes behind the splices", ErrFile, len(r.rest))
	}
	return h, splices, nil
}

// reader takes little-endian fields off a slice; after the first that is not there, all are zero.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.rest) {
		r.err, r.rest = io.ErrUnexpectedEOF, nil
		return make([]byte, min(max(n, 0), 16))
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) u8() uint8   { return r.take(1)[0] }
func (r *reader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

// count reads how many items of at least size bytes follow.
func (r *reader) count(size int) int {
	n := r.u32()
	if uint64(n)*uint64(size) > uint64(len(r.rest)) {
		r.take(len(r.rest) + 1)
		return 0
	}
	return int(n)
}

func (r *reader) splice() *splice {
	s := &splice{base: broker.Offset(r.u64())}
	for _, field := range [...]*uint32{&s.stored, &s.crc, &s.count, &s.last, &s.crcKept, &s.crcCut} {
		*field = r.u32()
	}
	s.whole = r.u8() != 0
	s.sent = make(bitset, r.count(8))
	for i := range s.sent {
		s.sent[i] = r.u64()
	}
	s.spans = make([]span, r.count(9))
	for i := range s.spans {
		s.spans[i] = span{own: r.u8() != 0, at: r.u32(), to: r.u32()}
	}
	s.bytes = r.take(r.count(1))
	if r.err != nil {
		return s
	}
	for _, p := range s.spans {
		size := s.stored
		if p.own {
			size = uint32(len(s.bytes))
		}
		if p.at > p.to || p.to > size {
			r.err = errRecordBytes
		}
	}
	return s
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
