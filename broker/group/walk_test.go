package group

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
)

var walkSeed = flag.Uint64("seed", 0, "replay this walk only")

// TestRandomWalk lets clients join, sync, commit, pause, die and come back over a coordinator that crashes and whose
// log refuses, and holds what they see against invariants 29 and 30:
//
//   - no two members own a partition in one generation, and a member's generation never falls;
//   - a commit is accepted only from a current member of the current generation, or from outside an empty group;
//   - the committed offset is that of the last accepted commit, also after a crash;
//   - every request is answered once; when the faults end, the group becomes stable, with every partition owned.
func TestRandomWalk(t *testing.T) {
	const walks, steps = 300, 600
	if *walkSeed != 0 {
		newWalk(t, *walkSeed).run(steps)
		return
	}
	for seed := uint64(1); seed <= walks && !t.Failed(); seed++ {
		newWalk(t, seed).run(steps)
	}
}

const (
	walkClients    = 5
	walkPartitions = 7
	walkGroup      = "g"
)

// walk is one run: a group, the log behind it, and the clients.
type walk struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand

	g      *Group
	nowMs  int64
	log    *Snapshot // the last stored
	stores []Store   // not settled
	offset broker.Offset
	has    bool

	ticket  Ticket
	waiting map[Ticket]*client
	clients []*client
	ids     int
	owners  map[int32]map[int]string // generation → partition → member, or instance of a static one
	seen    map[string]int32         // member → its highest generation
	held    map[string]int32         // member → the highest generation that it had an assignment in
	history []string
}

// client is a consumer with the state machine that Kafka's clients have.
type client struct {
	name       string
	instance   string
	memberID   string
	generation int32
	leader     bool
	members    []JoinedMember
	phase      string // "idle", "joining", "joined", "syncing", "stable"
	pausedTo   int64
}

func newWalk(t *testing.T, seed uint64) *walk {
	w := &walk{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)),
		waiting: map[Ticket]*client{}, owners: map[int32]map[int]string{}, seen: map[string]int32{}, held: map[string]int32{},
	}
	for i := range walkClients {
		c := &client{name: fmt.Sprint("c", i), phase: "idle"}
		if i < 2 {
			c.instance = fmt.Sprint("static", i)
		}
		w.clients = append(w.clients, c)
	}
	w.g = New(walkGroup, w.config(), 0)
	return w
}

func (w *walk) config() Config {
	c := DefaultConfig()
	c.SessionTimeoutMinMs = 1
	c.InitialRebalanceDelayMs = int32(w.seed % 3 * 1000)
	c.MembersMax = walkClients + 1
	return c
}

func (w *walk) fail(format string, args ...any) {
	w.t.Helper()
	tail := w.history[max(0, len(w.history)-30):]
	w.t.Fatalf("%s\nreplay: go test ./broker/group -run TestRandomWalk -seed %d\n%s",
		fmt.Sprintf(format, args...), w.seed, strings.Join(tail, "\n"))
}

func (w *walk) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf("%d %s: ", w.nowMs, w.g.State())+fmt.Sprintf(format, args...))
}

func (w *walk) run(steps int) {
	for range steps {
		w.fault()
		w.step()
	}
	for _, c := range w.clients {
		c.pausedTo = 0
	}
	for range 4000 {
		if w.settled() {
			return
		}
		w.step()
	}
	w.fail("the group does not become stable: %+v", w.g.Describe())
}

// step moves the time, settles a store, and lets a client act.
func (w *walk) step() {
	w.nowMs += w.rng.Int64N(100)
	if w.g.DueMs() <= w.nowMs {
		w.g.OnTime(w.nowMs)
		w.after()
		if w.g.DueMs() <= w.nowMs {
			w.fail("due at %d after OnTime at %d", w.g.DueMs(), w.nowMs)
		}
	}
	if len(w.stores) > 0 && w.rng.IntN(3) == 0 {
		w.settleStore(broker.None)
	}
	for _, c := range w.clients {
		if c.pausedTo <= w.nowMs && w.rng.IntN(3) == 0 {
			w.act(c)
		}
	}
}

// fault does something unpleasant now and then.
func (w *walk) fault() {
	c := w.clients[w.rng.IntN(len(w.clients))]
	switch w.rng.IntN(60) {
	case 0:
		w.note("crash")
		w.crash()
	case 1:
		if len(w.stores) > 0 {
			w.settleStore(broker.CoordinatorNotAvailable)
		}
	case 2: // A new incarnation, which does not know its member id.
		w.note("%s dies", c.name)
		w.forget(c)
		*c = client{name: c.name, instance: c.instance, phase: "idle"}
	case 3:
		w.note("%s pauses", c.name)
		c.pausedTo = w.nowMs + w.rng.Int64N(20_000)
	case 4:
		w.note("%s leaves", c.name)
		w.g.OnLeave(w.nowMs, []Leaving{{MemberID: c.memberID, InstanceID: c.instance}})
		w.after()
	case 5: // A zombie or a tool commits.
		w.commit(Identity{c.memberID, c.instance, c.generation - w.rng.Int32N(2)})
		w.commit(Identity{Generation: NoGeneration})
	case 6: // The answer is lost; the client tries again.
		if c.phase == "joining" || c.phase == "syncing" {
			w.forget(c)
			c.phase = "idle"
		}
	}
}

func (w *walk) forget(c *client) {
	for ticket, other := range w.waiting {
		if other == c {
			w.waiting[ticket] = nil
		}
	}
}

// crash loses what is not stored. What was on its way may or may not have been.
func (w *walk) crash() {
	for len(w.stores) > 0 && w.rng.IntN(2) == 0 {
		w.log = &w.stores[0].Snapshot
		w.stores = w.stores[1:]
	}
	w.stores = nil
	for _, c := range w.clients {
		if c.phase == "joining" {
			c.phase = "idle"
		}
		if c.phase == "syncing" {
			c.phase = "joined"
		}
	}
	clear(w.waiting)
	// As in Kafka, a generation whose assignment was never stored is forgotten with the coordinator that formed it.
	w.seen = maps.Clone(w.held)
	w.g = New(walkGroup, w.config(), w.nowMs)
	if w.has {
		w.g.OnCommitLoaded(NamedPartition{"t", 0}, Commit{Offset: w.offset})
	}
	if w.log != nil {
		w.g.OnLoaded(w.nowMs, *w.log)
	}
}

func (w *walk) settleStore(code broker.Code) {
	s := w.stores[0]
	w.stores = w.stores[1:]
	if code == broker.None {
		w.log = &s.Snapshot
	}
	w.note("store %d: %d", s.Serial, code)
	w.g.OnStored(w.nowMs, s.Serial, code)
	w.after()
}

// act sends what c would send next.
func (w *walk) act(c *client) {
	switch c.phase {
	case "idle":
		w.ids++
		c.phase = "joining"
		w.ticket++
		w.waiting[w.ticket] = c
		w.note("%s joins as %q, ticket %d", c.name, c.memberID, w.ticket)
		w.g.OnJoin(w.nowMs, w.ticket, JoinRequest{
			MemberID: c.memberID, NewMemberID: fmt.Sprint(c.name, "-", w.ids), InstanceID: c.instance,
			SessionTimeoutMs: 3000 + w.rng.Int32N(3000), RebalanceTimeoutMs: 5000, ProtocolType: "consumer",
			Protocols:           []Protocol{{Name: "range", Metadata: []byte{byte(w.rng.IntN(2))}}},
			KnownMemberRequired: w.rng.IntN(2) == 0, SkipAssignmentKnown: w.rng.IntN(2) == 0,
		})
	case "joined":
		c.phase = "syncing"
		w.ticket++
		w.waiting[w.ticket] = c
		w.note("%s syncs generation %d, ticket %d", c.name, c.generation, w.ticket)
		w.g.OnSync(w.nowMs, w.ticket, SyncRequest{
			MemberID: c.memberID, InstanceID: c.instance, Generation: c.generation, Assignments: c.assign(),
		})
	case "stable":
		w.commit(Identity{c.memberID, c.instance, c.generation})
		if code := w.g.OnHeartbeat(w.nowMs, Identity{c.memberID, c.instance, c.generation}); code != broker.None {
			w.note("%s hears %d", c.name, code)
			c.hear(code)
		}
	}
	w.after()
}

// assign deals the partitions out to the members, one byte each.
func (c *client) assign() []Assignment {
	if !c.leader {
		return nil
	}
	all := make([]Assignment, len(c.members))
	for i, m := range c.members {
		all[i].MemberID = m.MemberID
	}
	for p := range walkPartitions {
		a := &all[p%len(all)]
		a.Data = append(a.Data, byte(p))
	}
	return all
}

// hear is how a client takes an error.
func (c *client) hear(code broker.Code) {
	c.phase = "idle"
	switch code {
	case broker.UnknownMemberID, broker.IllegalGeneration:
		c.generation = NoGeneration
		if code == broker.UnknownMemberID {
			c.memberID = ""
		}
	case broker.FencedInstanceID: // In this walk one process holds an instance id: it starts again.
		c.memberID, c.generation = "", NoGeneration
	}
}

// after takes the effects of the last event and checks what must hold after every one.
func (w *walk) after() {
	out := w.g.TakeEffects()
	w.stores = append(w.stores, out.Stores...)
	for _, a := range out.Joins {
		c := w.take(a.Ticket)
		w.note("join %d: %d, generation %d, leader %s", a.Ticket, a.Code, a.Generation, a.Leader)
		if a.Code == broker.None {
			w.rise(a.MemberID, a.Generation)
		}
		switch {
		case c == nil:
		case a.Code == broker.MemberIDRequired:
			c.memberID, c.phase = a.MemberID, "idle"
		case a.Code != broker.None:
			c.hear(a.Code)
		default:
			c.memberID, c.generation, c.members, c.phase = a.MemberID, a.Generation, a.Members, "joined"
			c.leader = a.Leader == a.MemberID && !a.SkipAssignment
		}
	}
	for _, a := range out.Syncs {
		c := w.take(a.Ticket)
		w.note("sync %d: %d %v", a.Ticket, a.Code, a.Assignment)
		switch {
		case c == nil:
		case a.Code != broker.None:
			c.hear(a.Code)
		default:
			c.phase = "stable"
			w.own(c, a.Assignment)
		}
	}
	w.check()
}

func (w *walk) take(ticket Ticket) *client {
	c, ok := w.waiting[ticket]
	if !ok {
		w.fail("ticket %d is answered twice or was never given", ticket)
	}
	delete(w.waiting, ticket)
	return c
}

func (w *walk) rise(memberID string, generation int32) {
	if generation < w.seen[memberID] {
		w.fail("member %s falls from generation %d to %d", memberID, w.seen[memberID], generation)
	}
	w.seen[memberID] = generation
}

// own records who was given what, and fails if somebody else was given it in the same generation.
func (w *walk) own(c *client, partitions []byte) {
	w.held[c.memberID] = max(w.held[c.memberID], c.generation)
	owner := c.memberID
	if c.instance != "" {
		owner = c.instance
	}
	if w.owners[c.generation] == nil {
		w.owners[c.generation] = map[int]string{}
	}
	for _, p := range partitions {
		if other, ok := w.owners[c.generation][int(p)]; ok && other != owner {
			w.fail("partition %d is owned by %s and %s in generation %d", p, other, owner, c.generation)
		}
		w.owners[c.generation][int(p)] = owner
	}
}

// commit commits the next offset and holds the verdict against who is in the group.
func (w *walk) commit(who Identity) {
	code := w.g.CheckCommit(w.nowMs, who)
	current := false
	for _, m := range w.g.Describe().Members {
		current = current || m.MemberID == who.MemberID && who.Generation == w.g.Generation()
	}
	outside := who.Generation < 0 && w.g.State() == Empty
	if code == broker.None && !current && !outside {
		w.fail("a commit of %+v is accepted in generation %d", who, w.g.Generation())
	}
	if code == broker.None {
		w.offset++
		w.has = true
		w.g.OnWriting(NamedPartition{"t", 0})
		w.g.OnCommitted(NamedPartition{"t", 0}, Commit{Offset: w.offset})
	}
	if c, ok := w.g.Committed(NamedPartition{"t", 0}); ok != w.has || c.Offset != w.offset {
		w.fail("the committed offset is %d, want %d", c.Offset, w.offset)
	}
}

// check holds the group's own books against a recount.
func (w *walk) check() {
	g := w.g
	supported := map[string]int{}
	led := len(g.members) == 0
	for _, m := range g.members {
		led = led || m.id == g.leader
		for _, p := range m.protocols {
			supported[p.Name]++
		}
		switch {
		case g.byID[m.id] != m, m.instanceID != "" && g.static[m.instanceID] != m:
			w.fail("member %s is not where it should be", m.id)
		case g.state == Stable && m.syncParked, g.state == CompletingRebalance && m.joinParked:
			w.fail("member %s waits in %s", m.id, g.state)
		case m.deadlineMs < g.sessionsDueMs:
			w.fail("member %s is due at %d, before the bound %d", m.id, m.deadlineMs, g.sessionsDueMs)
		}
	}
	switch {
	case !led:
		w.fail("leader %q is no member", g.leader)
	case fmt.Sprint(supported) != fmt.Sprint(g.supported):
		w.fail("protocols %v, counted %v", g.supported, supported)
	case len(g.byID) != len(g.members):
		w.fail("%d members by id, %d in order", len(g.byID), len(g.members))
	case g.state == Empty && len(g.members) > 0:
		w.fail("empty with %d members", len(g.members))
	}
}

// settled reports whether every client is stable in the group's generation and everything is owned.
func (w *walk) settled() bool {
	if w.g.State() != Stable || len(w.stores) > 0 || len(w.waiting) > 0 || len(w.g.members) != len(w.clients) {
		return false
	}
	var owned []int
	for _, c := range w.clients {
		if c.phase != "stable" || c.generation != w.g.Generation() {
			return false
		}
	}
	for _, m := range w.g.members {
		for _, p := range m.assignment {
			owned = append(owned, int(p))
		}
	}
	slices.Sort(owned)
	if len(slices.Compact(owned)) != walkPartitions || len(owned) != walkPartitions {
		w.fail("stable, but of %d partitions %v are owned", walkPartitions, owned)
	}
	return true
}
