package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
)

// Tape writes down, in their order, the changes that processes make on a Mem, and what a test has to say between them.
// Played back on another Mem it gives the file system as it was before any one of them, as often as wanted and in no
// hurry: power can be lost at every operation of one run, however long a look at each loss takes. It is safe for
// concurrent use; changes follow one another.
type Tape struct {
	mem *Mem

	mu      sync.Mutex
	entries []Entry // guarded by mu
	files   int     // guarded by mu
}

// Entry is one change, or a remark.
type Entry struct {
	Op     Op  // zero for a remark; Number counts entries, OfKind is not set
	Remark any // what Remark was given

	to   string // of a rename
	file int    // which opening of a file
	data []byte
	at   int64 // of a write, truncation or reservation
}

// NewTape begins a tape of what happens on mem.
func NewTape(mem *Mem) *Tape { return &Tape{mem: mem} }

// Remark puts v between the changes before and behind this moment.
func (t *Tape) Remark(v any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries = append(t.entries, Entry{Remark: v})
}

// Entries returns what is on the tape so far.
func (t *Tape) Entries() []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries[:len(t.entries):len(t.entries)]
}

// Changing says whether a power loss before e can differ from one before the entry behind it.
func (e Entry) Changing() bool { return e.Op.Kind != "" && e.Op.Kind != OpOpen }

// change makes a change and writes it down if it succeeded.
func (t *Tape) change(e Entry, do func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	e.Op.Number = len(t.entries)
	t.entries = append(t.entries, e)
	return nil
}

// Process is the file system as one process sees it, until it is killed. It implements FS.
type Process struct {
	FS
	tape *Tape // nil: nothing is written down

	mu     sync.RWMutex // read-locked over every change, so that none is under way when Kill returns
	killed bool         // guarded by mu
	locks  []io.Closer  // guarded by mu
}

// ErrKilled is what a killed process gets for every operation.
var ErrKilled = errors.New("the process was killed")

// Process returns the file system for one process.
func (t *Tape) Process() *Process { return &Process{FS: t.mem, tape: t} }

// Process returns the file system for one process, without a tape.
func (m *Mem) Process() *Process { return &Process{FS: m} }

// Kill lets every later change fail without effect and gives the locks back: what was written stays, as behind kill -9.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	var err error
	for _, lock := range p.locks {
		err = errors.Join(err, lock.Close())
	}
	return err
}

func (p *Process) change(e Entry, do func() error) error {
	alive := func() error {
		p.mu.RLock()
		defer p.mu.RUnlock()
		if p.killed {
			return memError(e.Op.Kind, e.Op.Name, ErrKilled)
		}
		return do()
	}
	if p.tape == nil {
		return alive()
	}
	return p.tape.change(e, alive)
}

func (p *Process) open(kind Kind, name string, open func(string) (File, error)) (File, error) {
	f := &tapeFile{process: p, name: name}
	if p.tape != nil {
		p.tape.mu.Lock()
		p.tape.files++
		f.number = p.tape.files
		p.tape.mu.Unlock()
	}
	err := p.change(Entry{Op: Op{Kind: kind, Name: name}, file: f.number}, func() (err error) {
		f.File, err = open(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Create implements FS.
func (p *Process) Create(name string) (File, error) { return p.open(OpCreate, name, p.FS.Create) }

// Open implements FS.
func (p *Process) Open(name string) (File, error) { return p.open(OpOpen, name, p.FS.Open) }

// Remove implements FS.
func (p *Process) Remove(name string) error {
	return p.change(Entry{Op: Op{Kind: OpRemove, Name: name}}, func() error { return p.FS.Remove(name) })
}

// RemoveAll implements FS. On the tape it is told from Remove by its destination.
func (p *Process) RemoveAll(name string) error {
	return p.change(Entry{Op: Op{Kind: OpRemove, Name: name}, to: name}, func() error { return p.FS.RemoveAll(name) })
}

// Rename implements FS.
func (p *Process) Rename(from, to string) error {
	return p.change(Entry{Op: Op{Kind: OpRename, Name: from}, to: to}, func() error { return p.FS.Rename(from, to) })
}

// MkdirAll implements FS.
func (p *Process) MkdirAll(dir string) error {
	return p.change(Entry{Op: Op{Kind: OpMkdir, Name: dir}}, func() error { return p.FS.MkdirAll(dir) })
}

// SyncDir implements FS.
func (p *Process) SyncDir(dir string) error {
	return p.change(Entry{Op: Op{Kind: OpSyncDir, Name: dir}}, func() error { return p.FS.SyncDir(dir) })
}

// OpenVolume implements FS.
func (p *Process) OpenVolume(dir string) (Volume, error) {
	v, err := p.FS.OpenVolume(dir)
	if err != nil {
		return nil, err
	}
	return memVolume(func() error { return p.change(Entry{Op: Op{Kind: OpSyncAll, Name: dir}}, v.Sync) }), nil
}

// Lock implements FS.
func (p *Process) Lock(name string) (lock io.Closer, err error) {
	err = p.change(Entry{Op: Op{Kind: OpCreate, Name: name}}, func() (err error) {
		lock, err = p.FS.Lock(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed {
		return nil, errors.Join(memError(OpCreate, name, ErrKilled), lock.Close())
	}
	p.locks = append(p.locks, lock)
	return lock, nil
}

// tapeFile is an open file of a process.
type tapeFile struct {
	File
	process *Process
	name    string
	number  int
}

func (f *tapeFile) change(kind Kind, at int64, data []byte, do func() error) error {
	return f.process.change(Entry{Op: Op{Kind: kind, Name: f.name}, file: f.number, at: at, data: data}, do)
}

// WriteAt implements File.
func (f *tapeFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.change(OpWrite, off, append([]byte(nil), b...), func() (err error) {
		n, err = f.File.WriteAt(b, off)
		return err
	})
	return n, err
}

// Truncate implements File.
func (f *tapeFile) Truncate(size int64) error {
	return f.change(OpTruncate, size, nil, func() error { return f.File.Truncate(size) })
}

// Sync implements File.
func (f *tapeFile) Sync() error { return f.change(OpSync, 0, nil, f.File.Sync) }

// Reserve implements File.
func (f *tapeFile) Reserve(size int64) error {
	return f.change(OpReserve, size, nil, func() error { return f.File.Reserve(size) })
}

// Player plays a tape back on a Mem.
type Player struct {
	Mem *Mem
	// Skip, if not nil, leaves a change out: a disk that says yes and does nothing.
	Skip  func(Op) bool
	files map[int]File
}

// Play makes one change as it was made on the tape's own Mem; a remark changes nothing.
func (p *Player) Play(e Entry) error {
	if e.Op.Kind == "" || p.Skip != nil && p.Skip(e.Op) {
		return nil
	}
	if p.files == nil {
		p.files = map[int]File{}
	}
	var err error
	switch name := e.Op.Name; e.Op.Kind {
	case OpCreate:
		p.files[e.file], err = p.Mem.Create(name)
	case OpOpen:
		p.files[e.file], err = p.Mem.Open(name)
	case OpRemove:
		if e.to != "" {
			err = p.Mem.RemoveAll(name)
		} else {
			err = p.Mem.Remove(name)
		}
	case OpRename:
		err = p.Mem.Rename(name, e.to)
	case OpMkdir:
		err = p.Mem.MkdirAll(name)
	case OpSyncDir:
		err = p.Mem.SyncDir(name)
	case OpSyncAll:
		err = p.Mem.SyncAll(name)
	default:
		err = p.playFile(e)
	}
	if err != nil {
		return fmt.Errorf("play change %d, %s %s: %w", e.Op.Number, e.Op.Kind, e.Op.Name, err)
	}
	return nil
}

func (p *Player) playFile(e Entry) error {
	f := p.files[e.file]
	if f == nil {
		return fs.ErrNotExist
	}
	switch e.Op.Kind {
	case OpWrite:
		_, err := f.WriteAt(e.data, e.at)
		return err
	case OpTruncate:
		return f.Truncate(e.at)
	case OpReserve:
		return f.Reserve(e.at)
	}
	return f.Sync()
}
