package kafka

import (
	"encoding/binary"
	"net"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// The Fetch response is written by hand so that record bytes are never copied into it: everything else goes into one
// buffer, and the frame is that buffer cut open where records belong.

// fetchWriter builds one Fetch response.
type fetchWriter struct {
	version   int16
	flexible  bool
	committed bool // the reader asked for committed records only
	meta      []byte
	cuts      []cut
	records   int // bytes of records
}

// cut says that records follow the first at bytes of the buffer.
type cut struct {
	at      int
	records [][]byte
}

// fetchAnswer is what one response tells.
type fetchAnswer struct {
	code       broker.Code // of the whole request; then there is nothing else
	session    int32       // 0: none
	committed  bool        // the reader asked for committed records only
	partitions []fetched
}

// respondFetch writes the response with the log's own buffers in it.
func (s *session) respondFetch(h header, version int16, answer fetchAnswer) error {
	s.work.start()
	w := &fetchWriter{version: version, flexible: version >= 12, committed: answer.committed}
	hints := leaderHints{session: s, image: s.Metadata.Image()}
	pooled := s.scratch.Get().(*[]byte)
	w.meta = appendResponseHeader((*pooled)[:0], h.correlationID, w.flexible)
	w.begin(answer, s.throttle)
	w.topics(answer.partitions, &hints)
	if w.flexible {
		w.endpoints(hints.brokers())
	}
	total := len(w.meta) + w.records
	binary.BigEndian.PutUint32(w.meta, uint32(total-4))
	s.work.stop()
	err := s.writeAll(s.conn, w.pieces(), total)
	s.putScratch(pooled, w.meta)
	for i := range answer.partitions {
		if f := &answer.partitions[i]; f.size > 0 {
			s.Metrics.Fetched(f.target.name, f.size, countRecords(f.records.Bytes))
		}
	}
	return err
}

// begin writes what concerns the whole request.
func (w *fetchWriter) begin(answer fetchAnswer, throttle time.Duration) {
	w.int32(throttleMillis(throttle))
	if w.version >= 7 {
		w.int16(int16(answer.code))
		w.int32(answer.session)
	}
}

// topics writes the partitions in their order. Neighbours of one topic are written as one; after a session has moved
// partitions about, a topic may come more than once.
func (w *fetchWriter) topics(all []fetched, hints *leaderHints) {
	starts := make([]int, 0, 8)
	for i := range all {
		if i == 0 || !all[i].asked.sameTopic(&all[i-1].asked) {
			starts = append(starts, i)
		}
	}
	w.count(len(starts))
	for n, start := range starts {
		end := len(all)
		if n+1 < len(starts) {
			end = starts[n+1]
		}
		if w.version >= 13 {
			w.meta = append(w.meta, all[start].asked.id[:]...)
		} else {
			w.string(all[start].asked.topic)
		}
		w.count(end - start)
		for i := start; i < end; i++ {
			w.partition(&all[i], all[i].asked.Partition, hints)
		}
		w.noTags()
	}
}

func (w *fetchWriter) partition(f *fetched, number int32, hints *leaderHints) {
	ends := f.records.Ends
	if f.code != broker.None {
		ends = Ends{LogStart: -1, HighWatermark: -1, LastStable: -1}
	}
	w.int32(number)
	w.int16(int16(f.code))
	w.int64(int64(ends.HighWatermark))
	w.int64(int64(ends.LastStable))
	if w.version >= 5 {
		w.int64(int64(ends.LogStart))
	}
	if f.source != nil && !w.committed {
		w.null() // aborted transactions are told to readers of committed records only
	} else {
		w.count(0)
	}
	if w.version >= 11 {
		w.int32(int32(f.preferred))
	}
	if w.flexible {
		w.meta = binary.AppendUvarint(w.meta, uint64(f.size)+1)
	} else {
		w.int32(int32(f.size))
	}
	if f.size > 0 {
		w.cuts = append(w.cuts, cut{at: len(w.meta), records: f.records.Bytes})
		w.records += f.size
	}
	if !w.flexible {
		return
	}
	leader, hinted := hints.hint(f.code, f.target, number)
	tags := 0
	if f.diverging != nil {
		tags++
	}
	if hinted {
		tags++
	}
	w.meta = binary.AppendUvarint(w.meta, uint64(tags))
	if f.diverging != nil {
		w.tag(0, 4+8+1)
		w.int32(int32(f.diverging.Epoch))
		w.int64(int64(f.diverging.End))
		w.noTags()
	}
	if hinted {
		w.tag(1, 4+4+1)
		w.int32(leader.LeaderID)
		w.int32(leader.LeaderEpoch)
		w.noTags()
	}
}

// endpoints ends the response with the addresses of the leaders that were hinted at.
func (w *fetchWriter) endpoints(brokers []address) {
	if len(brokers) == 0 || w.version < 16 {
		w.noTags()
		return
	}
	inner := fetchWriter{version: w.version, flexible: true}
	inner.count(len(brokers))
	for _, b := range brokers {
		inner.int32(b.NodeID)
		inner.string(b.Host)
		inner.int32(b.Port)
		if b.Rack == nil {
			inner.meta = append(inner.meta, 0)
		} else {
			inner.string(*b.Rack)
		}
		inner.noTags()
	}
	w.meta = append(w.meta, 1) // one tag
	w.tag(0, len(inner.meta))
	w.meta = append(w.meta, inner.meta...)
}

// pieces cuts the buffer open around the records.
func (w *fetchWriter) pieces() net.Buffers {
	pieces := make(net.Buffers, 0, 1+2*len(w.cuts))
	from := 0
	for _, c := range w.cuts {
		pieces = append(pieces, w.meta[from:c.at])
		pieces = append(pieces, c.records...)
		from = c.at
	}
	if from < len(w.meta) {
		pieces = append(pieces, w.meta[from:])
	}
	return pieces
}

func (w *fetchWriter) int16(v int16) { w.meta = binary.BigEndian.AppendUint16(w.meta, uint16(v)) }
func (w *fetchWriter) int32(v int32) { w.meta = binary.BigEndian.AppendUint32(w.meta, uint32(v)) }
func (w *fetchWriter) int64(v int64) { w.meta = binary.BigEndian.AppendUint64(w.meta, uint64(v)) }

func (w *fetchWriter) count(n int) {
	if w.flexible {
		w.meta = binary.AppendUvarint(w.meta, uint64(n)+1)
	} else {
		w.int32(int32(n))
	}
}

// null is an array that is not there.
func (w *fetchWriter) null() {
	if w.flexible {
		w.meta = append(w.meta, 0)
	} else {
		w.int32(-1)
	}
}

func (w *fetchWriter) string(v string) {
	if w.flexible {
		w.meta = binary.AppendUvarint(w.meta, uint64(len(v))+1)
	} else {
		w.int16(int16(len(v)))
	}
	w.meta = append(w.meta, v...)
}

func (w *fetchWriter) noTags() {
	if w.flexible {
		w.meta = append(w.meta, 0)
	}
}

func (w *fetchWriter) tag(number, size int) {
	w.meta = binary.AppendUvarint(w.meta, uint64(number))
	w.meta = binary.AppendUvarint(w.meta, uint64(size))
}
