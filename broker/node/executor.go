package node

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/reconcile"
	"github.com/millrace-io/millrace/broker/replica"
)

// executor carries out what the images ask of this node, in their order. What it has not got to yet is kept as one change
// set, so that a burst of images costs one pass.
type executor struct {
	node   *Node
	before *metadata.Image // carried out; touched by openAll and run only
	// led is what the rooms above work on: the leader epochs in which this node leads. Touched like before. A replica that
	// fails leads no more, and nobody but this map remembers that its rooms have yet to be told.
	led      map[broker.TopicPartition]broker.LeaderEpoch
	renewals renewals

	mu      sync.Mutex
	self    reconcile.Self   // guarded by mu
	image   *metadata.Image  // guarded by mu: the newest that onImage was given
	topics  uint64           // guarded by mu: rises with every image in which a topic or view came, went or grew, or an access rule changed
	pending metadata.Changes // guarded by mu: what changed up to image, not carried out yet
	done    broker.Index     // guarded by mu: every image up to it is carried out
	waiters []chan struct{}  // guarded by mu: told when done rises
	wake    chan struct{}
}

func newExecutor(n *Node) *executor {
	e := &executor{node: n, before: metadata.NewImage(), led: map[broker.TopicPartition]broker.LeaderEpoch{}, renewals: renewals{under: map[broker.TopicPartition]chan struct{}{}}, self: reconcile.Self{Node: n.identity.Node}, wake: make(chan struct{}, 1)}
	return e
}

// onImage takes note of an image and of what changed; the quorum's loop calls it. The two are kept together: the image
// that the quorum publishes may be newer than the last change set, and what lies between would never be looked at.
func (e *executor) onImage(image *metadata.Image, changes metadata.Changes) {
	e.mu.Lock()
	e.image = image
	if len(changes.Topics)+len(changes.Views) > 0 || changes.Access {
		e.topics++
	}
	e.pending.Merge(changes)
	e.mu.Unlock()
	e.poke()
}

func (e *executor) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// registered lets the node take roles from images that contain this registration.
func (e *executor) registered(epoch broker.BrokerEpoch) {
	e.mu.Lock()
	e.self.Epoch = epoch
	e.mu.Unlock()
	e.poke()
}

// newest returns the image that was told last, or the one that the quorum began with.
func (e *executor) newest() *metadata.Image {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.latest()
}

// latest is newest for those who hold mu.
func (e *executor) latest() *metadata.Image {
	if e.image == nil {
		e.image = e.node.quorum.Image()
	}
	return e.image
}

// subscribable returns the newest image as consumer groups see it.
func (e *executor) subscribable() groupTopics {
	e.mu.Lock()
	defer e.mu.Unlock()
	return groupTopics{image: e.latest(), version: e.topics + 1, authorizer: e.node.authorizer()}
}

func (e *executor) epoch() broker.BrokerEpoch {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.self.Epoch
}

// openAll waits until this node's metadata is as new as the controller's and opens every replica that it names.
func (e *executor) openAll(ctx context.Context) error {
	if _, err := e.node.cluster.Submit(ctx, controller.Tidy{}); err != nil {
		return fmt.Errorf("catch up with the controller: %w", err)
	}
	image := e.newest()
	if err := e.carryOut(ctx, image, reconcile.Diff(e.before, image, e.self)); err != nil {
		return err
	}
	e.before = image
	return e.sweepStrays(image)
}

// sweepStrays moves aside what no image explains: a directory without a fact that says it was deleted is never removed.
func (e *executor) sweepStrays(image *metadata.Image) error {
	if err := e.node.set.RemoveStrays(); err != nil {
		return err
	}
	found, err := e.node.set.Directories()
	if err != nil {
		return fmt.Errorf("look for stray directories: %w", err)
	}
	for _, d := range found {
		p, known := image.Partition(d.TopicPartition)
		if known {
			if _, holds := p.ReplicaOn(e.node.identity.Node); holds {
				continue
			}
		}
		if _, deleted := image.Deleted(d.Topic); deleted {
			err = e.node.set.Delete(d.TopicPartition)
		} else {
			e.node.logger.Warn().Str("partition", d.TopicPartition.String()).Msg("a directory that no metadata explains is set aside")
			err = e.node.set.SetAside(d.TopicPartition)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *executor) run(ctx context.Context) error {
	for {
		e.mu.Lock()
		image, changes, self := e.image, e.pending, e.self
		e.pending = metadata.Changes{}
		e.mu.Unlock()
		actions := reconcile.FromChanges(e.before, image, changes, self)
		if err := e.carryOut(ctx, image, actions); err != nil {
			if ctx.Err() == nil {
				e.node.fail(err)
			}
			return nil
		}
		e.before = image
		e.renewed(image)
		e.settle(image.Index())
		select {
		case <-ctx.Done():
			return nil
		case <-e.wake:
		}
	}
}

// settle records that everything up to an index is carried out.
func (e *executor) settle(index broker.Index) {
	e.node.set.Reached(index)
	e.mu.Lock()
	waiters := e.waiters
	e.done, e.waiters = index, nil
	e.mu.Unlock()
	for _, w := range waiters {
		close(w)
	}
}

// await returns when what the image at index asks for is carried out.
func (e *executor) await(ctx context.Context, index broker.Index) error {
	for {
		e.mu.Lock()
		if e.done >= index {
			e.mu.Unlock()
			return nil
		}
		told := make(chan struct{})
		e.waiters = append(e.waiters, told)
		e.mu.Unlock()
		select {
		case <-told:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// roleWait is how long the answer to whoever made partitions waits for this node to lead them.
const roleWait = 10 * time.Second

// submit is Submit of the quorum for those who go on at once with what they asked for: when partitions were made it
// returns only when this node leads those that are its own. A client told before that would find no leader, and wait a
// quarter of a second before it looks again. What was made stays made, so an end of the wait is no error.
func (e *executor) submit(ctx context.Context, request controller.Request) (controller.Reply, error) {
	reply, err := e.node.cluster.Submit(ctx, request)
	if err != nil {
		return nil, err
	}
	switch reply.(type) {
	case controller.TopicCreated, controller.PartitionsCreated:
		wait, cancel := context.WithTimeout(ctx, roleWait)
		defer cancel()
		if err := e.await(wait, e.node.quorum.Image().Index()); err != nil {
			e.node.logger.Debug().Err(err).Msg("answered before the new partitions are led")
		}
	}
	return reply, nil
}

// carryOut does the actions in order; replicas that open together open side by side.
func (e *executor) carryOut(ctx context.Context, image *metadata.Image, actions []reconcile.Action) error {
	var opening []replica.Placement
	chainsChanged := false
	for i, action := range actions {
		if start, ok := action.(reconcile.StartReplica); ok {
			placement := replica.Placement{TopicPartition: start.TopicPartition, Replica: start.ID, Options: e.node.options(image, start.Topic)}
			if !e.renew(placement) {
				opening = append(opening, placement)
			}
			if i+1 < len(actions) {
				continue
			}
		}
		if len(opening) > 0 {
			if err := e.node.set.OpenAll(ctx, opening, nil); err != nil {
				return fmt.Errorf("open partitions: %w", err)
			}
			opening = nil
		}
		changed, err := e.do(image, action)
		if err != nil {
			return err
		}
		chainsChanged = chainsChanged || changed
	}
	if chainsChanged || len(actions) > 0 {
		e.node.chains.OnImage()
	}
	return nil
}

// do carries out one action and tells whether it concerns chains.
func (e *executor) do(image *metadata.Image, action reconcile.Action) (chains bool, err error) {
	switch a := action.(type) {
	case reconcile.StopReplica:
		return true, e.stop(image, a.TopicPartition)
	case reconcile.DeleteTopic:
		return true, e.deleteTopic(a.Topic)
	case reconcile.Configure:
		for _, p := range image.Partitions(a.Topic) {
			if r, err := e.node.set.Get(p.TopicPartition); err == nil {
				r.Configure(e.node.options(image, a.Topic))
			}
		}
	case reconcile.Lead:
		e.role(image, a.State)
	case reconcile.Follow:
		e.role(image, a.State)
	case reconcile.AttachBinding, reconcile.DetachBinding, reconcile.PutView, reconcile.RemoveView:
		return true, nil
	}
	return false, nil
}

// stop closes a replica. One that was moved to another node goes out of the way: what comes back here gets a new identity
// and begins anew (RC2), and the space is free a day later.
func (e *executor) stop(image *metadata.Image, tp broker.TopicPartition) error {
	e.unseat(tp)
	e.renewals.await(tp)
	if _, deleted := image.Deleted(tp.Topic); deleted {
		return e.node.set.Abandon(tp)
	}
	p, exists := image.Partition(tp)
	if !exists || !e.mayTakeRoles(image) {
		return e.node.set.Stop(tp)
	}
	if _, renewed := p.ReplicaOn(e.node.identity.Node); renewed {
		return e.node.set.Stop(tp)
	}
	e.node.logger.Info().Str("topic", tp.Topic.String()).Int32("partition", tp.Partition).Msg("a replica was moved away from this node")
	return e.node.set.SetAside(tp)
}

// mayTakeRoles reports whether an image is at least as new as this incarnation's registration (RM12, RC13).
func (e *executor) mayTakeRoles(image *metadata.Image) bool {
	r, ok := image.Broker(e.node.identity.Node)
	return ok && r.Epoch == e.epoch()
}

func (e *executor) deleteTopic(topic broker.TopicID) error {
	if err := e.node.set.DeleteTopic(topic); err != nil {
		return err
	}
	if t, ok := e.before.Topic(topic); ok {
		e.node.groups.OnTopicDeleted(t.Name, topic)
	}
	return nil
}

// role gives a replica the role that the image has for it, and tells the rooms that work on leaders.
func (e *executor) role(image *metadata.Image, state *metadata.Partition) {
	r, err := e.node.set.Get(state.TopicPartition)
	if err != nil {
		return
	}
	of, ok := replica.ImageOf(image, state.TopicPartition)
	if !ok {
		return
	}
	was, led := e.led[state.TopicPartition]
	r.OnImage(of)
	epoch, leads := r.Leading()
	if led && (!leads || was != epoch) {
		e.unseat(state.TopicPartition)
	}
	if leads && (!led || was != epoch) {
		e.node.metrics.elections.Inc()
		if state.Recovering {
			e.node.metrics.unclean.Inc()
		}
		e.led[state.TopicPartition] = epoch
		e.lead(image, r, epoch)
	}
	if before, ok := e.before.Partition(state.TopicPartition); ok && leads {
		e.node.metrics.isr.saw(before, state)
	}
}

// unseat tells the rooms that work on leaders that this node leads a partition no more, if it did.
func (e *executor) unseat(tp broker.TopicPartition) {
	if _, led := e.led[tp]; !led {
		return
	}
	delete(e.led, tp)
	e.resign(e.before, tp)
}

func (e *executor) lead(image *metadata.Image, r *replica.Replica, epoch broker.LeaderEpoch) {
	tp := r.TopicPartition()
	topic, ok := image.Topic(tp.Topic)
	if !ok {
		return
	}
	switch topic.Name {
	case broker.OffsetsTopic:
		e.node.groups.Lead(tp.Partition, epoch, groupLog{internalLog{r}})
	case broker.ModulesTopic: // Whoever wants it asks for it.
	default:
		e.node.chains.Lead(tp, epoch, source{r})
	}
}

func (e *executor) resign(image *metadata.Image, tp broker.TopicPartition) {
	topic, ok := image.Topic(tp.Topic)
	if !ok {
		return
	}
	switch topic.Name {
	case broker.OffsetsTopic:
		e.node.groups.Resign(tp.Partition)
	case broker.ModulesTopic:
	default:
		e.node.chains.Resign(tp)
	}
}

// options are a topic's configs with the broker's defaults.
func (n *Node) options(image *metadata.Image, topic broker.TopicID) replica.Options {
	o := replica.Options{
		SegmentBytes: n.config.SegmentBytes, RetentionMs: n.config.RetentionMillis, RetentionBytes: n.config.RetentionBytes,
		ProducerExpirationMs: n.config.ProducerIDExpiryMillis,
	}
	t, ok := image.Topic(topic)
	if !ok {
		return o
	}
	configs := image.Configs(metadata.TopicResource(t.Name))
	number := func(name string, into *int64) {
		if value, ok := configs[name]; ok {
			if parsed, err := strconv.ParseInt(value, 10, 64); err == nil {
				*into = parsed
			}
		}
	}
	number("segment.bytes", &o.SegmentBytes)
	number("retention.ms", &o.RetentionMs)
	number("retention.bytes", &o.RetentionBytes)
	o.LogAppendTime = configs["message.timestamp.type"] == "LogAppendTime"
	o.SegmentMs = image.TopicSettingInt(t.Name, metadata.SegmentMs)
	o.Compaction = compaction(image, t.Name)
	if o.Compact && !strings.Contains(configs[metadata.CleanupPolicy], "delete") {
		o.RetentionMs, o.RetentionBytes = -1, -1 // A compacted log is bounded by its keys, never by age or size.
	}
	return o
}
