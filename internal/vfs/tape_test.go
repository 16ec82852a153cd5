package vfs_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/millrace-io/millrace/internal/vfs"
)

// dump is every name and byte of a file system.
func dump(t *testing.T, fs vfs.FS, dir string) string {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, name := range names {
		full := dir + "/" + name
		if info, err := fs.Stat(full); err != nil {
			t.Fatal(err)
		} else if info.IsDir() {
			out += full + "\n" + dump(t, fs, full)
			continue
		}
		f, err := fs.Open(full)
		if err != nil {
			t.Fatal(err)
		}
		size, _ := f.Size()
		b := make([]byte, size)
		_, _ = f.ReadAt(b, 0) // a short file shows in the dump
		out += fmt.Sprintf("%s %x\n", full, b)
	}
	return out
}

// TestATapePlaysBackWhatProcessesDid compares a played file system, what is durable of it, and the same with syncs that
// were left out, and lets a process be killed on the way.
func TestATapePlaysBackWhatProcessesDid(t *testing.T) {
	mem := vfs.NewMem()
	tape := vfs.NewTape(mem)
	p := tape.Process()
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	_, err := p.Lock("LOCK")
	must(err, p.MkdirAll("d/e"), p.SyncDir("/"), p.SyncDir("d"))
	f, err := p.Create("d/one")
	must(err)
	_, err = f.WriteAt([]byte("hello"), 2)
	must(err, f.Sync(), p.Rename("d/one", "d/e/two"), p.SyncDir("d/e"), p.SyncDir("d"))
	_, err = f.WriteAt([]byte("never synced"), 9000)
	must(err, f.Reserve(20000), p.MkdirAll("gone/below"), p.RemoveAll("gone"))
	tape.Remark("killed")
	must(p.Kill())
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, vfs.ErrKilled) {
		t.Fatalf("a killed process writes: %v", err)
	}
	next := tape.Process()
	_, err = next.Lock("LOCK")
	must(err)
	f, err = next.Open("d/e/two")
	must(err, f.Truncate(9001))

	played, lying := vfs.Player{Mem: vfs.NewMem()}, vfs.Player{Mem: vfs.NewMem(), Skip: func(op vfs.Op) bool { return op.Kind == vfs.OpSync }}
	remarks := 0
	for _, e := range tape.Entries() {
		must(played.Play(e), lying.Play(e))
		if e.Remark != nil {
			remarks++
		}
	}
	for what, pair := range map[string][2]vfs.FS{
		"what can be read": {mem, played.Mem}, "what is durable": {mem.CrashClone(nil), played.Mem.CrashClone(nil)},
		"what can be read of a disk that lies": {mem, lying.Mem},
	} {
		if want, got := dump(t, pair[0], "/"), dump(t, pair[1], "/"); want != got || want == "" {
			t.Errorf("%s:\n%s\nplayed back:\n%s", what, want, got)
		}
	}
	if dump(t, mem.CrashClone(nil), "/") == dump(t, lying.Mem.CrashClone(nil), "/") || remarks != 1 {
		t.Errorf("leaving the syncs out changes nothing, or %d remarks", remarks)
	}
}
