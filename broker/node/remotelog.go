package node

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/coordinator"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/broker/metadata"
)

// clusterLog is a partition of a topic that brokers write themselves, modules and dead letters, wherever it is led.
type clusterLog struct {
	cluster *clusterRoom
	topic   string
	number  int32
}

var _ delivery.Log = clusterLog{}

// errUnled is the answer while nobody leads a partition, or its leader cannot be asked; it passes.
func errUnled(topic string, partition int32) error {
	return broker.Errorf(broker.NotLeaderOrFollower, "partition %d of topic %s has no leader that can be reached; try again", partition, topic)
}

// place returns the partition, and the member that leads it; 0 if this node does.
func (l clusterLog) place() (tp broker.TopicPartition, leader broker.RaftID, err error) {
	image := l.cluster.node.quorum.Image()
	t, ok := image.TopicNamed(l.topic)
	if !ok {
		return tp, 0, broker.Errorf(broker.UnknownTopicOrPartition, "topic %s is gone: make it again with %d partitions or more", l.topic, l.number+1)
	}
	tp = broker.TopicPartition{Topic: t.ID, Partition: l.number}
	p, ok := image.Partition(tp)
	if !ok {
		return tp, 0, broker.Errorf(broker.UnknownTopicOrPartition, "topic %s has no partition %d", l.topic, l.number)
	}
	if p.Leader == l.cluster.node.identity.Node {
		return tp, 0, nil
	}
	if m, ok := memberOf(image, p.Leader); ok {
		return tp, m.Raft, nil
	}
	return tp, 0, errUnled(l.topic, l.number)
}

// memberOf is the member that a broker runs as now.
func memberOf(image *metadata.Image, node broker.NodeID) (*metadata.Node, bool) {
	r, ok := image.Broker(node)
	if !ok {
		return nil, false
	}
	members := image.Nodes()
	i := slices.IndexFunc(members, func(m *metadata.Node) bool { return m.ID == node && m.Directory == r.Directory })
	if i < 0 {
		return nil, false
	}
	return members[i], true
}

// led returns the log if this node leads it.
func (c *clusterRoom) led(tp broker.TopicPartition) (internalLog, error) {
	r, err := c.node.set.Get(tp)
	if err == nil {
		err = r.CheckLeader(broker.NoLeaderEpoch)
	}
	return internalLog{r}, err
}

// Append implements delivery.Log.
func (l clusterLog) Append(ctx context.Context, batches []byte) error {
	tp, leader, err := l.place()
	if err != nil {
		return err
	}
	if leader == 0 {
		log, err := l.cluster.led(tp)
		if err != nil {
			return err
		}
		return log.Append(ctx, batches)
	}
	_, err = l.cluster.askLog(ctx, leader, askAppend, append(appendPartition(nil, tp), batches...))
	return err
}

// Batches implements delivery.Log.
func (l clusterLog) Batches(ctx context.Context) iter.Seq2[[]byte, error] {
	tp, leader, err := l.place()
	if err != nil {
		return func(yield func([]byte, error) bool) { yield(nil, err) }
	}
	if leader == 0 {
		log, err := l.cluster.led(tp)
		if err != nil {
			return func(yield func([]byte, error) bool) { yield(nil, err) }
		}
		return log.Batches(ctx)
	}
	return func(yield func([]byte, error) bool) {
		for from := broker.Offset(0); ; {
			bytes, err := l.cluster.askLog(ctx, leader, askRead, binary.LittleEndian.AppendUint64(appendPartition(nil, tp), uint64(from)))
			if err != nil {
				yield(nil, err)
				return
			}
			if len(bytes) == 0 {
				return
			}
			for view, err := range batch.All(bytes) {
				if err != nil {
					yield(nil, err)
					return
				}
				from = view.NextOffset()
				if !yield(view, nil) {
					return
				}
			}
		}
	}
}

// partitionBytes is a partition in a question: topic id and number.
const partitionBytes = 16 + 4

func appendPartition(b []byte, tp broker.TopicPartition) []byte {
	return binary.LittleEndian.AppendUint32(append(b, tp.Topic[:]...), uint32(tp.Partition))
}

func cutPartition(b []byte) (tp broker.TopicPartition, rest []byte, ok bool) {
	if len(b) < partitionBytes {
		return tp, nil, false
	}
	copy(tp.Topic[:], b)
	tp.Partition = int32(binary.LittleEndian.Uint32(b[16:]))
	return tp, b[partitionBytes:], true
}

// An answer about a log is a byte that says whether it was done, and its bytes or an error as the controller's are.
const (
	logDone    byte = 1
	logRefused byte = 0
)

// askLog asks the leader of a partition for something.
func (c *clusterRoom) askLog(ctx context.Context, leader broker.RaftID, kind byte, body []byte) ([]byte, error) {
	answer, err := c.askMember(ctx, leader, kind, body)
	if broker.CodeOf(err) == broker.NotController {
		return nil, broker.Errorf(broker.NotLeaderOrFollower, "the leader of a partition cannot be asked: %v", err)
	}
	return answer, err
}

// logAnswer takes an answer about a log apart.
func (c *clusterRoom) logAnswer(answer []byte, err error) ([]byte, error) {
	switch {
	case err != nil:
		return nil, err
	case len(answer) > 0 && answer[0] == logDone:
		return answer[1:], nil
	case len(answer) > 0 && answer[0] == logRefused:
		return nil, c.refusal(answer[1:])
	}
	return nil, c.refusal(answer)
}

// answerLog answers a question about a partition that this node leads.
func (c *clusterRoom) answerLog(ctx context.Context, kind byte, question []byte) []byte {
	body, err := c.doLog(ctx, kind, question)
	if err != nil {
		return append([]byte{logRefused}, c.answer(nil, err)...)
	}
	return append([]byte{logDone}, body...)
}

func (c *clusterRoom) doLog(ctx context.Context, kind byte, question []byte) ([]byte, error) {
	if c.set.Load() == nil || !c.node.isReady() {
		return nil, broker.Errorf(broker.NotLeaderOrFollower, "node %d starts", c.node.identity.Node)
	}
	switch kind {
	case askCommitted:
		return c.committedHere(question)
	case askGroups:
		return c.groups().answer(ctx, question)
	case askLeads:
		return c.leadsHere(question)
	case askSave:
		return c.saveAsked(ctx)
	case askReport:
		return c.node.reportHere(question)
	}
	tp, rest, whole := cutPartition(question)
	if !whole {
		return nil, broker.Errorf(broker.InvalidRequest, "a question about no partition")
	}
	if kind == askBehind {
		return c.behindHere(tp, rest)
	}
	if !c.writtenByBrokers(tp.Topic) {
		c.OnRefused()
		return nil, broker.Errorf(broker.ClusterAuthorizationFailed, "brokers do not write to topic %s themselves", tp.Topic)
	}
	log, err := c.led(tp)
	if err != nil {
		return nil, err
	}
	if kind == askAppend {
		return nil, log.Append(ctx, rest)
	}
	if len(rest) != 8 {
		return nil, broker.Errorf(broker.InvalidRequest, "a read from nowhere")
	}
	slice, err := log.read(max(log.r.Ends().LogStart, broker.Offset(binary.LittleEndian.Uint64(rest))))
	if err != nil || slice == nil {
		return nil, err
	}
	defer slice.Release()
	return slices.Concat(slice.Bytes...), nil
}

// writtenByBrokers says that a topic is of modules or dead letters.
func (c *clusterRoom) writtenByBrokers(id broker.TopicID) bool {
	image := c.node.quorum.Image()
	t, ok := image.Topic(id)
	return ok && (t.Name == broker.ModulesTopic ||
		slices.ContainsFunc(image.Bindings(), func(b *metadata.Binding) bool { return b.DeadLetter == t.Name }))
}

// committed asks every broker that coordinates groups for the lowest offset that they committed on a partition: of one
// group, or of any if it is empty. An error is that somebody could not be asked.
func (c *clusterRoom) committed(ctx context.Context, name string, p group.NamedPartition) (lowest broker.Offset, found bool, err error) {
	image := c.node.quorum.Image()
	t, ok := image.TopicNamed(broker.OffsetsTopic)
	if !ok {
		return broker.NoOffset, false, nil
	}
	lowest = broker.NoOffset
	asked := map[broker.NodeID]bool{}
	for _, partition := range image.Partitions(t.ID) {
		if name != "" && partition.Partition != coordinator.PartitionFor(name) || asked[partition.Leader] {
			continue
		}
		asked[partition.Leader] = true
		offset, ok, err := c.committedAt(ctx, image, partition.Leader, name, p)
		if err != nil {
			return broker.NoOffset, false, err
		}
		if ok && (!found || offset < lowest) {
			lowest, found = offset, true
		}
	}
	return lowest, found, nil
}

func (c *clusterRoom) committedAt(ctx context.Context, image *metadata.Image, node broker.NodeID, name string, p group.NamedPartition) (broker.Offset, bool, error) {
	if node == c.node.identity.Node {
		return c.committedOf(name, p)
	}
	m, ok := memberOf(image, node)
	if !ok {
		return broker.NoOffset, false, errUnled(broker.OffsetsTopic, 0)
	}
	question := binary.LittleEndian.AppendUint32(nil, uint32(p.Partition))
	question = binary.LittleEndian.AppendUint32(question, uint32(len(name)))
	question = append(append(question, name...), p.Topic...)
	answer, err := c.askLog(ctx, m.Raft, askCommitted, question)
	if err != nil || len(answer) == 0 {
		return broker.NoOffset, false, err
	}
	if len(answer) != 8 {
		return broker.NoOffset, false, errors.New("an answer about a committed offset that is none")
	}
	return broker.Offset(binary.LittleEndian.Uint64(answer)), true, nil
}

// committedOf is what groups that are coordinated here committed.
func (c *clusterRoom) committedOf(name string, p group.NamedPartition) (broker.Offset, bool, error) {
	if name == "" {
		return c.node.groups.LowestCommitted(p)
	}
	return c.node.groups.CommittedOffset(name, p)
}

// committedHere answers committedAt of another node.
func (c *clusterRoom) committedHere(question []byte) ([]byte, error) {
	if len(question) < 8 || int(binary.LittleEndian.Uint32(question[4:])) > len(question)-8 {
		return nil, broker.Errorf(broker.InvalidRequest, "a question about no group")
	}
	n := 8 + int(binary.LittleEndian.Uint32(question[4:]))
	p := group.NamedPartition{Topic: string(question[n:]), Partition: int32(binary.LittleEndian.Uint32(question))}
	offset, ok, err := c.committedOf(string(question[8:n]), p)
	if err != nil || !ok {
		return nil, err
	}
	return binary.LittleEndian.AppendUint64(nil, uint64(offset)), nil
}
