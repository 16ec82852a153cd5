package kafka

import (
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// bypassAlarm notices a group that commits on a topic which has a binding for it, and never fetched in its own name:
// most likely its client does not say who it is, and reads the raw log (H39). It knows of Fetches on this node only, so
// it speaks where the node leads a partition of the topic and coordinates the group; elsewhere it stays quiet.
type bypassAlarm struct {
	mu      sync.Mutex
	fetched map[broker.BindingID]bool      // read in the group's name since the start; guarded by mu
	since   map[broker.BindingID]time.Time // first commit without such a Fetch, zero once said; guarded by mu
}

// bypassAfter is how long a group may commit without a Fetch before the alarm is raised, once. A consumer that outlives
// its broker commits what it has in its buffers before it fetches again, and that is no sign.
const bypassAfter = time.Minute

func (a *bypassAlarm) sawFetch(binding broker.BindingID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fetched[binding] {
		return
	}
	if a.fetched == nil {
		a.fetched = make(map[broker.BindingID]bool)
	}
	a.fetched[binding] = true
	delete(a.since, binding)
}

// sawCommit reports whether the alarm is to be raised now.
func (a *bypassAlarm) sawCommit(binding broker.BindingID, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fetched[binding] {
		return false
	}
	first, before := a.since[binding]
	if !before {
		if a.since == nil {
			a.since = make(map[broker.BindingID]time.Time)
		}
		a.since[binding] = now
		return false
	}
	if first.IsZero() || now.Sub(first) < bypassAfter {
		return false
	}
	a.since[binding] = time.Time{}
	return true
}

// checkBypass raises the alarm for a commit of a position beyond the first, if it deserves it.
func (s *Server) checkBypass(img *metadata.Image, group string, t target, partition int32, offset broker.Offset) {
	if t.view != nil || offset <= 0 {
		return
	}
	bound := groupChain(img, t.topic.ID, group)
	state, exists := img.Partition(t.partition(partition))
	if !bound.present() || !exists || state.Leader != s.Node || !s.bypass.sawCommit(bound.binding, time.Now()) {
		return
	}
	s.Metrics.BindingBypassed(group, t.name)
	s.complain("binding bypassed", func(e *zerolog.Event) {
		e.Str("group", group).Str("topic", t.name).Uint64("binding", uint64(bound.binding)).
			Msg("binding bypassed: the group commits without fetching in its own name; set client.rack to group=<name>, or read a view")
	})
}
