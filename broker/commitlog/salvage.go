package commitlog

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Salvage is what a log that nobody has open still has to give to another replica identity, which has promised nothing
// yet: its whole segments, from the oldest up to the first that lacks a byte of what was durable. Open decides about the
// rest of the last one.
type Salvage struct {
	Bases []broker.Offset // of the segments that are kept, rising; none: nothing is
	End   broker.Offset   // of what is kept
	// Damage is why the segment at End, and what lies behind it, is not kept; nil where all of it is.
	Damage *CorruptError
}

// Inspect reads the whole log of cfg.Partition below cfg.Dir, as cfg.Replica left it, and says what of it is to be kept.
// It changes nothing. Where the flush journal does not know that replica, or the log begins above the start that the
// journal knows, nothing is: what the first segment followed cannot be told. Other errors than damage are those of reading
// the directory, and the context's, which is looked at before each segment.
func Inspect(ctx context.Context, cfg Config) (Salvage, error) {
	bases, err := segmentBases(cfg.FS, cfg.Dir)
	if err != nil {
		return Salvage{}, fmt.Errorf("inspect log %s: %w", cfg.Dir, err)
	}
	entry, known := cfg.Flusher.Journal(cfg.Partition)
	if !known || entry.Replica != cfg.Replica || len(bases) == 0 || bases[0] > entry.Start {
		return Salvage{}, nil
	}
	s := Salvage{End: bases[0]}
	for i, base := range bases {
		if ctx.Err() != nil {
			return Salvage{}, context.Cause(ctx)
		}
		v := verifier{fs: cfg.FS, name: segmentName(cfg.Dir, base), base: base, durable: entry.End}
		if i+1 < len(bases) {
			v.durable = max(v.durable, bases[i+1])
		}
		if base != s.End {
			s.Damage = &CorruptError{File: v.name + logSuffix, Offset: s.End, Reason: "the segment does not continue the one before it"}
			return s, nil
		}
		end, err := v.run()
		if errors.As(err, &s.Damage) {
			return s, nil
		}
		if err != nil {
			return Salvage{}, fmt.Errorf("inspect log %s: %w", cfg.Dir, err)
		}
		s.Bases, s.End = append(s.Bases, base), end
	}
	return s, nil
}

// segmentBases lists the segments in a log's directory by base offset, oldest first.
func segmentBases(fsys vfs.FS, dir string) ([]broker.Offset, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	var bases []broker.Offset
	for _, name := range names {
		if base, suffix, ok := parseName(name); ok && suffix == logSuffix {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	return bases, nil
}

// Err is Damage, or nil.
func (s Salvage) Err() error {
	if s.Damage == nil {
		return nil
	}
	return s.Damage
}

// SetAside moves every file of the log but those of the kept segments into the directory to, which it makes, durably. The
// newest go first, so that what a crash leaves is the beginning of a log and is found to be kept again. Names that keep
// lists stay besides.
func (s Salvage) SetAside(fsys vfs.FS, dir, to string, keep ...string) error {
	names, err := fsys.List(dir)
	if err != nil {
		return fmt.Errorf("set files of %s aside: %w", dir, err)
	}
	slices.Sort(names)
	slices.Reverse(names)
	if err := fsys.MkdirAll(to); err != nil {
		return fmt.Errorf("make %s: %w", to, err)
	}
	for _, name := range names {
		base, _, ok := parseName(name)
		if slices.Contains(keep, name) || ok && slices.Contains(s.Bases, base) || name == epochsName && len(s.Bases) > 0 {
			continue
		}
		if err := fsys.Rename(path.Join(dir, name), path.Join(to, name)); err != nil {
			return fmt.Errorf("move %s to %s: %w", path.Join(dir, name), to, err)
		}
	}
	for _, d := range []string{to, path.Dir(to), dir} {
		if err := fsys.SyncDir(d); err != nil {
			return fmt.Errorf("sync %s: %w", d, err)
		}
	}
	return nil
}

// verifier reads one segment from end to end and trusts nothing about it.
type verifier struct {
	fs      vfs.FS
	name    string
	base    broker.Offset
	durable broker.Offset // below it nothing may be torn
	// step is asked before each stretch, with the bytes of the one before, as CleanConfig.Step is; nil: nobody is.
	step func(bytes int) (leave func(), err error)
}

// run returns where the segment's batches end, or a *CorruptError.
func (v *verifier) run() (end broker.Offset, err error) {
	file, err := v.fs.Open(v.name + logSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, v.corrupt(0, v.base, "the file is missing")
	}
	if err != nil {
		return 0, err
	}
	size, err := file.Size()
	if err == nil {
		end, err = v.walk(file, size)
	}
	return end, errors.Join(err, file.Close())
}

func (v *verifier) corrupt(pos int64, at broker.Offset, reason string) *CorruptError {
	return &CorruptError{File: v.name + logSuffix, Position: pos, Offset: at, Reason: reason}
}

func (v *verifier) walk(file vfs.File, size int64) (broker.Offset, error) {
	s := scanner{file: file, end: size, want: v.base, last: broker.NoLeaderEpoch}
	headers := v.headers(size)
	pace := stretches{step: v.step}
	defer pace.end()
	for b, pos, ok := s.next(); ok; b, pos, ok = s.next() {
		if reason := headers.judge(b, pos); reason != "" {
			return 0, v.corrupt(headers.from, v.base, reason)
		}
		if err := pace.reach(s.pos); err != nil {
			return 0, err
		}
	}
	switch {
	case s.err != nil:
		return 0, v.corrupt(s.pos, s.want, "it cannot be read: "+s.err.Error())
	case s.bad != "" && s.want < v.durable:
		return 0, v.corrupt(s.pos, s.want, s.bad)
	}
	if reason := headers.judgeEnd(s.pos); reason != "" {
		return 0, v.corrupt(headers.from, v.base, reason)
	}
	return s.want, nil
}

// headers are the checksums of the bytes that no batch's own CRC covers, from the segment's index (RM8). An index that is
// not there, or of another segment, says nothing.
func (v *verifier) headers(size int64) headerSums {
	x, err := readIndex(v.fs, &segment{name: v.name, size: size})
	if err != nil {
		return headerSums{}
	}
	return headerSums{entries: x.entries}
}

// headerSums compares the first bytes of batches with what the index knows of them.
type headerSums struct {
	entries []indexEntry
	run     uint32
	from    int64 // where the run began
}

func (h *headerSums) judge(b batch.View, pos int64) (reason string) {
	if reason = h.judgeEnd(pos); reason == "" {
		h.run = crc32.Update(h.run, castagnoli, b[:batch.UncoveredBytes])
	}
	return reason
}

func (h *headerSums) judgeEnd(pos int64) (reason string) {
	if len(h.entries) == 0 || int64(h.entries[0].pos) > pos {
		return ""
	}
	entry := h.entries[0]
	switch {
	case int64(entry.pos) < pos:
		return fmt.Sprintf("no batch at byte %d, where the index has one", entry.pos)
	case entry.crc != h.run:
		return fmt.Sprintf("the headers of the batches up to byte %d do not have the checksum that the index has", pos)
	}
	h.entries, h.run, h.from = h.entries[1:], 0, pos
	return ""
}

// stretches asks step each time that enough bytes were gone through.
type stretches struct {
	step  func(bytes int) (leave func(), err error)
	leave func()
	at    int64
}

func (p *stretches) reach(pos int64) error {
	if p.step == nil || pos-p.at < scanBytes && p.leave != nil {
		return nil
	}
	p.end()
	leave, err := p.step(int(pos - p.at))
	p.at, p.leave = pos, leave
	return err
}

func (p *stretches) end() {
	if p.leave != nil {
		p.leave()
		p.leave = nil
	}
}
