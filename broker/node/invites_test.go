package node

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// RM7: a token is good for one node of one cluster, for an hour; nothing about it can be changed.
func TestATicketIsForOneNodeForAnHour(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	s := tickets{cluster: broker.ClusterID{1}, key: []byte("key"), now: func() time.Time { return now }}
	ticket := s.ticket(4, 99)
	if after, err := s.check(ticket[:], 4); err != nil || after != 99 {
		t.Fatal(after, err)
	}
	if _, err := s.check(ticket[:], 5); err == nil {
		t.Error("it is good for another node")
	}
	for i := range ticket {
		forged := ticket
		forged[i] ^= 1
		if _, err := s.check(forged[:], 4); err == nil {
			t.Errorf("it is good with byte %d changed", i)
		}
	}
	if _, err := s.check(ticket[:16], 4); err == nil {
		t.Error("it is good without its seal")
	}
	for _, other := range []tickets{{cluster: broker.ClusterID{2}, key: s.key, now: s.now}, {cluster: s.cluster, key: []byte("yek"), now: s.now}} {
		if _, err := other.check(ticket[:], 4); err == nil {
			t.Error("it is good for another cluster")
		}
	}
	now = now.Add(time.Hour)
	if _, err := s.check(ticket[:], 4); err != nil {
		t.Error(err)
	}
	now = now.Add(time.Millisecond)
	if _, err := s.check(ticket[:], 4); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("an hour later: %v", err)
	}
}

// A token made at any node is good at any other, outlives the restart of every one of them, and is good once.
func TestATokenOutlivesWhoMadeIt(t *testing.T) {
	c := newSettledTrio(t)
	token, _, err := c.nodes[2].cluster.invite(t.Context(), 4) // It does not hold the authority's key.
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.nodes {
		c.stop(i)
		c.nodes[i] = c.seats[i].start()
	}
	c.await("node 2 reaches the holder of the key", func() bool { return len(c.nodes[1].cluster.fabric.Connected()) == 2 })
	join := func(token string) error {
		at := c.nodes[1].Addresses().Cluster // Nor does this one.
		_, err := Join(t.Context(), SystemSeams(), JoinSpec{Data: t.TempDir(), Node: 4, Cluster: at, Token: token})
		return err
	}
	if err := join(token); err != nil {
		t.Fatal(err)
	}
	if err := join(token); err == nil || !strings.Contains(err.Error(), "it was used") {
		t.Errorf("a token was good for a second directory: %v", err)
	}
	// Whoever asked is told each time, and the log once.
	before := c.refusedBy(1)
	if err := join(token); err == nil {
		t.Error("a token was good for a third directory")
	}
	if said := strings.Count(c.seats[1].log.String(), "node 4 does not join: the token"); said != 1 || c.refusedBy(1) != before+1 {
		t.Errorf("said %d times, refused %d times more", said, c.refusedBy(1)-before)
	}
	again, _, err := c.nodes[1].cluster.invite(t.Context(), 4) // As after a join that was broken off.
	if err != nil {
		t.Fatal(err)
	}
	if err := join(again); err != nil {
		t.Error(err)
	}
	c.stop(0)
	if _, _, err := c.nodes[1].cluster.invite(t.Context(), 5); err == nil || !strings.Contains(err.Error(), "tls/ca.key") {
		t.Errorf("without any holder of the key: %v", err)
	}
}
