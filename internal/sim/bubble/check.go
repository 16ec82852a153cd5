package bubble

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/internal/vfs"
)

// entry is a record as it lies on a disk.
type entry struct {
	offset broker.Offset
	epoch  broker.LeaderEpoch
	key    string
	value  string
}

// dump is a partition's log on one disk.
type dump struct {
	node    broker.NodeID
	batches [][]byte
	entries []entry
}

// readDump reads a partition's log from the files of a node that has stopped.
func readDump(files vfs.FS, node broker.NodeID, dir string) (dump, error) {
	d := dump{node: node}
	names, err := files.List(dir)
	if err != nil {
		return d, err
	}
	for _, name := range names { // in the order of their base offsets
		if path.Ext(name) != ".log" {
			continue
		}
		content, err := readFile(files, path.Join(dir, name))
		if err != nil {
			return d, err
		}
		for view, err := range batch.All(content) {
			if err == nil {
				err = errors.Join(view.CheckCRC(), d.add(view))
			}
			if err != nil {
				return d, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return d, nil
}

func (d *dump) add(view batch.View) error {
	d.batches = append(d.batches, view)
	records, err := view.Records(new(batch.Decompressor))
	if err != nil {
		return err
	}
	for record := (batch.Record{}); records.Next(&record); {
		d.entries = append(d.entries, entry{view.BaseOffset() + broker.Offset(record.OffsetDelta), view.LeaderEpoch(), string(record.Key), string(record.Value)})
	}
	return records.Err()
}

func readFile(files vfs.FS, name string) ([]byte, error) {
	file, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if n, err := file.ReadAt(b, 0); n < len(b) {
		return nil, err
	}
	return b, nil
}

func (r *run) wrong(kind, format string, args ...any) {
	r.history.change(func() { r.history.wrong = append(r.history.wrong, kind+": "+fmt.Sprintf(format, args...)) })
}

// check holds what clients saw against the disks, when nothing runs any more. It knows nothing of any node's memory. What it
// finds is added to what was seen to be wrong on the way.
func (r *run) check() {
	for partition := range r.plan.partitions {
		logs, err := r.dumps(partition)
		if err != nil {
			r.wrong("no-log", "partition %d: %v", partition, err)
			return
		}
		r.checkSame(partition, logs)
		r.checkPartition(&truth{partition: partition, log: logs[0].entries, at: map[string]broker.Offset{}})
	}
}

// dumps reads a partition's logs from all disks.
func (r *run) dumps(partition int32) (logs []dump, err error) {
	for _, m := range r.cluster.machines {
		dir := path.Join(dataDir, "topics", r.topicID.Hex(), strconv.Itoa(int(partition)))
		d, err := readDump(m.disk, m.id, dir)
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", m.id, err)
		}
		logs = append(logs, d)
	}
	return logs, nil
}

func (r *run) checkPartition(t *truth) {
	r.checkLog(t)
	r.checkSends(t)
	r.checkReads(t)
	r.checkCommits(t, group, 'm', everything(t.log))
	r.checkBound(t)
	if !r.linear(t) {
		r.undecided++
	}
}

// checkSame compares every two logs, byte for byte (5).
func (r *run) checkSame(partition int32, logs []dump) {
	for _, d := range logs[1:] {
		if len(d.batches) != len(logs[0].batches) {
			r.wrong("logs-differ", "partition %d: %d batches on node %d, %d on node %d", partition, len(d.batches), d.node, len(logs[0].batches), logs[0].node)
		}
		for i := range min(len(d.batches), len(logs[0].batches)) {
			if !bytes.Equal(d.batches[i], logs[0].batches[i]) {
				r.wrong("logs-differ", "partition %d: batch %d at %d of node %d is another than on node %d", partition, i, batch.View(d.batches[i]).BaseOffset(), d.node, logs[0].node)
				break
			}
		}
	}
}

// truth is a partition's log when all is over.
type truth struct {
	partition int32
	log       []entry // entry i has offset i
	at        map[string]broker.Offset
}

// checkLog: offsets are dense, epochs never fall, no record lies twice, and each producer's are in order (10, 22).
func (r *run) checkLog(t *truth) {
	last, epoch := map[string]string{}, broker.NoLeaderEpoch
	for i, e := range t.log {
		if e.offset != broker.Offset(i) || e.epoch < epoch {
			r.wrong("gap", "partition %d: offset %d of epoch %d stands where %d of epoch %d or above must be", t.partition, e.offset, e.epoch, i, epoch)
			return
		}
		epoch = e.epoch
		if first, twice := t.at[e.value]; twice {
			r.wrong("duplicate", "partition %d: record %.9s lies at %d and at %d", t.partition, e.value, first, e.offset)
		}
		t.at[e.value] = e.offset
		producer, number, _ := strings.Cut(e.value, "-")
		if number <= last[producer] {
			r.wrong("reordered", "partition %d: record %.9s lies at %d behind %.6s", t.partition, e.value, e.offset, last[producer])
		}
		last[producer] = number
	}
}

// checkSends: what was acknowledged lies where it was said to (1), and nothing failed: these clients try for ever.
func (r *run) checkSends(t *truth) {
	for _, s := range r.history.sends {
		at, there := t.at[s.value]
		switch {
		case s.partition != t.partition:
		case s.err != nil:
			r.wrong("failed", "record %.9s at %s: %v", s.value, s.ret, s.err)
		case s.acked && !there:
			r.wrong("lost", "partition %d: record %.9s was acknowledged at offset %d, after %s, and is not there", t.partition, s.value, s.offset, s.ret)
		case s.acked && at != s.offset:
			r.wrong("moved", "partition %d: record %.9s was acknowledged at offset %d and lies at %d", t.partition, s.value, s.offset, at)
		}
	}
}

// checkReads: what anybody ever got lies where it was (7, 8), and the reader outside of the group got everything once.
func (r *run) checkReads(t *truth) {
	next := broker.Offset(0)
	for _, g := range r.history.reads {
		if g.partition != t.partition {
			continue
		}
		if g.offset >= broker.Offset(len(t.log)) || t.log[g.offset].value != g.value {
			r.wrong("vanished", "partition %d: %s got record %.9s at offset %d, which is not there", t.partition, g.who, g.value, g.offset)
		}
		if g.who[0] == 'r' {
			if g.offset != next {
				r.wrong("poll-skip", "partition %d: %s got offset %d where %d comes", t.partition, g.who, g.offset, next)
			}
			next = g.offset + 1
		}
	}
}

// checkCommits: below what a group committed, somebody in it, whose name begins with who, got every offset that is missing.
func (r *run) checkCommits(t *truth, group string, who byte, missing []bool) {
	for _, g := range r.history.reads {
		if g.who[0] == who && g.partition == t.partition && int(g.offset) < len(missing) {
			missing[g.offset] = false
		}
	}
	committed := r.history.committed[group][t.partition]
	if int(committed) > len(missing) {
		r.wrong("commit-ahead", "partition %d: group %s committed %d, the log ends at %d", t.partition, group, committed, len(missing))
		return
	}
	if missed := slices.Index(missing[:committed], true); missed >= 0 {
		r.wrong("skipped", "partition %d: group %s committed %d, nobody in it got %d", t.partition, group, committed, missed)
	}
}
