package group

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace-io/millrace/broker"
)

// consumerScript is the part of a transcript that consumer groups add:
//
//	topics   NAME=N ...             makes, grows and, with 0, deletes topics
//	beat     id=ID epoch=N [instance=I] [names=(T,...)] [regex=R] [assignor=A] [owned=(T-P,...) | owned=none] [rebalance=MS]
//	         [new=ID] [old]         a heartbeat; one of epoch 0 says names=(t), owned=none and rebalance=30000 by itself
//	members                         who is in the group, and what each has
//	may      id=ID gen=N topic=T partition=N     whether such a commit, and such a fetch, is accepted
//
// old means version 0, in which the coordinator makes member ids. Partitions are shown as topic and number.
type consumerScript struct {
	topics *fakeTopics
	stores map[uint64][]Change
	log    map[changeKey]Change
}

const scriptSession = 10_000

func (c *consumerScript) written(serial uint64) {
	for _, ch := range c.stores[serial] {
		c.log[changeKey{ch.Kind, ch.Member}] = ch
	}
}

// loadInto loads the group from the log, if that holds one of this kind.
func (c *consumerScript) loadInto(s *script) bool {
	if epoch, ok := c.log[changeKey{EpochChange, ""}]; !ok || epoch.Removed {
		return false
	}
	for _, key := range slices.SortedFunc(maps.Keys(c.log), func(a, b changeKey) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.member, b.member))
	}) {
		s.g.OnChangeLoaded(c.log[key])
	}
	s.g.OnChangesLoaded(s.nowMs, scriptSession)
	return true
}

func (s *script) runConsumers(t *testing.T, d *datadriven.TestData, who Identity) {
	c := &s.next
	if c.topics == nil {
		c.topics, c.stores, c.log = newFakeTopics(nil), map[uint64][]Change{}, map[changeKey]Change{}
	}
	switch d.Cmd {
	case "topics":
		for _, a := range d.CmdArgs {
			c.topics.set(a.Key, int32(number(t, d, a.Key, 0)))
		}
	case "beat":
		s.beat(t, d)
	case "members":
		s.members()
	case "may":
		topic, _ := c.topics.Named(text(d, "topic"))
		code := s.g.CheckCommit(s.nowMs, who)
		if code == broker.None {
			code = s.g.CheckCommitOf(who, broker.TopicPartition{Topic: topic.ID, Partition: int32(number(t, d, "partition", 0))})
		}
		s.say("commit %s, fetch %s", codeName(code), codeName(s.g.CheckFetch(who)))
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
}

func (s *script) beat(t *testing.T, d *datadriven.TestData) {
	r := HeartbeatRequest{
		MemberID: text(d, "id"), NewMemberID: text(d, "new"), MemberIDRequired: !d.HasArg("old"), ClientID: "c", ClientHost: "h",
		MemberEpoch: int32(number(t, d, "epoch", 0)), RebalanceTimeoutMs: int32(number(t, d, "rebalance", -1)), Names: list(d, "names"),
		Timing: Timing{SessionTimeoutMs: scriptSession, HeartbeatIntervalMs: 1000},
	}
	if r.MemberEpoch == 0 && !d.HasArg("owned") {
		r.Owned.Known = true
	}
	if r.MemberEpoch == 0 && r.RebalanceTimeoutMs == -1 {
		r.RebalanceTimeoutMs = 30_000
	}
	if r.MemberEpoch == 0 && r.Names == nil && !d.HasArg("regex") {
		r.Names = []string{"t"}
	}
	optional := func(key string) *string {
		if !d.HasArg(key) {
			return nil
		}
		value := text(d, key)
		return &value
	}
	r.InstanceID, r.Regex, r.Assignor = optional("instance"), optional("regex"), optional("assignor")
	for _, owned := range list(d, "owned") {
		r.Owned.Known = true
		if name, partition, ok := strings.Cut(owned, "-"); ok {
			topic, _ := s.next.topics.Named(name)
			tp := broker.TopicPartition{Topic: topic.ID}
			fmt.Sscan(partition, &tp.Partition)
			r.Owned.Partitions = append(r.Owned.Partitions, tp)
		}
	}
	s.ticket++
	s.g.OnConsumerHeartbeat(s.nowMs, s.ticket, r, s.next.topics)
}

func (s *script) members() {
	d, ok := s.g.DescribeConsumers()
	if !ok {
		s.say("no consumer group")
		return
	}
	s.say("%s epoch %d assignment epoch %d assignor %s", d.State, d.Epoch, d.AssignmentEpoch, d.Assignor)
	for _, m := range d.Members {
		s.say("  %s at %d has %s of %s", m.MemberID, m.Epoch, s.show(m.Assigned), s.show(m.Target))
	}
	if s.g.DueMs() != Never {
		s.say("due %d", s.g.DueMs())
	}
}

// show names partitions by their topic's number, which is the order in which topics were made.
func (s *script) show(partitions []broker.TopicPartition) string {
	names := map[broker.TopicID]string{}
	for name, t := range s.next.topics.byName {
		names[t.ID] = name
	}
	shown := make([]string, 0, len(partitions))
	for _, tp := range partitions {
		shown = append(shown, fmt.Sprintf("%s%d", cmp.Or(names[tp.Topic], "gone"), tp.Partition))
	}
	return "[" + strings.Join(shown, " ") + "]"
}

func (s *script) beats(answers []HeartbeatAnswer) {
	for _, a := range answers {
		switch {
		case a.Err != nil:
			s.say("beat %d: %s", a.Ticket, codeName(broker.CodeOf(a.Err)))
		case a.Assigned:
			s.say("beat %d: %s at %d assigned %s", a.Ticket, a.MemberID, a.MemberEpoch, s.show(a.Partitions))
		default:
			s.say("beat %d: %s at %d", a.Ticket, a.MemberID, a.MemberEpoch)
		}
	}
}

func (s *script) changes(st Store) {
	if s.next.stores == nil {
		s.next.stores, s.next.log = map[uint64][]Change{}, map[changeKey]Change{}
	}
	s.next.stores[st.Serial] = st.Changes
	s.say("store %d:", st.Serial)
	kinds := map[ChangeKind]string{
		ClassicChange: "classic group", EpochChange: "epoch", SubscriptionChange: "member", TargetEpochChange: "epoch of the targets",
		TargetChange: "target", CurrentChange: "current",
	}
	states := map[MemberState]string{MemberStable: "stable", MemberUnrevoked: "unrevoked", MemberUnreleased: "unreleased"}
	for _, ch := range st.Changes {
		what := strings.TrimSpace(kinds[ch.Kind] + " " + ch.Member)
		switch {
		case ch.Removed:
			s.say("  %s removed", what)
		case ch.Kind == SubscriptionChange:
			s.say("  %s: %v %q %q", what, ch.Subscription.Names, ch.Subscription.Regex, ch.Subscription.InstanceID)
		case ch.Kind == TargetChange:
			s.say("  %s: %s", what, s.show(ch.Partitions))
		case ch.Kind == CurrentChange:
			s.say("  %s: %s at %d after %d has %s gives up %s", what, states[ch.State], ch.Epoch, ch.PreviousEpoch, s.show(ch.Partitions), s.show(ch.Revoking))
		default:
			s.say("  %s: %d", what, ch.Epoch)
		}
	}
}
