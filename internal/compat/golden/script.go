package golden

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	clientID   = "golden"
	answerTime = 20 * time.Second
	frameMax   = 64 << 20
)

// Exchange is one request and what came back.
type Exchange struct {
	Label    string // what is asked, such as "unknown topic"
	Key      int16
	Version  int16
	Request  []byte // the frame without its size
	Response []byte // likewise; nil if the broker closed the connection
}

// span is a range of versions.
type span struct{ min, max int16 }

// script asks one broker. Its twin asks the other the same, in the same order, so nothing that is recorded may depend on
// an answer but the ids in it.
type script struct {
	ctx     context.Context
	address string
	conn    net.Conn
	next    int32
	listed  map[int16]span // what the broker lists
	both    map[int16]span // what both brokers list and kmsg can encode
	started time.Time      // the same in both scripts
	ids     map[string][16]byte
	log     []Exchange
	quiet   bool // what is asked is not recorded
	run     string
}

// open connects and reads what the broker lists.
func open(ctx context.Context, address string, started time.Time) (*script, error) {
	s := &script{ctx: ctx, address: address, started: started, listed: map[int16]span{}, ids: map[string][16]byte{}}
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, clientID, "1"
	var answer kmsg.ApiVersionsResponse
	err := s.silently(func() error {
		got, err := s.ask("", 3, req)
		if err == nil {
			answer = *got.(*kmsg.ApiVersionsResponse)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, k := range answer.ApiKeys {
		s.listed[k.ApiKey] = span{k.MinVersion, k.MaxVersion}
	}
	return s, nil
}

func (s *script) close() {
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
}

// silently runs f without recording.
func (s *script) silently(f func() error) error {
	defer func(before bool) { s.quiet = before }(s.quiet)
	s.quiet = true
	return f()
}

// errClosed is how a broker refuses to answer at all.
var errClosed = errors.New("the broker closed the connection")

// ask sends one request in a version and returns the answer, or errClosed.
func (s *script) ask(label string, version int16, req kmsg.Request) (kmsg.Response, error) {
	req.SetVersion(version)
	frame := appendRequest(nil, s.next, req)
	s.next++
	answer, err := s.send(frame)
	if err != nil && !errors.Is(err, errClosed) {
		return nil, fmt.Errorf("%s version %d, %s, to %s: %w", kmsg.NameForKey(req.Key()), version, label, s.address, err)
	}
	if !s.quiet {
		s.log = append(s.log, Exchange{Label: label, Key: req.Key(), Version: version, Request: frame, Response: answer})
	}
	if err != nil {
		return nil, err
	}
	return decode(req.Key(), version, answer)
}

// tell asks for the record; the script does not need the answer.
func (s *script) tell(label string, version int16, req kmsg.Request) error {
	if _, err := s.ask(label, version, req); err != nil && !errors.Is(err, errClosed) {
		return err
	}
	return nil
}

// send writes a frame and reads the next one, over a connection that is made when there is none.
func (s *script) send(frame []byte) ([]byte, error) {
	if s.conn == nil {
		conn, err := (&net.Dialer{}).DialContext(s.ctx, "tcp", s.address)
		if err != nil {
			return nil, err
		}
		s.conn = conn
	}
	if err := s.conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, err
	}
	if _, err := s.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)); err != nil {
		s.close()
		return nil, errClosed
	}
	answer, err := readFrame(s.conn)
	if err != nil {
		s.close()
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			return nil, fmt.Errorf("no answer within %v", answerTime)
		}
		return nil, errClosed
	}
	return answer, nil
}

// readFrame reads a frame and returns it without its size.
func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > frameMax {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(r, frame)
	return frame, err
}

// appendRequest encodes a request with its header.
func appendRequest(dst []byte, correlation int32, req kmsg.Request) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(req.Key()))
	dst = binary.BigEndian.AppendUint16(dst, uint16(req.GetVersion()))
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlation))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(clientID)))
	dst = append(dst, clientID...)
	if req.IsFlexible() {
		dst = append(dst, 0)
	}
	return req.AppendTo(dst)
}

// decode reads an answer. An ApiVersions answer with UNSUPPORTED_VERSION is in version 0 (KIP-511).
func decode(key, version int16, frame []byte) (kmsg.Response, error) {
	resp := kmsg.ResponseForKey(key)
	if resp == nil || len(frame) < 4 {
		return nil, fmt.Errorf("an answer of %d bytes to api %d", len(frame), key)
	}
	body := frame[4:]
	if key == kmsg.ApiVersions.Int16() && len(body) >= 2 && binary.BigEndian.Uint16(body) == 35 {
		version = 0
	}
	resp.SetVersion(version)
	if resp.IsFlexible() && key != kmsg.ApiVersions.Int16() {
		if len(body) == 0 || body[0] != 0 {
			return nil, fmt.Errorf("%s version %d: the answer's header has tags", kmsg.NameForKey(key), version)
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("%s version %d: %w", kmsg.NameForKey(key), version, err)
	}
	return resp, nil
}
