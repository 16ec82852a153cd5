package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/peer"
	"github.com/millrace-io/millrace/internal/transport"
	"github.com/millrace-io/millrace/internal/vfs"
)

// impostor speaks with nodes as one of them, by its certificate, and says of itself what it likes.
type impostor struct {
	to     peer.Target
	held   broker.Index // what it says that everybody's directory has held
	log    journal
	fabric *peer.Fabric
}

func (i *impostor) OnRaft(peer.Peer, []byte)                         {}
func (i *impostor) OnHeartbeat(peer.Peer, peer.Heartbeat)            {}
func (i *impostor) Answer(context.Context, peer.Peer, []byte) []byte { return nil }
func (i *impostor) Heartbeat() peer.Heartbeat                        { return peer.Heartbeat{} }
func (i *impostor) Targets() []peer.Target                           { return []peer.Target{i.to} }
func (i *impostor) Admit(peer.Peer) error                            { return nil }
func (i *impostor) Held(broker.RaftID) broker.Index                  { return i.held }
func (i *impostor) CheckHeld(peer.Peer, broker.Index) error          { return nil }
func (i *impostor) OnRemoved(broker.NodeID)                          {}
func (i *impostor) OnRefused()                                       {}
func (i *impostor) OnLifelineClosed(context.Context, peer.Peer)      {}
func (i *impostor) OnLifelineLost()                                  {}
func (i *impostor) Serve(_ context.Context, _ peer.Peer, _, _ string, _ *transport.Stream) error {
	return nil
}

// impostor has somebody with node 3's certificate dial node 1, as a raft id.
func (c *trio) impostor(raft broker.RaftID, held broker.Index) *impostor {
	c.t.Helper()
	own := c.nodes[2].cluster.certificates
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	peers, err := transport.ListenPeers(socket, peerServer(own), peerClient(own), transport.Settings{})
	if err != nil {
		c.t.Fatal(err)
	}
	i := &impostor{to: peer.Target{Address: c.nodes[0].Addresses().Cluster, Node: 1}, held: held}
	self := peer.Self{
		Cluster: c.nodes[2].identity.Cluster, Node: 3, Raft: raft, Directory: broker.DirectoryID{9}, Incarnation: broker.UUID{9},
	}
	i.fabric = peer.New(self, peers, peer.Lifelines{}, i, zerolog.New(&i.log))
	i.fabric.Start(c.t.Context())
	c.t.Cleanup(func() { _ = i.fabric.Close() })
	return i
}

// refusedBy is how many refusals a node has counted.
func (c *trio) refusedBy(i int) int {
	c.t.Helper()
	count, err := strconv.Atoi(scrape(c.t, c.nodes[i])["millrace_peers_refused_total"])
	if err != nil {
		c.t.Fatal(err)
	}
	return count
}

// A removed node keeps its certificate, and may say that every directory is of an earlier time: none ends at its word,
// whatever raft id it comes with.
func TestNoNodeEndsAtTheWordOfWhoIsNoMember(t *testing.T) {
	c := newTrio(t)
	for _, raft := range []broker.RaftID{2, 1 << 40} { // one that was never a member's, and one that may become one's
		i := c.impostor(raft, 1<<50)
		c.await("a refusal", func() bool { return strings.Contains(i.log.String(), "refused by node 1") })
	}
	if c.refusedBy(0) < 2 {
		t.Error("the refusals are not counted")
	}
	select {
	case <-c.nodes[0].failed:
		t.Fatal("the node ends")
	default:
	}
	c.replicated("orders", 1) // the cluster goes on
}

// A node may be connected with one that it does not know of yet, since it may be behind. It gives it nothing, though.
func TestWhoIsNoMemberIsAnsweredNothing(t *testing.T) {
	c := newTrio(t)
	i := c.impostor(1<<40, 0)
	c.await("the connection", func() bool { return len(i.fabric.Connected()) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	to := c.nodes[0].identity.Raft
	request, err := controller.EncodeRequest(controller.CreateTopic{Name: "theirs", ID: broker.TopicID{7}, Partitions: 1, ReplicationFactor: 1})
	if err != nil {
		t.Fatal(err)
	}
	node := broker.NodeID(9)
	invite, err := json.Marshal(authorityQuestion{Invite: &node})
	if err != nil {
		t.Fatal(err)
	}
	before := c.refusedBy(0)
	for _, question := range [][]byte{append([]byte{askController}, request...), append([]byte{askAuthority}, invite...), {askReport, '{', '}'}} {
		answer, err := i.fabric.Ask(ctx, to, question)
		if err != nil {
			t.Fatal(err)
		}
		_, _, refusal, err := controller.DecodeAnswer(answer)
		if broker.CodeOf(refusal) != broker.NotController {
			t.Errorf("question %q is answered with %q (%v, %v)", question[0], answer, refusal, err)
		}
	}
	if _, exists := c.nodes[0].quorum.Image().TopicNamed("theirs"); exists {
		t.Error("a topic was made")
	}
	// A connection of another kind ends before or behind its HELLO, and brings nothing.
	if stream, done, err := i.fabric.Open(ctx, peer.Target{Address: i.to.Address, Node: 1, Raft: to}, peer.KindSnapshot, "x"); err == nil {
		_ = stream.SetReadDeadline(time.Now().Add(within))
		if b, err := io.ReadAll(stream); len(b) > 0 || err == nil {
			t.Errorf("a connection of another kind brings %d bytes and ends with %v", len(b), err)
		}
		done()
	}
	if got := c.refusedBy(0) - before; got != 4 {
		t.Errorf("%d refusals are counted, want 4", got)
	}
}

// A node of another cluster that is given this one's seeds: who it is and why it is refused stands in the logs of both, once,
// and is counted, over QUIC and TCP.
func TestAnotherClustersNodeIsToldOnBothSides(t *testing.T) {
	c := foundTrio(t)
	other := newSeat(t, vfs.OS{}, t.TempDir()).format()
	other.config.Seeds = []string{c.nodes[0].Addresses().Cluster}
	n := other.start()
	defer func() { _ = n.stop(false) }()
	c.await("refusals on both sides", func() bool {
		return c.refusedBy(0) > 1 && scrape(t, n)["millrace_peers_refused_total"] != "0"
	})
	for log, want := range map[string]string{
		other.log.String():      "refused by this node: its certificate, which names node 1 of cluster " + c.nodes[0].identity.Cluster.String() + ", is not vouched for",
		c.seats[0].log.String(): "refused by the other side: it does not take this node's certificate: it is of another cluster",
	} {
		if said := strings.Count(log, want); said != 1 {
			t.Errorf("%q is said %d times:\n%s", want, said, log)
		}
	}
	own := n.cluster.certificates
	for _, tc := range []struct {
		alpn, want string
		show       func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	}{
		{peer.ALPNLifeline, "its certificate, which names node 1 of cluster " + n.identity.Cluster.String() + ", is not vouched for", peerClient(own).GetClientCertificate},
		{peer.ALPNLifeline, "it shows no certificate", nil},
	} {
		before := c.refusedBy(0)
		conn, err := tls.Dial("tcp", c.nodes[0].Addresses().Cluster, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{tc.alpn}, GetClientCertificate: tc.show})
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		if err == nil {
			t.Errorf("%s: served", tc.want)
		}
		c.await(tc.want, func() bool {
			return strings.Count(c.seats[0].log.String(), "refused by this node: "+tc.want) == 1 && c.refusedBy(0) > before
		})
	}
}
