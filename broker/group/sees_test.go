package group

import (
	"slices"
	"testing"

	"github.com/millrace-io/millrace/broker"
)

// TestAMemberThatHasNotSpokenSinceTheLoadMatchesNothingNew: on whose behalf it matches is not in the log, so another
// member's heartbeat gives it no topic that it may not see, and takes none from it that it has.
func TestAMemberThatHasNotSpokenSinceTheLoadMatchesNothingNew(t *testing.T) {
	topics := newFakeTopics(map[string]int32{"mine": 1})
	alice, bob := Principal{Name: "User:alice"}, Principal{Name: "User:bob"}
	regex := ".*"
	join := func(id string, by Principal) HeartbeatRequest {
		return HeartbeatRequest{
			MemberID: id, MemberIDRequired: true, By: by, RebalanceTimeoutMs: 1000, Regex: &regex, Owned: Owned{Known: true},
			Timing: Timing{SessionTimeoutMs: 10_000, HeartbeatIntervalMs: 1000},
		}
	}
	log := map[changeKey]Change{}
	var answered []HeartbeatResponse
	settle := func(g *Group) {
		for out := g.TakeEffects(); len(out.Stores)+len(out.Heartbeats) > 0; out = g.TakeEffects() {
			for _, s := range out.Stores {
				for _, ch := range s.Changes {
					log[changeKey{ch.Kind, ch.Member}] = ch
				}
				g.OnStored(0, s.Serial, broker.None)
			}
			for _, a := range out.Heartbeats {
				answered = append(answered, a.HeartbeatResponse)
			}
		}
	}
	g := New("g", DefaultConfig(), 0)
	for i, who := range []Principal{alice, bob} {
		g.OnConsumerHeartbeat(0, Ticket(i+1), join([]string{"a", "b"}[i], who), topics)
		settle(g)
	}
	loaded := New("g", DefaultConfig(), 0)
	for _, ch := range log {
		loaded.OnChangeLoaded(ch)
	}
	loaded.OnChangesLoaded(0, 10_000)
	topics.set("secret", 2)
	topics.hide(hiding{alice, "secret"}, true)
	beat := join("b", bob)
	beat.MemberEpoch = answered[1].MemberEpoch
	loaded.OnConsumerHeartbeat(0, 3, beat, topics)
	settle(loaded)
	d, _ := loaded.DescribeConsumers()
	has := map[string][]string{}
	for _, m := range d.Members {
		for _, tp := range m.Target {
			name := map[broker.TopicID]string{topics.byName["mine"].ID: "mine", topics.byName["secret"].ID: "secret"}[tp.Topic]
			has[m.MemberID] = append(has[m.MemberID], name)
		}
	}
	if slices.Contains(has["a"], "secret") || !slices.Equal(has["b"], []string{"secret", "secret"}) || !slices.Equal(has["a"], []string{"mine"}) {
		t.Errorf("targets %v: a's alone is mine, and secret is b's", has)
	}
}
