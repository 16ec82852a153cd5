package commitlog

import (
	"errors"
	"fmt"
	"io"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// scanBytes is how much a scan reads at once.
const scanBytes = 1 << 20

// scanner walks the batches of a file from a position on and checks that each follows the one before it.
type scanner struct {
	file io.ReaderAt
	pos  int64 // of the next batch
	end  int64 // of the bytes to look at
	want broker.Offset
	last broker.LeaderEpoch

	buf   []byte
	bufAt int64
	bad   string // why the bytes at pos are no batch that belongs here; "" at the regular end
	err   error  // reading failed
}

// next returns the next good batch and its position. The batch is valid until the next call.
func (s *scanner) next() (v batch.View, pos int64, ok bool) {
	if s.bad != "" || s.err != nil || s.pos >= s.end {
		return nil, 0, false
	}
	b, ok := s.window(batch.HeaderBytes)
	if !ok {
		return nil, 0, false
	}
	size := batch.PeekLen(b)
	switch {
	case size < 0:
		s.bad = "impossible batch length"
		return nil, 0, false
	case int64(size) > s.end-s.pos:
		s.bad = fmt.Sprintf("a batch of %d bytes with %d left in the file", size, s.end-s.pos)
		return nil, 0, false
	}
	if b, ok = s.window(size); !ok {
		return nil, 0, false
	}
	if v, s.bad = s.judge(b[:size]); s.bad != "" {
		return nil, 0, false
	}
	pos = s.pos
	s.pos += int64(size)
	s.want, s.last = v.NextOffset(), v.LeaderEpoch()
	return v, pos, true
}

func (s *scanner) judge(b []byte) (batch.View, string) {
	v, err := batch.Parse(b)
	if err != nil {
		return nil, err.Error()
	}
	if err := v.CheckCRC(); err != nil {
		return nil, err.Error()
	}
	if v.BaseOffset() != s.want {
		return nil, fmt.Sprintf("a batch at offset %d", v.BaseOffset())
	}
	if v.LeaderEpoch() < s.last {
		return nil, fmt.Sprintf("leader epoch %d after %d", v.LeaderEpoch(), s.last)
	}
	return v, ""
}

// window returns at least n bytes from pos on.
func (s *scanner) window(n int) ([]byte, bool) {
	if s.end-s.pos < int64(n) {
		s.bad = fmt.Sprintf("%d bytes that are no whole batch", s.end-s.pos)
		return nil, false
	}
	at := s.pos - s.bufAt
	if at >= 0 && at+int64(n) <= int64(len(s.buf)) {
		return s.buf[at:], true
	}
	want := min(int64(max(n, scanBytes)), s.end-s.pos)
	if int64(cap(s.buf)) < want {
		s.buf = make([]byte, want)
	}
	s.buf = s.buf[:want]
	got, err := s.file.ReadAt(s.buf, s.pos)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
		return nil, false
	}
	s.buf, s.bufAt = s.buf[:got], s.pos
	if got < n {
		s.bad = "the file ends early"
		return nil, false
	}
	return s.buf, true
}
