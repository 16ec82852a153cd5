package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
)

// ErrMalformed is wrapped by every error about bytes that no program of ours would send.
var ErrMalformed = errors.New("malformed replication frame")

// begin appends the header of a frame; at is where its length goes.
func begin(to []byte, t Type) (out []byte, at int) {
	return append(to, 0, 0, 0, 0, byte(t)), len(to)
}

func finish(to []byte, at int) []byte {
	binary.LittleEndian.PutUint32(to[at:], uint32(len(to)-at-4))
	return to
}

func number(to []byte, n uint64) []byte { return binary.AppendUvarint(to, n) }

func epoch(to []byte, e broker.LeaderEpoch) []byte { return number(to, uint64(int64(e)+1)) }

// cursor reads a body. After the first bad field it yields zeros, and end tells.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) check(ok bool) { c.bad = c.bad || !ok }

func (c *cursor) number() uint64 {
	n, size := binary.Uvarint(c.rest)
	if size <= 0 || c.bad {
		c.bad = true
		return 0
	}
	c.rest = c.rest[size:]
	return n
}

func (c *cursor) upTo(most uint64) uint64 {
	n := c.number()
	if n > most {
		c.bad = true
		return 0
	}
	return n
}

func (c *cursor) positive() int64 { return int64(c.upTo(math.MaxInt64)) }

func (c *cursor) small() uint64 { return c.upTo(math.MaxInt32) }

func (c *cursor) offset() broker.Offset { return broker.Offset(c.positive()) }

func (c *cursor) node() broker.NodeID { return broker.NodeID(c.small()) }

func (c *cursor) epoch() broker.LeaderEpoch {
	return broker.LeaderEpoch(int64(c.upTo(math.MaxInt32+1)) - 1)
}

// subscription is never 0, which stands for none.
func (c *cursor) subscription() partition.SubscriptionID {
	n := c.number()
	c.check(n != 0)
	return partition.SubscriptionID(n)
}

func (c *cursor) stream() Stream {
	s := Stream(c.octet())
	c.check(s <= Bulk)
	return s
}

func (c *cursor) octet() byte {
	if b := c.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (c *cursor) uuid() (u broker.UUID) {
	copy(u[:], c.bytes(len(u)))
	return u
}

// count reads the length of a list whose items take at least itemBytes each, so that a count alone makes nobody allocate.
func (c *cursor) count(most, itemBytes int) int {
	n := c.upTo(uint64(most))
	if n > uint64(len(c.rest)/itemBytes) {
		c.bad = true
		return 0
	}
	return int(n)
}

func (c *cursor) bytes(n int) []byte {
	if c.bad || n > len(c.rest) {
		c.bad = true
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) end(t Type) error {
	switch {
	case c.bad:
		return fmt.Errorf("%w: %s with a field that cannot be", ErrMalformed, t)
	case len(c.rest) > 0:
		return fmt.Errorf("%w: %s with %d bytes too many", ErrMalformed, t, len(c.rest))
	}
	return nil
}
