package commitlog

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"path"
	"sort"

	"github.com/millrace-io/millrace/broker"
)

// cleanedName is the file that says how far a log was compacted, and when.
const (
	cleanedName       = "cleaned"
	cleanedMagic      = "MRCOMPCT"
	cleanedEntryBytes = 16

	// Passes that follow one another closer than this part of delete.retention.ms are noted as one: tombstones stay up to
	// that much longer, and the file stays short.
	passesKept = 32
	// passesMax bounds the file where delete.retention.ms was raised.
	passesMax = 4 * passesKept
)

// cleanPass says that everything below end had been compacted at ms, Unix milliseconds.
type cleanPass struct {
	end broker.Offset
	ms  int64
}

// cleanPoint is what is known of a log's compaction: its passes, both columns rising. The last end is the first dirty
// offset. It survives restarts, and what is lost of it is only work: the log counts as dirty again from its start, and
// tombstones stay longer.
type cleanPoint []cleanPass

// end is the first dirty offset.
func (p cleanPoint) end() broker.Offset {
	if len(p) == 0 {
		return 0
	}
	return p[len(p)-1].end
}

// seenMs returns when a pass first saw the record at an offset; ok is false if none did.
func (p cleanPoint) seenMs(at broker.Offset) (ms int64, ok bool) {
	i := sort.Search(len(p), func(i int) bool { return p[i].end > at })
	if i == len(p) {
		return 0, false
	}
	return p[i].ms, true
}

// add notes a pass. Dropping an entry lets the one behind it stand for its offsets, with a later time: tombstones stay
// longer, never shorter.
func (p cleanPoint) add(pass cleanPass, deleteRetentionMs int64) cleanPoint {
	kept := append(cleanPoint(nil), p...)
	n := len(kept)
	if n > 0 {
		if pass.end <= kept[n-1].end {
			return p
		}
		pass.ms = max(pass.ms, kept[n-1].ms)
	}
	if n > 1 && pass.ms-kept[n-2].ms < deleteRetentionMs/passesKept {
		kept = kept[:n-1]
	}
	past := 0
	for past+1 < len(kept) && pass.ms-kept[past+1].ms >= deleteRetentionMs {
		past++
	}
	kept = append(kept[past:], pass)
	return kept[max(0, len(kept)-passesMax):]
}

func (p cleanPoint) encode() []byte {
	b := make([]byte, 0, len(p)*cleanedEntryBytes)
	for _, pass := range p {
		b = binary.LittleEndian.AppendUint64(b, uint64(pass.end))
		b = binary.LittleEndian.AppendUint64(b, uint64(pass.ms))
	}
	return b
}

func decodeCleanPoint(b []byte) (p cleanPoint, ok bool) {
	if len(b)%cleanedEntryBytes != 0 {
		return nil, false
	}
	for ; len(b) > 0; b = b[cleanedEntryBytes:] {
		pass := cleanPass{end: broker.Offset(binary.LittleEndian.Uint64(b)), ms: int64(binary.LittleEndian.Uint64(b[8:]))}
		if n := len(p); n > 0 && (pass.end <= p[n-1].end || pass.ms < p[n-1].ms) {
			return nil, false
		}
		p = append(p, pass)
	}
	return p, true
}

// loadCleaned reads the clean point once. Only a log that is compacted has one, so Open does not. Under files.
func (l *Log) loadCleaned() (cleanPoint, error) {
	if l.cleanedKnown {
		return l.cleaned, nil
	}
	name := path.Join(l.cfg.Dir, cleanedName)
	body, err := readFile(l.cfg.FS, name, cleanedMagic)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, errUnreadable):
		l.logger.Warn().Err(err).Msg("how far the log was compacted is not known: it begins again")
	case err != nil:
		return nil, err
	default:
		point, ok := decodeCleanPoint(body)
		if !ok {
			l.logger.Warn().Str("file", name).Msg("how far the log was compacted is not known: it begins again")
		}
		l.cleaned = point
	}
	l.cleanedKnown = true
	return l.cleaned, nil
}

// saveCleaned replaces the clean point durably. Under files.
func (l *Log) saveCleaned(p cleanPoint) error {
	err := replaceFile(l.cfg.FS, path.Join(l.cfg.Dir, cleanedName), cleanedMagic, p.encode())
	if err == nil {
		err = l.cfg.FS.SyncDir(l.cfg.Dir)
	}
	if err == nil {
		l.cleaned, l.cleanedKnown = p, true
	}
	return err
}

// forgetCleaned voids a clean point above end, before offsets there are given again: a tombstone among them would count
// as seen, and could go before the records that it deletes. The caller syncs the directory. Under files.
func (l *Log) forgetCleaned(end broker.Offset) error {
	point, err := l.loadCleaned()
	if err == nil && point.end() <= end {
		return nil
	}
	l.cleaned, l.cleanedKnown = nil, true
	return removeFiles(l.cfg.FS, path.Join(l.cfg.Dir, cleanedName))
}
