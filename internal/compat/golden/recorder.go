package golden

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/internal/task"
)

// Recorder is a proxy that keeps the requests of clients with their answers. The broker behind it advertises the
// recorder's address, so that every connection comes through. Close it.
type Recorder struct {
	listener net.Listener
	group    *task.Group

	mu   sync.Mutex // guards kept
	kept []Exchange
}

// NewRecorder listens on a port of loopback that is free. Serve says where to.
func NewRecorder(ctx context.Context) (*Recorder, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &Recorder{listener: l, group: task.NewGroup(ctx)}, nil
}

// Address is where clients connect.
func (r *Recorder) Address() string { return r.listener.Addr().String() }

// Serve forwards every connection to a broker until Close.
func (r *Recorder) Serve(broker string) {
	r.group.Go("accept", func(ctx context.Context) error {
		for {
			conn, err := r.listener.Accept()
			if err != nil {
				return nil // closed
			}
			r.group.Go("connection", func(ctx context.Context) error {
				r.forward(ctx, conn, broker)
				return nil
			})
		}
	})
}

// Close ends all connections and waits for them.
func (r *Recorder) Close() error {
	r.group.Stop()
	err := r.listener.Close()
	return errors.Join(err, r.group.Wait())
}

// Take returns what was kept since the last Take.
func (r *Recorder) Take() []Exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := r.kept
	r.kept = nil
	return kept
}

// forward carries one connection's frames both ways until either side ends it.
func (r *Recorder) forward(ctx context.Context, client net.Conn, address string) {
	broker, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		_ = client.Close()
		return
	}
	end := context.AfterFunc(ctx, func() { _, _ = client.Close(), broker.Close() })
	defer end()
	var mu sync.Mutex // guards asked
	asked := map[int32]Exchange{}
	both := task.NewGroup(ctx)
	both.Go("requests", func(context.Context) error {
		defer func() { _, _ = client.Close(), broker.Close() }()
		return carry(client, broker, func(frame []byte) {
			if len(frame) < 8 {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			asked[int32(binary.BigEndian.Uint32(frame[4:]))] = Exchange{
				Key: int16(binary.BigEndian.Uint16(frame)), Version: int16(binary.BigEndian.Uint16(frame[2:])), Request: frame,
			}
		})
	})
	both.Go("answers", func(context.Context) error {
		defer func() { _, _ = client.Close(), broker.Close() }()
		return carry(broker, client, func(frame []byte) {
			if len(frame) < 4 {
				return
			}
			mu.Lock()
			correlation := int32(binary.BigEndian.Uint32(frame))
			e, known := asked[correlation]
			delete(asked, correlation)
			mu.Unlock()
			if e.Response = frame; known && kmsg.ResponseForKey(e.Key) != nil {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.kept = append(r.kept, e)
			}
		})
	})
	_ = both.Wait() // An end is an end, whoever made it.
}

// carry copies frames and shows each one before it leaves.
func carry(from io.Reader, to io.Writer, show func(frame []byte)) error {
	for {
		frame, err := readFrame(from)
		if err != nil {
			return err
		}
		show(frame)
		if _, err := to.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(frame)), uint32(len(frame))), frame...)); err != nil {
			return fmt.Errorf("forward: %w", err)
		}
	}
}
