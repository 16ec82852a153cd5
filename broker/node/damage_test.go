package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// outcome is what a damaged file leads to.
type outcome string

const (
	exact   outcome = "exact"   // nothing is missing: the file is made again, or was not needed
	offline outcome = "offline" // its partition, and no other, says which file
	refused outcome = "refused" // the node does not start, and says which file
)

// fileKinds tells kinds of files apart by a part of their path, and says what damage to each may lead to. The first that
// fits counts.
var fileKinds = []struct {
	kind, part string
	allowed    []outcome
}{
	{"flush journal", "/flush/", []outcome{exact, offline, refused}}, // offline: its last records are gone, and the log begins later
	{"spare of the vote", "/raft/vote.tmp", []outcome{exact}},
	{"metadata log", "/raft/log/", []outcome{exact, refused}},
	{"metadata snapshot", ".snap", []outcome{exact, refused}},
	{"vote", "/raft/vote", []outcome{refused}},
	{"node.meta", "/node.meta", []outcome{refused}},
	{"clean", "/clean", []outcome{exact}},
	{"replica.meta", "/replica.meta", []outcome{exact, offline}}, // an empty partition is made again
	{"index", ".index", []outcome{exact}},
	{"time index", ".timeindex", []outcome{exact}},
	{"epochs", "/epochs", []outcome{exact, offline}}, // offline: an earlier copy, which is whole
	{"compaction point", "/cleaned", []outcome{exact}},
	{"producer snapshot", ".producers", []outcome{exact}},
	{"verdicts", ".verdicts", []outcome{exact}},
	{"ids", ".ids", []outcome{exact}},
	{"splices", ".splices", []outcome{exact}},
	{"module", ".wasm", []outcome{exact}},
	{"certificates", "/tls/", []outcome{exact, refused}},
	{"log", ".log", []outcome{exact, offline}},
}

// damage changes a file's bytes; nil removes the file.
type damage struct {
	name string
	do   func(b []byte, rng *rand.Rand) []byte
}

func flipAt(at func(n int) int) func([]byte, *rand.Rand) []byte {
	return func(b []byte, rng *rand.Rand) []byte {
		b = slices.Clone(b)
		b[min(max(at(len(b)), 0), len(b)-1)] ^= 1 << rng.IntN(8)
		return b
	}
}

func damages() []damage {
	all := []damage{
		{"removed", func([]byte, *rand.Rand) []byte { return nil }},
		{"emptied", func([]byte, *rand.Rand) []byte { return []byte{} }},
		{"cut by a byte", func(b []byte, _ *rand.Rand) []byte { return b[:len(b)-1] }},
		{"cut to half", func(b []byte, _ *rand.Rand) []byte { return b[:len(b)/2] }},
		{"all zero", func(b []byte, _ *rand.Rand) []byte { return make([]byte, len(b)) }},
		{"zero tail", func(b []byte, _ *rand.Rand) []byte {
			b = slices.Clone(b)
			clear(b[max(0, len(b)-512):])
			return b
		}},
		{"garbage in the middle", func(b []byte, rng *rand.Rand) []byte {
			b = slices.Clone(b)
			for i := len(b) / 3; i < len(b)*2/3; i++ {
				b[i] = byte(rng.Uint32())
			}
			return b
		}},
		{"garbage behind", func(b []byte, rng *rand.Rand) []byte {
			b = slices.Clone(b)
			for range 100 {
				b = append(b, byte(rng.Uint32()))
			}
			return b
		}},
		{"flip of the first byte", flipAt(func(int) int { return 0 })},
		{"flip of the last byte", flipAt(func(n int) int { return n - 1 })},
		{"flip at 15", flipAt(func(int) int { return 15 })}, // a batch's leader epoch
	}
	for range 4 {
		all = append(all, damage{"flip anywhere", func(b []byte, rng *rand.Rand) []byte {
			return flipAt(func(n int) int { return rng.IntN(n) })(b, rng)
		}})
	}
	return all
}

// readWhole and writeWhole are a file as bytes.
func readWhole(files vfs.FS, name string) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	b := make([]byte, size)
	if err == nil && size > 0 {
		if _, err = f.ReadAt(b, 0); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	return b, errors.Join(err, f.Close())
}

func writeWhole(files vfs.FS, name string, b []byte) error {
	if b == nil {
		return files.Remove(name)
	}
	if err := files.MkdirAll(path.Dir(name)); err != nil {
		return err
	}
	f, err := files.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Truncate(int64(len(b))), f.Close())
}

// tree reads every file below a directory.
func tree(files vfs.FS, dir string) (map[string][]byte, error) {
	all := map[string][]byte{}
	names, err := files.List(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		full := path.Join(dir, name)
		info, err := files.Stat(full)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			if all[full], err = readWhole(files, full); err != nil {
				return nil, err
			}
			continue
		}
		below, err := tree(files, full)
		if err != nil {
			return nil, err
		}
		for name, b := range below {
			all[name] = b
		}
	}
	return all, nil
}

// resting is a node's directory at rest, and what was promised by then.
type resting struct {
	name  string
	disk  *vfs.Mem
	deeds []deed
	files map[string][]byte
}

// restAt plays a tape up to the n-th start, or to its end.
func restAt(tape *vfs.Tape, config Config, name string, starts int) (resting, error) {
	player := vfs.Player{Mem: vfs.NewMem()}
	r := resting{name: name, disk: player.Mem}
	for _, e := range tape.Entries() {
		if d, ok := e.Remark.(deed); ok {
			if d.what == entering && d.value == "start" {
				if starts--; starts == 0 {
					break
				}
			}
			r.deeds = append(r.deeds, d)
		}
		if err := player.Play(e); err != nil {
			return r, err
		}
	}
	err := r.disk.SyncAll("/")
	if err == nil {
		r.files, err = tree(r.disk, config.Data)
	}
	return r, err
}

// wound is one damaged directory.
type wound struct {
	of           resting
	file, damage string
	bytes        []byte
}

// ward judges wounds.
type ward struct {
	config Config
	mu     sync.Mutex
	counts census  // guarded by mu
	wrong  []error // guarded by mu
}

// judge puts the wound into a copy of the directory and says what came of it.
func (w *ward) judge(x wound) (outcome, error) {
	disk := x.of.disk.CrashClone(nil)
	if err := writeWhole(disk, x.file, x.bytes); err != nil {
		return "", err
	}
	names := func(err error) bool {
		if strings.Contains(x.file, "/flush/") && strings.Contains(err.Error(), "the flush journal knows") {
			return true
		}
		return strings.Contains(err.Error(), path.Dir(x.file)) || strings.Contains(err.Error(), path.Base(x.file))
	}
	s := &survey{config: w.config, deeds: x.of.deeds, tolerates: func(err error) bool { return errors.Is(err, broker.StorageError) && names(err) }}
	err := s.run(disk)
	switch {
	case err != nil && s.node == nil:
		if !names(err) {
			return refused, fmt.Errorf("the node does not start, and does not say why: %w", err)
		}
		return refused, nil
	case err != nil:
		return "", err
	case len(s.lost) > 1:
		return offline, fmt.Errorf("more than one partition is gone: %w", errors.Join(s.lost...))
	case len(s.lost) == 1 && strings.HasSuffix(x.file, ".log"):
		left, err := readWhole(disk, x.file)
		if x.bytes != nil && (err != nil || !bytes.Equal(left, x.bytes)) {
			return offline, fmt.Errorf("the damaged file was changed, %d bytes to %d: %w", len(x.bytes), len(left), err)
		}
		return offline, nil
	case len(s.lost) == 1:
		return offline, nil
	}
	return exact, nil
}

func (w *ward) take(x wound) {
	at := slices.IndexFunc(fileKinds, func(k struct {
		kind, part string
		allowed    []outcome
	}) bool {
		return strings.Contains(x.file, k.part)
	})
	if at < 0 {
		return // LOCK
	}
	kind := fileKinds[at]
	got, err := w.judge(x)
	if err == nil && !slices.Contains(kind.allowed, got) {
		err = fmt.Errorf("it is %s, want one of %v", got, kind.allowed)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[fmt.Sprintf("%-18s %-24s %s", kind.kind, x.damage, got)]++
	if err != nil {
		w.wrong = append(w.wrong, fmt.Errorf("%s of %s (%d bytes) %s: %w", x.of.name, x.file, len(x.bytes), x.damage, err))
	}
}

// wounds are the damages to every file of a directory, and earlier copies of files put back.
func wounds(r resting, earlier []resting, yield func(wound)) {
	rng := rand.New(rand.NewPCG(5, 5))
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		b := r.files[name]
		if len(b) == 0 {
			continue
		}
		for _, d := range damages() {
			if changed := d.do(b, rng); changed == nil || !bytes.Equal(changed, b) {
				yield(wound{of: r, file: name, damage: d.name, bytes: changed})
			}
		}
	}
	for _, old := range earlier {
		for _, name := range slices.Sorted(maps.Keys(old.files)) {
			if now, ok := r.files[name]; !ok || !bytes.Equal(now, old.files[name]) {
				yield(wound{of: r, file: name, damage: "put back from " + old.name, bytes: old.files[name]})
			}
		}
	}
}

// TestDamageAtRestIsRepairedOrNamedAndNeverServed damages every file of a node in turn, after a clean stop and after a
// kill: bits flipped, bytes cut, zeroed and overwritten, the file gone, an earlier copy of it put back. What can be made
// again is; what cannot takes its partition offline, or keeps the node from starting, with the name of the file; nothing
// acknowledged is served wrong, and nothing damaged is cut or deleted.
func TestDamageAtRestIsRepairedOrNamedAndNeverServed(t *testing.T) {
	config := crashConfig(filepath.Join(t.TempDir(), "node"))
	tape := recordRun(t, config)
	var rests []resting
	for i, name := range []string{"first kill", "clean stop", "last kill"} {
		r, err := restAt(tape, config, name, i+2)
		if err != nil {
			t.Fatal(err)
		}
		rests = append(rests, r)
	}
	one := 13
	if os.Getenv(crashesAll) != "" {
		one = 1
	}
	w := &ward{config: config, counts: census{}}
	work := make(chan wound)
	workers := task.NewGroup(t.Context())
	for range runtime.GOMAXPROCS(0) {
		workers.Go("damage", func(context.Context) error {
			for x := range work {
				w.take(x)
			}
			return nil
		})
	}
	n := 0
	for i, r := range rests[1:] {
		wounds(r, rests[:i+1], func(x wound) {
			if n++; n%one == 0 {
				work <- x
			}
		})
	}
	close(work)
	if err := workers.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, err := range w.wrong {
		t.Error(err)
	}
	t.Logf("%d damaged directories, by file, damage and outcome:\n%s", w.counts.total(), w.counts)
}
