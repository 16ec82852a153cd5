package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Mem is a file system in memory that knows what was made durable and what was not: CrashClone is a power loss. Faults
// can be injected at any operation, which are counted, so that a test can fail or crash at each of them in turn. It is
// safe for concurrent use.
type Mem struct {
	mu     sync.Mutex
	root   *memDir
	locks  map[string]bool
	total  int64 // bytes that fit; 0 = no bound
	own    bool
	count  int
	byKind map[Kind]int
	fault  func(Op) *Fault
	watch  func(Op)
}

var _ FS = (*Mem)(nil)

// Kind is a kind of operation that changes, or makes durable, what is stored.
type Kind string

// The kinds that are counted, watched and may fail.
const (
	OpCreate   Kind = "create"
	OpOpen     Kind = "open"
	OpRemove   Kind = "remove"
	OpRename   Kind = "rename"
	OpMkdir    Kind = "mkdir"
	OpWrite    Kind = "write"
	OpTruncate Kind = "truncate"
	OpReserve  Kind = "reserve"
	OpSync     Kind = "sync"
	OpSyncDir  Kind = "syncdir"
	OpSyncAll  Kind = "syncall"
	OpRead     Kind = "read"
)

// Op is one operation on a Mem.
type Op struct {
	Kind   Kind
	Name   string
	Number int // of all operations, from 1
	OfKind int // of this kind, from 1
}

// Fault is what an operation does instead of succeeding.
type Fault struct {
	Err     error
	Written int // a failed write stores this many of its bytes first
}

// NewMem returns an empty file system whose root directory exists.
func NewMem() *Mem {
	return &Mem{root: newMemDir(), locks: map[string]bool{}, byKind: map[Kind]int{}}
}

// Inject lets f decide before each operation whether it fails; nil ends that. A failed sync behaves as on Linux: the
// bytes can still be read, are taken for clean by later syncs, and are gone after a power loss.
func (m *Mem) Inject(f func(Op) *Fault) { m.mu.Lock(); defer m.mu.Unlock(); m.fault = f }

// FailAt lets the n-th operation of a kind, counted from now, fail with err.
func (m *Mem) FailAt(kind Kind, n int, fault Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	target := m.byKind[kind] + n
	m.fault = func(op Op) *Fault {
		if op.Kind == kind && op.OfKind == target {
			return &fault
		}
		return nil
	}
}

// Watch calls f before each operation, which waits for it; f may call CrashClone. nil ends that.
func (m *Mem) Watch(f func(Op)) { m.mu.Lock(); defer m.mu.Unlock(); m.watch = f }

// Operations is how many operations there were.
func (m *Mem) Operations() int { m.mu.Lock(); defer m.mu.Unlock(); return m.count }

// SetSpace bounds the bytes that fit: what passes it is ErrNoSpace. 0 is no bound.
func (m *Mem) SetSpace(total int64) { m.mu.Lock(); defer m.mu.Unlock(); m.total = total }

// Fill leaves no space: only what a file reserved, or gives back, can be written.
func (m *Mem) Fill() { m.mu.Lock(); defer m.mu.Unlock(); m.total = max(1, used(m.root)) }

// SetOwnMount sets what OwnMount answers.
func (m *Mem) SetOwnMount(own bool) { m.mu.Lock(); defer m.mu.Unlock(); m.own = own }

// begin counts an operation, shows it to the watcher, and returns the fault that it meets. It returns with mu held.
func (m *Mem) begin(kind Kind, name string) *Fault {
	m.mu.Lock()
	m.count++
	m.byKind[kind]++
	op := Op{Kind: kind, Name: name, Number: m.count, OfKind: m.byKind[kind]}
	if watch := m.watch; watch != nil {
		m.mu.Unlock()
		watch(op)
		m.mu.Lock()
	}
	if m.fault == nil {
		return nil
	}
	return m.fault(op)
}

func memError(op Kind, name string, err error) error {
	return &fs.PathError{Op: string(op), Path: name, Err: err}
}

// memNode is a *memFile or a *memDir.
type memNode interface{ isNode() }

// memDir is a directory: its names as they are, and as they were when it was synced last, with what changed since.
type memDir struct {
	names   map[string]memNode
	synced  map[string]memNode
	changes []memChange
}

// memChange is one change of a directory; a rename within it is one, and so is either kept or lost as a whole.
type memChange struct {
	remove string
	add    string
	node   memNode
}

func newMemDir() *memDir {
	return &memDir{names: map[string]memNode{}, synced: map[string]memNode{}}
}

func (*memDir) isNode()  {}
func (*memFile) isNode() {}

func (d *memDir) change(c memChange) {
	c.apply(d.names)
	d.changes = append(d.changes, c)
}

func (c memChange) apply(names map[string]memNode) {
	if c.remove != "" {
		delete(names, c.remove)
	}
	if c.add != "" {
		names[c.add] = c.node
	}
}

func split(name string) []string {
	return strings.FieldsFunc(path.Clean(name), func(r rune) bool { return r == '/' })
}

// find returns the node of a name. Under mu.
func (m *Mem) find(name string) (memNode, bool) {
	var at memNode = m.root
	for _, part := range split(name) {
		if part == "." {
			continue
		}
		dir, ok := at.(*memDir)
		if !ok {
			return nil, false
		}
		if at, ok = dir.names[part]; !ok {
			return nil, false
		}
	}
	return at, true
}

// parent returns the directory that holds a name. Under mu.
func (m *Mem) parent(name string) (*memDir, string, bool) {
	node, ok := m.find(path.Dir(path.Clean(name)))
	if !ok {
		return nil, "", false
	}
	dir, ok := node.(*memDir)
	return dir, path.Base(path.Clean(name)), ok
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	fault := m.begin(OpCreate, name)
	defer m.mu.Unlock()
	if fault != nil {
		return nil, memError(OpCreate, name, fault.Err)
	}
	dir, base, ok := m.parent(name)
	if !ok {
		return nil, memError(OpCreate, name, fs.ErrNotExist)
	}
	node, ok := dir.names[base]
	if !ok {
		node = newMemFile()
		dir.change(memChange{add: base, node: node})
	}
	file, ok := node.(*memFile)
	if !ok {
		return nil, memError(OpCreate, name, fmt.Errorf("is a directory"))
	}
	return &memHandle{fs: m, file: file, name: name}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	fault := m.begin(OpOpen, name)
	defer m.mu.Unlock()
	if fault != nil {
		return nil, memError(OpOpen, name, fault.Err)
	}
	node, _ := m.find(name)
	file, ok := node.(*memFile)
	if !ok {
		return nil, memError(OpOpen, name, fs.ErrNotExist)
	}
	return &memHandle{fs: m, file: file, name: name}, nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	fault := m.begin(OpRemove, name)
	defer m.mu.Unlock()
	if fault != nil {
		return memError(OpRemove, name, fault.Err)
	}
	dir, base, ok := m.parent(name)
	if !ok || dir.names[base] == nil {
		return memError(OpRemove, name, fs.ErrNotExist)
	}
	if sub, ok := dir.names[base].(*memDir); ok && len(sub.names) > 0 {
		return memError(OpRemove, name, fmt.Errorf("directory not empty"))
	}
	dir.change(memChange{remove: base})
	return nil
}

// RemoveAll implements FS.
func (m *Mem) RemoveAll(name string) error {
	fault := m.begin(OpRemove, name)
	defer m.mu.Unlock()
	if fault != nil {
		return memError(OpRemove, name, fault.Err)
	}
	dir, base, ok := m.parent(name)
	if ok && dir.names[base] != nil {
		removeTree(dir.names[base])
		dir.change(memChange{remove: base})
	}
	return nil
}

// removeTree removes the names below a directory one by one: a crash may keep any of them.
func removeTree(node memNode) {
	dir, ok := node.(*memDir)
	if !ok {
		return
	}
	for _, name := range sortedNames(dir.names) {
		removeTree(dir.names[name])
		dir.change(memChange{remove: name})
	}
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	fault := m.begin(OpRename, from)
	defer m.mu.Unlock()
	if fault != nil {
		return memError(OpRename, from, fault.Err)
	}
	source, old, ok := m.parent(from)
	if !ok || source.names[old] == nil {
		return memError(OpRename, from, fs.ErrNotExist)
	}
	target, base, ok := m.parent(to)
	if !ok {
		return memError(OpRename, to, fs.ErrNotExist)
	}
	node := source.names[old]
	if source == target {
		source.change(memChange{remove: old, add: base, node: node})
		return nil
	}
	target.change(memChange{add: base, node: node})
	source.change(memChange{remove: old})
	return nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	fault := m.begin(OpMkdir, dir)
	defer m.mu.Unlock()
	if fault != nil {
		return memError(OpMkdir, dir, fault.Err)
	}
	at := m.root
	for _, part := range split(dir) {
		if part == "." {
			continue
		}
		node, ok := at.names[part]
		if !ok {
			node = newMemDir()
			at.change(memChange{add: part, node: node})
		}
		if at, ok = node.(*memDir); !ok {
			return memError(OpMkdir, dir, fmt.Errorf("not a directory"))
		}
	}
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	node, _ := m.find(dir)
	d, ok := node.(*memDir)
	if !ok {
		return nil, memError("list", dir, fs.ErrNotExist)
	}
	return sortedNames(d.names), nil
}

func sortedNames(names map[string]memNode) []string {
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	return sorted
}

// Stat implements FS.
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	node, ok := m.find(name)
	if !ok {
		return nil, memError("stat", name, fs.ErrNotExist)
	}
	info := memInfo{name: path.Base(path.Clean(name))}
	if file, ok := node.(*memFile); ok {
		info.size = int64(len(file.data))
	} else {
		info.dir = true
	}
	return info, nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	fault := m.begin(OpSyncDir, dir)
	defer m.mu.Unlock()
	if fault != nil {
		return memError(OpSyncDir, dir, fault.Err)
	}
	node, _ := m.find(dir)
	d, ok := node.(*memDir)
	if !ok {
		return memError(OpSyncDir, dir, fs.ErrNotExist)
	}
	d.sync()
	return nil
}

func (d *memDir) sync() {
	for _, c := range d.changes {
		c.apply(d.synced)
	}
	d.changes = nil
}

// OpenVolume implements FS.
func (m *Mem) OpenVolume(dir string) (Volume, error) {
	return memVolume(func() error { return m.SyncAll(dir) }), nil
}

// memVolume syncs.
type memVolume func() error

// Sync implements Volume.
func (v memVolume) Sync() error { return v() }

// Close implements io.Closer.
func (memVolume) Close() error { return nil }

// SyncAll makes everything durable.
func (m *Mem) SyncAll(dir string) error {
	fault := m.begin(OpSyncAll, dir)
	defer m.mu.Unlock()
	if fault != nil {
		return memError(OpSyncAll, dir, fault.Err)
	}
	syncTree(m.root)
	return nil
}

func syncTree(d *memDir) {
	d.sync()
	for _, node := range d.names {
		switch n := node.(type) {
		case *memFile:
			n.sync()
		case *memDir:
			syncTree(n)
		}
	}
}

// Lock implements FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	f, err := m.Create(name)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[name] {
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	m.locks[name] = true
	return &memLock{fs: m, name: name}, nil
}

// memLock is a lock that is held until it is closed for the first time: by then the name may be another's.
type memLock struct {
	fs       *Mem
	name     string
	released bool
}

func (l *memLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if !l.released {
		l.released = true
		delete(l.fs.locks, l.name)
	}
	return nil
}

// memSpaceDefault is what Space answers where no bound was set.
const memSpaceDefault = 1 << 40

// Space implements FS.
func (m *Mem) Space(string) (free, total uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.total == 0 {
		return memSpaceDefault, memSpaceDefault, nil
	}
	return uint64(max(0, m.total-used(m.root))), uint64(m.total), nil
}

// used is what the files that have a name take. Under mu.
func used(d *memDir) (n int64) {
	for _, node := range d.names {
		switch at := node.(type) {
		case *memFile:
			n += max(int64(len(at.data)), at.reserved)
		case *memDir:
			n += used(at)
		}
	}
	return n
}

// OwnMount implements FS.
func (m *Mem) OwnMount(string) bool { m.mu.Lock(); defer m.mu.Unlock(); return m.own }

type memInfo struct {
	name string
	size int64
	dir  bool
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o750
	}
	return 0o640
}
