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
	raised  map[broker.BindingID]bool // said once; guarded by mu
}

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
	delete(a.raised, binding)
}

// sawCommit reports whether the alarm is to be raised now.
func (a *bypassAlarm) sawCommit(binding broker.BindingID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fetched[binding] || a.raised[binding] {
		return false
	}
	if a.raised == nil {
		a.raised = make(map[broker.BindingID]bool)
	}
	a.raised[binding] = true
	return true
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
