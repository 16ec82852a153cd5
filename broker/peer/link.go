package peer

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/transport"
)

// Bounds of a control connection.
const (
	raftQueueMax           = 1024     // messages that wait to be written; beyond it they are dropped
	raftBytesMax           = 16 << 20 // of a message
	questionBytesMax       = 16 << 20
	answersAtOnceMax       = 256 // questions of one peer that are being answered; beyond it its next ones wait unread
	writeWithin            = 5 * time.Second
	heartbeatBytes         = 40
	questionHeadBytes      = 9
	streamRaft             = 'r'
	streamQuestions        = 'q'
	questionKind      byte = 0
	answerKind        byte = 1
)

// link is a control connection that stands.
type link struct {
	fabric *Fabric
	peer   Peer
	conn   *transport.Connection

	heart, raft, questions *transport.Stream
	raftOut                chan []byte
	heard                  atomic.Int64 // Unix nanoseconds of the last heartbeat
	toAnswer               atomic.Int64 // when the last heartbeat was sent, on the other side's clock
	ended                  chan struct{}

	writing sync.Mutex // held over a write to questions, and over nothing else

	mu      sync.Mutex
	asked   uint64                 // guarded by mu
	waiting map[uint64]chan []byte // guarded by mu: who waits for which answer
}

func newLink(f *Fabric, peer Peer, conn *transport.Connection, first *transport.Stream) *link {
	l := &link{
		fabric: f, peer: peer, conn: conn, heart: first, raftOut: make(chan []byte, raftQueueMax),
		waiting: map[uint64]chan []byte{}, ended: make(chan struct{}),
	}
	l.heard.Store(time.Now().UnixNano())
	return l
}

func (l *link) heardAt() time.Time { return time.Unix(0, l.heard.Load()) }

// openStreams opens the other two streams; a byte says what each is for.
func (l *link) openStreams(ctx context.Context) error {
	for _, s := range []struct {
		name byte
		into **transport.Stream
	}{{streamRaft, &l.raft}, {streamQuestions, &l.questions}} {
		stream, err := l.conn.Open(ctx)
		if err != nil {
			return err
		}
		if _, err := stream.Write([]byte{s.name}); err != nil {
			return fmt.Errorf("open a stream to %s: %w", l.peer.Address, err)
		}
		*s.into = stream
	}
	return nil
}

func (l *link) acceptStreams(ctx context.Context) error {
	for l.raft == nil || l.questions == nil {
		stream, err := l.conn.Accept(ctx)
		if err != nil {
			return err
		}
		var name [1]byte
		if deadline, ok := ctx.Deadline(); ok {
			if err := stream.SetReadDeadline(deadline); err != nil {
				return err
			}
		}
		if _, err := io.ReadFull(stream, name[:]); err != nil {
			return err
		}
		if err := stream.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		switch {
		case name[0] == streamRaft && l.raft == nil:
			l.raft = stream
		case name[0] == streamQuestions && l.questions == nil:
			l.questions = stream
		default:
			return fmt.Errorf("%s opens a stream %q, which is not of this protocol", l.peer.Address, name[0])
		}
	}
	return nil
}

// run serves the connection until it ends, and says why.
func (l *link) run(ctx context.Context) error {
	group := task.NewGroup(ctx)
	release := context.AfterFunc(group.Context(), func() { _ = l.conn.Close("the connection ends") })
	group.Go("write heartbeats", l.writeHeartbeats)
	group.Go("read heartbeats", l.readHeartbeats)
	group.Go("write raft", l.writeRaft)
	group.Go("read raft", l.readRaft)
	group.Go("read questions", func(ctx context.Context) error { return l.readQuestions(ctx, group) })
	err := group.Wait()
	release()
	close(l.ended)
	return err
}

func (l *link) writeHeartbeats(ctx context.Context) error {
	ticker := time.NewTicker(heartbeatEvery)
	defer ticker.Stop()
	for {
		answers := l.toAnswer.Load() // Before what this node says of itself: that is true of a time behind what it answers.
		beat := l.fabric.handler.Heartbeat()
		beat.AnswersMs = answers
		if err := writeWhole(l.heart, beat.append(make([]byte, 0, heartbeatBytes))); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (l *link) readHeartbeats(context.Context) error {
	var record [heartbeatBytes]byte
	for {
		if err := l.heart.SetReadDeadline(time.Now().Add(silenceMax)); err != nil {
			return err
		}
		if _, err := io.ReadFull(l.heart, record[:]); err != nil {
			return err
		}
		l.heard.Store(time.Now().UnixNano())
		beat := readHeartbeat(record)
		l.toAnswer.Store(beat.SentMs)
		l.fabric.handler.OnHeartbeat(l.peer, beat)
	}
}

func (b Heartbeat) append(to []byte) []byte {
	for _, field := range [...]int64{int64(b.Epoch), int64(b.Applied), b.SentMs, b.AnswersMs, b.LedAgoMs} {
		to = binary.LittleEndian.AppendUint64(to, uint64(field))
	}
	return to
}

func readHeartbeat(record [heartbeatBytes]byte) Heartbeat {
	field := func(i int) int64 { return int64(binary.LittleEndian.Uint64(record[8*i:])) }
	return Heartbeat{
		Epoch: broker.BrokerEpoch(field(0)), Applied: broker.Index(field(1)), SentMs: field(2), AnswersMs: field(3), LedAgoMs: field(4),
	}
}

// sendRaft queues a message; false if there is no room, or the connection has ended.
func (l *link) sendRaft(message []byte) bool {
	select {
	case <-l.ended:
		return false
	default:
	}
	select {
	case l.raftOut <- message:
		return true
	default:
		return false
	}
}

func (l *link) writeRaft(ctx context.Context) error {
	out := bufio.NewWriterSize(l.raft, 64<<10)
	for {
		var message []byte
		select {
		case <-ctx.Done():
			return nil
		case message = <-l.raftOut:
		}
		if err := l.raft.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
			return err
		}
		for more := true; more; {
			var head [4]byte
			binary.LittleEndian.PutUint32(head[:], uint32(len(message)))
			if _, err := out.Write(head[:]); err != nil {
				return err
			}
			if _, err := out.Write(message); err != nil {
				return err
			}
			select {
			case message = <-l.raftOut:
			default:
				more = false
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

func (l *link) readRaft(context.Context) error {
	in := bufio.NewReaderSize(l.raft, 64<<10)
	for {
		message, err := readFrame(in, raftBytesMax)
		if err != nil {
			return err
		}
		l.fabric.handler.OnRaft(l.peer, message)
	}
}

// ask sends a question and waits for its answer.
func (l *link) ask(ctx context.Context, question []byte) ([]byte, error) {
	if len(question) > questionBytesMax-questionHeadBytes {
		return nil, broker.Errorf(broker.InvalidRequest, "the request has %d bytes; between nodes %d go", len(question), questionBytesMax-questionHeadBytes)
	}
	answer := make(chan []byte, 1)
	l.mu.Lock()
	l.asked++
	id := l.asked
	l.waiting[id] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, id)
		l.mu.Unlock()
	}()
	if err := l.say(id, questionKind, question); err != nil {
		return nil, fmt.Errorf("ask node %d: %w", l.peer.Node, err)
	}
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.ended:
		return nil, fmt.Errorf("ask node %d: the connection ended before the answer", l.peer.Node)
	}
}

// say writes a question or an answer.
func (l *link) say(id uint64, kind byte, body []byte) error {
	frame := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+questionHeadBytes+len(body)), uint32(questionHeadBytes+len(body)))
	frame = binary.LittleEndian.AppendUint64(frame, id)
	frame = append(append(frame, kind), body...)
	l.writing.Lock()
	defer l.writing.Unlock()
	return writeWhole(l.questions, frame)
}

func (l *link) readQuestions(ctx context.Context, group *task.Group) error {
	in := bufio.NewReaderSize(l.questions, 16<<10)
	places := make(chan struct{}, answersAtOnceMax)
	for {
		frame, err := readFrame(in, questionBytesMax)
		if err != nil {
			return err
		}
		if len(frame) < questionHeadBytes {
			return errors.New("a question without its head")
		}
		id, kind, body := binary.LittleEndian.Uint64(frame), frame[8], frame[questionHeadBytes:]
		if kind == answerKind {
			l.mu.Lock()
			waiting := l.waiting[id]
			delete(l.waiting, id)
			l.mu.Unlock()
			if waiting != nil {
				waiting <- body
			}
			continue
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		group.Go("answer a question", func(ctx context.Context) error {
			defer func() { <-places }()
			return l.say(id, answerKind, l.fabric.handler.Answer(ctx, l.peer, body))
		})
	}
}

// writeWhole writes to a stream whose other side must be reading.
func writeWhole(s *transport.Stream, b []byte) error {
	if err := s.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	_, err := s.Write(b)
	return err
}
