package group

import (
	"math"

	"github.com/millrace-io/millrace/broker"
)

// State is where a group stands in the protocol.
type State uint8

// The states, named as Kafka's tools print them.
const (
	Empty State = iota
	PreparingRebalance
	CompletingRebalance
	Stable
	Dead
	Assigning   // of a consumer group: its members' targets are to be computed
	Reconciling // of a consumer group: not all members have come to their targets
)

// String returns Kafka's name of the state.
func (s State) String() string {
	switch s {
	case Empty:
		return "Empty"
	case PreparingRebalance:
		return "PreparingRebalance"
	case CompletingRebalance:
		return "CompletingRebalance"
	case Stable:
		return "Stable"
	case Dead:
		return "Dead"
	case Assigning:
		return "Assigning"
	case Reconciling:
		return "Reconciling"
	}
	return "Unknown"
}

// Config bounds what members may ask for. Times are in milliseconds.
type Config struct {
	SessionTimeoutMinMs     int32 // group.min.session.timeout.ms
	SessionTimeoutMaxMs     int32 // group.max.session.timeout.ms
	InitialRebalanceDelayMs int32 // group.initial.rebalance.delay.ms
	NewMemberJoinTimeoutMs  int32 // how long a member that cannot heartbeat yet may be parked in a join
	MembersMax              int   // group.max.size
	PendingMembersMax       int   // member ids handed out and not yet used
	ConsumersMax            int   // group.consumer.max.size
}

// DefaultConfig holds Kafka's defaults, and a bound on pending members that Kafka does not have.
func DefaultConfig() Config {
	return Config{
		SessionTimeoutMinMs:     6_000,
		SessionTimeoutMaxMs:     1_800_000,
		InitialRebalanceDelayMs: 3_000,
		NewMemberJoinTimeoutMs:  300_000,
		MembersMax:              math.MaxInt32,
		PendingMembersMax:       10_000,
		ConsumersMax:            math.MaxInt32,
	}
}

// Never is the deadline of a group that waits for nothing.
const Never int64 = math.MaxInt64

// NoGeneration is the generation of a commit that comes from outside the group's protocol, and of a refused join.
const NoGeneration int32 = -1

// Ticket names a parked request; the caller chooses it and finds it again in the answer.
type Ticket uint64

// Group is one consumer group. It is a value with one owner and is not safe for concurrent use.
type Group struct {
	id     string
	config Config

	state        State
	stateMs      int64 // when the state was entered
	initial      bool  // PreparingRebalance was entered from Empty: it lasts its delay, whoever has joined
	protocolType string
	protocol     string // selected for this generation; empty while there is none
	generation   int32
	leader       string

	members   []*member // in the order in which they joined
	byID      map[string]*member
	static    map[string]*member // by group.instance.id
	supported map[string]int     // members that know a protocol
	pending   map[string]int64   // member ids handed out and not yet used, and when they lapse

	joinDueMs      int64 // end of PreparingRebalance, or of a stretch of its initial delay
	initialLeftMs  int64 // what is left of the initial delay's allowance
	newMemberAdded bool  // somebody joined during the current stretch
	syncDueMs      int64 // until when members may send their SyncGroup
	sessionsDueMs  int64 // a lower bound of the earliest session deadline: heartbeats only move deadlines up

	serial     uint64            // of the last Store
	syncStore  uint64            // Store of this generation's assignment; 0 if none is under way
	assigned   map[string][]byte // what that Store holds, by member
	replaced   map[uint64]replacement
	offsets    offsets
	consumers  *consumers // of a consumer group; nil in a classic one, of which all the above but the offsets is
	stored     bool       // the log holds a record of this group
	out        Effects
	outStoring int // Stores that have no OnStored yet
}

// New returns an empty group.
func New(id string, config Config, nowMs int64) *Group {
	return &Group{
		id: id, config: config, stateMs: nowMs,
		byID: map[string]*member{}, static: map[string]*member{}, supported: map[string]int{}, pending: map[string]int64{},
		joinDueMs: Never, syncDueMs: Never, sessionsDueMs: Never,
		replaced: map[uint64]replacement{}, offsets: newOffsets(),
	}
}

// Effects is what an event asks of the shell, in no order between the kinds.
type Effects struct {
	Joins      []JoinAnswer
	Syncs      []SyncAnswer
	Heartbeats []HeartbeatAnswer
	Stores     []Store
	Notes      []Note
}

// JoinAnswer completes a parked join.
type JoinAnswer struct {
	Ticket
	JoinResponse
}

// SyncAnswer completes a parked sync.
type SyncAnswer struct {
	Ticket
	SyncResponse
}

// Store asks that a snapshot of the group or, where there are some, changes be stored, all or none of them; the shell
// calls OnStored with its serial when that is settled.
type Store struct {
	Serial   uint64
	Snapshot Snapshot
	Changes  []Change
}

// Note is something worth logging.
type Note struct {
	Message    string
	Generation int32
	Members    int
	Member     string // whom it is about, if anyone
	Code       broker.Code
}

// TakeEffects returns what the events since the last call ask for. It is called after every event.
func (g *Group) TakeEffects() Effects {
	out := g.out
	g.out = Effects{}
	return out
}

// ID returns the group's name.
func (g *Group) ID() string { return g.id }

// State returns where the group stands.
func (g *Group) State() State {
	if g.consumers != nil && g.state != Dead {
		return g.consumers.state()
	}
	return g.state
}

// Type returns the protocol that the group speaks.
func (g *Group) Type() Type {
	if g.consumers != nil {
		return Consumer
	}
	return Classic
}

// Generation returns the number of the current generation, or the group epoch: 0 before the first.
func (g *Group) Generation() int32 {
	if g.consumers != nil {
		return g.consumers.epoch
	}
	return g.generation
}

// ProtocolType returns what kind of members the group has, "consumer" for consumers; empty if it never had any.
func (g *Group) ProtocolType() string {
	if g.consumers != nil {
		return consumerProtocol
	}
	return g.protocolType
}

// HasMembers reports whether the group has members, or member ids under way.
func (g *Group) HasMembers() bool { return g.memberCount() > 0 || len(g.pending) > 0 }

func (g *Group) memberCount() int {
	if g.consumers != nil {
		return len(g.consumers.members)
	}
	return len(g.members)
}

// Stored reports whether the log holds a metadata record of the group.
func (g *Group) Stored() bool { return g.stored }

// Vacant reports whether the group may be forgotten without a trace: nothing of it is stored or on its way to be.
func (g *Group) Vacant() bool {
	return !g.stored && !g.Writing() && !g.HasMembers() && len(g.offsets.commits) == 0 && g.state != Dead &&
		(g.consumers == nil || g.consumers.ledger.quiet())
}

// Writing reports whether anything of the group is on its way to the log.
func (g *Group) Writing() bool { return g.outStoring > 0 || len(g.offsets.writing) > 0 }

// DueMs returns when OnTime has to be called next, or earlier; Never if nothing is waited for.
func (g *Group) DueMs() int64 {
	dueMs := min(g.joinDueMs, g.syncDueMs, g.sessionsDueMs)
	if g.consumers != nil {
		dueMs = min(dueMs, g.consumers.dueMs)
	}
	return dueMs
}

func (g *Group) enter(nowMs int64, s State) {
	g.state = s
	g.stateMs = nowMs
}

func (g *Group) note(message, member string, code broker.Code) {
	g.out.Notes = append(g.out.Notes, Note{
		Message: message, Generation: g.Generation(), Members: g.memberCount(), Member: member, Code: code,
	})
}

// store emits a snapshot with the given assignments; nil means those that the members have.
func (g *Group) store(assigned map[string][]byte) uint64 {
	g.serial++
	g.outStoring++
	g.out.Stores = append(g.out.Stores, Store{Serial: g.serial, Snapshot: g.snapshot(assigned)})
	return g.serial
}

// storeChanges emits changes.
func (g *Group) storeChanges(changes []Change) uint64 {
	g.serial++
	g.outStoring++
	g.out.Stores = append(g.out.Stores, Store{Serial: g.serial, Changes: changes})
	return g.serial
}

// OnStored tells that a Store is committed, or with another code than None that it is not.
func (g *Group) OnStored(nowMs int64, serial uint64, code broker.Code) {
	g.outStoring--
	if code == broker.None {
		g.stored = true
	} else {
		g.note("group metadata not stored", "", code)
	}
	r, isReplacement := g.replaced[serial]
	delete(g.replaced, serial)
	switch {
	case g.consumers != nil && serial == g.consumers.ledger.serial:
		g.onChangesStored(code)
	case serial == g.syncStore:
		g.onAssignmentStored(nowMs, code)
	case isReplacement:
		g.onReplacementStored(nowMs, r, code)
	}
}

// CheckDelete tells whether the group may be deleted: None, NonEmptyGroup or GroupIDNotFound.
func (g *Group) CheckDelete() broker.Code {
	switch {
	case g.state == Dead:
		return broker.GroupIDNotFound
	case g.State() != Empty || g.HasMembers():
		return broker.NonEmptyGroup
	}
	return broker.None
}

// OnDelete makes the group Dead while its deletion is being stored: it accepts nothing meanwhile.
func (g *Group) OnDelete(nowMs int64) { g.enter(nowMs, Dead) }

// OnDeleteFailed makes a Dead group Empty again.
func (g *Group) OnDeleteFailed(nowMs int64) { g.enter(nowMs, Empty) }
