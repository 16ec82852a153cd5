package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Fetch: v4-18
//
// Behaviour:
//   - v7: sessions (KIP-227, T12) of one connection; without room for one the response's session id is 0, and the client
//     goes on with full fetches; errors FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR
//   - a full fetch is answered with every requested partition in the order of the request, empty records with length 0
//     (T11); an incremental one with those that have records, an error, or other ends
//   - limits are soft: the first batch of the first partition with records is returned whole (T13)
//   - parks until min bytes are there, a partition errs, or max wait passes, and never longer (T7)
//   - the reader is resolved by resolveChain; with a chain, records and ends are the filtered log's, parked until a
//     record is visible; min bytes counts visible bytes
//   - leader epochs are checked; a diverging last fetched epoch is answered with where it ended (KIP-320, KIP-595)
//   - zstd to versions below 10 gets UNSUPPORTED_COMPRESSION_TYPE (T10); no aborted transactions exist
//   - v11: rack; v12: flexible; v13: topic ids; v16: addresses of current leaders (KIP-951)
//   - v11: a reader whose rack is another than the leader's, and that of an in-sync follower, is sent there
//     (nearby.go); chains are served by leaders
//   - a follower's Fetch (replica id of 0 or more) is refused: replication has a protocol of its own (X6)

// fetched is one partition of a Fetch: what is asked, where it is read, and the answer.
type fetched struct {
	asked     asked
	target    target
	chain     chain
	topicCode broker.Code // what is wrong with the whole topic
	source    Partition
	filtered  Filtered // instead of source where there is a chain
	code      broker.Code
	records   Records
	size      int
	diverging *broker.EpochEnd
	preferred broker.NodeID // where the reader shall read instead; NoNode: here
}

// fetch answers a Fetch.
func (s *session) fetch(ctx context.Context, h header, req *kmsg.FetchRequest) error {
	plan, code := s.planFetch(req)
	if code != broker.None {
		s.note(code)
		return s.respondFetch(h, req.Version, fetchAnswer{code: code})
	}
	replica := req.ReplicaID
	if req.Version >= 15 {
		replica = req.ReplicaState.ID
	}
	img := s.Metadata.Image()
	all := s.fetchTargets(img, req, plan.asked, replica >= 0)
	defer s.releaseAll(all)
	wait := min(time.Duration(max(req.MaxWaitMillis, 0))*time.Millisecond, s.Limits.FetchWaitMax)
	if len(all) > parkedPartitionsMax && s.memory.short() {
		wait = min(wait, parkedWhenShort)
	}
	s.fetchUntil(ctx, img, all, req, wait)
	for i := range all {
		s.note(all[i].code)
	}
	size := 0
	for i := range all {
		size += all[i].size
	}
	if size > 0 {
		s.throttle = s.use(metadata.ConsumerByteRate, size)
	}
	return s.respondFetch(h, req.Version, fetchAnswer{session: plan.id(), committed: req.IsolationLevel == 1, partitions: plan.answered(all)})
}

// A Fetch of many partitions is not parked for long while memory for requests is short: it holds some of it.
const (
	parkedPartitionsMax = 100
	parkedWhenShort     = time.Second
)

// releaseAll ends a response: its records count no more.
func (s *session) releaseAll(all []fetched) {
	size := 0
	for i := range all {
		size += all[i].size
	}
	release(all)
	s.responding.Add(-int64(size))
}

// responseRoom is how many bytes of records one more response may have: a quarter of what others leave, so that readers
// that take nothing off their connections cannot pin the node's memory (X10, X11). The first batch passes whatever is left
// (T13).
func (s *Server) responseRoom() int {
	left := int64(s.Limits.ResponseBytesMax) - s.responding.Load()
	return min(s.Limits.FetchBytesMax, int(max(left, 0)/4))
}

// release gives the log's buffers back.
func release(all []fetched) {
	for i := range all {
		if all[i].records.Release != nil {
			all[i].records.Release()
		}
		all[i].records, all[i].size = Records{Ends: all[i].records.Ends}, 0
	}
}

// fetchTargets finds where each partition is read.
func (s *session) fetchTargets(img *metadata.Image, req *kmsg.FetchRequest, wanted []asked, replica bool) []fetched {
	all := make([]fetched, len(wanted))
	for i := range wanted {
		f := &all[i]
		f.asked, f.preferred = wanted[i], broker.NoNode
		if i > 0 && f.asked.sameTopic(&wanted[i-1]) {
			before := &all[i-1]
			f.target, f.chain, f.topicCode = before.target, before.chain, before.topicCode
			if f.asked.entry != nil {
				f.asked.entry.known = wanted[i-1].entry.known
			}
		} else {
			s.fetchTopic(img, f, req, replica)
		}
		if f.code = f.topicCode; f.code == broker.None {
			s.openFetch(img, f, f.asked.Partition)
		}
	}
	return all
}

// fetchTopic finds the topic of a partition, and who reads it.
func (s *session) fetchTopic(img *metadata.Image, f *fetched, req *kmsg.FetchRequest, replica bool) {
	f.target, f.topicCode = s.resolveAsked(img, &f.asked, req.Version >= 13)
	if replica {
		f.topicCode = broker.ClusterAuthorizationFailed
	}
	if f.topicCode == broker.None {
		f.chain, f.topicCode = resolveChain(img, f.target, s.preamble, req.Rack)
	}
	if f.topicCode == broker.None && f.chain.group != "" && !s.mayGroup(f.chain.group) {
		f.topicCode = broker.GroupAuthorizationFailed
	}
	if f.topicCode == broker.None && f.chain.group != "" {
		s.bypass.sawFetch(f.chain.binding)
	}
}

func (s *session) openFetch(img *metadata.Image, f *fetched, number int32) {
	tp := f.target.partition(number)
	if _, exists := img.Partition(tp); !exists {
		f.code = broker.UnknownTopicOrPartition
		return
	}
	var err error
	if f.source, err = s.Partitions.Partition(tp); err == nil && f.chain.present() {
		f.filtered, err = s.filtered(f.chain.binding, tp)
	}
	f.code = broker.CodeOf(err)
}

// filtered finds a filtered log. One that is not there yet, because delivery has not seen the newest image, is answered
// as a leader that is not there yet: every client asks again, and none skips.
func (s *Server) filtered(binding broker.BindingID, tp broker.TopicPartition) (Filtered, error) {
	found, err := s.Chains.Filtered(binding, tp)
	if errors.Is(err, broker.ResourceNotFound) {
		return nil, broker.NotLeaderOrFollower
	}
	return found, err
}

// fetchUntil reads until the request is satisfied or its time is up. img is what said who reads.
func (s *session) fetchUntil(ctx context.Context, img *metadata.Image, all []fetched, req *kmsg.FetchRequest, wait time.Duration) {
	enough := s.fetchOnce(all, req)
	if s.rebound(img, all, req) || enough || wait == 0 || len(all) == 0 {
		return
	}
	// One signal stands for all partitions: whichever moved, everything is read again. The watches are set before the
	// next read, so that what comes between a read and the wait is not missed.
	changed := make(chan struct{}, 1)
	for i := range all {
		defer watch(&all[i], changed)()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for last := false; ; {
		enough := s.fetchOnce(all, req)
		if refused, rebound := s.recheck(all), s.rebound(img, all, req); refused || rebound || enough || last {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			last = true // ends may have moved since
		case <-ctx.Done():
			return
		}
	}
}

// recheck takes back what was read and the principal may not read any more: a rule may have come while the Fetch was parked
// (X8). It looks after the read, so that nothing written under a rule gets past it.
func (s *session) recheck(all []fetched) (refused bool) {
	for i := range all {
		f, code := &all[i], broker.None
		switch {
		case f.code != broker.None:
		case !s.mayTopic(f.target.name):
			code = broker.TopicAuthorizationFailed
		case f.chain.group != "" && !s.mayGroup(f.chain.group):
			code = broker.GroupAuthorizationFailed
		}
		if code != broker.None {
			s.releaseAll(all[i : i+1])
			f.code, refused = code, true
		}
	}
	return refused
}

// rebound takes back what was read for a reader who is bound to another chain by now, or no more: it may lie behind the offset
// from which that one answers (H29). A leader reads the end of its log for a cutover when its image has the binding, so what was
// read before this image had it is in front of the cutover. The answer goes out without it, and the client asks again.
func (s *session) rebound(img *metadata.Image, all []fetched, req *kmsg.FetchRequest) (rebound bool) {
	now := s.Metadata.Image()
	if now == img {
		return false
	}
	for i := range all {
		f := &all[i]
		if f.code != broker.None {
			continue
		}
		if chain, _ := resolveChain(now, f.target, s.preamble, req.Rack); chain != f.chain {
			s.releaseAll(all[i : i+1])
			rebound = true
		}
	}
	return rebound
}

func watch(f *fetched, changed chan<- struct{}) (cancel func()) {
	if f.filtered == nil {
		return f.source.Watch(changed)
	}
	base, filtered := f.source.Watch(changed), f.filtered.Watch(changed)
	return func() { base(); filtered() }
}

// fetchOnce reads every partition within the limits and reports whether the answer may go out now.
func (s *session) fetchOnce(all []fetched, req *kmsg.FetchRequest) (enough bool) {
	s.releaseAll(all)
	left := min(int(req.MaxBytes), s.responseRoom(), s.fetchQuotaRoom())
	total := 0
	for i := range all {
		f := &all[i]
		if f.code == broker.None {
			s.readOne(f, req, f.asked.FetchRequestTopicPartition, left, total == 0)
		}
		total += f.size
		left = max(left-f.size, 0)
		s.responding.Add(int64(f.size))
		enough = enough || f.code != broker.None || f.diverging != nil || f.preferred != broker.NoNode
	}
	return enough || total >= int(req.MinBytes) || total > 0 && moreWaits(all)
}

// moreWaits reports that a limit, not the end of a log, cut what was read: then waiting brings nothing, even if a reader
// asked for more bytes than its limits let through.
func moreWaits(all []fetched) bool {
	for i := range all {
		f := &all[i]
		next := broker.Offset(math.MaxInt64)
		heads(f.records.Bytes, func(head []byte) {
			next = broker.Offset(be64(head)) + broker.Offset(int32(be32(head[lastOffsetDeltaAt:]))) + 1
		})
		if f.size > 0 && next < f.records.Ends.HighWatermark {
			return true
		}
	}
	return false
}

// readOne reads one partition. The first partition with records may pass the limits by one batch.
func (s *session) readOne(f *fetched, req *kmsg.FetchRequest, rp *kmsg.FetchRequestTopicPartition, left int, first bool) {
	limit := min(left, int(max(rp.PartitionMaxBytes, 0)))
	epoch := broker.NoLeaderEpoch
	if req.Version >= 9 {
		epoch = broker.LeaderEpoch(rp.CurrentLeaderEpoch)
	}
	from := broker.Offset(rp.FetchOffset)
	if req.Version >= 12 && rp.LastFetchedEpoch >= 0 && s.diverges(f, from, broker.LeaderEpoch(rp.LastFetchedEpoch), epoch) {
		return
	}
	var err error
	if f.filtered != nil {
		if f.code = broker.CodeOf(f.source.CheckLeader(epoch)); f.code != broker.None {
			return
		}
		f.records, err = f.filtered.Read(FilteredRead{From: from, MaxBytes: limit, MinOne: first, View: f.chain.view})
	} else {
		f.records, err = readLog(f.source, Read{
			From: from, MaxBytes: limit, MinOne: first, LeaderEpoch: epoch, Committed: req.IsolationLevel == 1,
			Nearby: req.Version >= nearbySince,
		})
	}
	if f.code = broker.CodeOf(err); f.code != broker.None {
		return
	}
	if req.Version >= nearbySince && rp.LastFetchedEpoch < 0 && f.filtered == nil {
		if f.preferred = s.nearer(f, from, req.Rack); f.preferred != broker.NoNode {
			release([]fetched{*f})
			f.records = Records{Ends: f.records.Ends}
			return
		}
	}
	for _, b := range f.records.Bytes {
		f.size += len(b)
	}
	if req.Version < 10 && holdsZstd(f.records.Bytes) {
		f.code = broker.UnsupportedCompressionType
		release([]fetched{*f})
		f.records, f.size = Records{Ends: f.records.Ends}, 0
	}
}

// diverges reports that the log which the client read up to from is not this one, or that its epoch is refused.
func (s *session) diverges(f *fetched, from broker.Offset, last, current broker.LeaderEpoch) bool {
	if f.code = broker.CodeOf(f.source.CheckLeader(current)); f.code != broker.None {
		return true
	}
	end, err := f.source.EpochEnd(last)
	if err != nil {
		f.code = broker.CodeOf(err)
		return true
	}
	if end.Epoch < 0 && last > f.source.Ends().LeaderEpoch {
		f.code = broker.OffsetOutOfRange // what the client read was never in this log
		return true
	}
	if end.Epoch >= last && end.End >= from || end.Epoch < 0 {
		return false
	}
	f.diverging = &end
	f.records.Ends = f.source.Ends()
	return true
}

// Positions in a batch header that heads reads.
const (
	lengthAt          = 8
	lengthEnd         = 12
	attributesAt      = 21
	lastOffsetDeltaAt = 23
	countAt           = 57
	codecMask         = 7
)

// heads calls visit with the header of every batch in chunks; batches may lie across chunk borders.
func heads(chunks [][]byte, visit func(head []byte)) {
	var joined [batch.HeaderBytes]byte
	skip, have := 0, 0
	for _, chunk := range chunks {
		for len(chunk) > 0 {
			if skip > 0 {
				n := min(skip, len(chunk))
				chunk, skip = chunk[n:], skip-n
				continue
			}
			n := copy(joined[have:], chunk)
			chunk, have = chunk[n:], have+n
			if have == len(joined) {
				visit(joined[:])
				length := int(int32(be32(joined[lengthAt:])))
				skip, have = max(length+lengthEnd-len(joined), 0), 0
			}
		}
	}
}

func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
func be64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

func holdsZstd(chunks [][]byte) (found bool) {
	heads(chunks, func(head []byte) {
		found = found || batch.Codec(head[attributesAt+1]&codecMask) == batch.Zstd
	})
	return found
}

func countRecords(chunks [][]byte) (count int64) {
	heads(chunks, func(head []byte) { count += int64(int32(be32(head[countAt:]))) })
	return count
}
