package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// A token is the way into a cluster for one new node, once (RM7). It carries a secret, which the node that made it knows,
// and the digest of the cluster's authority, by which the newcomer knows that it talks to that cluster:
//
//	"mrj1." base64url(16 bytes secret, 32 bytes SHA-256 of the authority's certificate)
const (
	tokenPrefix = "mrj1."
	secretBytes = 16
	// inviteLasts is how long a token is good for.
	inviteLasts = time.Hour
	invitesMax  = 128
)

// token is one, taken apart.
type token struct {
	secret    [secretBytes]byte
	authority [sha256.Size]byte
}

func (t token) String() string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(t.secret[:], t.authority[:]...))
}

func parseToken(text string) (token, error) {
	var t token
	body, ok := strings.CutPrefix(text, tokenPrefix)
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if !ok || err != nil || len(raw) != secretBytes+sha256.Size {
		return t, errors.New("the token is not whole: copy all of what `raftctl controller members add` printed")
	}
	copy(t.secret[:], raw)
	copy(t.authority[:], raw[secretBytes:])
	return t, nil
}

// invites are the tokens that this process has made and nobody has used. They do not outlive it.
type invites struct {
	now func() time.Time

	mu   sync.Mutex
	open map[[secretBytes]byte]invite // guarded by mu
}

type invite struct {
	node  broker.NodeID
	until time.Time
}

func newInvites(now func() time.Time) invites {
	return invites{now: now, open: map[[secretBytes]byte]invite{}}
}

// add makes the secret of a token for a node.
func (i *invites) add(node broker.NodeID) (secret [secretBytes]byte, err error) {
	if _, err := io.ReadFull(rand.Reader, secret[:]); err != nil {
		return secret, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for s, open := range i.open {
		if i.now().After(open.until) || open.node == node {
			delete(i.open, s) // The newest token of a node is the one that counts.
		}
	}
	if len(i.open) >= invitesMax {
		return secret, broker.Errorf(broker.PolicyViolation, "%d tokens are unused: use them, or wait until they end", len(i.open))
	}
	i.open[secret] = invite{node: node, until: i.now().Add(inviteLasts)}
	return secret, nil
}

// take uses a token up.
func (i *invites) take(secret [secretBytes]byte, node broker.NodeID) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	open, ok := i.open[secret]
	switch {
	case !ok:
		return errors.New("the token is not known here: it was used, or made by another node, or the node has restarted since")
	case i.now().After(open.until):
		return fmt.Errorf("the token ended %s after it was made", inviteLasts)
	case open.node != node:
		return fmt.Errorf("the token is for node %d, not for node %d", open.node, node)
	}
	delete(i.open, secret)
	return nil
}
