package producer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

const (
	snapshotMagic   = "MRPRODCR"
	snapshotVersion = 1

	headerBytes   = 8 + 2 + 4 + 8
	producerBytes = 8 + 2 + 8 + 1
	spanBytes     = 4 + 4 + 8 + 8
	trailerBytes  = 4
)

// ErrSnapshot is what Decode returns, wrapped, for bytes that are not a whole snapshot. The state is then made from the
// log.
var ErrSnapshot = errors.New("not a whole producer snapshot")

// ErrVersion is what Decode returns, wrapped, for a snapshot of a newer version than this program knows. It is not read
// and not replaced: a newer program wrote this directory.
var ErrVersion = errors.New("written by a newer version")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the snapshot of the state at end, in the layout that the package comment shows. Inside a run (Begin),
// batches at or above end are left out, so that a segment which begins in the middle of a run gets the state below it.
func (s *State) Encode(end broker.Offset) []byte {
	entries := s.entries
	if slices.ContainsFunc(s.undo, func(u undo) bool { return u.base >= end }) {
		entries = maps.Clone(entries)
		for i := len(s.undo) - 1; i >= 0 && s.undo[i].base >= end; i-- {
			if u := &s.undo[i]; u.had {
				entries[u.id] = &u.old
			} else {
				delete(entries, u.id)
			}
		}
	}
	b := make([]byte, 0, headerBytes+len(entries)*(producerBytes+WindowBatches*spanBytes)+trailerBytes)
	b = append(b, snapshotMagic...)
	b = binary.LittleEndian.AppendUint16(b, snapshotVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)))
	b = binary.LittleEndian.AppendUint64(b, uint64(end))
	for _, id := range slices.Sorted(maps.Keys(entries)) {
		e := entries[id]
		b = binary.LittleEndian.AppendUint64(b, uint64(id))
		b = binary.LittleEndian.AppendUint16(b, uint16(e.epoch))
		b = binary.LittleEndian.AppendUint64(b, uint64(e.seenMs))
		b = append(b, e.count)
		for _, w := range e.window[:e.count] {
			b = binary.LittleEndian.AppendUint32(b, uint32(w.last))
			b = binary.LittleEndian.AppendUint32(b, uint32(w.delta))
			b = binary.LittleEndian.AppendUint64(b, uint64(w.lastOffset))
			b = binary.LittleEndian.AppendUint64(b, uint64(w.timestampMs))
		}
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// Decode reads what Encode wrote, and returns the state with the offset it was taken at.
func Decode(b []byte) (*State, broker.Offset, error) {
	if len(b) < headerBytes+trailerBytes || string(b[:8]) != snapshotMagic {
		return nil, 0, fmt.Errorf("%d bytes without its magic: %w", len(b), ErrSnapshot)
	}
	body, trailer := b[:len(b)-trailerBytes], b[len(b)-trailerBytes:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(trailer) {
		return nil, 0, fmt.Errorf("checksum differs: %w", ErrSnapshot)
	}
	if version := binary.LittleEndian.Uint16(b[8:]); version != snapshotVersion {
		return nil, 0, fmt.Errorf("version %d, this program knows %d: %w", version, snapshotVersion, ErrVersion)
	}
	count := binary.LittleEndian.Uint32(b[10:])
	end := broker.Offset(binary.LittleEndian.Uint64(b[14:]))
	s := NewState()
	rest := body[headerBytes:]
	for range count {
		var err error
		if rest, err = s.decodeProducer(rest); err != nil {
			return nil, 0, err
		}
	}
	if len(rest) != 0 || len(s.entries) != int(count) {
		return nil, 0, fmt.Errorf("%d bytes behind %d of %d producers: %w", len(rest), len(s.entries), count, ErrSnapshot)
	}
	return s, end, nil
}

func (s *State) decodeProducer(b []byte) (rest []byte, err error) {
	if len(b) < producerBytes {
		return nil, fmt.Errorf("cut inside a producer: %w", ErrSnapshot)
	}
	id := broker.ProducerID(binary.LittleEndian.Uint64(b))
	e := &entry{
		epoch:  broker.ProducerEpoch(binary.LittleEndian.Uint16(b[8:])),
		seenMs: int64(binary.LittleEndian.Uint64(b[10:])),
		count:  b[18],
	}
	b = b[producerBytes:]
	if e.count > WindowBatches || len(b) < int(e.count)*spanBytes {
		return nil, fmt.Errorf("producer %d with %d batches in %d bytes: %w", id, e.count, len(b), ErrSnapshot)
	}
	for i := range e.window[:e.count] {
		e.window[i] = span{
			last:        broker.Sequence(binary.LittleEndian.Uint32(b)),
			delta:       int32(binary.LittleEndian.Uint32(b[4:])),
			lastOffset:  broker.Offset(binary.LittleEndian.Uint64(b[8:])),
			timestampMs: int64(binary.LittleEndian.Uint64(b[16:])),
		}
		b = b[spanBytes:]
	}
	s.entries[id] = e
	return b, nil
}
