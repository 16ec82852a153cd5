package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Entry is one entry of the metadata log.
type Entry struct {
	Index broker.Index
	Term  broker.Term
	Type  string // normal, conf-change or conf-change-v2
	// Facts are those of a normal entry, each as the JSON form of its protobuf; an entry without any begins a term.
	Facts []json.RawMessage
	// Data is the payload of an entry that is not normal.
	Data []byte
}

// entryTypes are raft's, by number.
var entryTypes = [...]string{"normal", "conf-change", "conf-change-v2"}

// Entry reads a batch of the metadata log: one record, whose key is the type of the entry and whose value its data.
// The entry is returned also with an error, as far as it could be read.
func (b *Batch) Entry() (*Entry, error) {
	entry := &Entry{Index: broker.Index(b.View.BaseOffset()), Term: broker.Term(b.View.LeaderEpoch())}
	reader, err := b.View.Records(nil)
	if err != nil {
		return entry, err
	}
	var record batch.Record
	if b.View.Count() != 1 || !reader.Next(&record) || len(record.Key) != 1 {
		return entry, errors.Join(fmt.Errorf("the batch at %d is not an entry of the metadata log", entry.Index), reader.Err())
	}
	if kind := record.Key[0]; int(kind) < len(entryTypes) {
		entry.Type = entryTypes[kind]
	} else {
		entry.Type = fmt.Sprintf("type %d", kind)
	}
	if record.Key[0] != 0 {
		entry.Data = bytes.Clone(record.Value)
		return entry, nil
	}
	facts, err := metadata.DecodeEntry(entry.Index, record.Value)
	if err != nil {
		return entry, err
	}
	for _, fact := range facts {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(fact)
		if err != nil {
			return entry, err
		}
		var compact bytes.Buffer // protojson varies its spaces on purpose.
		if err := json.Compact(&compact, text); err != nil {
			return entry, err
		}
		entry.Facts = append(entry.Facts, compact.Bytes())
	}
	return entry, nil
}
