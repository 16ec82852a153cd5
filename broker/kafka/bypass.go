package kafka

import (
	"sync"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// bypassAlarm notices a group that commits on a topic which has a binding for it, and never fetched in its own name:
// most likely its client does not say who it is, and reads the raw log (H39). It knows of Fetches on this node only, so
// it speaks where the node leads a partition of the topic and coordinates the group; elsewhere it stays quiet.
type bypassAlarm struct {
	mu      sync.Mutex
	fetched map[broker.BindingID]bool // read in the group's name since the start; guarded by mu
	commits map[broker.BindingID]int  // without such a Fetch; guarded by mu
}

// bypassCommits is how many commits without a Fetch raise the alarm, once. A consumer that outlives its broker commits
// what it read before the crash ahead of its next Fetch: one or two are no sign.
const bypassCommits = 3

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
	delete(a.commits, binding)
}

// sawCommit reports whether the alarm is to be raised now.
func (a *bypassAlarm) sawCommit(binding broker.BindingID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fetched[binding] {
		return false
	}
	if a.commits == nil {
		a.commits = make(map[broker.BindingID]int)
	}
	a.commits[binding]++
	return a.commits[binding] == bypassCommits
}

// checkBypass raises the alarm for a commit of a position beyond the first, if it deserves it.
func (s *Server) checkBypass(img *metadata.Image, group string, t target, partition int32, offset broker.Offset) {
	if t.view != nil || offset <= 0 {
		return
	}
	bound := groupChain(img, t.topic.ID, group)
	state, exists := img.Partition(t.partition(partition))
	if !bound.present() || !exists || state.Leader != s.Node || !s.bypass.sawCommit(bound.binding) {
		return
	}
	s.Metrics.BindingBypassed(group, t.name)
	s.complain("binding bypassed", func(e *zerolog.Event) {
		e.Str("group", group).Str("topic", t.name).Uint64("binding", uint64(bound.binding)).
			Msg("binding bypassed: the group commits without fetching in its own name; set client.rack to group=<name>, or read a view")
	})
}
