package quorum

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/internal/vfs"
)

// livedDirectory is a data directory of a node that made topics, took snapshots and stopped cleanly, and the names of the
// files that the quorum keeps in it.
func livedDirectory(f *testing.F) (lived *vfs.Mem, files []string) {
	lived = vfs.NewMem()
	err := errors.Join(lived.MkdirAll(crashDir), lived.SyncDir("/"),
		Format(lived, crashDir, InitSpec{Cluster: cluster, Node: node, Directory: directory}))
	if err != nil {
		f.Fatal(err)
	}
	err = onDisk(f, lived, 4, func(ctx context.Context, n *Node) {
		register(f, ctx, n, 1)
		for i := range 6 {
			submit[controller.TopicCreated](f, ctx, n, controller.CreateTopic{Name: fmt.Sprint("t", i), Partitions: 2, ReplicationFactor: 1})
		}
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, dir := range []string{raftDir(crashDir), snapshotDir(crashDir), path.Join(raftDir(crashDir), "log")} {
		names, err := lived.List(dir)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			if file := path.Join(dir, name); strings.Contains(name, ".") || name == "vote" {
				files = append(files, file)
			}
		}
	}
	return lived, files
}

// sealedAgain gives a damaged file the checksum that it has to have, so that what lies behind the checksum is reached.
func sealedAgain(name string, b []byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	b = append([]byte(nil), b...)
	switch {
	case strings.HasSuffix(name, ".log"): // each batch has its own, over all behind it
		for rest := b; len(rest) > batch.HeaderBytes; {
			length := 12 + int64(binary.BigEndian.Uint32(rest[8:]))
			if length < batch.HeaderBytes || length > int64(len(rest)) {
				break
			}
			binary.BigEndian.PutUint32(rest[17:], crc32.Checksum(rest[21:length], table))
			rest = rest[length:]
		}
	case len(b) > crc32.Size:
		end := len(b) - crc32.Size
		binary.LittleEndian.PutUint32(b[end:], crc32.Checksum(b[:end], table))
	}
	return b
}

// FuzzFilesOfTheQuorum: whatever lies in the vote file, a snapshot or the metadata log, with good checksums or without,
// opening them ends in a node or in an error, never in a panic, and takes no time to speak of.
func FuzzFilesOfTheQuorum(f *testing.F) {
	lived, files := livedDirectory(f)
	if len(files) < 4 {
		f.Fatalf("only %v", files)
	}
	for i, file := range files {
		whole, err := readFile(lived, file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), true, whole)
	}
	f.Fuzz(func(t *testing.T, which uint8, seal bool, b []byte) {
		fs, file := lived.CrashClone(nil), files[int(which)%len(files)]
		if seal {
			b = sealedAgain(file, b)
		}
		if err := replaceFile(fs, path.Dir(file), path.Base(file), b); err != nil {
			t.Fatal(err)
		}
		flusher, err := commitlog.NewFlusher(commitlog.FlusherConfig{FS: fs, Dir: crashDir, Logger: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		n, err := Open(Config{
			FS: fs, Dir: crashDir, Raft: FirstRaftID, Flusher: flusher, Logger: zerolog.Nop(),
			Core: controller.New(controller.Config{}, rand.NewChaCha8([32]byte{1})),
			Now:  func() time.Time { return time.UnixMilli(1_700_000_000_000) },
		})
		if err == nil {
			err = n.storage.journal.Close()
		}
		_ = errors.Join(err, flusher.Close()) // refusing is an answer
	})
}
