package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
)

// Version is the replication version that this program speaks. HELLO offers a range.
const Version = 1

// Type is the type of a frame.
type Type uint8

// The types. Numbers are never reused.
const (
	TypeHello Type = iota + 1
	TypeHelloOK
	TypeRefused
	TypeSubscribe
	TypeAcks
	TypeMoved
	TypeStop
	TypeWindow
	TypeOK
	TypeData
	TypeMarks
	TypeMove
	TypeCut
	TypeReset
	TypeEnd
)

// Stream says which of a session's two streams is meant.
type Stream uint8

// The streams.
const (
	Tail Stream = iota // level partitions, from memory; and everything that a follower sends
	Bulk               // catching up, and large batches
)

// String names the stream.
func (s Stream) String() string {
	if s == Bulk {
		return "bulk"
	}
	return "tail"
}

const (
	// headerBytes is what stands before a body.
	headerBytes = 5
	// ControlBytesMax bounds every frame but DATA.
	ControlBytesMax = 64 << 10
	// BatchBytesMax bounds a batch: message.max.bytes may be set no higher.
	BatchBytesMax = 64 << 20
	// DataHeaderBytesMax is the most that a DATA frame has in front of its batches, its type included.
	DataHeaderBytesMax = 1 + 4*binary.MaxVarintLen64
	textBytesMax       = 1 << 10
	// listMax keeps ACK and MARK frames below ControlBytesMax.
	listMax = 1024
)

// Hello opens each stream of a session, from the follower.
type Hello struct {
	Cluster    broker.ClusterID
	From, To   broker.NodeID
	Directory  broker.DirectoryID
	Broker     broker.BrokerEpoch
	Session    uint64 // rises with each session of the follower's process
	Stream     Stream
	VersionMin uint32
	VersionMax uint32
	Window     int64 // bytes that may be under way and not appended yet
}

// Append appends the frame.
func (h *Hello) Append(to []byte) []byte {
	to, at := begin(to, TypeHello)
	to = append(to, h.Cluster[:]...)
	to = number(number(to, uint64(h.From)), uint64(h.To))
	to = append(to, h.Directory[:]...)
	to = number(number(to, uint64(h.Broker)), h.Session)
	to = append(to, byte(h.Stream))
	to = number(number(number(to, uint64(h.VersionMin)), uint64(h.VersionMax)), uint64(h.Window))
	return finish(to, at)
}

// Decode reads the body.
func (h *Hello) Decode(body []byte) error {
	c := cursor{rest: body}
	h.Cluster = c.uuid()
	h.From, h.To = c.node(), c.node()
	h.Directory = c.uuid()
	h.Broker, h.Session = broker.BrokerEpoch(c.positive()), c.number()
	h.Stream = c.stream()
	h.VersionMin, h.VersionMax = uint32(c.small()), uint32(c.small())
	h.Window = c.positive()
	return c.end(TypeHello)
}

// HelloOK answers Hello on its stream.
type HelloOK struct{ Version uint32 }

// Append appends the frame.
func (h *HelloOK) Append(to []byte) []byte {
	to, at := begin(to, TypeHelloOK)
	return finish(number(to, uint64(h.Version)), at)
}

// Decode reads the body.
func (h *HelloOK) Decode(body []byte) error {
	c := cursor{rest: body}
	h.Version = uint32(c.small())
	return c.end(TypeHelloOK)
}

// Refused answers Hello with why not; the stream ends behind it.
type Refused struct{ Why string }

// Append appends the frame.
func (r *Refused) Append(to []byte) []byte {
	to, at := begin(to, TypeRefused)
	why := r.Why
	if len(why) > textBytesMax {
		why = why[:textBytesMax]
	}
	return finish(append(number(to, uint64(len(why))), why...), at)
}

// Decode reads the body.
func (r *Refused) Decode(body []byte) error {
	c := cursor{rest: body}
	r.Why = string(c.bytes(c.count(textBytesMax, 1)))
	return c.end(TypeRefused)
}

// Subscribe is SUB: partition.Subscribe without what the session says, which is node and broker epoch.
type Subscribe struct {
	Partition broker.TopicPartition
	Request   partition.Subscribe
}

// Append appends the frame.
func (s *Subscribe) Append(to []byte) []byte {
	to, at := begin(to, TypeSubscribe)
	q := &s.Request
	to = append(number(to, uint64(q.Subscription)), s.Partition.Topic[:]...)
	to = number(number(to, uint64(s.Partition.Partition)), uint64(q.Replica))
	to = number(epoch(to, q.LeaderEpoch), uint64(q.ImageIndex))
	to = number(epoch(number(to, uint64(q.End)), q.LastEpoch), uint64(q.Start))
	return finish(to, at)
}

// Decode reads the body.
func (s *Subscribe) Decode(body []byte) error {
	c := cursor{rest: body}
	*s = Subscribe{}
	q := &s.Request
	q.Subscription = c.subscription()
	s.Partition.Topic = c.uuid()
	s.Partition.Partition = int32(c.small())
	q.Replica = broker.ReplicaID(c.number())
	q.LeaderEpoch, q.ImageIndex = c.epoch(), broker.Index(c.number())
	q.End, q.LastEpoch, q.Start = c.offset(), c.epoch(), c.offset()
	c.check(q.Start <= q.End)
	return c.end(TypeSubscribe)
}

// AppendAcks appends ACK frames: the subscription, durable end, appended end and start of each.
func AppendAcks(to []byte, acks []partition.Ack) []byte {
	for len(acks) > 0 {
		n := min(len(acks), listMax)
		var at int
		to, at = begin(to, TypeAcks)
		to = number(to, uint64(n))
		for _, a := range acks[:n] {
			to = number(number(to, uint64(a.Subscription)), uint64(a.Durable))
			to = number(number(to, uint64(a.Appended)), uint64(a.Start))
		}
		to, acks = finish(to, at), acks[n:]
	}
	return to
}

// DecodeAcks appends what an ACK body holds to acks, without the node.
func DecodeAcks(acks []partition.Ack, body []byte) ([]partition.Ack, error) {
	c := cursor{rest: body}
	for range c.count(listMax, 4) {
		a := partition.Ack{Subscription: c.subscription(), Durable: c.offset(), Appended: c.offset(), Start: c.offset()}
		acks = append(acks, a)
	}
	return acks, c.end(TypeAcks)
}

// Moved answers Move.
type Moved struct {
	Subscription partition.SubscriptionID
	Sequence     uint64
}

// Append appends the frame.
func (m *Moved) Append(to []byte) []byte {
	to, at := begin(to, TypeMoved)
	return finish(number(number(to, uint64(m.Subscription)), m.Sequence), at)
}

// Decode reads the body.
func (m *Moved) Decode(body []byte) error {
	c := cursor{rest: body}
	m.Subscription, m.Sequence = c.subscription(), c.number()
	return c.end(TypeMoved)
}

// Stop ends a subscription from the follower's side.
type Stop struct {
	Subscription partition.SubscriptionID
	Reason       StopReason
	LeaderEpoch  broker.LeaderEpoch // the one that the follower follows
}

// StopReason says why a follower ends a subscription.
type StopReason uint8

// The reasons.
const (
	StopBadData StopReason = iota + 1 // what came does not continue the log, or its CRC does not fit
	StopSilence                       // nothing came for too long
	StopFull                          // no space to append
	StopRole                          // another role, or none
)

// Append appends the frame.
func (s *Stop) Append(to []byte) []byte {
	to, at := begin(to, TypeStop)
	to = append(number(to, uint64(s.Subscription)), byte(s.Reason))
	return finish(epoch(to, s.LeaderEpoch), at)
}

// Decode reads the body.
func (s *Stop) Decode(body []byte) error {
	c := cursor{rest: body}
	s.Subscription, s.Reason, s.LeaderEpoch = c.subscription(), StopReason(c.octet()), c.epoch()
	return c.end(TypeStop)
}

// Window is another window for the session, in bytes.
type Window struct{ Bytes int64 }

// Append appends the frame.
func (w *Window) Append(to []byte) []byte {
	to, at := begin(to, TypeWindow)
	return finish(number(to, uint64(w.Bytes)), at)
}

// Decode reads the body.
func (w *Window) Decode(body []byte) error {
	c := cursor{rest: body}
	w.Bytes = c.positive()
	return c.end(TypeWindow)
}

// OK makes a subscription live. It is its first frame, and comes on the stream that it names.
type OK struct {
	Subscription  partition.SubscriptionID
	Stream        Stream
	HighWatermark broker.Offset
	Start         broker.Offset
}

// modeStrict is the durability that acknowledgements of a subscription have: stable storage. There is no other yet.
const modeStrict = 0

// Append appends the frame.
func (o *OK) Append(to []byte) []byte {
	to, at := begin(to, TypeOK)
	to = append(number(to, uint64(o.Subscription)), byte(o.Stream), modeStrict)
	return finish(number(number(to, uint64(o.HighWatermark)), uint64(o.Start)), at)
}

// Decode reads the body.
func (o *OK) Decode(body []byte) error {
	c := cursor{rest: body}
	o.Subscription, o.Stream = c.subscription(), c.stream()
	c.check(c.octet() == modeStrict)
	o.HighWatermark, o.Start = c.offset(), c.offset()
	return c.end(TypeOK)
}

// Data is pushed batches: at most 256 KiB of them, or one.
type Data struct {
	Subscription  partition.SubscriptionID
	From          broker.Offset
	HighWatermark broker.Offset
	Start         broker.Offset
	Batches       []byte
}

// AppendHeader appends the frame as far as its batches, of which bytes will follow. Batches itself is not looked at.
func (d *Data) AppendHeader(to []byte, bytes int) []byte {
	to, at := begin(to, TypeData)
	to = number(number(to, uint64(d.Subscription)), uint64(d.From))
	to = number(number(to, uint64(d.HighWatermark)), uint64(d.Start))
	binary.LittleEndian.PutUint32(to[at:], uint32(len(to)-at-4+bytes))
	return to
}

// Decode reads the body; Batches is a part of it.
func (d *Data) Decode(body []byte) error {
	c := cursor{rest: body}
	d.Subscription, d.From = c.subscription(), c.offset()
	d.HighWatermark, d.Start = c.offset(), c.offset()
	d.Batches = c.bytes(len(c.rest))
	c.check(len(d.Batches) > 0)
	return c.end(TypeData)
}

// Mark carries the leader's positions where no data does.
type Mark struct {
	Subscription  partition.SubscriptionID
	HighWatermark broker.Offset
	Start         broker.Offset
}

// AppendMarks appends MARK frames.
func AppendMarks(to []byte, marks []Mark) []byte {
	for len(marks) > 0 {
		n := min(len(marks), listMax)
		var at int
		to, at = begin(to, TypeMarks)
		to = number(to, uint64(n))
		for _, m := range marks[:n] {
			to = number(number(number(to, uint64(m.Subscription)), uint64(m.HighWatermark)), uint64(m.Start))
		}
		to, marks = finish(to, at), marks[n:]
	}
	return to
}

// DecodeMarks appends what a MARK body holds to marks.
func DecodeMarks(marks []Mark, body []byte) ([]Mark, error) {
	c := cursor{rest: body}
	for range c.count(listMax, 3) {
		marks = append(marks, Mark{Subscription: c.subscription(), HighWatermark: c.offset(), Start: c.offset()})
	}
	return marks, c.end(TypeMarks)
}

// Move says that a subscription goes on over another stream once the follower answered.
type Move struct {
	Subscription partition.SubscriptionID
	Sequence     uint64
	At           broker.Offset // what was sent ends here
	To           Stream
}

// Append appends the frame.
func (m *Move) Append(to []byte) []byte {
	to, at := begin(to, TypeMove)
	to = number(number(number(to, uint64(m.Subscription)), m.Sequence), uint64(m.At))
	return finish(append(to, byte(m.To)), at)
}

// Decode reads the body.
func (m *Move) Decode(body []byte) error {
	c := cursor{rest: body}
	m.Subscription, m.Sequence, m.At, m.To = c.subscription(), c.number(), c.offset(), c.stream()
	return c.end(TypeMove)
}

// Cut refuses a request whose log parts from the leader's: the leader's end of the follower's last epoch.
type Cut struct {
	Subscription partition.SubscriptionID
	Leaders      broker.EpochEnd
}

// Append appends the frame.
func (x *Cut) Append(to []byte) []byte {
	to, at := begin(to, TypeCut)
	to = epoch(number(to, uint64(x.Subscription)), x.Leaders.Epoch)
	return finish(number(to, uint64(x.Leaders.End)), at)
}

// Decode reads the body.
func (x *Cut) Decode(body []byte) error {
	c := cursor{rest: body}
	x.Subscription = c.subscription()
	x.Leaders.Epoch, x.Leaders.End = c.epoch(), c.offset()
	return c.end(TypeCut)
}

// Reset refuses a request whose log lies below the leader's start.
type Reset struct {
	Subscription partition.SubscriptionID
	Start        broker.Offset
}

// Append appends the frame.
func (r *Reset) Append(to []byte) []byte {
	to, at := begin(to, TypeReset)
	return finish(number(number(to, uint64(r.Subscription)), uint64(r.Start)), at)
}

// Decode reads the body.
func (r *Reset) Decode(body []byte) error {
	c := cursor{rest: body}
	r.Subscription, r.Start = c.subscription(), c.offset()
	return c.end(TypeReset)
}

// End ends a subscription from the leader's side, or refuses one.
type End struct {
	Subscription partition.SubscriptionID
	Reason       partition.EndReason
	LeaderEpoch  broker.LeaderEpoch // the leader's
	ImageIndex   broker.Index       // the leader's
}

// Append appends the frame.
func (e *End) Append(to []byte) []byte {
	to, at := begin(to, TypeEnd)
	to = append(number(to, uint64(e.Subscription)), byte(e.Reason))
	return finish(number(epoch(to, e.LeaderEpoch), uint64(e.ImageIndex)), at)
}

// Decode reads the body.
func (e *End) Decode(body []byte) error {
	c := cursor{rest: body}
	e.Subscription, e.Reason = c.subscription(), partition.EndReason(c.octet())
	e.LeaderEpoch, e.ImageIndex = c.epoch(), broker.Index(c.number())
	return c.end(TypeEnd)
}

// String names the type.
func (t Type) String() string {
	names := [...]string{"", "HELLO", "HELLO_OK", "REFUSED", "SUB", "ACK", "MOVED", "STOP", "WINDOW", "OK", "DATA", "MARK", "MOVE", "CUT", "RESET", "END"}
	if t == 0 || int(t) >= len(names) {
		return fmt.Sprintf("type %d", uint8(t))
	}
	return names[t]
}
