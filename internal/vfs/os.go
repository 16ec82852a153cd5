package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// OS is the operating system's file system (Linux).
type OS struct{}

type osFile struct{ *os.File }

var _ FS = OS{}

// Create implements FS.
func (OS) Create(name string) (File, error) { return openOS(name, os.O_RDWR|os.O_CREATE) }

// Open implements FS.
func (OS) Open(name string) (File, error) { return openOS(name, os.O_RDWR) }

func openOS(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o640)
	if err != nil {
		return nil, mapError(err)
	}
	return osFile{f}, nil
}

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// RemoveAll implements FS.
func (OS) RemoveAll(name string) error { return os.RemoveAll(name) }

// Rename implements FS.
func (OS) Rename(from, to string) error { return mapError(os.Rename(from, to)) }

// MkdirAll implements FS.
func (OS) MkdirAll(dir string) error { return mapError(os.MkdirAll(dir, 0o750)) }

// List implements FS.
func (OS) List(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	closeErr := d.Close()
	slices.Sort(names)
	return names, errors.Join(err, closeErr)
}

// Stat implements FS.
func (OS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// SyncDir implements FS.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return mapError(err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// OpenVolume implements FS.
func (OS) OpenVolume(dir string) (Volume, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return osVolume{d}, nil
}

type osVolume struct{ *os.File }

// Sync implements Volume.
func (v osVolume) Sync() error {
	if err := unix.Syncfs(int(v.Fd())); err != nil {
		return fmt.Errorf("syncfs %s: %w", v.Name(), err)
	}
	return nil
}

// Lock implements FS.
func (OS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		closeErr := f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), closeErr)
	}
	return f, nil
}

// Space implements FS.
func (OS) Space(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}

// OwnMount implements FS.
func (OS) OwnMount(dir string) bool {
	var own, parent unix.Stat_t
	abs, err := filepath.Abs(dir)
	if err != nil || unix.Stat(abs, &own) != nil || unix.Stat(filepath.Dir(abs), &parent) != nil {
		return false
	}
	return own.Dev != parent.Dev
}

// Size implements File.
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Sync implements File with fdatasync, which also makes a changed length durable.
func (f osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Reserve implements File. It asks for nothing of what the file has already: a file system in memory walks what it is asked
// for page by page, which for a large file takes it tens of milliseconds.
func (f osFile) Reserve(size int64) error {
	has, err := f.Size()
	if err != nil || size <= has {
		return err
	}
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, has, size-has)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP):
			return nil // A file system that cannot reserve reports a full disk at the write instead.
		}
		return mapError(err)
	}
}

// WriteAt implements File.
func (f osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, mapError(err)
}

func mapError(err error) error {
	for _, full := range []error{unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, full) {
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
	}
	return err
}
