package commitlog

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker"
)

// ErrFull is returned by Append, wrapped, when the file system has no room for another reservation, or the process no
// descriptor for another segment. Nothing was written and the log goes on: appends succeed again once there is room.
var ErrFull = errors.New("no space to append")

// ErrClosed is returned by a log after Close, Remove or a failed write.
var ErrClosed = errors.New("log is closed")

// errNotBorder is returned by Truncate for an offset inside a batch.
var errNotBorder = errors.New("offset is not a batch border")

// CorruptError says that bytes which were durable once cannot be read back: nothing was truncated, and the replica must
// be repaired from another. It carries the code broker.StorageError.
type CorruptError struct {
	File     string
	Position int64         // of the batch in File
	Offset   broker.Offset // that should be found there
	Reason   string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is corrupt at byte %d, where offset %d should be: %s", e.File, e.Position, e.Offset, e.Reason)
}

// Unwrap gives the error its code.
func (e *CorruptError) Unwrap() error { return broker.StorageError }

// VersionError says that a file was written by a newer program.
type VersionError struct {
	File    string
	Version uint16
	Known   uint16
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has format version %d; this program knows versions up to %d: run a newer one", e.File, e.Version, e.Known)
}
