package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

var update = flag.Bool("update", false, "write the directories in testdata")

const at = 1_700_000_000_000

func build(t testing.TB, spec batch.Spec, records ...batch.Record) []byte {
	t.Helper()
	b := batch.NewBuilder(spec)
	for i, r := range records {
		r.OffsetDelta = int32(i)
		if err := b.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(raw)
}

// partitionFiles are two segments: plain, gzip with headers and nulls, idempotent, control; the second ends torn.
func partitionFiles(t testing.TB) map[string][]byte {
	first := build(t, batch.Spec{LeaderEpoch: 1, BaseTimestamp: at},
		batch.Record{Key: []byte("k1"), Value: []byte(`{"id":1}`)}, batch.Record{Key: []byte("k2"), Value: []byte("two\nlines"), TimestampDelta: 5})
	second := build(t, batch.Spec{BaseOffset: 2, LeaderEpoch: 1, BaseTimestamp: at + 10, Codec: batch.Gzip},
		batch.Record{Value: []byte("\xff\x00"), Headers: []batch.Header{{Key: []byte("h"), Value: []byte("v")}, {Key: []byte("n")}}}, batch.Record{Key: []byte("")})
	third := build(t, batch.Spec{BaseOffset: 4, LeaderEpoch: 2, BaseTimestamp: at + 20, Producer: &batch.Producer{ID: 7, Epoch: 1, BaseSequence: 12}, Transactional: true},
		batch.Record{Key: []byte("k5"), Value: []byte("in a transaction")})
	fourth := build(t, batch.Spec{BaseOffset: 5, LeaderEpoch: 2, BaseTimestamp: at + 30, Producer: &batch.Producer{ID: 7, Epoch: 1, BaseSequence: -1}, Transactional: true, Control: true},
		batch.Record{Key: []byte{0, 0, 0, 1}, Value: []byte{0, 0, 0, 0, 0, 1}})
	return map[string][]byte{
		"00000000000000000000.log":   slices.Concat(first, second),
		"00000000000000000004.log":   slices.Concat(third, fourth, first[:30]),
		"00000000000000000004.index": []byte("not a log"),
		"replica.meta":               []byte("not a log"),
	}
}

// raftFiles is a metadata log: an empty entry, a topic with its partition, and a change of the voters.
func raftFiles(t testing.TB) map[string][]byte {
	topic := &metadata.Topic{ID: broker.UUID{15: 1}, Name: "orders", Partitions: 1, Fingerprint: metadata.FingerprintKey{Function: 1}}
	partition := &metadata.Partition{TopicPartition: broker.TopicPartition{Topic: topic.ID}, Replicas: []metadata.Replica{{Node: 1}},
		Leader: 1, ISR: []broker.NodeID{1}, MinISR: 1}
	facts, err := metadata.EncodeEntry([]*metadata.Fact{metadata.TopicFact(topic), metadata.PartitionFact(partition)})
	if err != nil {
		t.Fatal(err)
	}
	entry := func(index broker.Offset, kind byte, data []byte) []byte {
		return build(t, batch.Spec{BaseOffset: index, LeaderEpoch: 1, BaseTimestamp: at}, batch.Record{Key: []byte{kind}, Value: data})
	}
	return map[string][]byte{"00000000000000000002.log": slices.Concat(entry(2, 0, nil), entry(3, 0, facts), entry(4, 2, []byte{1}))}
}

// TestGoldenDirectories holds the directories that the scripts of raftctl read against what is built here: the log's
// format is fixed, so they never change.
func TestGoldenDirectories(t *testing.T) {
	damaged := partitionFiles(t)
	delete(damaged, "00000000000000000004.log")
	log := damaged["00000000000000000000.log"]
	log[batch.HeaderBytes+10] ^= 1
	for dir, files := range map[string]map[string][]byte{"partition": partitionFiles(t), "damaged": damaged, "raft/log": raftFiles(t)} {
		dir = filepath.Join("testdata", dir)
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if *update {
				if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), files[name], 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			kept, err := os.ReadFile(filepath.Join(dir, name))
			// What a compressor makes may change with its version; that it can be read is for the scripts to show.
			if err != nil || !bytes.Equal(kept, files[name]) && name != "00000000000000000000.log" {
				t.Errorf("%s/%s differs (%v); -update writes it", dir, name, err)
			}
		}
	}
}

func mapFS(files map[string][]byte) fs.FS {
	all := fstest.MapFS{}
	for name, data := range files {
		all[name] = &fstest.MapFile{Data: data}
	}
	return all
}

// read returns a line a batch, and what was damaged.
func read(t *testing.T, fsys fs.FS) (lines []string, damage []*DamageError) {
	t.Helper()
	segments, err := Segments(fsys, ".")
	if err != nil {
		t.Fatal(err)
	}
	for b, err := range Batches(fsys, segments) {
		var d *DamageError
		if errors.As(err, &d) {
			damage = append(damage, d)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%d-%d %t %s", b.View.BaseOffset(), b.View.LastOffset(), b.CRCFits(), strings.Join(b.Problems, "; "))
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines, damage
}

func TestEveryBatchIsShownAndATornTailIsTold(t *testing.T) {
	lines, damage := read(t, mapFS(partitionFiles(t)))
	if want := []string{"0-1 true", "2-3 true", "4-4 true", "5-5 true"}; !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
	if len(damage) != 1 || damage[0].Segment != "00000000000000000004.log" || !strings.Contains(damage[0].Reason, "30 bytes are left") {
		t.Errorf("%v", damage)
	}
}

func TestABatchThatDoesNotFitIsShownWithWhatIsWrong(t *testing.T) {
	files := partitionFiles(t)
	first := files["00000000000000000000.log"]
	first[batch.HeaderBytes] ^= 1
	delete(files, "00000000000000000004.log")
	size := batch.PeekLen(first)
	second := first[size:]
	batch.View(second).Stamp(9, 0)
	lines, damage := read(t, mapFS(files))
	if len(damage) != 0 || len(lines) != 2 || !strings.HasPrefix(lines[0], "0-1 false ") ||
		lines[1] != "9-10 true begins at offset 9 where 2 belongs; has leader epoch 0 after 1" {
		t.Errorf("%q %v", lines, damage)
	}
}

// A damaged segment must not hide those behind it, and no length field may make the reader ask for more than the file has.
func TestDamageEndsOnlyItsSegment(t *testing.T) {
	files := partitionFiles(t)
	for _, length := range []uint32{0, 48, 1 << 30, 0xffffffff} {
		binary.BigEndian.PutUint32(files["00000000000000000000.log"][8:], length)
		lines, damage := read(t, mapFS(files))
		if !slices.Equal(lines, []string{"4-4 true", "5-5 true"}) || len(damage) != 2 || damage[0].Position != 0 {
			t.Errorf("length %d: %q %v", length, lines, damage)
		}
	}
}

func TestRecordsComeWithOffsetsTimesAndNulls(t *testing.T) {
	fsys := mapFS(partitionFiles(t))
	segments, err := Segments(fsys, ".")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for b, err := range Batches(fsys, segments[:1]) {
		if err != nil {
			t.Fatal(err)
		}
		for r, err := range b.Records(NewDecompressor()) {
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%d %d %q %t %q %t %d", r.Offset, r.Timestamp-at, r.Key, r.Key == nil, r.Value, r.Value == nil, len(r.Headers)))
		}
	}
	want := []string{
		`0 0 "k1" false "{\"id\":1}" false 0`, `1 5 "k2" false "two\nlines" false 0`,
		`2 10 "" true "\xff\x00" false 2`, `3 10 "" false "" true 0`,
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q", lines)
	}
}

func TestEntriesOfTheMetadataLogAreDecodedToFacts(t *testing.T) {
	fsys := mapFS(raftFiles(t))
	segments, err := Segments(fsys, ".")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for b, err := range Batches(fsys, segments) {
		if err != nil {
			t.Fatal(err)
		}
		entry, err := b.Entry()
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%d/%d %s %s %x", entry.Index, entry.Term, entry.Type, bytes.Join(asBytes(entry), []byte(" ")), entry.Data))
	}
	if len(lines) != 3 || lines[0] != "2/1 normal  " || lines[2] != "4/1 conf-change-v2  01" ||
		!strings.Contains(lines[1], `{"topic":{"id":"AAAAAAAAAAAAAAAAAAAAAQ==","name":"orders"`) || !strings.Contains(lines[1], `{"partition":{`) {
		t.Errorf("%q", lines)
	}
}

func asBytes(e *Entry) [][]byte {
	var all [][]byte
	for _, fact := range e.Facts {
		all = append(all, fact)
	}
	return all
}

func TestABatchThatIsNoEntryIsTold(t *testing.T) {
	fsys := mapFS(partitionFiles(t))
	for b, err := range Batches(fsys, []string{"00000000000000000000.log"}) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Entry(); err == nil {
			t.Errorf("the batch at %d passes for an entry", b.View.BaseOffset())
		}
	}
}

func TestAFolderWithoutSegmentsIsNotFound(t *testing.T) {
	if _, err := Segments(fstest.MapFS{"x/00.log": {}}, "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for b, err := range Batches(fstest.MapFS{}, []string{"00000000000000000000.log"}) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Error(b, err)
		}
	}
}

// Zeros up to the end of a segment are what a broker wrote ahead; before anything else they are damage.
func TestZerosBehindTheBatchesOfAnOpenSegmentAreNoDamage(t *testing.T) {
	raw := build(t, batch.Spec{LeaderEpoch: 3, BaseTimestamp: at}, batch.Record{Value: []byte("v")})
	for name, c := range map[string]struct {
		behind  []byte
		damaged bool
	}{
		"few":             {make([]byte, 7), false},
		"many":            {make([]byte, 200_000), false},
		"with one at end": {append(make([]byte, 200_000), 1), true},
	} {
		lines, damage := read(t, fstest.MapFS{"00000000000000000000.log": {Data: slices.Concat(raw, c.behind)}})
		if !slices.Equal(lines, []string{"0-0 true"}) || (len(damage) > 0) != c.damaged {
			t.Errorf("%s: %q %v", name, lines, damage)
		}
	}
}

// What the broker's own log wrote is what is read, while it is open and after.
func TestReadsWhatTheCommitLogWrites(t *testing.T) {
	dir := t.TempDir()
	flusher, err := commitlog.NewFlusher(commitlog.FlusherConfig{FS: vfs.OS{}, Dir: dir, Logger: zerolog.Nop(), OnFatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	log, err := commitlog.Open(commitlog.Config{FS: vfs.OS{}, Dir: filepath.Join(dir, "p"), Flusher: flusher,
		Partition: broker.TopicPartition{Topic: broker.UUID{1}}, Replica: 1, SegmentBytes: 200, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 9 {
		raw := build(t, batch.Spec{BaseOffset: broker.Offset(i), LeaderEpoch: 3, BaseTimestamp: at}, batch.Record{Value: []byte("v")})
		if err := log.Append(raw); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%d-%d true", i, i))
	}
	for _, state := range []string{"open", "closed"} {
		lines, damage := read(t, os.DirFS(filepath.Join(dir, "p")))
		if !slices.Equal(lines, want) || len(damage) > 0 {
			t.Errorf("%s: %q %v", state, lines, damage)
		}
		if state == "open" {
			if err := errors.Join(log.Close(), flusher.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if segments, err := Segments(os.DirFS(dir), "p"); err != nil || len(segments) < 3 {
		t.Error(segments, err)
	}
}
