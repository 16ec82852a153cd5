package quorum

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

// A snapshot that is asked for holds what is applied; asked for twice it is one; a full disk refuses it, and ends nothing.
func TestASnapshotIsSavedWhenAskedFor(t *testing.T) {
	fs := formatted(t)
	var full atomic.Bool
	fs.Inject(func(op vfs.Op) *vfs.Fault {
		if full.Load() && op.Kind == vfs.OpWrite && strings.HasPrefix(op.Name, snapshotDir(crashDir)) {
			return &vfs.Fault{Err: vfs.ErrNoSpace}
		}
		return nil
	})
	err := onDisk(t, fs, 0, func(ctx context.Context, n *Node) {
		register(t, ctx, n, 1)
		full.Store(true)
		if got, err := n.Save(ctx); !errors.Is(err, vfs.ErrNoSpace) {
			t.Errorf("on a full disk: %+v, %v", got, err)
		}
		full.Store(false)
		first, err := n.Save(ctx)
		if err != nil || !first.Written || first.Index != n.Image().Index() || first.Bytes == 0 {
			t.Fatalf("saved %+v, %v; the image is at %d", first, err, n.Image().Index())
		}
		again, err := n.Save(ctx)
		if first.Written = false; err != nil || again != first {
			t.Errorf("saved again %+v, %v, want %+v", again, err, first)
		}
		content, err := readFile(fs, first.File)
		if err != nil || int64(len(content)) != first.Bytes {
			t.Fatalf("%s has %d bytes, %v", first.File, len(content), err)
		}
		if image, _, err := metadata.DecodeSnapshot(content); err != nil || !metadata.Equal(image, n.Image()) {
			t.Errorf("%s holds something else: %v", first.File, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
