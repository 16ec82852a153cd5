package group

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace-io/millrace/broker"
)

// TestTranscripts runs the conversations under testdata: a command a line, what it made happen below.
//
//	config   [min=MS] [max=MS] [delay=MS] [members=N] [pending=N]   a new group, at time 0
//	join     new=ID | id=ID [instance=I] [protocols=(a,b:metadata)] [type=T] [session=MS] [rebalance=MS] [once] [skip]
//	sync     id=ID gen=N [instance=I] [assign=(ID:data,...)] [protocol=P]
//	heartbeat id=ID gen=N [instance=I]
//	leave    [ids=(ID,...)] [instances=(I,...)]
//	time     MS                     moves the time there and calls OnTime if it is due
//	stored   SERIAL [code=N]
//	commit   [id=ID gen=N instance=I] topic=T offset=N              checked, and committed at once
//	offsets | expired retention=MS | delete | remove topic=T | describe
//	reload                          a new group from the last snapshot that was stored
//
// and what consumer_transcript_test.go adds for consumer groups.
//
// once means a client that does not know MEMBER_ID_REQUIRED.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{}
		s.reset(DefaultConfig())
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.log.Reset()
			s.run(t, d)
			s.effects()
			return s.log.String()
		})
	})
}

type script struct {
	g      *Group
	config Config
	nowMs  int64
	ticket Ticket
	stores map[uint64]Snapshot
	last   *Snapshot
	log    strings.Builder
	next   consumerScript
}

func (s *script) reset(c Config) {
	s.config = c
	s.g = New("g", c, s.nowMs)
	s.stores = map[uint64]Snapshot{}
}

func (s *script) say(format string, args ...any) { fmt.Fprintf(&s.log, format+"\n", args...) }

func text(d *datadriven.TestData, key string) string {
	if vals := list(d, key); len(vals) > 0 {
		return vals[0]
	}
	return ""
}

func number(t *testing.T, d *datadriven.TestData, key string, otherwise int) int {
	d.MaybeScanArgs(t, key, &otherwise)
	return otherwise
}

func list(d *datadriven.TestData, key string) []string {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			return a.Vals
		}
	}
	return nil
}

func (s *script) run(t *testing.T, d *datadriven.TestData) {
	who := Identity{text(d, "id"), text(d, "instance"), int32(number(t, d, "gen", -1))}
	switch d.Cmd {
	case "config":
		s.configure(t, d)
	case "join":
		s.join(t, d)
	case "sync":
		r := SyncRequest{MemberID: who.MemberID, InstanceID: who.InstanceID, Generation: who.Generation, Protocol: text(d, "protocol")}
		for _, a := range list(d, "assign") {
			id, data, _ := strings.Cut(a, ":")
			r.Assignments = append(r.Assignments, Assignment{id, []byte(data)})
		}
		s.ticket++
		s.g.OnSync(s.nowMs, s.ticket, r)
	case "heartbeat":
		s.say("%s", codeName(s.g.OnHeartbeat(s.nowMs, who)))
	case "leave":
		s.leave(d)
	case "time":
		fmt.Sscan(d.CmdArgs[0].Key, &s.nowMs)
		if s.g.DueMs() <= s.nowMs {
			s.g.OnTime(s.nowMs)
		}
	case "stored":
		var serial uint64
		fmt.Sscan(d.CmdArgs[0].Key, &serial)
		code := broker.Code(number(t, d, "code", 0))
		if snap, ok := s.stores[serial]; ok && code == broker.None {
			s.last = &snap
		}
		if code == broker.None {
			s.next.written(serial)
		}
		s.g.OnStored(s.nowMs, serial, code)
	case "reload":
		s.reset(s.config)
		if s.next.loadInto(s) {
			return
		}
		s.g.OnLoaded(s.nowMs, *s.last)
	case "describe":
		s.describe()
	default:
		s.runOffsets(t, d, who)
	}
}

func (s *script) runOffsets(t *testing.T, d *datadriven.TestData, who Identity) {
	p := NamedPartition{Topic: text(d, "topic")}
	switch d.Cmd {
	case "commit":
		code := s.g.CheckCommit(s.nowMs, who)
		if code == broker.None {
			s.g.OnWriting(p)
			s.g.OnCommitted(p, Commit{Offset: broker.Offset(number(t, d, "offset", 0)), CommittedMs: s.nowMs})
		}
		s.say("%s", codeName(code))
	case "offsets":
		for _, p := range s.g.Partitions() {
			c, _ := s.g.Committed(p)
			s.say("%s-%d: %d at %d", p.Topic, p.Partition, c.Offset, c.CommittedMs)
		}
	case "expired":
		s.say("%v", s.g.Expired(s.nowMs, int64(number(t, d, "retention", 0))))
	case "remove":
		s.say("%s", codeName(s.g.CheckRemove(p.Topic)))
	case "delete":
		code := s.g.CheckDelete()
		if code == broker.None {
			s.g.OnDelete(s.nowMs)
		}
		s.say("%s", codeName(code))
	default:
		s.runConsumers(t, d, who)
	}
}

func (s *script) configure(t *testing.T, d *datadriven.TestData) {
	c := DefaultConfig()
	c.SessionTimeoutMinMs = int32(number(t, d, "min", int(c.SessionTimeoutMinMs)))
	c.SessionTimeoutMaxMs = int32(number(t, d, "max", int(c.SessionTimeoutMaxMs)))
	c.InitialRebalanceDelayMs = int32(number(t, d, "delay", int(c.InitialRebalanceDelayMs)))
	c.MembersMax = number(t, d, "members", c.MembersMax)
	c.PendingMembersMax = number(t, d, "pending", c.PendingMembersMax)
	s.nowMs = 0
	s.reset(c)
}

func (s *script) join(t *testing.T, d *datadriven.TestData) {
	r := JoinRequest{
		MemberID: text(d, "id"), NewMemberID: text(d, "new"), InstanceID: text(d, "instance"), ClientID: "c", ClientHost: "h",
		SessionTimeoutMs: int32(number(t, d, "session", 10_000)), RebalanceTimeoutMs: int32(number(t, d, "rebalance", 30_000)),
		ProtocolType: "consumer", KnownMemberRequired: !d.HasArg("once"), SkipAssignmentKnown: d.HasArg("skip"),
	}
	if d.HasArg("type") {
		r.ProtocolType = text(d, "type")
	}
	names := list(d, "protocols")
	if names == nil {
		names = []string{"range"}
	}
	for _, n := range names {
		name, metadata, _ := strings.Cut(n, ":")
		r.Protocols = append(r.Protocols, Protocol{name, subscriptionOf(metadata)})
	}
	s.ticket++
	s.g.OnJoin(s.nowMs, s.ticket, r)
}

// subscriptionOf makes consumer metadata of topics joined by "+".
func subscriptionOf(topics string) []byte {
	names := strings.FieldsFunc(topics, func(r rune) bool { return r == '+' })
	b := []byte{0, 1, 0, 0, 0, byte(len(names))}
	for _, n := range names {
		b = append(append(b, 0, byte(len(n))), n...)
	}
	return b
}

func (s *script) leave(d *datadriven.TestData) {
	var leaving []Leaving
	for _, id := range list(d, "ids") {
		leaving = append(leaving, Leaving{MemberID: id})
	}
	for _, i := range list(d, "instances") {
		leaving = append(leaving, Leaving{InstanceID: i})
	}
	for _, l := range s.g.OnLeave(s.nowMs, leaving) {
		s.say("%s%s: %s", l.MemberID, l.InstanceID, codeName(l.Code))
	}
}

func (s *script) describe() {
	d := s.g.Describe()
	s.say("%s generation %d type %q protocol %q leader %q", d.State, s.g.generation, d.ProtocolType, d.Protocol, s.g.leader)
	for _, m := range d.Members {
		s.say("  %s instance %q assignment %q", m.MemberID, m.InstanceID, m.Assignment)
	}
	if s.g.DueMs() != Never {
		s.say("due %d", s.g.DueMs())
	}
}

func (s *script) effects() {
	out := s.g.TakeEffects()
	for _, n := range out.Notes {
		s.say("note: %s %s(%d members, generation %d)", n.Message, prefixed(n.Member), n.Members, n.Generation)
	}
	for _, a := range out.Joins {
		if a.Code != broker.None {
			s.say("join %d: %s %s", a.Ticket, codeName(a.Code), a.MemberID)
			continue
		}
		s.say("join %d: %s generation %d protocol %s leader %s%s", a.Ticket, a.MemberID, a.Generation, a.Protocol, a.Leader,
			map[bool]string{true: " skip assignment"}[a.SkipAssignment])
		for _, m := range a.Members {
			s.say("  member %s %s", m.MemberID, m.InstanceID)
		}
	}
	for _, a := range out.Syncs {
		s.say("sync %d: %s %q", a.Ticket, codeName(a.Code), a.Assignment)
	}
	s.beats(out.Heartbeats)
	for _, st := range out.Stores {
		if st.Changes != nil {
			s.changes(st)
			continue
		}
		s.stores[st.Serial] = st.Snapshot
		s.say("store %d: generation %d leader %q", st.Serial, st.Snapshot.Generation, st.Snapshot.Leader)
		for _, m := range st.Snapshot.Members {
			s.say("  member %s %s %q", m.MemberID, m.InstanceID, m.Assignment)
		}
	}
}

func prefixed(member string) string {
	if member == "" {
		return ""
	}
	return member + " "
}

func codeName(c broker.Code) string {
	names := map[broker.Code]string{
		broker.None: "ok", broker.MemberIDRequired: "MEMBER_ID_REQUIRED", broker.RebalanceInProgress: "REBALANCE_IN_PROGRESS",
		broker.UnknownMemberID: "UNKNOWN_MEMBER_ID", broker.IllegalGeneration: "ILLEGAL_GENERATION",
		broker.FencedInstanceID: "FENCED_INSTANCE_ID", broker.InconsistentGroupProtocol: "INCONSISTENT_GROUP_PROTOCOL",
		broker.InvalidSessionTimeout: "INVALID_SESSION_TIMEOUT", broker.GroupMaxSizeReached: "GROUP_MAX_SIZE_REACHED",
		broker.CoordinatorNotAvailable: "COORDINATOR_NOT_AVAILABLE", broker.NonEmptyGroup: "NON_EMPTY_GROUP",
		broker.InvalidRequest: "INVALID_REQUEST", broker.FencedMemberEpoch: "FENCED_MEMBER_EPOCH", broker.StaleMemberEpoch: "STALE_MEMBER_EPOCH",
		broker.UnreleasedInstanceID: "UNRELEASED_INSTANCE_ID", broker.UnsupportedAssignor: "UNSUPPORTED_ASSIGNOR",
		broker.InvalidRegularExpression: "INVALID_REGULAR_EXPRESSION", broker.CoordinatorLoadInProgress: "COORDINATOR_LOAD_IN_PROGRESS",
		broker.GroupIDNotFound: "GROUP_ID_NOT_FOUND", broker.GroupSubscribedToTopic: "GROUP_SUBSCRIBED_TO_TOPIC",
	}
	if n, ok := names[c]; ok {
		return n
	}
	return c.Error()
}
