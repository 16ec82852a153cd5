package vfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/millrace-io/millrace/internal/vfs"
)

// TestReserveLeavesAloneWhatTheFileHas makes a hole, which reserving from the start of the file would fill: a file system in
// memory walks every page that it is asked for, written or not.
func TestReserveLeavesAloneWhatTheFileHas(t *testing.T) {
	const hole, more = 8 << 20, 1 << 20
	name := filepath.Join(t.TempDir(), "f")
	f, err := vfs.OS{}.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	taken := func() int64 {
		t.Helper()
		var stat unix.Stat_t
		if err := unix.Stat(name, &stat); err != nil {
			t.Fatal(err)
		}
		return stat.Blocks * 512
	}
	if err := f.Truncate(hole); err != nil {
		t.Fatal(err)
	}
	if taken() >= hole {
		t.Skip("this file system has no holes")
	}
	if err := f.Reserve(hole + more); err != nil {
		t.Fatal(err)
	}
	switch n := taken(); {
	case n == 0:
		t.Skip("this file system does not reserve")
	case n < more || n >= hole:
		t.Errorf("%d bytes are taken, of %d that were missing", n, more)
	}
	if size, err := f.Size(); err != nil || size != hole {
		t.Errorf("it is %d bytes long, %v", size, err)
	}
	if err := f.Reserve(hole / 2); err != nil {
		t.Error(err)
	}
}

// TestWantOfDescriptorsIsWantOfSpace takes every descriptor that the process may have.
func TestWantOfDescriptorsIsWantOfSpace(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	lowest, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Close(lowest)
	}
	if err == nil { // No descriptor may have this number or a higher one: the free ones below are taken.
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(lowest), Max: before.Max})
	}
	if err != nil {
		t.Fatal(err)
	}
	_, createErr := vfs.OS{}.Create(name)
	_, openErr := vfs.OS{}.Open(dir)
	syncErr := vfs.OS{}.SyncDir(dir)
	_, statErr := os.Stat(name)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"create": createErr, "open": openErr, "sync the directory": syncErr} {
		if !errors.Is(err, vfs.ErrNoSpace) || !errors.Is(err, unix.EMFILE) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !errors.Is(statErr, os.ErrNotExist) {
		t.Errorf("a file was made: %v", statErr)
	}
}
