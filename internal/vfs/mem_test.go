package vfs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/millrace-io/millrace/internal/vfs"
)

// store is a toy that keeps one number and must never forget one that it acknowledged. Its steps can be left out, to
// see whether the crashing file system tells a good store from bad ones.
type store struct {
	fs                        vfs.FS
	syncFile, rename, syncDir bool
	retryFailedSync           bool
}

func (s store) put(n uint64) error {
	name := "d/value"
	if s.rename {
		name = "d/value.tmp"
	}
	f, err := s.fs.Create(name)
	if err != nil {
		return err
	}
	b := make([]byte, 8192) // two blocks, so that half a write can be seen
	for at := 0; at < len(b); at += 8 {
		binary.LittleEndian.PutUint64(b[at:], n)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	if s.syncFile {
		err := f.Sync()
		if err != nil && s.retryFailedSync {
			err = f.Sync()
		}
		if err != nil {
			return err
		}
	}
	if s.rename {
		if err := s.fs.Rename(name, "d/value"); err != nil {
			return err
		}
	}
	if s.syncDir {
		return s.fs.SyncDir("d")
	}
	return nil
}

func (s store) get() (uint64, error) {
	f, err := s.fs.Open("d/value")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	b := make([]byte, 8192)
	if n, _ := f.ReadAt(b, 0); n < len(b) {
		return 0, errors.New("short")
	}
	if !bytes.Equal(b, bytes.Repeat(b[:8], len(b)/8)) {
		return 0, errors.New("torn")
	}
	return binary.LittleEndian.Uint64(b), nil
}

// judge runs puts with a crash before every operation and says what was lost or torn first, or nil. fail names a sync
// that fails, 0 = none.
func judge(t *testing.T, s store, fail int) (verdict error) {
	t.Helper()
	m := vfs.NewMem()
	if err := errors.Join(m.MkdirAll("d"), m.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	var acknowledged uint64
	check := func(op vfs.Op) {
		for seed := range uint64(8) {
			after := s
			after.fs = m.CrashClone(rand.New(rand.NewPCG(seed, uint64(op.Number))))
			got, err := after.get()
			if verdict == nil && (err != nil || got < acknowledged) {
				verdict = fmt.Errorf("crash before %s %s: %d acknowledged, %d found, %v", op.Kind, op.Name, acknowledged, got, err)
			}
		}
	}
	if fail > 0 {
		m.FailAt(vfs.OpSync, fail, vfs.Fault{Err: errors.New("input/output error")})
	}
	m.Watch(check)
	s.fs = m
	for n := range uint64(20) {
		if err := s.put(n + 1); err != nil {
			break // a store that met an error acknowledges nothing any more
		}
		acknowledged = n + 1
	}
	check(vfs.Op{Kind: "end"})
	return verdict
}

func TestCrashTellsAGoodStoreFromBadOnes(t *testing.T) {
	good := store{syncFile: true, rename: true, syncDir: true}
	if err := judge(t, good, 0); err != nil {
		t.Errorf("a good store was judged bad: %v", err)
	}
	if err := judge(t, good, 5); err != nil {
		t.Errorf("a good store with a failed sync was judged bad: %v", err)
	}
	bad := map[string]store{
		"no file sync":        {rename: true, syncDir: true},
		"no directory sync":   {syncFile: true, rename: true},
		"no rename":           {syncFile: true, syncDir: true},
		"nothing synced":      {rename: true},
		"failed sync retried": {syncFile: true, rename: true, syncDir: true, retryFailedSync: true},
	}
	for name, s := range bad {
		fail := 0
		if s.retryFailedSync {
			fail = 5
		}
		if err := judge(t, s, fail); err == nil {
			t.Errorf("%s: the store was judged good", name)
		}
	}
}

func TestCrashWithoutChanceKeepsExactlyWhatWasSynced(t *testing.T) {
	m := vfs.NewMem()
	f, err := m.Create("a")
	if err != nil {
		t.Fatal(err)
	}
	write := func(s string, at int64) {
		if _, err := f.WriteAt([]byte(s), at); err != nil {
			t.Fatal(err)
		}
	}
	write("hello", 0)
	if err := errors.Join(f.Sync(), m.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	write("J", 0)
	write(" world", 5)
	after, err := m.CrashClone(nil).Open("a")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 20)
	if n, _ := after.ReadAt(b, 0); string(b[:n]) != "hello" {
		t.Fatalf("after the crash the file holds %q", b[:n])
	}
}

func TestInjectedFaultsHitTheOperationThatWasNamed(t *testing.T) {
	m := vfs.NewMem()
	f, err := m.Create("a")
	if err != nil {
		t.Fatal(err)
	}
	m.FailAt(vfs.OpWrite, 2, vfs.Fault{Err: vfs.ErrNoSpace, Written: 3})
	if n, err := f.WriteAt([]byte("12345"), 0); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := f.WriteAt([]byte("abcde"), 0); n != 3 || !errors.Is(err, vfs.ErrNoSpace) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	b := make([]byte, 5)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "abc45" {
		t.Fatalf("%q, %v", b, err)
	}
	m.SetSpace(10)
	if err := f.Reserve(11); !errors.Is(err, vfs.ErrNoSpace) {
		t.Fatal(err)
	}
	if err := f.Reserve(10); err != nil {
		t.Fatal(err)
	}
}

func TestBothFileSystemsAgreeOnNames(t *testing.T) {
	for name, fsys := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": vfs.OS{}} {
		root := t.TempDir() // on Mem a name like any other
		if err := fsys.MkdirAll(root + "/x/y"); err != nil {
			t.Fatal(err)
		}
		f, err := fsys.Create(root + "/x/y/f")
		if err != nil {
			t.Fatal(err)
		}
		volume, err := fsys.OpenVolume(root)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("z"), 9); err != nil {
			t.Fatal(err)
		}
		if size, err := f.Size(); size != 10 || err != nil {
			t.Fatalf("%s: size %d, %v", name, size, err)
		}
		if err := errors.Join(f.Reserve(100), f.Truncate(4), f.Sync(), f.Close(), fsys.Rename(root+"/x/y/f", root+"/x/g"),
			fsys.SyncDir(root+"/x"), volume.Sync(), volume.Close()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		names, err := fsys.List(root + "/x")
		if err != nil || fmt.Sprint(names) != "[g y]" {
			t.Fatalf("%s: %v, %v", name, names, err)
		}
		if _, err := fsys.Open(root + "/x/y/f"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := fsys.Create(root + "/no/f"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: %v", name, err)
		}
		if info, err := fsys.Stat(root + "/x/g"); err != nil || info.Size() != 4 || info.IsDir() {
			t.Fatalf("%s: %v, %v", name, info, err)
		}
		lock, err := fsys.Lock(root + "/LOCK")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fsys.Lock(root + "/LOCK"); !errors.Is(err, vfs.ErrLocked) {
			t.Fatalf("%s: second lock: %v", name, err)
		}
		if err := errors.Join(lock.Close(), fsys.RemoveAll(root+"/x"), fsys.RemoveAll(root+"/x")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := fsys.Stat(root + "/x"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: %v", name, err)
		}
	}
}
