package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/quorum"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Recover makes the voter in a data directory, in which no node runs, the sole one of a quorum whose majority is lost for good;
// see quorum.Recover for what that may cost. With act false it only tells.
func Recover(ctx context.Context, files vfs.FS, dir string, act bool) (r quorum.Recovery, err error) {
	id, err := ReadIdentity(files, dir)
	if err != nil {
		return r, err
	}
	lock, err := files.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return r, fmt.Errorf("data directory %s is in use: stop the node first: %w", dir, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	var failure error // of the flusher; read when it has ended
	group := task.NewGroup(ctx)
	flusher, err := commitlog.NewFlusher(commitlog.FlusherConfig{
		FS: files, Dir: dir, Logger: zerolog.Nop(), OnFatal: func(err error) { failure = err }, TailBytesMax: tailBytesMax,
	})
	if err != nil {
		return r, fmt.Errorf("open the flush journal: %w", err)
	}
	group.Go("flusher", flusher.Run)
	r, err = quorum.Recover(quorum.Config{
		FS: files, Dir: dir, Raft: id.Raft, Flusher: flusher, Now: time.Now, Logger: zerolog.Nop(),
	}, act)
	group.Stop()
	return r, errors.Join(err, group.Wait(), flusher.Close(), failure)
}
