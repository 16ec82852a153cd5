package group

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
)

// fakeTopics are topics that a test makes, grows and deletes.
type fakeTopics struct {
	version uint64
	byName  map[string]Topic
	ids     byte
	hidden  map[hiding]bool
}

func newFakeTopics(partitions map[string]int32) *fakeTopics {
	f := &fakeTopics{byName: map[string]Topic{}}
	for _, name := range slices.Sorted(maps.Keys(partitions)) {
		f.set(name, partitions[name])
	}
	return f
}

// set makes or grows a topic; with no partitions it deletes it.
func (f *fakeTopics) set(name string, partitions int32) {
	f.version++
	t, ok := f.byName[name]
	switch {
	case partitions == 0:
		delete(f.byName, name)
		return
	case !ok:
		f.ids++
		t = Topic{Name: name, ID: broker.TopicID{f.ids}, Internal: strings.HasPrefix(name, "__")}
	}
	t.Partitions = partitions
	f.byName[name] = t
}

// hide lets somebody see a topic no more, or again.
func (f *fakeTopics) hide(h hiding, hidden bool) {
	f.version++
	if f.hidden == nil {
		f.hidden = map[hiding]bool{}
	}
	f.hidden[h] = hidden
}

func (f *fakeTopics) Version() uint64                       { return f.version }
func (f *fakeTopics) Named(name string) (Topic, bool)       { t, ok := f.byName[name]; return t, ok }
func (f *fakeTopics) Sees(who Principal, topic string) bool { return !f.hidden[hiding{who, topic}] }
func (f *fakeTopics) All() iter.Seq[Topic] {
	return slices.Values(slices.SortedFunc(maps.Values(f.byName), func(a, b Topic) int { return cmp.Compare(a.Name, b.Name) }))
}

// TestConsumerRandomWalk lets clients of the consumer protocol join, revoke, leave, pause, die and come back, while topics
// come, grow and go, answers are lost, the log refuses, and the coordinator crashes. What the clients and the log see is
// held against invariant 29:
//
//   - no partition is held by two clients that are members, nor written down for two members;
//   - a member's epoch never falls, and rises only when it has nothing to give up; nothing is taken that it holds;
//   - a request is answered once, and only when the log holds what the answer says;
//   - when the faults end, every member is at the group's epoch with its target, and every partition of a subscribed
//     topic is held, by members that subscribe to it and may see it.
func TestConsumerRandomWalk(t *testing.T) {
	const walks, steps = 150, 500
	if *walkSeed != 0 {
		newConsumerWalk(t, *walkSeed).run(steps)
		return
	}
	for seed := uint64(1); seed <= walks && !t.Failed(); seed++ {
		newConsumerWalk(t, seed).run(steps)
	}
}

// hiding is a topic that somebody may not see.
type hiding struct {
	who   Principal
	topic string
}

type consumerWalk struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand

	g       *Group
	nowMs   int64
	topics  *fakeTopics
	log     map[changeKey]Change
	stores  []Store
	ticket  Ticket
	waiting map[Ticket]*walkConsumer
	clients []*walkConsumer
	ids     int
	calm    bool // no more faults
	history []string
}

// walkConsumer is a client as Kafka's are: it says what it holds, gives up what it is not to have any more before it
// takes what is new, and says everything after it missed an answer.
type walkConsumer struct {
	name     string
	instance *string
	names    []string
	regex    *string
	assignor string

	id       string
	in       bool // has joined, as far as it knows
	epoch    int32
	held     map[broker.TopicPartition]bool
	told     []broker.TopicPartition
	asked    *HeartbeatRequest // waits for an answer
	full     bool              // the next request says everything
	pausedTo int64
}

const walkSession, walkRebalance = 3000, 2000

func newConsumerWalk(t *testing.T, seed uint64) *consumerWalk {
	w := &consumerWalk{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 2)), log: map[changeKey]Change{}, waiting: map[Ticket]*walkConsumer{},
		topics: newFakeTopics(map[string]int32{"a": 3, "b": 4}),
	}
	for i := range 5 {
		c := &walkConsumer{name: fmt.Sprint("c", i), held: map[broker.TopicPartition]bool{}}
		if i < 2 {
			instance := fmt.Sprint("static", i)
			c.instance = &instance
		}
		w.clients = append(w.clients, c)
		w.resubscribe(c)
	}
	w.g = New(walkGroup, w.config(), 0)
	return w
}

func (w *consumerWalk) config() Config {
	c := DefaultConfig()
	c.ConsumersMax = len(w.clients) + 2 // Incarnations that died are still members for a while.
	return c
}

func (w *consumerWalk) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nreplay: go test ./broker/group -run TestConsumerRandomWalk -seed %d\n%s",
		fmt.Sprintf(format, args...), w.seed, strings.Join(w.history[max(0, len(w.history)-40):], "\n"))
}

func (w *consumerWalk) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf("%d %s: ", w.nowMs, w.g.State())+fmt.Sprintf(format, args...))
}

func (w *consumerWalk) run(steps int) {
	for range steps {
		w.fault()
		w.step()
	}
	w.calm = true
	for _, c := range w.clients {
		c.pausedTo = 0
	}
	for range 6000 {
		if w.settled() {
			return
		}
		w.step()
	}
	d, _ := w.g.DescribeConsumers()
	w.fail("the group does not settle: %+v", d)
}

func (w *consumerWalk) step() {
	w.nowMs += w.rng.Int64N(60)
	if w.g.DueMs() <= w.nowMs {
		w.g.OnTime(w.nowMs)
		w.after()
		if w.g.DueMs() <= w.nowMs {
			w.fail("due at %d after OnTime at %d", w.g.DueMs(), w.nowMs)
		}
	}
	if len(w.stores) > 0 && w.rng.IntN(2) == 0 {
		w.settleStore(broker.None)
	}
	for _, c := range w.clients {
		if c.pausedTo <= w.nowMs && w.rng.IntN(3) == 0 {
			w.act(c)
		}
	}
	w.checkHolders()
}

func (w *consumerWalk) fault() {
	c := w.clients[w.rng.IntN(len(w.clients))]
	switch w.rng.IntN(80) {
	case 0:
		w.crash()
	case 1:
		if len(w.stores) > 0 {
			w.settleStore(broker.CoordinatorNotAvailable)
		}
	case 2:
		w.note("%s dies", c.name)
		w.forget(c)
		c.reset()
	case 3:
		w.note("%s pauses", c.name)
		c.pausedTo = w.nowMs + w.rng.Int64N(8_000)
	case 4:
		w.leave(c)
	case 5, 6:
		w.note("an answer to %s is lost", c.name)
		w.forget(c)
		c.asked, c.full = nil, true
	case 7:
		name := string(rune('a' + w.rng.IntN(4)))
		n := int32(0)
		if w.rng.IntN(3) > 0 {
			n = w.topics.byName[name].Partitions + 1
		}
		w.note("topic %s gets %d partitions", name, n)
		w.topics.set(name, n)
	case 8:
		w.resubscribe(c)
	case 9:
		h := hiding{c.by(), string(rune('a' + w.rng.IntN(4)))}
		w.topics.hide(h, !w.topics.hidden[h])
		w.note("%s may see topic %s: %v", c.name, h.topic, w.topics.Sees(h.who, h.topic))
	}
}

// by is who the client is.
func (c *walkConsumer) by() Principal { return Principal{Name: c.name} }

// subscribes reports whether the client is to get a topic: what it names, and what it matches and may see.
func (w *consumerWalk) subscribes(c *walkConsumer, topic string) bool {
	pattern, _ := compile(*c.regex)
	return slices.Contains(c.names, topic) || pattern != nil && pattern.MatchString(topic) && w.topics.Sees(c.by(), topic)
}

func (c *walkConsumer) reset() {
	c.id, c.in, c.epoch, c.told, c.asked, c.full = "", false, 0, nil, nil, false
	clear(c.held)
}

func (w *consumerWalk) resubscribe(c *walkConsumer) {
	c.full = true
	c.assignor = []string{AssignorUniform, AssignorUniform, AssignorRange}[w.rng.IntN(3)]
	c.names, c.regex = []string{}, nil
	for _, name := range []string{"a", "b", "c"} {
		if w.rng.IntN(3) > 0 {
			c.names = append(c.names, name)
		}
	}
	pattern := []string{"", "[ab]", "d|a.*", ".*"}[w.rng.IntN(4)]
	c.regex = &pattern
}

func (w *consumerWalk) forget(c *walkConsumer) {
	maps.DeleteFunc(w.waiting, func(_ Ticket, other *walkConsumer) bool { return other == c })
}

func (w *consumerWalk) crash() {
	w.note("crash")
	if len(w.stores) > 0 && w.rng.IntN(2) == 0 {
		w.written(w.stores[0])
	}
	w.stores = nil
	clear(w.waiting)
	for _, c := range w.clients {
		c.asked, c.full = nil, true
	}
	w.g = New(walkGroup, w.config(), w.nowMs)
	changes := slices.SortedFunc(maps.Values(w.log), func(a, b Change) int { // The log is compacted: any order can be.
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Member, b.Member))
	})
	w.rng.Shuffle(len(changes), func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
	for _, ch := range changes {
		w.g.OnChangeLoaded(ch)
	}
	w.g.OnChangesLoaded(w.nowMs, walkSession)
}

func (w *consumerWalk) settleStore(code broker.Code) {
	s := w.stores[0]
	w.stores = w.stores[1:]
	if code == broker.None {
		w.written(s)
	}
	w.note("store %d: %d", s.Serial, code)
	w.g.OnStored(w.nowMs, s.Serial, code)
	w.after()
}

// written takes a Store into the log, all of it, and looks at what the log says then.
func (w *consumerWalk) written(s Store) {
	for _, ch := range s.Changes {
		if ch.Kind == CurrentChange && !ch.Removed {
			w.checkMove(w.log[changeKey{CurrentChange, ch.Member}], ch)
		}
		w.log[changeKey{ch.Kind, ch.Member}] = ch
	}
	holder := map[broker.TopicPartition]string{}
	for _, key := range slices.SortedFunc(maps.Keys(w.log), func(a, b changeKey) int { return cmp.Compare(a.member, b.member) }) {
		ch := w.log[key]
		if key.kind != CurrentChange || ch.Removed {
			continue
		}
		for _, tp := range slices.Concat(ch.Partitions, ch.Revoking) {
			if other, twice := holder[tp]; twice {
				w.fail("the log has %v for %s and %s", tp, other, ch.Member)
			}
			holder[tp] = ch.Member
		}
		if ch.Epoch > w.log[changeKey{EpochChange, ""}].Epoch {
			w.fail("the log has member %s at epoch %d and the group behind", ch.Member, ch.Epoch)
		}
	}
}

// checkMove looks at one member's next entry in the log: its epoch rises only when it has nothing to give up, and what is
// taken from it is not held by the client.
func (w *consumerWalk) checkMove(before, after Change) {
	if after.Epoch > before.Epoch && len(after.Revoking) > 0 {
		w.fail("%s moves to epoch %d while it has %v to give up", after.Member, after.Epoch, after.Revoking)
	}
	at := slices.IndexFunc(w.clients, func(c *walkConsumer) bool { return c.in && c.id == after.Member })
	for _, tp := range slices.Concat(before.Partitions, before.Revoking) {
		if at >= 0 && w.clients[at].held[tp] && !slices.Contains(after.Partitions, tp) && !slices.Contains(after.Revoking, tp) {
			w.fail("%v is taken from %s, which holds it", tp, after.Member)
		}
	}
}

func (w *consumerWalk) leave(c *walkConsumer) {
	if !c.in {
		return
	}
	r := HeartbeatRequest{MemberID: c.id, MemberIDRequired: true, MemberEpoch: leaveEpoch, RebalanceTimeoutMs: -1, InstanceID: c.instance}
	if c.instance != nil && w.rng.IntN(3) > 0 {
		r.MemberEpoch = staticLeaveEpoch
	}
	w.note("%s leaves with epoch %d", c.name, r.MemberEpoch)
	w.forget(c)
	c.reset()
	w.ticket++
	w.g.OnConsumerHeartbeat(w.nowMs, w.ticket, r, w.topics)
	w.after()
}

// act gives up what c is not to have, takes what it is to have, and sends a heartbeat.
func (w *consumerWalk) act(c *walkConsumer) {
	if c.asked != nil {
		return
	}
	if w.rng.IntN(3) == 0 {
		return // It takes its time.
	}
	owned := len(c.held)
	maps.DeleteFunc(c.held, func(tp broker.TopicPartition, _ bool) bool { return !slices.Contains(c.told, tp) })
	for _, tp := range c.told {
		c.held[tp] = true
	}
	w.checkHolders()
	r := HeartbeatRequest{
		MemberID: c.id, MemberIDRequired: true, MemberEpoch: c.epoch, ClientID: c.name, By: c.by(), RebalanceTimeoutMs: -1,
		Timing: Timing{SessionTimeoutMs: walkSession, HeartbeatIntervalMs: 100},
	}
	if !c.in {
		w.ids++
		if c.id == "" {
			c.id = fmt.Sprint(c.name, "-", w.ids)
		}
		r.MemberID = c.id
	}
	if !c.in || c.full || owned != len(c.held) || w.rng.IntN(8) == 0 {
		r.InstanceID, r.RebalanceTimeoutMs, r.Names, r.Regex, r.Assignor = c.instance, walkRebalance, c.names, c.regex, &c.assignor
		r.Owned = Owned{Known: true, Partitions: c.holds()}
		c.full = false
	} else if w.rng.IntN(2) == 0 {
		r.Owned = Owned{Known: true, Partitions: c.holds()}
	}
	w.ticket++
	w.waiting[w.ticket], c.asked = c, &r
	w.note("%s at %d asks, full %t, holds %v, ticket %d", c.id, r.MemberEpoch, r.full(), c.holds(), w.ticket)
	w.g.OnConsumerHeartbeat(w.nowMs, w.ticket, r, w.topics)
	w.after()
}

func (c *walkConsumer) holds() []broker.TopicPartition {
	return slices.SortedFunc(maps.Keys(c.held), comparePartitions)
}

// after delivers answers and queues stores.
func (w *consumerWalk) after() {
	out := w.g.TakeEffects()
	w.stores = append(w.stores, out.Stores...)
	if len(w.stores) > 1 {
		w.fail("%d stores are under way", len(w.stores))
	}
	for _, a := range out.Heartbeats {
		if c := w.waiting[a.Ticket]; c != nil {
			delete(w.waiting, a.Ticket)
			w.hear(c, a.HeartbeatResponse)
		}
	}
}

func (w *consumerWalk) hear(c *walkConsumer, r HeartbeatResponse) {
	asked := *c.asked
	c.asked = nil
	w.note("%s hears %v, epoch %d, assigned %t %v", c.name, r.Err, r.MemberEpoch, r.Assigned, r.Partitions)
	switch broker.CodeOf(r.Err) {
	case broker.None:
	case broker.UnknownMemberID, broker.FencedInstanceID, broker.GroupIDNotFound:
		c.reset()
		return
	case broker.FencedMemberEpoch:
		id := c.id
		c.reset()
		c.id = id
		return
	case broker.UnreleasedInstanceID, broker.GroupMaxSizeReached, broker.CoordinatorNotAvailable:
		c.full = true
		return
	default:
		w.fail("%s hears %v", c.name, r.Err)
	}
	w.checkLogged(c, r)
	if asked.MemberEpoch > 0 && r.MemberEpoch < asked.MemberEpoch {
		w.fail("%s falls from epoch %d to %d", c.name, asked.MemberEpoch, r.MemberEpoch)
	}
	if r.Assigned {
		c.told = r.Partitions
	}
	c.in, c.epoch = true, r.MemberEpoch
}

// checkLogged demands that an answer's epoch and partitions are in the log: a crash must not take them back.
func (w *consumerWalk) checkLogged(c *walkConsumer, r HeartbeatResponse) {
	at := w.log[changeKey{CurrentChange, r.MemberID}]
	if at.Removed || at.Epoch < r.MemberEpoch {
		w.fail("%s is told epoch %d, the log has %+v", c.name, r.MemberEpoch, at)
	}
}

// checkHolders demands that no two clients that are members hold one partition.
func (w *consumerWalk) checkHolders() {
	d, _ := w.g.DescribeConsumers()
	members := map[string]bool{}
	for _, m := range d.Members {
		members[m.MemberID] = true
	}
	holder := map[broker.TopicPartition]string{}
	for _, c := range w.clients {
		if !c.in || !members[c.id] {
			continue
		}
		for tp := range c.held {
			if other, twice := holder[tp]; twice {
				w.fail("%s and %s hold %v", other, c.name, tp)
			}
			holder[tp] = c.name
		}
	}
}

// settled reports whether the group is where it has to come to, and checks what it came to.
func (w *consumerWalk) settled() bool {
	d, is := w.g.DescribeConsumers()
	if !is || d.State != Stable || len(d.Members) != len(w.clients) || len(w.stores) > 0 || d.AssignmentEpoch != d.Epoch {
		return false
	}
	want := map[broker.TopicPartition]bool{}
	held := map[broker.TopicPartition]bool{}
	for _, c := range w.clients {
		for _, name := range []string{"a", "b", "c", "d"} {
			t, ok := w.topics.Named(name)
			if !ok {
				continue
			}
			if !w.subscribes(c, name) {
				if slices.ContainsFunc(c.holds(), func(tp broker.TopicPartition) bool { return tp.Topic == t.ID }) {
					return false
				}
				continue
			}
			for p := range t.Partitions {
				want[broker.TopicPartition{Topic: t.ID, Partition: p}] = true
			}
		}
		at := slices.IndexFunc(d.Members, func(m ConsumerMember) bool { return m.MemberID == c.id })
		if !c.in || c.full || at < 0 || !slices.Equal(d.Members[at].Target, c.holds()) || c.epoch != d.Epoch {
			return false
		}
		maps.Copy(held, c.held)
	}
	return maps.Equal(want, held)
}
