package quorum

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Sizes of the metadata log. Two segments are kept reserved, so that a full disk can still delete topics.
const (
	logSegmentBytes  = 16 << 20
	logSpareSegments = 2
)

// logJournal keeps entries in a commitlog: one entry is one batch of one record, so that a cut never takes a neighbour
// (RC19). The record's key is the entry's type, its value the entry's data; offset is index, leader epoch is term.
type logJournal struct {
	log     *commitlog.Log
	now     func() time.Time
	builder *batch.Builder
	rose    chan struct{} // the durable end rose; one token
}

var _ journal = (*logJournal)(nil)

type logConfig struct {
	fs      vfs.FS
	dir     string
	flusher *commitlog.Flusher
	logger  zerolog.Logger
	now     func() time.Time
}

func openLogJournal(config logConfig) (journal, error) {
	j := &logJournal{now: config.now, builder: batch.NewBuilder(batch.Spec{}), rose: make(chan struct{}, 1)}
	var err error
	j.log, err = commitlog.Open(commitlog.Config{
		FS: config.fs, Dir: config.dir, Flusher: config.flusher, Logger: config.logger,
		SegmentBytes: logSegmentBytes, SpareSegments: logSpareSegments,
		OnDurable: func(broker.Offset) {
			select {
			case j.rose <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return j, nil
}

// First implements journal. A log that was never written to is at 0, which is no entry's index.
func (j *logJournal) First() uint64 { return max(1, uint64(j.log.Start())) }

// Last implements journal.
func (j *logJournal) Last() uint64 { return max(1, uint64(j.log.End())) - 1 }

// Read implements journal.
func (j *logJournal) Read(lo, hi uint64, bytesMax int) ([]*raftpb.Entry, error) {
	slice, err := j.log.Read(broker.Offset(lo), broker.Offset(hi), bytesMax, true)
	if err != nil {
		return nil, err
	}
	defer slice.Release()
	var entries []*raftpb.Entry
	for _, part := range slice.Bytes {
		for view, err := range batch.All(part) {
			if err != nil {
				return nil, err
			}
			entry, err := decodeEntry(view)
			if err != nil {
				return nil, err
			}
			entries = append(entries, entry)
		}
	}
	if len(entries) == 0 || entries[0].GetIndex() != lo {
		return nil, fmt.Errorf("the metadata log has no entry %d", lo)
	}
	return entries, nil
}

// Append implements journal.
func (j *logJournal) Append(ctx context.Context, entries []*raftpb.Entry) error {
	first := broker.Offset(entries[0].GetIndex())
	switch {
	case first > j.log.End():
		return fmt.Errorf("entry %d would leave a gap behind %d", first, j.log.End())
	case first < j.log.End():
		if err := j.log.Truncate(first); err != nil {
			return err
		}
	}
	var batches []byte
	for _, entry := range entries {
		encoded, err := j.encodeEntry(entry)
		if err != nil {
			return err
		}
		batches = append(batches, encoded...)
	}
	if err := j.log.Append(batches); err != nil {
		return err
	}
	for end := j.log.End(); j.log.Durable() < end; {
		select {
		case <-j.rose:
		case <-ctx.Done():
			return fmt.Errorf("wait until entry %d is durable: %w", end-1, ctx.Err())
		}
	}
	return nil
}

// DropBefore implements journal.
func (j *logJournal) DropBefore(index uint64) error { return j.log.AdvanceStart(broker.Offset(index)) }

// Reset implements journal.
func (j *logJournal) Reset(next uint64) error { return j.log.Reset(broker.Offset(next)) }

// Close implements journal.
func (j *logJournal) Close() error { return j.log.Close() }

func (j *logJournal) encodeEntry(entry *raftpb.Entry) ([]byte, error) {
	if entry.GetTerm() > math.MaxInt32 || entry.GetType() < 0 || entry.GetType() > math.MaxUint8 {
		return nil, fmt.Errorf("entry %d has term %d and type %d, beyond what the log can hold", entry.GetIndex(), entry.GetTerm(), entry.GetType())
	}
	j.builder.Reset(batch.Spec{
		BaseOffset: broker.Offset(entry.GetIndex()), LeaderEpoch: broker.LeaderEpoch(entry.GetTerm()), BaseTimestamp: j.now().UnixMilli(),
	})
	if err := j.builder.Append(batch.Record{Key: []byte{byte(entry.GetType())}, Value: entry.GetData()}); err != nil {
		return nil, err
	}
	return j.builder.Finish()
}

func decodeEntry(view batch.View) (*raftpb.Entry, error) {
	records, err := view.Records(nil)
	if err != nil {
		return nil, err
	}
	var record batch.Record
	if !records.Next(&record) || len(record.Key) != 1 || view.Count() != 1 {
		return nil, errors.Join(fmt.Errorf("batch at %d is not a metadata entry", view.BaseOffset()), records.Err())
	}
	return &raftpb.Entry{
		Index: proto.Uint64(uint64(view.BaseOffset())), Term: proto.Uint64(uint64(view.LeaderEpoch())),
		Type: raftpb.EntryType(record.Key[0]).Enum(), Data: append([]byte(nil), record.Value...),
	}, nil
}
