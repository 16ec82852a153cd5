package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// A fetch session (KIP-227, T12) lets a consumer of many partitions name only what has changed since its last Fetch, and
// hear only of partitions that have news. Here a session belongs to the connection that made it and ends with it: clients
// begin anew when a connection breaks, so nothing is lost, no two requests meet in a session, and whose connection it is
// (a preamble, a certificate) holds for all of it. The cache of the server only counts sessions, and takes the place of
// the one that has been idle longest.

// fetchSessionTopicIDError says that a session made with names is continued with ids, or the other way (KIP-516).
const fetchSessionTopicIDError broker.Code = 106

// The session epochs with a meaning of their own.
const (
	sessionEpochFinal   = -1 // no session, or the end of the one named
	sessionEpochInitial = 0  // a new session
)

// asked is one partition that a Fetch reads: named in the request, or kept by the session.
type asked struct {
	topic string
	id    broker.TopicID
	*kmsg.FetchRequestTopicPartition
	entry *sessionEntry // nil without a session
}

// sameTopic reports whether two partitions were asked for under the same name or id.
func (a *asked) sameTopic(b *asked) bool { return a.topic == b.topic && a.id == b.id }

// sessionEntry is one partition of a session.
type sessionEntry struct {
	asked     asked
	partition kmsg.FetchRequestTopicPartition // what asked points to
	known     string                          // the name that the topic's id had when it was last found
	told      Ends                            // what the client was told last
	toldError bool
}

// sessionKey names a partition as the client does: by the topic's id or by its name.
type sessionKey struct {
	topic     string
	id        broker.TopicID
	partition int32
}

// fetchSession is the session of one connection, whose goroutine owns it.
type fetchSession struct {
	id      int32
	epoch   int32 // of the request that comes next
	byID    bool
	entries []*sessionEntry // in the order in which they are read
	index   map[sessionKey]*sessionEntry
}

func newFetchSession(id int32, byID bool) *fetchSession {
	return &fetchSession{id: id, epoch: 1, byID: byID, index: make(map[sessionKey]*sessionEntry)}
}

// put adds partitions, or changes what is asked of those that are there.
func (f *fetchSession) put(topics []kmsg.FetchRequestTopic) {
	for i := range topics {
		rt := &topics[i]
		for j := range rt.Partitions {
			key := f.key(rt.Topic, rt.TopicID, rt.Partitions[j].Partition)
			entry, there := f.index[key]
			if !there {
				entry = &sessionEntry{toldError: true}
				entry.asked = asked{topic: key.topic, id: key.id, FetchRequestTopicPartition: &entry.partition, entry: entry}
				f.index[key] = entry
				f.entries = append(f.entries, entry)
			}
			entry.partition = rt.Partitions[j]
		}
	}
}

func (f *fetchSession) key(topic string, id broker.TopicID, partition int32) sessionKey {
	if f.byID {
		topic = ""
	} else {
		id = broker.TopicID{}
	}
	return sessionKey{topic: topic, id: id, partition: partition}
}

func (f *fetchSession) forget(topics []kmsg.FetchRequestForgottenTopic) {
	forgotten := 0
	for i := range topics {
		for _, number := range topics[i].Partitions {
			key := f.key(topics[i].Topic, topics[i].TopicID, number)
			if entry, there := f.index[key]; there {
				delete(f.index, key)
				entry.asked.entry = nil
				forgotten++
			}
		}
	}
	if forgotten == 0 {
		return
	}
	kept := make([]*sessionEntry, 0, len(f.entries)-forgotten)
	for _, entry := range f.entries {
		if entry.asked.entry != nil {
			kept = append(kept, entry)
		}
	}
	f.entries = kept
}

// news reports whether an incremental answer has to name the partition, and takes note of what the answer tells.
func (e *sessionEntry) news(f *fetched) bool {
	ends := f.records.Ends
	changed := e.toldError || e.told.HighWatermark != ends.HighWatermark || e.told.LogStart != ends.LogStart ||
		e.told.LastStable != ends.LastStable
	e.told, e.toldError = ends, f.code != broker.None || f.diverging != nil
	return changed || e.toldError || f.size > 0 || f.preferred != broker.NoNode
}

// rotate moves partitions that gave records behind those that did not, so that each gets its turn at the limits.
func (f *fetchSession) rotate(all []fetched) {
	var behind []*sessionEntry
	kept := f.entries[:0]
	for i := range all {
		if entry := all[i].asked.entry; all[i].size > 0 {
			behind = append(behind, entry)
		} else {
			kept = append(kept, entry)
		}
	}
	f.entries = append(kept, behind...)
}

// fetchPlan is what a Fetch reads, and what its answer is to hold.
type fetchPlan struct {
	asked       []asked
	session     *fetchSession // nil: none
	incremental bool          // name only partitions with news
}

// id is the session id of the answer.
func (p *fetchPlan) id() int32 {
	if p.session == nil {
		return 0
	}
	return p.session.id
}

// planFetch finds or makes the session of a Fetch. Its errors are of the whole request.
func (s *session) planFetch(req *kmsg.FetchRequest) (fetchPlan, broker.Code) {
	byID := req.Version >= 13
	switch {
	case req.Version < 7 || req.SessionEpoch == sessionEpochFinal:
		if s.fetches != nil && req.SessionID == s.fetches.id {
			s.endFetchSession()
		}
		return fetchPlan{asked: askedOf(req, byID)}, broker.None
	case req.SessionEpoch == sessionEpochInitial:
		s.endFetchSession()
		return s.beginFetchSession(req, byID), broker.None
	case s.fetches == nil || req.SessionID != s.fetches.id || !s.fetchSessions.use(s.fetches.id):
		return fetchPlan{}, broker.FetchSessionIDNotFound
	case req.SessionEpoch != s.fetches.epoch:
		return fetchPlan{}, broker.InvalidFetchSessionEpoch
	case byID != s.fetches.byID:
		return fetchPlan{}, fetchSessionTopicIDError
	}
	f := s.fetches
	f.put(req.Topics)
	f.forget(req.ForgottenTopics)
	if !s.fetchSessions.resize(f.id, len(f.entries)) {
		s.endFetchSession()
		return fetchPlan{}, broker.FetchSessionIDNotFound
	}
	if f.epoch++; f.epoch < 0 { // it goes round to 1: 0 means a new session
		f.epoch = 1
	}
	return fetchPlan{asked: f.asked(), session: f, incremental: true}, broker.None
}

func (f *fetchSession) asked() []asked {
	all := make([]asked, len(f.entries))
	for i, entry := range f.entries {
		all[i] = entry.asked
	}
	return all
}

// askedOf lists a request's partitions in its order.
func askedOf(req *kmsg.FetchRequest, byID bool) []asked {
	count := 0
	for i := range req.Topics {
		count += len(req.Topics[i].Partitions)
	}
	all := make([]asked, 0, count)
	for i := range req.Topics {
		rt := &req.Topics[i]
		for j := range rt.Partitions {
			a := asked{topic: rt.Topic, FetchRequestTopicPartition: &rt.Partitions[j]}
			if byID {
				a.id = rt.TopicID
			}
			all = append(all, a)
		}
	}
	return all
}

// beginFetchSession answers a full Fetch that asks for a session: with one if there is room for it.
func (s *session) beginFetchSession(req *kmsg.FetchRequest, byID bool) fetchPlan {
	plan := fetchPlan{asked: askedOf(req, byID)}
	if len(plan.asked) == 0 {
		return plan
	}
	id, room := s.fetchSessions.begin(len(plan.asked))
	if !room {
		return plan
	}
	f := newFetchSession(id, byID)
	f.put(req.Topics)
	if len(f.entries) != len(plan.asked) { // a partition is named twice: the answer names it twice too, without a session
		s.fetchSessions.end(id)
		return plan
	}
	s.fetches = f
	plan.session, plan.asked = f, f.asked()
	return plan
}

func (s *session) endFetchSession() {
	if s.fetches != nil {
		s.fetchSessions.end(s.fetches.id)
		s.fetches = nil
	}
}

// answered takes note of what an answer tells, and leaves only what it has to name.
func (p *fetchPlan) answered(all []fetched) []fetched {
	if p.session == nil {
		return all
	}
	p.session.rotate(all)
	named := all[:0:0]
	for i := range all {
		if news := all[i].asked.entry.news(&all[i]); news || !p.incremental {
			named = append(named, all[i])
		}
	}
	return named
}

// resolveAsked finds the topic of one partition. A session whose topic was deleted and made again under its name is told
// so: INCONSISTENT_TOPIC_ID, where a stranger's id is UNKNOWN_TOPIC_ID (T8).
func (s *session) resolveAsked(img *metadata.Image, a *asked, byID bool) (target, broker.Code) {
	t, code := s.resolve(img, byID, a.id, a.topic)
	if a.entry == nil || !byID {
		return t, code
	}
	if code == broker.None {
		a.entry.known = t.name
	} else if _, again := img.TopicNamed(a.entry.known); again && code == broker.UnknownTopicID {
		code = broker.InconsistentTopicID
	}
	return t, code
}
