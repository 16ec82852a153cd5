package quorum

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

// A member whose log was put back as it was before it acknowledged what its leader counts on ends, and says why, before it
// votes or answers.
func TestAMemberWhoseLogIsOfAnEarlierTimeEnds(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll(snapshotDir(crashDir)); err != nil {
		t.Fatal(err)
	}
	img, _, err := metadata.Fold(metadata.NewImage(), 7, 1, []*metadata.Fact{metadata.ClusterFact(cluster)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writeSnapshot(fs, snapshotDir(crashDir), img, &raftpb.ConfState{Voters: []uint64{1, 2, 3}}); err != nil {
		t.Fatal(err)
	}
	said := &wire{}
	n, err := Open(Config{
		FS: fs, Dir: crashDir, Raft: 1, Transport: said, Logger: zerolog.Nop(), Now: time.Now,
		Core:    controller.New(controller.Config{}, rand.NewChaCha8([32]byte{})),
		journal: func() (journal, error) { return &memoryJournal{first: 8}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if n.Opened() != 7 {
		t.Errorf("the log reached %d when it was opened", n.Opened())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	heartbeat := func(commit uint64) *raftpb.Message {
		return &raftpb.Message{
			Type: raftpb.MsgHeartbeat.Enum(), From: proto.Uint64(2), To: proto.Uint64(1), Term: proto.Uint64(3), Commit: proto.Uint64(commit),
		}
	}
	n.Receive(heartbeat(7))
	n.Receive(heartbeat(12))
	if err := n.Run(ctx); err == nil || !strings.Contains(err.Error(), "of an earlier time") || !strings.Contains(err.Error(), "index 7, and has held it up to 12") {
		t.Errorf("it ended with %v", err)
	}
}
