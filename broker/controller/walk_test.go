package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// walker drives a controller with random requests and keeps what the invariants compare.
type walker struct {
	*cluster
	t       *testing.T
	rng     *rand.Rand
	seed    uint64
	step    int
	leaders map[leadership]tenure
	last    map[broker.TopicPartition]*metadata.Partition
	epochs  broker.BrokerEpoch // the highest broker epoch given out
	counts  map[string]int
}

type leadership struct {
	broker.TopicPartition
	epoch broker.LeaderEpoch
}

type tenure struct {
	leader broker.NodeID
	epoch  broker.BrokerEpoch
}

const walkNodes = 4

func newWalker(t *testing.T, seed uint64) *walker {
	return &walker{
		cluster: newCluster(byte(seed)), t: t, rng: rand.New(rand.NewPCG(seed, 1)), seed: seed,
		leaders: map[leadership]tenure{}, last: map[broker.TopicPartition]*metadata.Partition{}, counts: map[string]int{},
	}
}

func (w *walker) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d, step %d: %s\n%s", w.seed, w.step, fmt.Sprintf(format, args...), w.describe())
}

func (w *walker) anyNode() broker.NodeID { return broker.NodeID(1 + w.rng.IntN(walkNodes)) }

func (w *walker) anyPartition() *metadata.Partition {
	var all []*metadata.Partition
	for t := range w.img.Topics() {
		all = append(all, w.img.Partitions(t.ID)...)
	}
	if len(all) == 0 {
		return nil
	}
	return all[w.rng.IntN(len(all))]
}

// request draws one. Some are stale or senseless on purpose.
func (w *walker) request() Request {
	node := w.anyNode()
	epoch := w.epoch(node)
	if w.rng.IntN(20) == 0 {
		epoch--
	}
	switch w.rng.IntN(23) {
	case 20:
		if w.rng.IntN(4) == 0 {
			return DecommissionBroker{Node: node}
		}
		return DrainBroker{Node: node, Undo: w.rng.IntN(2) == 0}
	case 18, 19:
		return w.reassignment()
	case 16:
		if p := w.anyPartition(); p != nil {
			return CreatePartitions{Topic: p.Topic, Count: int32(1 + w.rng.IntN(6))}
		}
		return Tidy{}
	case 17:
		var all []broker.TopicPartition
		for t := range w.img.Topics() {
			for _, p := range w.img.Partitions(t.ID) {
				all = append(all, p.TopicPartition)
			}
		}
		return ElectLeaders{Partitions: all}
	case 0, 1:
		return w.registration(node)
	case 2, 3, 4:
		return UnfenceBroker{Node: node, Epoch: epoch, Applied: w.img.Index() - broker.Index(w.rng.IntN(2))}
	case 5:
		return FenceBroker{Node: node, Epoch: epoch}
	case 6:
		return StopBroker{Node: node, Epoch: epoch}
	case 7, 8, 9, 10:
		return w.alterPartition()
	case 11:
		return w.failure(node, epoch)
	case 12:
		return CreateTopic{Name: fmt.Sprintf("t%d", w.rng.IntN(5)), Partitions: int32(1 + w.rng.IntN(3)), ReplicationFactor: -1}
	case 13:
		if p := w.anyPartition(); p != nil && w.rng.IntN(4) == 0 {
			return DeleteTopic{ID: p.Topic}
		}
		return Tidy{}
	case 14:
		return AlterConfigs{
			Resource: metadata.TopicResource(fmt.Sprintf("t%d", w.rng.IntN(5))),
			Set:      map[string]string{metadata.MinInsyncReplicas: fmt.Sprint(1 + w.rng.IntN(3))},
		}
	default:
		return w.chainRequest()
	}
}

func (w *walker) registration(node broker.NodeID) Request {
	r := RegisterBroker{Node: node, Raft: broker.RaftID(node), Directory: directoryOf(node), Incarnation: broker.UUID{1, byte(w.step), byte(w.step >> 8)}}
	switch w.rng.IntN(12) {
	case 0:
		r.Directory[2] = byte(w.rng.IntN(3)) // another disk
	case 1:
		r.Directory = directoryOf(w.anyNode()) // a copied directory, or its own
	case 2:
		if p := w.anyPartition(); p != nil {
			if replica, ok := p.ReplicaOn(node); ok {
				r.Damaged = []ReplicaRef{{p.TopicPartition, replica.ID}}
			}
		}
	}
	return r
}

// reassignment moves a partition anywhere, also while it is on its way, or cancels.
func (w *walker) reassignment() Request {
	p := w.anyPartition()
	if p == nil {
		return Tidy{}
	}
	move := Reassignment{TopicPartition: p.TopicPartition}
	if w.rng.IntN(4) > 0 {
		for _, n := range w.rng.Perm(walkNodes)[:1+w.rng.IntN(3)] {
			move.Replicas = append(move.Replicas, broker.NodeID(1+n))
		}
	}
	return AlterReassignments{Partitions: []Reassignment{move}, KeepFactor: w.rng.IntN(3) == 0}
}

func (w *walker) failure(node broker.NodeID, epoch broker.BrokerEpoch) Request {
	p := w.anyPartition()
	if p == nil {
		return Tidy{}
	}
	replica, _ := p.ReplicaOn(node)
	return ReportFailedReplicas{Node: node, Epoch: epoch, Replicas: []ReplicaRef{{p.TopicPartition, replica.ID}}}
}

func (w *walker) alterPartition() Request {
	p := w.anyPartition()
	if p == nil {
		return Tidy{}
	}
	change := ISRChange{TopicPartition: p.TopicPartition, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
	for _, r := range p.Replicas {
		if r.Node == p.Leader || w.rng.IntN(3) > 0 {
			change.ISR = append(change.ISR, ISRMember{Node: r.Node, Epoch: w.epoch(r.Node), ID: r.ID})
		}
	}
	switch w.rng.IntN(10) {
	case 0:
		change.PartitionEpoch--
	case 1:
		change.LeaderEpoch--
	case 2:
		if len(change.ISR) > 0 {
			change.ISR[0].ID--
		}
	}
	sender := p.Leader
	if w.rng.IntN(10) == 0 {
		sender = w.anyNode()
	}
	return AlterPartition{Node: sender, Epoch: w.epoch(sender), Partitions: []ISRChange{change}}
}

func (w *walker) chainRequest() Request {
	p := w.anyPartition()
	if p == nil {
		return Tidy{}
	}
	row := metadata.Row{Stages: []metadata.Stage{{Plugin: "dedup", Version: "1", Projection: 1, Unique: w.rng.IntN(2) == 0}}}
	bindings := w.img.Bindings()
	if w.rng.IntN(3) == 0 || len(bindings) == 0 {
		switch w.rng.IntN(3) {
		case 0:
			return PutPlugin{Version: metadata.PluginVersion{Name: "dedup", Version: "1", Given: metadata.Digest{1}, Metered: metadata.Digest{2}}}
		case 1:
			return CreateBinding{Group: fmt.Sprintf("g%d", w.rng.IntN(3)), Topic: p.Topic, Row: row}
		default:
			return CreateView{Name: fmt.Sprintf("v%d", w.rng.IntN(3)), Base: p.Topic, Own: &row}
		}
	}
	b := bindings[w.rng.IntN(len(bindings))]
	target, _ := w.img.Partition(broker.TopicPartition{Topic: b.Topic, Partition: p.Partition})
	epoch := broker.LeaderEpoch(0)
	if target != nil {
		epoch = target.LeaderEpoch - broker.LeaderEpoch(w.rng.IntN(2))
	}
	rows := w.img.Rows(b.ID)
	switch w.rng.IntN(7) {
	case 0:
		return UpdateBinding{Binding: b.ID, Row: row}
	case 1:
		return DeleteBinding{Binding: b.ID}
	case 2:
		return DeleteView{Name: fmt.Sprintf("v%d", w.rng.IntN(3))}
	case 3:
		return CreateView{Name: fmt.Sprintf("v%d", w.rng.IntN(3)), Base: b.Topic, Binding: b.ID}
	case 4:
		return ProposeOrigin{Binding: b.ID, Partition: p.Partition, LeaderEpoch: epoch, Origin: broker.Offset(w.rng.IntN(50)), Rewind: w.rng.IntN(4) == 0}
	default:
		row := rows[w.rng.IntN(len(rows))]
		return ProposeFrom{Binding: b.ID, Row: row.ID, Partition: p.Partition, LeaderEpoch: epoch, From: broker.Offset(w.rng.IntN(50)), Clamp: w.rng.IntN(4) == 0}
	}
}

// check holds the image against the invariants of the reliability rules; the numbers are theirs.
func (w *walker) check() {
	directories := map[broker.DirectoryID]broker.NodeID{}
	for _, r := range w.img.Brokers() {
		if other, taken := directories[r.Directory]; taken {
			w.fatalf("invariant 20: directory of node %d is also node %d's", r.Node, other)
		}
		directories[r.Directory] = r.Node
	}
	for t := range w.img.Topics() {
		for _, p := range w.img.Partitions(t.ID) {
			w.checkMembers(p)
			w.checkEpochs(p)
		}
	}
	for _, v := range w.img.Views() {
		if _, ok := w.img.Binding(v.Binding); !ok {
			w.fatalf("view %s reads binding %d, which is gone", v.Name, v.Binding)
		}
	}
	for _, b := range w.img.Bindings() {
		if _, ok := w.img.Topic(b.Topic); !ok && !b.Detached {
			w.fatalf("binding %d is attached to a topic that is gone", b.ID)
		}
		letters, ok := w.img.TopicNamed(b.DeadLetter)
		if !ok && !b.Detached {
			w.fatalf("binding %d has no dead-letter topic", b.ID)
		}
		if source, attached := w.img.Topic(b.Topic); attached && letters.Partitions < source.Partitions {
			w.fatalf("binding %d: %d partitions, and %d for their letters", b.ID, source.Partitions, letters.Partitions)
		}
	}
}

func (w *walker) checkMembers(p *metadata.Partition) {
	for _, n := range slices.Concat(p.ISR, p.ELR) {
		if _, ok := p.ReplicaOn(n); !ok {
			w.fatalf("invariant 14: node %d is in ISR or ELR of %s without a replica", n, p)
		}
	}
	for _, n := range p.ISR {
		r, ok := w.img.Broker(n)
		if !ok || r.Fenced || r.Stopping {
			w.fatalf("invariant 14: node %d is in the ISR of %s and may not be", n, p)
		}
		if slices.Contains(p.ELR, n) {
			w.fatalf("invariant 14: node %d is in ISR and ELR of %s", n, p)
		}
	}
	switch {
	case len(p.ISR) >= p.EffectiveMinISR() && len(p.ELR) > 0:
		w.fatalf("invariant 14: %s has min.insync.replicas and an ELR", p)
	case p.Leader == broker.NoNode && len(p.ISR) > 0, p.Leader != broker.NoNode && !slices.Contains(p.ISR, p.Leader):
		w.fatalf("invariant 14: the leader of %s is not in its ISR", p)
	}
	if r, _ := w.img.Broker(p.Leader); p.Leader != broker.NoNode && r.Drained {
		for _, n := range p.ISR {
			if other, _ := w.img.Broker(n); !other.Drained {
				w.fatalf("drained node %d leads %s although node %d is in sync", p.Leader, p, n)
			}
		}
	}
	w.checkMove(p)
	if p.Leader == broker.NoNode {
		for _, n := range p.ELR {
			if r, _ := w.img.Broker(n); !r.Fenced && !r.Stopping {
				w.fatalf("%s has no leader although candidate %d is running", p, n)
			}
		}
	}
}

// checkMove holds a partition's move against R11: who comes and who goes are its replicas and differ, one that keeps its
// place keeps its identity, and no move takes the last in-sync replica or candidate along.
func (w *walker) checkMove(p *metadata.Partition) {
	for _, n := range slices.Concat(p.Adding, p.Removing) {
		if _, ok := p.ReplicaOn(n); !ok || slices.Contains(p.Adding, n) && slices.Contains(p.Removing, n) {
			w.fatalf("R11: node %d comes to or goes from %s (%v, %v) and has no place", n, p, p.Adding, p.Removing)
		}
	}
	if len(p.Target()) == 0 || len(p.Origin()) == 0 {
		w.fatalf("R11: %s comes from nowhere or goes nowhere", p)
	}
	was, ok := w.last[p.TopicPartition]
	if !ok || was == p {
		return
	}
	if was.Reassigning() && !p.Reassigning() {
		w.counts["moves ended"]++
	}
	gone := false
	for _, r := range was.Replicas {
		_, stays := p.ReplicaOn(r.Node)
		gone = gone || !stays
	}
	switch {
	case gone && p.LeaderEpoch == was.LeaderEpoch:
		w.fatalf("invariant 19: %s lost a replica within a leader epoch", p)
	case gone && len(was.ISR) > 0 && len(p.ISR) == 0, gone && len(p.ISR)+len(p.ELR) == 0 && len(was.ISR)+len(was.ELR) > 0:
		w.fatalf("R11: with the replicas of %s went the last that had everything", p)
	case gone && len(p.ISR) < len(was.ISR) && len(p.ISR) < p.EffectiveMinISR():
		w.fatalf("R11: a move left %s below min.insync.replicas", p)
	}
}

func (w *walker) checkEpochs(p *metadata.Partition) {
	if p.Leader != broker.NoNode {
		r, _ := w.img.Broker(p.Leader)
		now := tenure{p.Leader, r.Epoch}
		key := leadership{p.TopicPartition, p.LeaderEpoch}
		if was, ok := w.leaders[key]; ok && was != now {
			w.fatalf("invariant 13: epoch %d of %s had leader %+v and has %+v", p.LeaderEpoch, p, was, now)
		}
		w.leaders[key] = now
	}
	was, ok := w.last[p.TopicPartition]
	w.last[p.TopicPartition] = p
	if !ok || was == p {
		return
	}
	switch {
	case p.PartitionEpoch <= was.PartitionEpoch || p.LeaderEpoch < was.LeaderEpoch:
		w.fatalf("invariant 19: epochs of %s went from %d/%d to %d/%d", p, was.LeaderEpoch, was.PartitionEpoch, p.LeaderEpoch, p.PartitionEpoch)
	case p.Leader != was.Leader && p.LeaderEpoch == was.LeaderEpoch:
		w.fatalf("invariant 19: the leader of %s changed without its epoch", p)
	}
}

func (w *walker) run(steps int) {
	for w.step = range steps {
		req := w.request()
		reply, err := w.decide(req)
		if altered, ok := reply.(ReassignmentsAltered); ok && altered.Results[0] != nil {
			err = altered.Results[0]
		}
		name := fmt.Sprintf("%T", req)
		if err != nil {
			if broker.CodeOf(err) == broker.UnknownServerError {
				w.fatalf("%#v: %v", req, err)
			}
			w.counts[name+" refused"]++
			continue
		}
		w.counts[name]++
		if r, ok := reply.(BrokerRegistered); ok && w.img.Index() == broker.Index(r.Epoch) {
			if r.Epoch <= w.epochs {
				w.fatalf("invariant 20: broker epoch %d after %d", r.Epoch, w.epochs)
			}
			w.epochs = r.Epoch
		}
		w.check()
		if w.step%50 == 0 {
			w.checkSnapshot()
		}
	}
}

func (w *walker) checkSnapshot() {
	encoded, err := metadata.EncodeSnapshot(w.img, metadata.ConfState{Voters: []broker.RaftID{1}})
	if err != nil {
		w.fatalf("snapshot: %v", err)
	}
	loaded, _, err := metadata.DecodeSnapshot(encoded)
	if err != nil {
		w.fatalf("snapshot: %v", err)
	}
	if !metadata.Equal(loaded, w.img) {
		w.fatalf("the snapshot holds another image")
	}
}

// Replay one failing walk with: go test ./broker/controller -run TestRandomWalkKeepsInvariants/<seed>
func TestRandomWalkKeepsInvariants(t *testing.T) {
	total := map[string]int{}
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWalker(t, seed)
			w.run(800)
			for name, n := range w.counts {
				total[name] += n
			}
		})
	}
	if total["moves ended"] < 100 {
		t.Errorf("%d moves ended: the walk does not reach it", total["moves ended"])
	}
	for _, name := range []string{"AlterPartition", "ProposeFrom", "ProposeOrigin", "CreateView", "ReportFailedReplicas", "StopBroker", "RegisterBroker", "DeleteTopic", "CreatePartitions", "AlterReassignments"} {
		if total["controller."+name] < 20 || total["controller."+name+" refused"] == 0 && name != "AlterPartition" {
			t.Errorf("%s succeeded %d times and was refused %d times: the walk does not reach it",
				name, total["controller."+name], total["controller."+name+" refused"])
		}
	}
}

// RC1 and invariant 36: after any history without damage, every broker restarts uncleanly, and every partition that had
// a leader or a candidate has a leader again.
func TestEveryPartitionIsLedAfterARestartOfAll(t *testing.T) {
	for seed := range uint64(20) {
		w := newWalker(t, seed)
		w.run(300)
		candidates := map[broker.TopicPartition]bool{}
		for topic := range w.img.Topics() {
			for _, p := range w.img.Partitions(topic.ID) {
				candidates[p.TopicPartition] = len(p.ISR)+len(p.ELR) > 0
			}
		}
		registered := w.img.Brokers()
		w.rng.Shuffle(len(registered), func(i, j int) { registered[i], registered[j] = registered[j], registered[i] })
		for i, r := range registered {
			if _, err := w.decide(RegisterBroker{Node: r.Node, Directory: r.Directory, Incarnation: broker.UUID{0xee, byte(i)}}); err != nil {
				t.Fatal(err)
			}
			w.check()
		}
		for _, r := range registered {
			if _, err := w.decide(UnfenceBroker{Node: r.Node, Epoch: w.epoch(r.Node), Applied: w.img.Index()}); err != nil {
				t.Fatal(err)
			}
			w.check()
		}
		for topic := range w.img.Topics() {
			for _, p := range w.img.Partitions(topic.ID) {
				if candidates[p.TopicPartition] && p.Leader == broker.NoNode {
					w.fatalf("%s had a candidate before the restart of all and has no leader after it", p)
				}
			}
		}
	}
}
