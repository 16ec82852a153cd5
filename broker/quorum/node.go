package quorum

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Times and bounds of the quorum. An election begins after one to two seconds without a leader.
const (
	tickInterval     = 100 * time.Millisecond
	electionTicks    = 10
	heartbeatTicks   = 1
	tidyInterval     = time.Minute
	snapshotEvery    = 10_000  // entries between snapshots
	snapshotRetries  = 10      // tries in as many entries, while there is no space for one
	messageBytesMax  = 1 << 20 // of entries in one message
	readyBytesMax    = 8 << 20 // of committed entries applied at a time
	uncommittedMax   = 64 << 20
	inflightMessages = 64
	campaignsMax     = 5 // of a voter that starts and hears of no leader; from then on raft's own timeouts rule
	// submitsMax bounds the requests that wait for the loop; past it, Submit waits. A turn takes as many of them as one
	// sync may answer.
	submitsMax = 256
)

// Transport sends raft messages to other nodes. It must not block; a message may be lost, and Unreachable is then called
// for its receiver. A message of type MsgSnap names a snapshot that the receiver fetches (see ReceiveSnapshot).
type Transport interface {
	Send(messages []*raftpb.Message)
}

// input is what the loop is told by others: a message, that one was lost, or what became of a snapshot that was served.
type input struct {
	message     *raftpb.Message
	unreachable broker.RaftID
	served      broker.RaftID
	failed      bool // of served
	transfer    broker.RaftID
	died        broker.RaftID
	export      *export
	save        *save
	hurry       broker.RaftID
}

// Config is what a node needs to take part in the quorum.
type Config struct {
	FS   vfs.FS
	Dir  string // the data directory
	Raft broker.RaftID
	Core *controller.Core
	// Flusher makes the metadata log durable, together with everything else on the node. It runs before Run does, and
	// ends after it.
	Flusher   *commitlog.Flusher
	Transport Transport // nil: a single voter
	// OnImage is called from the loop with each new image, in order, and what changed since the one before. It must not
	// block or call Submit. It may be nil.
	OnImage       func(*metadata.Image, metadata.Changes)
	SnapshotEvery uint64 // entries; 0: the default
	Now           func() time.Time
	Logger        zerolog.Logger

	journal func() (journal, error) // nil: a commitlog
}

func (c *Config) openJournal() (journal, error) {
	if c.journal != nil {
		return c.journal()
	}
	return openLogJournal(logConfig{
		fs: c.FS, dir: logDir(c.Dir), flusher: c.Flusher, now: c.Now,
		logger: c.Logger.With().Str("log", "metadata").Logger(),
	})
}

// Node is this process's part in the metadata quorum. Its exported methods are safe for concurrent use.
type Node struct {
	config  Config
	image   atomic.Pointer[metadata.Image]
	status  atomic.Pointer[Status]
	submits chan *proposal
	inbox   chan input
	stopped chan struct{} // closed when Run has returned
	opened  broker.Index  // how far the log reached at first

	receiving sync.Mutex
	received  mark // guarded by receiving: the snapshot that was received last

	watchMu sync.Mutex
	watches []chan<- struct{}

	// What follows belongs to the loop.
	raw      *raft.RawNode
	storage  *storage
	applied  *metadata.Image // ahead of image only while a Ready is handled
	changes  metadata.Changes
	leading  leadership
	answers  []answer // given once the image is published
	nextTidy time.Time
	sending  map[broker.RaftID]time.Time // snapshots under way, and when each is given up
	commits  [electionTicks]uint64       // the commit index of the last ticks, in turn
	ticks    int
	heard    map[broker.RaftID]int // the tick behind which a member was last active
	turn     succession
	saves    []*save                           // who asked for a snapshot
	held     map[broker.RaftID]*raftpb.Message // for learners, until the next tick

	snapshotAfter uint64 // no snapshot below this index: there was no space for one
}

// Status is how the quorum stands, as this node sees it.
type Status struct {
	Term    broker.Term
	Leader  broker.RaftID // 0: none known
	Commit  broker.Index
	Applied broker.Index
	Active  bool // this node leads and decides
	Joint   bool // a change of the voters is under way
	Voters  []uint64
	// Progress is, on the leader, how far each other member has come.
	Progress []Progress
}

// Progress is how far a member has come, as the leader knows it.
type Progress struct {
	Raft   broker.RaftID
	Match  broker.Index // everything up to it is on the member's stable storage
	Recent bool         // it was heard from within an election timeout
}

// Open loads the newest snapshot and the log. Nothing behind the snapshot is applied before Run. A *DamagedError says
// that this node must join again as a new raft id.
func Open(config Config) (*Node, error) {
	if config.SnapshotEvery == 0 {
		config.SnapshotEvery = snapshotEvery
	}
	store, img, err := openStorage(config.FS, config.Dir, config.openJournal)
	if err != nil {
		return nil, err
	}
	members := slices.Concat(store.conf.GetVoters(), store.conf.GetLearners(), store.conf.GetVotersOutgoing())
	if !slices.Contains(members, uint64(config.Raft)) {
		return nil, errors.Join(
			fmt.Errorf("raft id %d is not a member of the quorum %v: the directory belongs to another node", config.Raft, members),
			store.journal.Close())
	}
	n := &Node{
		config: config, storage: store, applied: img,
		submits: make(chan *proposal, submitsMax),
		inbox:   make(chan input, submitsMax),
		stopped: make(chan struct{}), opened: broker.Index(store.lastIndex()), sending: map[broker.RaftID]time.Time{}, held: map[broker.RaftID]*raftpb.Message{}, heard: map[broker.RaftID]int{},
	}
	n.raw, err = raft.NewRawNode(&raft.Config{
		ID: uint64(config.Raft), ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks,
		Storage: store, Applied: uint64(img.Index()),
		MaxSizePerMsg: messageBytesMax, MaxCommittedSizePerReady: readyBytesMax, MaxUncommittedEntriesSize: uncommittedMax,
		MaxInflightMsgs: inflightMessages, MaxInflightBytes: inflightMessages * messageBytesMax,
		CheckQuorum: true, PreVote: true, StepDownOnRemoval: true, DisableProposalForwarding: true,
		Logger: raftLogger{config.Logger},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start raft: %w", err), store.journal.Close())
	}
	n.image.Store(img)
	n.noteStatus()
	return n, nil
}

// Run drives the quorum until ctx ends or something is beyond repair: a failed write, a damaged log, an entry of a newer
// program. Then the process ends.
func (n *Node) Run(ctx context.Context) error {
	err := n.loop(ctx)
	n.loseFlights(errStopping())
	for _, a := range n.answers { // Applied, maybe, but not published.
		a.to.done <- outcome{err: errStopping()}
	}
	close(n.stopped)
	return errors.Join(err, n.storage.journal.Close())
}

func (n *Node) loop(ctx context.Context) (err error) {
	defer func() {
		// raft cannot return what its storage found, so it panics; the damage is what ends the node.
		if damage := n.storage.damage; damage != nil {
			_ = recover()
			err = damage
		}
	}()
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	n.turn.timer = time.NewTimer(0)
	defer n.turn.timer.Stop()
	if err := n.begin(ctx); err != nil {
		return unlessEnded(ctx, err)
	}
	for {
		if err := n.settle(ctx); err != nil {
			return unlessEnded(ctx, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			n.listen()
			n.raw.Tick()
			n.onTick()
		case <-n.turn.timer.C:
			n.succeed()
		case in := <-n.inbox:
			n.take(in)
		case p := <-n.accepting():
			n.propose(p)
			n.proposeMore()
		}
	}
}

// begin applies what is known to be committed, and so learns who the members are: the newest snapshot may be older than
// the last change of them. A sole voter then has nobody to wait for. The others wait for a leader that is there already, and
// take turns by rank to campaign, so that a cluster that starts together has one as soon as two of its voters hear each other.
// The later by rank rest longer between turns, lest two always ask together.
func (n *Node) begin(ctx context.Context) error {
	if err := n.settle(ctx); err != nil {
		return err
	}
	voters := n.storage.conf.GetVoters()
	rank := slices.Index(voters, uint64(n.config.Raft))
	if rank < 0 || len(n.storage.conf.GetVotersOutgoing()) > 0 {
		return nil
	}
	if len(voters) == 1 {
		return n.campaign(ctx)
	}
	rest := rank + 1
	for range campaignsMax {
		if err := n.awaitLeader(ctx, time.Duration(rest)*tickInterval); err != nil || n.raw.BasicStatus().Lead != 0 || ctx.Err() != nil {
			return err
		}
		if err := n.campaign(ctx); err != nil {
			return err
		}
		rest = len(voters) + rank
	}
	return nil
}

// campaign asks the other voters for their votes.
func (n *Node) campaign(ctx context.Context) error {
	if err := n.raw.Campaign(); err != nil {
		return fmt.Errorf("campaign: %w", err)
	}
	return n.settle(ctx)
}

// awaitLeader handles messages until a leader is known or the time is up.
func (n *Node) awaitLeader(ctx context.Context, within time.Duration) error {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for n.raw.BasicStatus().Lead == 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			return nil
		case in := <-n.inbox:
			n.take(in)
		}
		if err := n.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// unlessEnded is nil where the loop was asked to stop while something was being written.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// accepting is where requests come from: nowhere while there is no leader yet, so that they wait for one.
func (n *Node) accepting() <-chan *proposal {
	leader := broker.RaftID(n.raw.BasicStatus().Lead)
	if n.leading.active || leader != 0 && leader != n.config.Raft {
		return n.submits
	}
	return nil
}

// proposeMore takes what else is waiting, so that one sync answers all of it.
func (n *Node) proposeMore() {
	for range submitsMax {
		select {
		case p := <-n.submits:
			n.propose(p)
		default:
			return
		}
	}
}

// take handles what others told the loop.
func (n *Node) take(in input) {
	switch {
	case in.unreachable != 0:
		n.raw.ReportUnreachable(uint64(in.unreachable))
	case in.served != 0:
		n.snapshotServed(in.served, in.failed)
	case in.export != nil:
		n.export(in.export)
	case in.hurry != 0:
		n.sendHeld(in.hurry)
	case in.save != nil:
		n.saves = append(n.saves, in.save)
	case in.transfer != 0:
		n.raw.TransferLeader(uint64(in.transfer))
	case in.died != 0:
		n.mourn(in.died)
	case in.message != nil:
		m := in.message
		if n.isOfEarlierTime(m) {
			return
		}
		if err := n.raw.Step(m); err != nil {
			n.config.Logger.Debug().Err(err).Uint64("from", m.GetFrom()).Stringer("type", m.GetType()).Msg("raft message refused")
		}
	}
}

// isOfEarlierTime reports that a leader knows more of this node's log than is in it: a heartbeat's commit index is never above
// what its receiver acknowledged. The log was put back as it was, and the node ends at the next settle.
func (n *Node) isOfEarlierTime(m *raftpb.Message) bool {
	if m.GetType() == raftpb.MsgHeartbeat {
		if err := controller.CheckHeld(broker.Index(n.storage.lastIndex()), broker.Index(m.GetCommit())); err != nil && n.storage.damage == nil {
			n.storage.damage = err
		}
	}
	return n.storage.damage != nil
}

// tell hands something to the loop, unless the loop is behind: raft sends again.
func (n *Node) tell(in input) {
	select {
	case n.inbox <- in:
	default:
	}
}

// Receive takes a raft message from another node. It drops the message when the loop is behind: raft sends again.
func (n *Node) Receive(m *raftpb.Message) { n.tell(input{message: m}) }

// Unreachable takes note that a message to another node was lost.
func (n *Node) Unreachable(to broker.RaftID) { n.tell(input{unreachable: to}) }

// Opened is the index up to which the log reached when it was opened.
func (n *Node) Opened() broker.Index { return n.opened }

// Image returns the newest published image.
func (n *Node) Image() *metadata.Image { return n.image.Load() }

// Status returns how the quorum stands.
func (n *Node) Status() Status { return *n.status.Load() }

// Watch makes ch be sent to, without blocking, whenever a new image is published, until cancel is called.
func (n *Node) Watch(ch chan<- struct{}) (cancel func()) {
	n.watchMu.Lock()
	defer n.watchMu.Unlock()
	n.watches = append(n.watches, ch)
	return func() {
		n.watchMu.Lock()
		defer n.watchMu.Unlock()
		n.watches = slices.DeleteFunc(n.watches, func(other chan<- struct{}) bool { return other == ch })
	}
}
