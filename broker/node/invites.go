package node

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// A token is the way into a cluster for one new node, once (RM7). It carries a ticket, which whoever holds the key of the
// cluster's authority can check, and the digest of the authority's certificate, by which the newcomer knows that it talks to
// that cluster. Nothing of it is kept anywhere:
//
//	"mrj2." base64url(ticket, 32 bytes SHA-256 of the authority's certificate)
//	ticket: u64 metadata index, i64 Unix milliseconds of its end, 32 bytes HMAC-SHA-256 of cluster, node and both; little-endian
//
// It is good once because a node is a member from the index on at which it joined: a member of that number beyond the ticket's
// index has used it, or a newer one.
const (
	tokenPrefix = "mrj2."
	ticketBytes = 16 + sha256.Size
	// ticketLasts is how long a token is good for.
	ticketLasts = time.Hour
)

// token is one, taken apart.
type token struct {
	ticket    [ticketBytes]byte
	authority [sha256.Size]byte
}

func (t token) String() string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(t.ticket[:], t.authority[:]...))
}

func parseToken(text string) (token, error) {
	var t token
	body, ok := strings.CutPrefix(text, tokenPrefix)
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if !ok || err != nil || len(raw) != ticketBytes+sha256.Size {
		return t, errors.New("the token is not whole: copy all of what `raftctl controller members add` printed")
	}
	copy(t.ticket[:], raw)
	copy(t.authority[:], raw[ticketBytes:])
	return t, nil
}

// tickets makes and checks the tickets of a cluster.
type tickets struct {
	cluster broker.ClusterID
	key     []byte
	now     func() time.Time
}

// ticket is one for a node that has not joined up to an index.
func (s tickets) ticket(node broker.NodeID, after broker.Index) (t [ticketBytes]byte) {
	binary.LittleEndian.PutUint64(t[:], uint64(after))
	binary.LittleEndian.PutUint64(t[8:], uint64(s.now().Add(ticketLasts).UnixMilli()))
	copy(t[16:], s.seal(node, t[:16]))
	return t
}

// check returns the index of a node's ticket.
func (s tickets) check(ticket []byte, node broker.NodeID) (after broker.Index, err error) {
	switch {
	case len(ticket) != ticketBytes:
		return 0, errors.New("the token is not whole")
	case !hmac.Equal(ticket[16:], s.seal(node, ticket[:16])):
		return 0, fmt.Errorf("the token is not one of this cluster's for node %d", node)
	case s.now().UnixMilli() > int64(binary.LittleEndian.Uint64(ticket[8:])):
		return 0, fmt.Errorf("the token ended %s after it was made", ticketLasts)
	}
	return broker.Index(binary.LittleEndian.Uint64(ticket)), nil
}

func (s tickets) seal(node broker.NodeID, body []byte) []byte {
	mac := hmac.New(sha256.New, s.key)
	mac.Write(s.cluster[:])
	mac.Write(binary.LittleEndian.AppendUint32(nil, uint32(node)))
	mac.Write(body)
	return mac.Sum(nil)
}
