package kafka

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/internal/transport"
)

// session is one connection. The goroutine that runs it owns every field; the outbox has its own rules.
type session struct {
	*Server
	conn     net.Conn
	reader   *bufio.Reader
	listener *Listener
	preamble *adminapi.Preamble // nil on a plain Kafka stream
	// Groups, in the place of the server's, lets the principal touch the groups that it may.
	Groups        Groups
	Controller    Controller // in the place of the server's, keeps waiting out of the session's work
	authenticated bool
	authentication
	asking   access // what the key of the request at hand needs
	answers  answers
	ending   error // why the connection ends behind the response at hand
	trusted  int   // bytes of the largest frame so far, up to a bound
	midFrame bool  // a frame that counts against the memory for requests is being read
	outbox   outbox
	code     broker.Code   // the first error that the request at hand was answered with
	fetches  *fetchSession // nil: none
	client   string        // the client id of the request at hand
	throttle time.Duration // how long the connection is not read behind the request at hand
	work     worktime
}

const (
	readBufferBytes  = 8 << 10
	scratchBytesKept = 256 << 10
)

func newSession(server *Server, conn net.Conn, listener *Listener) *session {
	s := &session{
		Server:   server,
		conn:     conn,
		reader:   bufio.NewReaderSize(conn, readBufferBytes),
		listener: listener,
	}
	s.Groups = guardedGroups{s}
	s.Controller = awaitedController{s}
	s.identify(Anonymous)
	s.outbox.session = s
	return s
}

// run serves the connection until it ends, then closes it.
func (s *session) run(ctx context.Context) {
	err := s.serve(ctx)
	if !errors.Is(err, io.EOF) {
		_ = s.conn.Close() // ends a write in progress; what the connection ended with is already known
	}
	s.endFetchSession()
	s.outbox.close() // what was submitted is still answered if the client only stopped sending
	if errors.Is(err, io.EOF) && s.draining.Load() {
		s.linger()
	}
	_ = s.conn.Close()
	var refused *refusal
	if errors.As(err, &refused) {
		s.complain(refused.kind, func(e *zerolog.Event) {
			e.Str("remote", hostOf(s.conn.RemoteAddr())).Err(err).Msg("connection closed: the request cannot be served")
		})
		return
	}
	s.Logger.Debug().Str("remote", hostOf(s.conn.RemoteAddr())).Err(err).Msg("connection ended")
}

// lingerMax bounds the wait for a client to take the last answers of a node that stops.
const lingerMax = 100 * time.Millisecond

// linger ends the sending side and waits for the client to end its own: closing a TCP connection with unread requests in
// it would reset it, and take answers along that the client has not read.
func (s *session) linger() {
	half, ok := s.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || s.conn.SetReadDeadline(time.Now().Add(lingerMax)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, s.conn) // whatever ends it, the connection is closed next
}

// refusal ends a connection because of what the client sent.
type refusal struct {
	kind string // a constant, for rate limiting
	err  error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(kind, format string, args ...any) error {
	return &refusal{kind: kind, err: fmt.Errorf(format, args...)}
}

// serve reads and answers requests. The first must be here within the handshake time.
func (s *session) serve(ctx context.Context) error {
	s.deadline = time.Now().Add(s.Limits.Handshake)
	if err := s.conn.SetReadDeadline(s.deadline); err != nil {
		return err
	}
	if err := s.handshake(ctx); err != nil {
		return err
	}
	if err := s.readPreamble(); err != nil {
		return err
	}
	for {
		if s.raw {
			if err := s.rawToken(ctx); err != nil {
				return err
			}
			if err := s.readUntil(time.Now().Add(s.Limits.Idle)); err != nil {
				return err
			}
			continue
		}
		f, err := s.nextFrame()
		if err != nil && s.draining.Load() {
			return io.EOF // Drain ended the wait for a request, and what was submitted is still answered.
		}
		if err != nil {
			return err
		}
		if err := s.request(ctx, &f); err != nil {
			return err
		}
		s.hold()
		if err := s.readUntil(time.Now().Add(s.Limits.Idle)); err != nil {
			return err
		}
		if s.draining.Load() { // after the deadline, which may have replaced Drain's
			return io.EOF
		}
	}
}

// handshake completes TLS where the connection has not done so by itself, and learns whether the client is known.
func (s *session) handshake(ctx context.Context) error {
	var state tls.ConnectionState
	switch conn := s.conn.(type) {
	case *transport.Stream:
		state, s.encrypted = conn.TLS(), true
	case *tls.Conn:
		if err := conn.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("tls handshake: %w", err)
		}
		state, s.encrypted = conn.ConnectionState(), true
	}
	if len(state.VerifiedChains) > 0 {
		s.identify(CertifiedPrincipal(state.VerifiedChains[0][0]))
	}
	s.authenticated = !s.listener.RequireAuthentication || len(state.VerifiedChains) > 0
	if s.authenticated {
		s.deadline = time.Time{}
	}
	return nil
}

// readUntil sets until when the next bytes must be here. A client that has not proved who it is has its whole time to do so
// once, however often it sends something (X3).
func (s *session) readUntil(deadline time.Time) error {
	if !s.deadline.IsZero() && s.deadline.Before(deadline) {
		deadline = s.deadline
	}
	return s.conn.SetReadDeadline(deadline)
}

func (s *session) readPreamble() error {
	message, found, err := transport.ReadPreamble(s.reader)
	switch {
	case err != nil && found:
		return refuse("preamble", "%w", err)
	case err != nil || !found:
		return err
	}
	s.preamble = new(adminapi.Preamble)
	if err := proto.Unmarshal(message, s.preamble); err != nil {
		return refuse("preamble", "decode preamble: %w", err)
	}
	return nil
}

// nextFrame reads one frame, refusing it by its size or its header before memory is taken for the rest.
func (s *session) nextFrame() (frame, error) {
	limit := s.Limits.FrameBytesMax
	if !s.authenticated {
		limit = min(limit, s.Limits.AnonymousFrameBytesMax)
	}
	if _, err := s.reader.Peek(1); err != nil {
		return frame{}, err
	}
	if err := s.readUntil(s.transferDeadline(0)); err != nil {
		return frame{}, err
	}
	size, err := readSize(s.reader, limit)
	switch {
	case isNetworkError(err):
		return frame{}, err
	case err != nil:
		return frame{}, refuse("frame size", "%w", err)
	}
	if err := s.readUntil(s.transferDeadline(size)); err != nil {
		return frame{}, err
	}
	f, err := s.frames.readFrame(s.reader, size, s.trusted, frameRules{
		first: func(b []byte) error {
			if h := readFixedHeader(b); h.key != keyProduce && size > s.Limits.SmallFrameBytesMax {
				return refuse("frame size", "api %d with %d bytes: at most %d are accepted", h.key, size, s.Limits.SmallFrameBytesMax)
			}
			return nil
		},
		room: s.frameRoom,
	})
	if s.midFrame {
		s.midFrame = false
		s.memory.end(s.conn)
	}
	s.trusted = min(max(s.trusted, len(f.body)), trustedBytesMax)
	return f, err
}

// frameRoom takes the memory of a frame that is not small from the node's budget, before the frame takes it.
func (s *session) frameRoom(bytes int, held *claim) error {
	if bytes <= uncountedFrameBytes {
		return nil
	}
	if !s.midFrame {
		s.midFrame = true
		s.memory.begin(s.conn)
	}
	return held.raise(s, int64(bytes))
}

func isNetworkError(err error) bool {
	var network net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &network)
}

// request answers one frame and releases it, or hands it to the outbox. An error ends the connection.
func (s *session) request(ctx context.Context, f *frame) error {
	start := time.Now()
	if key := readFixedHeader(f.body).key; key != keyProduce && len(f.body) > uncountedDecodeBytes {
		if err := f.claim.raise(s, decodedPerByte*int64(len(f.body))); err != nil {
			f.release()
			return err
		}
	}
	s.work.on = s.Metadata.Image().Quotas() != nil
	s.work.start()
	h, req, err := s.decode(f.body)
	switch {
	case errors.Is(err, errFutureApiVersions):
		f.release()
		return s.respond(h, futureApiVersions())
	case err != nil:
		f.release()
		return err
	}
	s.code, s.client = broker.None, h.clientID
	s.work.on = s.timed(h)
	if s.expired(start) && !beforeAuthentication(h.key) {
		f.release()
		return refuse("session expired", "the session of %s is over and was not renewed", s.principal)
	}
	s.asking = accesses[h.key]
	if produce, ok := req.(*kmsg.ProduceRequest); ok {
		return s.produce(ctx, h, produce, f, start)
	}
	defer f.release()
	s.work.stop()
	err = s.outbox.drain()
	if s.work.start(); err != nil {
		return err
	}
	if fetch, ok := req.(*kmsg.FetchRequest); ok {
		f.buffer.release() // Nothing in a decoded Fetch lies in the frame, and it may be parked for long.
		f.buffer, f.body = frameBuffer{}, nil
		err = s.fetch(s.parking, h, fetch)
	} else {
		response := s.handle(ctx, req)
		s.chargeWork()
		s.tellThrottle(response)
		err = s.respond(h, response)
	}
	row, _ := lookup(h.key)
	s.Metrics.Request(row.name, s.code, time.Since(start))
	if err == nil {
		err = s.ending
	}
	return err
}

// decode turns a frame into a request, checking that it may be asked here, that its version is served and that its
// counts can be true.
func (s *session) decode(body []byte) (header, kmsg.Request, error) {
	h := readFixedHeader(body)
	row, known := lookup(h.key)
	switch {
	case !known:
		s.Metrics.UnsupportedVersion(-1, -1) // a label for each number that a client can think of would be too many
		return h, nil, refuse("unknown api", "api %d is not served", h.key)
	case !s.authenticated && !beforeAuthentication(h.key):
		return h, nil, refuse("unauthenticated", "%s before authentication", row.name)
	case !row.serves(h.version):
		s.Metrics.UnsupportedVersion(h.key, max(min(h.version, row.max+1), -1))
		if h.key == keyApiVersions {
			return h, nil, errFutureApiVersions
		}
		return h, nil, refuse("unsupported version", "%s version %d: versions %d to %d are served", row.name, h.version, row.min, row.max)
	}
	req := kmsg.RequestForKey(h.key)
	req.SetVersion(h.version)
	h, rest, err := readHeader(body, req.IsFlexible())
	if err == nil {
		err = checkShape(h.key, h.version, req.IsFlexible(), rest)
	}
	if err == nil {
		err = req.ReadFrom(rest)
	}
	if err != nil {
		return h, nil, refuse("malformed request", "decode %s version %d: %w", row.name, h.version, err)
	}
	return h, req, nil
}

// beforeAuthentication reports whether a key is answered to somebody who has not proved who it is (X3).
func beforeAuthentication(key int16) bool {
	return key == keyApiVersions || key == keySaslHandshake || key == keySaslAuthenticate
}

// respond encodes and writes one response. The outbox is empty.
func (s *session) respond(h header, response kmsg.Response) error {
	pooled := s.scratch.Get().(*[]byte)
	s.work.start()
	b := appendResponse((*pooled)[:0], h, response)
	s.work.stop()
	err := s.writeAll(s.conn, net.Buffers{b}, len(b))
	s.putScratch(pooled, b)
	return err
}

// appendResponse appends a whole framed response.
func appendResponse(dst []byte, h header, response kmsg.Response) []byte {
	start := len(dst)
	dst = appendResponseHeader(dst, h.correlationID, response.IsFlexible() && h.key != keyApiVersions)
	dst = response.AppendTo(dst)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// note remembers the first error of a response, for the metrics, and returns its number.
func (s *session) note(code broker.Code) int16 {
	if s.code == broker.None {
		s.code = code
	}
	return int16(code)
}

// fail is note for an error.
func (s *session) fail(err error) int16 { return s.note(broker.CodeOf(err)) }

// sentences are what bare codes say to people, where Kafka says something too.
var sentences = map[broker.Code]string{
	broker.UnknownTopicOrPartition: "there is no such topic or partition",
	broker.UnknownTopicID:          "there is no topic with this id",
}

// message returns the text that an error has for the person who reads it, or nil where it has none.
func message(err error) *string {
	var known *broker.Error
	if errors.As(err, &known) && known.Message != "" {
		return &known.Message
	}
	if sentence, has := sentences[broker.CodeOf(err)]; has {
		return &sentence
	}
	return nil
}
