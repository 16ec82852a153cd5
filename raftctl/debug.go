package raftctl

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/raftctl/inspect"
)

func (c *cli) debugCommand() *cobra.Command {
	return parent("debug", "Look at files and internals; for accidents", c.dumpLog())
}

func (c *cli) dumpLog() *cobra.Command {
	var records, raft bool
	cmd := &cobra.Command{
		Use:   "dump-log DIR|SEGMENT [--records]",
		Short: "Print the batches in a partition's log directory, or the entries of a metadata log; no broker is asked",
		Long: "Print the batches in a partition's log directory, or in one segment; no broker is asked and nothing is written.\n" +
			"A directory named raft/log, or --raft, is read as a metadata log: its entries are printed as facts. With\n" +
			"--records -o ndjson each line is a record that `produce --ndjson` takes.",
		Args: exactly("DIR|SEGMENT"),
	}
	cmd.Flags().BoolVar(&records, "records", false, "print the records of the batches")
	cmd.Flags().BoolVar(&raft, "raft", false, "read a metadata log (default: by the directory's name)")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		d, err := c.openDump(args[0])
		if err != nil {
			return err
		}
		d.kind = batchDump
		switch {
		case records:
			d.kind = recordDump
		case raft || strings.HasSuffix(filepath.ToSlash(filepath.Clean(d.folder)), "raft/log"):
			d.kind = entryDump
		}
		return d.run()
	}
	return cmd
}

// dumpKind is what of a log is printed.
type dumpKind int

const (
	batchDump dumpKind = iota
	recordDump
	entryDump
)

// dump prints one log directory.
type dump struct {
	cli      *cli
	out      *bufio.Writer
	kind     dumpKind
	folder   string
	fsys     fs.FS
	segments []string
	table    *table
	batches  atomic.Int64
	damaged  []error
}

func (c *cli) openDump(name string) (*dump, error) {
	folder, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(folder)
	if err != nil {
		return nil, &codedError{exitNotFound, err}
	}
	if !info.IsDir() {
		d := &dump{cli: c, folder: filepath.Dir(folder), segments: []string{filepath.Base(folder)}}
		d.fsys = os.DirFS(d.folder)
		return d, nil
	}
	d := &dump{cli: c, folder: folder, fsys: os.DirFS(folder)}
	if d.segments, err = inspect.Segments(d.fsys, "."); errors.Is(err, fs.ErrNotExist) {
		return nil, notFound("%s: %w", name, err)
	}
	return d, err
}

// dumpColumns are the columns of each kind of dump.
var dumpColumns = map[dumpKind][]string{
	batchDump:  {"offsets", "records", "epoch", "bytes", "codec", "crc", "producer", "kind", "largest time", "+segment", "+position", "problems"},
	recordDump: {"offset", "time", "key", "value", "headers", "+kind"},
	entryDump:  {"index", "term", "type", "bytes", "crc", "+segment", "+position", "problems", "facts"},
}

func (d *dump) run() error {
	d.table, d.out = &table{columns: dumpColumns[d.kind]}, bufio.NewWriter(d.cli.out)
	stop := d.cli.progress("batches", func() int { return int(d.batches.Load()) })
	err := d.walk()
	stop()
	if !d.cli.forPrograms() {
		err = errors.Join(err, d.table.print(d.out, d.cli.form == formWide))
	}
	err = errors.Join(err, d.out.Flush())
	return errors.Join(append([]error{err}, d.damaged...)...)
}

func (d *dump) walk() error {
	show := map[dumpKind]func(*inspect.Batch) error{batchDump: d.batch, recordDump: d.records, entryDump: d.entry}[d.kind]
	for b, err := range inspect.Batches(d.fsys, d.segments) {
		var damage *inspect.DamageError
		if errors.As(err, &damage) {
			d.damaged = append(d.damaged, d.explain(damage))
			continue
		}
		if err != nil {
			return err
		}
		d.batches.Add(1)
		if len(b.Problems) > 0 && d.kind == recordDump {
			d.damaged = append(d.damaged, fmt.Errorf("%s: the batch at byte %d: %s", b.Segment, b.Position, strings.Join(b.Problems, "; ")))
		}
		if err := show(b); err != nil {
			return err
		}
	}
	return nil
}

// explain says of damage what a broker would make of it.
func (d *dump) explain(damage *inspect.DamageError) error {
	if damage.Segment == d.segments[len(d.segments)-1] {
		return fmt.Errorf("%w; at the end of a log this is a write that a crash cut short, and the broker cuts it off when it starts, unless it was synced before", damage)
	}
	return fmt.Errorf("%w; what follows in this segment is not shown, what follows in later ones is", damage)
}

// jsonBatch is a batch as a line of JSON.
type jsonBatch struct {
	Segment       string               `json:"segment"`
	Position      int64                `json:"position"`
	Bytes         int                  `json:"bytes"`
	BaseOffset    broker.Offset        `json:"base_offset"`
	LastOffset    broker.Offset        `json:"last_offset"`
	Records       int32                `json:"records"`
	LeaderEpoch   broker.LeaderEpoch   `json:"leader_epoch"`
	Codec         string               `json:"codec"`
	CRC           string               `json:"crc"` // ok or bad
	ProducerID    broker.ProducerID    `json:"producer_id"`
	ProducerEpoch broker.ProducerEpoch `json:"producer_epoch"`
	BaseSequence  broker.Sequence      `json:"base_sequence"`
	Transactional bool                 `json:"transactional"`
	Control       bool                 `json:"control"`
	LogAppendTime bool                 `json:"log_append_time"`
	BaseTimestamp int64                `json:"base_timestamp"`
	MaxTimestamp  int64                `json:"max_timestamp"`
	Problems      []string             `json:"problems"`
}

func crcText(b *inspect.Batch) string {
	if b.CRCFits() {
		return "ok"
	}
	return "bad"
}

func batchKind(transactional, control bool) string {
	switch {
	case control:
		return "control"
	case transactional:
		return "transactional"
	}
	return "plain"
}

func (d *dump) batch(b *inspect.Batch) error {
	v := b.View
	if d.cli.forPrograms() {
		return d.cli.item(d.out, jsonBatch{
			Segment: b.Segment, Position: b.Position, Bytes: v.Len(), BaseOffset: v.BaseOffset(), LastOffset: v.LastOffset(),
			Records: v.Count(), LeaderEpoch: v.LeaderEpoch(), Codec: v.Codec().String(), CRC: crcText(b), ProducerID: v.ProducerID(),
			ProducerEpoch: v.ProducerEpoch(), BaseSequence: v.BaseSequence(), Transactional: v.Transactional(), Control: v.Control(),
			LogAppendTime: v.LogAppendTime(), BaseTimestamp: v.BaseTimestamp(), MaxTimestamp: v.MaxTimestamp(), Problems: orEmpty(b.Problems),
		})
	}
	producer := ""
	if v.ProducerID() >= 0 {
		producer = fmt.Sprintf("%d epoch %d from %d", v.ProducerID(), v.ProducerEpoch(), v.BaseSequence())
	}
	d.table.add(fmt.Sprintf("%d-%d", v.BaseOffset(), v.LastOffset()), v.Count(), v.LeaderEpoch(), v.Len(), v.Codec().String(), crcText(b),
		producer, batchKind(v.Transactional(), v.Control()), timeText(v.MaxTimestamp()), b.Segment, b.Position, strings.Join(b.Problems, "; "))
	return nil
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func timeText(ms int64) string {
	if ms < 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

func (d *dump) records(b *inspect.Batch) error {
	for record, err := range b.Records(inspect.NewDecompressor()) {
		if err != nil {
			d.damaged = append(d.damaged, fmt.Errorf("%s: the batch at byte %d: %w", b.Segment, b.Position, err))
			return nil
		}
		offset, ms := int64(record.Offset), record.Timestamp
		line := jsonRecord{Offset: &offset, Timestamp: &ms, Key: orNull(record.Key), Value: orNull(record.Value), Control: b.View.Control()}
		for _, h := range record.Headers {
			line.Headers = append(line.Headers, jsonHeader{Key: jsonBytes(h.Key), Value: orNull(h.Value)})
		}
		if d.cli.forPrograms() {
			if err := d.cli.item(d.out, line); err != nil {
				return err
			}
			continue
		}
		var headers []string
		for _, h := range record.Headers {
			headers = append(headers, fmt.Sprintf("%s=%s", h.Key, partText(h.Value)))
		}
		d.table.add(offset, timeText(ms), partText(record.Key), partText(record.Value), headers, batchKind(b.View.Transactional(), b.View.Control()))
	}
	return nil
}

// partTextMax is how much of a key or value a table shows.
const partTextMax = 60

// partText shows bytes in a table: on one line, cut, null told apart from empty.
func partText(b []byte) string {
	if b == nil {
		return "null"
	}
	cut := b[:min(len(b), partTextMax)]
	text := fmt.Sprintf("%q", cut)
	if len(cut) < len(b) {
		text += fmt.Sprintf("... %d bytes", len(b))
	}
	return text
}

// jsonEntry is an entry of the metadata log as a line of JSON.
type jsonEntry struct {
	Index    broker.Index      `json:"index"`
	Term     broker.Term       `json:"term"`
	Type     string            `json:"type"`
	Bytes    int               `json:"bytes"`
	CRC      string            `json:"crc"`
	Facts    []json.RawMessage `json:"facts"`
	Data     string            `json:"data,omitempty"` // base64, of an entry that is not normal
	Segment  string            `json:"segment"`
	Position int64             `json:"position"`
	Problems []string          `json:"problems"`
}

func (d *dump) entry(b *inspect.Batch) error {
	entry, err := b.Entry()
	problems := b.Problems
	if err != nil {
		problems = append(slices.Clone(problems), err.Error())
	}
	if d.cli.forPrograms() {
		facts := entry.Facts
		if facts == nil {
			facts = []json.RawMessage{}
		}
		return d.cli.item(d.out, jsonEntry{
			Index: entry.Index, Term: entry.Term, Type: entry.Type, Bytes: b.View.Len(), CRC: crcText(b), Facts: facts,
			Data: base64.StdEncoding.EncodeToString(entry.Data), Segment: b.Segment, Position: b.Position, Problems: orEmpty(problems),
		})
	}
	facts := make([]string, len(entry.Facts))
	for i, fact := range entry.Facts {
		facts[i] = factText(fact)
	}
	d.table.add(entry.Index, entry.Term, entry.Type, b.View.Len(), crcText(b), b.Segment, b.Position, strings.Join(problems, "; "), strings.Join(facts, " "))
	return nil
}

// factText shows a fact in a table: kind and contents, without the quotes of its names.
func factText(fact json.RawMessage) string {
	var kinds map[string]json.RawMessage
	if err := json.Unmarshal(fact, &kinds); err != nil || len(kinds) != 1 {
		return string(fact)
	}
	for kind, contents := range kinds {
		return kind + string(contents)
	}
	return ""
}
