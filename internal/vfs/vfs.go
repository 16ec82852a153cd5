package vfs

import (
	"errors"
	"io"
	"io/fs"
)

// FS is a file system below one root. Names are slash-separated and relative to nothing: they are what the operating
// system would take. Implementations are safe for concurrent use.
type FS interface {
	// Create opens name for reading and writing, making it if it does not exist and keeping its bytes if it does.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing; fs.ErrNotExist if there is none.
	Open(name string) (File, error)
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// RemoveAll removes name and everything below it; a name that does not exist is no error.
	RemoveAll(name string) error
	// Rename moves a file or directory, replacing a file of the new name atomically.
	Rename(from, to string) error
	// MkdirAll makes a directory and its parents.
	MkdirAll(dir string) error
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	// Stat describes a name.
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the names in a directory durable. ErrNoSpace says that it was not tried.
	SyncDir(dir string) error
	// OpenVolume opens the file system that holds dir, to sync all of it at once.
	OpenVolume(dir string) (Volume, error)
	// Lock takes an exclusive lock on name, which is made if needed, until the returned closer is closed or the
	// process ends; ErrLocked if another process holds it.
	Lock(name string) (io.Closer, error)
	// Space tells the free and total bytes of the file system that holds dir.
	Space(dir string) (free, total uint64, err error)
	// OwnMount reports whether dir is a mount point of its own.
	OwnMount(dir string) bool
}

// Volume is an open file system.
type Volume interface {
	io.Closer
	// Sync makes everything written on the file system durable (syncfs). It fails if anything could not be written since
	// the volume was opened or synced last (Linux 5.8 and later): a volume opened only now may come after another process
	// has been told of a failure, and would hear nothing of it (RH16).
	Sync() error
}

// File is an open file. ReadAt and WriteAt may run concurrently; the file has no cursor.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the length in bytes.
	Size() (int64, error)
	// Truncate changes the length; added bytes are zero.
	Truncate(size int64) error
	// Sync makes the bytes written so far, and the length, durable (fdatasync).
	Sync() error
	// Reserve takes space for the bytes between the end and size without changing the length; ErrNoSpace if there is none.
	Reserve(size int64) error
}

// ErrLocked is returned by Lock when another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// ErrNoSpace is what Reserve and WriteAt return, wrapped, when the file system is full, and what Create, Open and SyncDir
// return when there is no file descriptor left, of the process or of the system: nothing was done, and it succeeds once
// there is room.
var ErrNoSpace = errors.New("no space left on device")
