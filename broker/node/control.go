package node

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/peer"
	"github.com/millrace-io/millrace/broker/quorum"
)

// A question to another node is a byte that says what it is about, and its bytes.
const (
	askController byte = 'c' // a request for the controller; the answer is controller.EncodeAnswer's
	askTransfer   byte = 't' // u64 raft id that is to lead; the answer likewise
	askAppend     byte = 'a' // partition, batches: append them; see remotelog.go for the answers
	askRead       byte = 'r' // partition, u64 offset: whole batches from there on, as they lie; none at the end
	askCommitted  byte = 'o' // u32 partition, u32 length, group, topic: the lowest committed offset; none if there is none
	askGroups     byte = 'g' // groupQuestion about groups that the asked node coordinates; the answer is JSON
	askAuthority  byte = 'k' // authorityQuestion for a holder of the authority's key; the answer is authorityAnswer, both JSON
	askBehind     byte = 'b' // partition, u32 node: u64, how many records of the partition's log that follower lacks
	askLeads      byte = 'l' // partitions; the answer is a byte for each: 1 if the asked node leads it, and can read it
	askReport     byte = 'i' // admin.Inquiry; the answer is admin.Report, both JSON
	askSave       byte = 'w' // nothing: write a snapshot of the metadata; the answer is admin.SavedSnapshot as JSON
	askRelay      byte = 'p' // u64 raft id, a question of answerLog's: pass it on, and its answer back
	askStatus     byte = 's' // how the quorum stands for the leader; the answer is quorum.Status as JSON
)

// Times of the way to the controller.
const (
	controllerLook  = 20 * time.Millisecond // between two tries, while there is no controller to be reached
	answerWithin    = 30 * time.Second      // for one question
	leaderless      = 10 * time.Second      // that a question of another node waits for this one to hear of a leader
	transferWithin  = 5 * time.Second
	repeatsMax      = 3 // of a request over which a controller died
	brokersLook     = controller.DetectorTickMs * time.Millisecond
	unfenceAgain    = 500 * time.Millisecond // between two requests of a broker that finds itself fenced
	unfenceDeadline = 5 * time.Second
)

// Submit has a request decided by the controller, wherever it is, and returns when this node's image holds the result. Its
// errors are those of quorum.Node.Submit; NotController is none of them, since it goes on until there is a controller, or
// ctx ends. Where the controller dies over a request that may be put again, the next one is asked.
func (c *clusterRoom) Submit(ctx context.Context, request controller.Request) (controller.Reply, error) {
	request, err := c.identified(request)
	if err != nil {
		return nil, err
	}
	for lost := 0; ; {
		reply, err := c.submit(ctx, request)
		switch {
		case errors.Is(err, broker.NotController):
		case broker.CodeOf(err) == broker.RequestTimedOut && controller.Repeatable(request) && lost < repeatsMax:
			lost++
		case lost > 0:
			return controller.Repeated(request, reply, err)
		default:
			return reply, err
		}
		select {
		case <-time.After(controllerLook):
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.node.base.Context().Done():
			return nil, broker.Errorf(broker.RequestTimedOut, "the node stopped before a controller was found; nothing was done")
		}
	}
}

// submit has a request decided here or by whom this node takes for the controller. NotController: nothing was done;
// RequestTimedOut: nobody knows whether it was.
func (c *clusterRoom) submit(ctx context.Context, request controller.Request) (controller.Reply, error) {
	reply, err := c.node.quorum.Submit(ctx, request)
	leader := c.node.quorum.Status().Leader
	if errors.Is(err, broker.NotController) && leader != 0 && leader != c.node.identity.Raft {
		return c.forward(ctx, leader, request)
	}
	return reply, err
}

// identified gives a topic that is to be made its id, by which a second request knows what the first did.
func (c *clusterRoom) identified(request controller.Request) (controller.Request, error) {
	create, ok := request.(controller.CreateTopic)
	if !ok || create.ValidateOnly || !create.ID.IsZero() {
		return request, nil
	}
	if _, err := io.ReadFull(c.node.seams.Random, create.ID[:]); err != nil {
		return nil, fmt.Errorf("draw a topic id: %w", err)
	}
	return create, nil
}

// forward puts a request to the leader. NotController: nothing was done there.
func (c *clusterRoom) forward(ctx context.Context, leader broker.RaftID, request controller.Request) (controller.Reply, error) {
	question, err := controller.EncodeRequest(request)
	if err != nil {
		return nil, err
	}
	answer, err := c.ask(ctx, leader, askController, question)
	switch {
	case broker.CodeOf(err) == broker.RequestTimedOut:
		return nil, broker.Errorf(broker.RequestTimedOut, "the controller was asked, and %v; look whether the change was made", err)
	case err != nil:
		return nil, err
	}
	reply, index, refusal, err := controller.DecodeAnswer(answer)
	switch {
	case err != nil:
		return nil, broker.Errorf(broker.UnknownServerError, "the controller's answer cannot be read: %v", err)
	case refusal != nil:
		return nil, refusal
	}
	return reply, c.awaitImage(ctx, func(image *metadata.Image) bool { return image.Index() >= index })
}

// refusal reads an error that a node answered with.
func (c *clusterRoom) refusal(answer []byte) error {
	_, _, refusal, err := controller.DecodeAnswer(answer)
	if err != nil {
		return broker.Errorf(broker.UnknownServerError, "the answer cannot be read: %v", err)
	}
	if refusal == nil {
		return broker.Errorf(broker.UnknownServerError, "the answer is that of another question")
	}
	return refusal
}

// ask puts a question to a member and bounds the wait. NotController: it was not sent.
func (c *clusterRoom) ask(ctx context.Context, to broker.RaftID, kind byte, body []byte) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	answer, err := c.fabric.Ask(limited, to, append([]byte{kind}, body...))
	switch {
	case err == nil:
		return answer, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, peer.ErrUnreachable):
		return nil, broker.Errorf(broker.NotController, "the node cannot be reached: %v", err)
	case broker.CodeOf(err) == broker.InvalidRequest:
		return nil, err
	}
	return nil, broker.Errorf(broker.RequestTimedOut, "no answer came: %v", err)
}

// awaitImage returns when an image satisfies done, or ctx ends.
func (c *clusterRoom) awaitImage(ctx context.Context, done func(*metadata.Image) bool) error {
	published := make(chan struct{}, 1)
	defer c.node.quorum.Watch(published)()
	for !done(c.node.quorum.Image()) {
		select {
		case <-published:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.node.base.Context().Done():
			return broker.Errorf(broker.RequestTimedOut, "the node stopped before it had the change")
		}
	}
	return nil
}

// Answer implements peer.Handler.
func (c *clusterRoom) Answer(ctx context.Context, from peer.Peer, question []byte) []byte {
	if len(question) == 0 {
		return c.answer(nil, broker.Errorf(broker.InvalidRequest, "an empty question"))
	}
	kind, body := question[0], question[1:]
	if err := c.checkMember(from); err != nil {
		return c.answer(nil, err)
	}
	if ofLogs(kind) {
		return c.answerLog(ctx, kind, body)
	}
	switch kind {
	case askController:
		return c.answer(c.decide(ctx, from, body))
	case askTransfer:
		if len(body) != 8 {
			return c.answer(nil, broker.Errorf(broker.InvalidRequest, "a transfer to nobody"))
		}
		return c.answer(nil, c.node.quorum.Transfer(broker.RaftID(binary.LittleEndian.Uint64(body))))
	case askRelay:
		return c.relay(ctx, body)
	case askAuthority:
		return c.answerAuthorityQuestion(ctx, body)
	case askStatus:
		b, err := json.Marshal(c.node.quorum.Status())
		if err != nil {
			return c.answer(nil, err)
		}
		return b
	default:
		return c.answer(nil, broker.Errorf(broker.InvalidRequest, "a question of kind %q: run programs of neighbouring releases", kind))
	}
}

// checkMember refuses a peer that is connected and no member as far as this node knows: one that joined just now, and asks
// again, or one that was removed and makes itself a raft id (X6).
func (c *clusterRoom) checkMember(p peer.Peer) error {
	if c.isMember(p) {
		return nil
	}
	c.OnRefused()
	return broker.Errorf(broker.NotController, "raft id %d of node %d is no member of the cluster that node %d knows of", p.Raft, p.Node, c.node.identity.Node)
}

func (c *clusterRoom) decide(ctx context.Context, from peer.Peer, body []byte) (controller.Reply, error) {
	request, err := controller.DecodeRequest(body)
	if err != nil {
		return nil, broker.Errorf(broker.InvalidRequest, "%v", err)
	}
	if err := mayAsk(from, request); err != nil {
		c.OnRefused()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, leaderless)
	defer cancel()
	defer c.node.quorum.Hurry(from.Raft) // It waits until its own image holds the result.
	reply, err := c.node.quorum.Submit(ctx, request)
	if err != nil && errors.Is(err, ctx.Err()) { // not that of whoever asks, who would take it for its own
		err = broker.Errorf(broker.RequestTimedOut, "node %d stopped, or heard of no controller, before the change was known to be made", c.node.identity.Node)
	}
	return reply, err
}

// mayAsk refuses what a node asks in the name of another (X6).
func mayAsk(from peer.Peer, request controller.Request) error {
	asked := from.Node
	switch r := request.(type) {
	case controller.RegisterBroker:
		if asked = r.Node; r.Raft != from.Raft || r.Directory != from.Directory {
			return broker.Errorf(broker.ClusterAuthorizationFailed, "node %d registers raft id %d and directory %s, which are not its own", from.Node, r.Raft, r.Directory)
		}
	case controller.UnfenceBroker:
		asked = r.Node
	case controller.StopBroker:
		asked = r.Node
	case controller.ReportFailedReplicas:
		asked = r.Node
	case controller.ReportSpace:
		asked = r.Node
	case controller.AlterPartition:
		asked = r.Node
	case controller.AllocateProducerIDs:
		asked = r.Node
	case controller.FenceBroker, controller.NoteHeld:
		return broker.Errorf(broker.ClusterAuthorizationFailed, "only the controller judges of others; node %d asks for it", from.Node)
	}
	if asked != from.Node {
		return broker.Errorf(broker.ClusterAuthorizationFailed, "node %d asks in the name of node %d", from.Node, asked)
	}
	return nil
}

// answer encodes an answer with the index of an image that holds what it rests on.
func (c *clusterRoom) answer(reply controller.Reply, refusal error) []byte {
	if reply == nil && refusal == nil {
		reply = controller.Tidied{}
	}
	b, err := controller.EncodeAnswer(reply, refusal, c.node.quorum.Image().Index())
	if err != nil {
		c.logger.Error().Err(err).Msg("an answer cannot be encoded")
	}
	return b
}

// watchBrokers runs the detector, and fences while this node is the controller; and has this broker unfenced when it finds
// itself fenced although it serves.
func (c *clusterRoom) watchBrokers(ctx context.Context) error {
	ticker := time.NewTicker(brokersLook)
	defer ticker.Stop()
	published := make(chan struct{}, 1) // An image may be the first of this node as the controller.
	defer c.node.quorum.Watch(published)()
	var asked time.Time
	noted := time.Now()
	var alone int // ticks without a leader of the quorum
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			alone = c.tellOfLeader(alone)
		case <-published:
		case <-c.look:
		}
		image := c.node.quorum.Image()
		if err := c.node.checkMember(image); err != nil {
			c.node.fail(err)
			return nil
		}
		active := c.node.quorum.Status().Active
		c.heard.Lock()
		c.detector.OnHeartbeat(c.node.identity.Node, c.node.brokerEpoch()) // Whoever runs this lives.
		silent := c.detector.OnTick(c.node.sinceStart().Milliseconds(), image)
		if active && c.detector.HearsMost(image) {
			c.detector.OnController() // It is this node.
		}
		heard := c.detector.ControllerHeard()
		c.heard.Unlock()
		if set := c.set.Load(); set != nil {
			set.OnController(heard)
		}
		if active && time.Since(noted) >= heldEvery {
			noted = time.Now()
			c.node.base.Go("note how far brokers have come", func(ctx context.Context) error { c.noteHeld(ctx); return nil })
		}
		if active {
			for _, r := range silent {
				c.fence(ctx, r)
			}
		}
		if c.standsWrong(image) && time.Since(asked) >= unfenceAgain {
			asked = time.Now()
			c.node.base.Go("ask to be unfenced", func(ctx context.Context) error { c.unfence(ctx); return nil })
		}
	}
}

// checkMember returns an error if an image that must know of this directory's raft id does not have it.
func (n *Node) checkMember(image *metadata.Image) error {
	if _, member := image.Node(n.identity.Raft); member || image.Index() < broker.Index(n.identity.Raft) {
		return nil
	}
	return n.errRemoved()
}

func (n *Node) errRemoved() error {
	return fmt.Errorf("this node was decommissioned or removed: raft id %d is no member of the cluster any more, and its directory cannot come back; join again with an empty one", n.identity.Raft)
}

// standsWrong reports whether this broker serves, and the image says that it does not: it is fenced, or another incarnation of
// it, which must have ended before this one began, was registered later.
func (c *clusterRoom) standsWrong(image *metadata.Image) bool {
	self, ok := image.Broker(c.node.identity.Node)
	epoch := c.node.brokerEpoch()
	return ok && c.node.isReady() && (self.Epoch > epoch || self.Epoch == epoch && self.Fenced && !self.Stopping)
}

// tellOfLeader says once that the quorum has had no leader for a while, and once that it has one again. It returns for how
// many ticks there was none.
func (c *clusterRoom) tellOfLeader(alone int) int {
	const patience = 3 * 1000 / controller.DetectorTickMs // Elections end before.
	leader := c.node.quorum.Status().Leader
	switch {
	case leader == 0 && alone == patience:
		c.logger.Warn().Msg("the metadata quorum has no leader: a majority of its voters must run and reach each other; requests to the controller wait")
	case leader != 0 && alone > patience:
		c.logger.Info().Uint64("raft_id", uint64(leader)).Msg("the metadata quorum has a leader again")
	}
	if leader != 0 {
		return 0
	}
	return alone + 1
}

func (c *clusterRoom) fence(ctx context.Context, r *metadata.Registration) {
	c.node.metrics.fenced.Inc()
	c.logger.Warn().Int32("peer", int32(r.Node)).Int64("broker_epoch", int64(r.Epoch)).Msg("a broker fell silent and is fenced")
	if _, err := c.node.quorum.Submit(ctx, controller.FenceBroker{Node: r.Node, Epoch: r.Epoch}); err != nil && ctx.Err() == nil {
		c.logger.Warn().Err(err).Int32("peer", int32(r.Node)).Msg("a silent broker was not fenced")
	}
}

func (c *clusterRoom) unfence(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, unfenceDeadline)
	defer cancel()
	if err := c.node.unfence(ctx, 0); err != nil {
		c.logger.Debug().Err(err).Msg("not unfenced yet")
		return
	}
	c.logger.Info().Msg("this broker was fenced and serves again")
}

// leaderStatus is how the quorum stands for its leader, who alone knows how far the others are.
func (c *clusterRoom) leaderStatus(ctx context.Context) (quorum.Status, error) {
	own := c.node.quorum.Status()
	if own.Leader == c.node.identity.Raft || own.Leader == 0 {
		return own, nil
	}
	answer, err := c.ask(ctx, own.Leader, askStatus, nil)
	if err != nil {
		return own, err
	}
	var theirs quorum.Status
	if err := json.Unmarshal(answer, &theirs); err != nil {
		return own, fmt.Errorf("the leader's answer: %w", err)
	}
	return theirs, nil
}

// transfer hands the leadership of the quorum to a voter, and returns when it leads.
func (c *clusterRoom) transfer(ctx context.Context, to broker.RaftID) error {
	ctx, cancel := context.WithTimeout(ctx, transferWithin)
	defer cancel()
	for {
		status := c.node.quorum.Status()
		if status.Leader == to {
			return nil
		}
		if err := c.askTransfer(ctx, status.Leader, to); err != nil && !errors.Is(err, broker.NotController) {
			return err
		}
		select {
		case <-time.After(5 * controllerLook):
		case <-ctx.Done():
			return broker.Errorf(broker.RequestTimedOut, "raft id %d did not take over within %s; it may not be level, or not running", to, transferWithin)
		}
	}
}

func (c *clusterRoom) askTransfer(ctx context.Context, leader, to broker.RaftID) error {
	if leader == c.node.identity.Raft {
		return c.node.quorum.Transfer(to)
	}
	answer, err := c.ask(ctx, leader, askTransfer, binary.LittleEndian.AppendUint64(nil, uint64(to)))
	if err != nil {
		return err
	}
	_, _, refusal, err := controller.DecodeAnswer(answer)
	if refusal != nil {
		return refusal
	}
	return err
}

// handOver gives the quorum's leadership to the voter that is furthest, if this node has it, before the node stops.
func (c *clusterRoom) handOver(ctx context.Context) {
	status := c.node.quorum.Status()
	if !status.Active || len(status.Voters) < 2 {
		return
	}
	var best quorum.Progress
	for _, p := range status.Progress {
		if p.Recent && p.Match > best.Match && slices.Contains(status.Voters, uint64(p.Raft)) {
			best = p
		}
	}
	if best.Raft == 0 {
		return
	}
	if err := c.transfer(ctx, best.Raft); err != nil {
		c.logger.Warn().Err(err).Msg("the quorum's leadership could not be handed over; the others elect a leader")
	}
}

// close says goodbye to the others.
func (c *clusterRoom) close() error { return c.fabric.Close() }
