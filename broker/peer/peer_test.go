package peer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/transport"
)

var (
	ours   = broker.ClusterID{1}
	theirs = broker.ClusterID{2}
)

// authority signs the certificates of a test's nodes.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if ca, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	return &authority{t, ca, key}
}

// tls returns both sides' configurations for a node with a certificate from the authority.
func (a *authority) tls(cluster broker.ClusterID, node broker.NodeID) (server, client *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{NodeURI(cluster, node)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	pair := tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
	server = &tls.Config{NextProtos: []string{"test"}, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	client = &tls.Config{NextProtos: []string{"test"}, Certificates: []tls.Certificate{pair}, RootCAs: pool, InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool})
			return err
		}}
	return server, client
}

// house is a node of a test: it notes what arrives, and answers questions with what they say.
type house struct {
	fabric  *Fabric
	address string
	log     lockedBuffer
	sent    atomic.Int64 // heartbeats
	lost    atomic.Int64 // lifelines that it held

	mu      sync.Mutex
	targets []Target
	admit   func(Peer) error
	raft    [][]byte
	beats   map[broker.NodeID]Heartbeat
	refused int
	closed  []Peer // whose lifeline did
	held    broker.Index
	gone    int // how often it was told that it was removed
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}
func (b *lockedBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.text.String() }

func (h *house) OnRaft(_ Peer, m []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.raft = append(h.raft, m)
}
func (h *house) OnHeartbeat(p Peer, b Heartbeat) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beats[p.Node] = b
}
func (h *house) Answer(_ context.Context, from Peer, question []byte) []byte {
	return fmt.Appendf(nil, "%s from %d", question, from.Node)
}
func (h *house) Serve(_ context.Context, _ Peer, _, subject string, stream *transport.Stream) error {
	if _, err := stream.Write(bytes.Repeat([]byte(subject), 1000)); err != nil {
		return err
	}
	err := stream.Stream.Close()
	_, _ = stream.Read(make([]byte, 1)) // until the other side has it
	return err
}
func (h *house) Heartbeat() Heartbeat {
	sent := h.sent.Add(1)
	return Heartbeat{Epoch: 7, Applied: 9, SentMs: sent, LedAgoMs: -sent}
}
func (h *house) Held(broker.RaftID) broker.Index { h.mu.Lock(); defer h.mu.Unlock(); return h.held }
func (h *house) CheckHeld(_ Peer, held broker.Index) error {
	if held > 100 {
		return errors.New("the directory is of an earlier time")
	}
	return nil
}
func (h *house) OnLifelineLost()   { h.lost.Add(1) }
func (h *house) Targets() []Target { h.mu.Lock(); defer h.mu.Unlock(); return h.targets }
func (h *house) Admit(p Peer) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.admit != nil {
		return h.admit(p)
	}
	return nil
}
func (h *house) OnRemoved(by broker.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if by == 1 {
		h.gone++
	}
}
func (h *house) OnRefused() { h.mu.Lock(); defer h.mu.Unlock(); h.refused++ }
func (h *house) OnLifelineClosed(_ context.Context, of Peer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = append(h.closed, of)
}

// open makes a node: its certificate is that of node in cluster, what it says of itself is self.
func (a *authority) open(cluster broker.ClusterID, node broker.NodeID, self Self) *house {
	a.t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	socket, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		a.t.Fatal(err)
	}
	server, client := a.tls(cluster, node)
	peers, err := transport.ListenPeers(socket, server, client, transport.Settings{})
	if err != nil {
		a.t.Fatal(err)
	}
	h := &house{address: socket.LocalAddr().String(), beats: map[broker.NodeID]Heartbeat{}}
	h.fabric = New(self, peers, Lifelines{Dial: transport.System{}.Dial, Client: client}, h, zerolog.New(&h.log))
	h.fabric.Start(context.Background())
	lines := task.NewGroup(context.Background())
	lines.Go("accept lifelines", func(ctx context.Context) error { return h.acceptLifelines(lines, tls.NewListener(tcp, server)) })
	a.t.Cleanup(func() {
		lines.Stop()
		if err := errors.Join(tcp.Close(), lines.Wait()); err != nil {
			a.t.Error(err)
		}
		if err := h.fabric.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			a.t.Error(err)
		}
	})
	return h
}

// acceptLifelines does what a node does on its TCP port.
func (h *house) acceptLifelines(lines *task.Group, listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nil
		}
		lines.Go("serve a lifeline", func(ctx context.Context) error {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.(*tls.Conn).NetConn().Close() })()
			if conn.(*tls.Conn).HandshakeContext(ctx) == nil {
				_ = h.fabric.ServeLifeline(ctx, conn.(*tls.Conn)) // What it says is in the log.
			}
			return nil
		})
	}
}

func self(node broker.NodeID) Self {
	s := Self{Cluster: ours, Node: node, Raft: broker.RaftID(node), Directory: broker.DirectoryID{byte(node)}}
	if _, err := rand.Read(s.Incarnation[:]); err != nil {
		panic(err)
	}
	return s
}

func (h *house) dial(targets ...Target) { h.mu.Lock(); defer h.mu.Unlock(); h.targets = targets }

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for began := time.Now(); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("10 s without: %s", what)
		}
	}
}

// RH12: whoever dialled, heartbeats, raft and questions go both ways, and a file over a connection of its own.
func TestAControlConnectionCarriesEverythingBothWays(t *testing.T) {
	ca := newAuthority(t)
	one, two := ca.open(ours, 1, self(1)), ca.open(ours, 2, self(2))
	two.dial(Target{Address: one.address, Node: broker.NoNode}, Target{Address: two.address, Node: broker.NoNode}) // A seed may be oneself.
	await(t, "a connection", func() bool { return len(one.fabric.Connected()) == 1 && len(two.fabric.Connected()) == 1 })
	for _, pair := range []struct {
		from, to *house
		node     broker.RaftID
		own      int
	}{{one, two, 2, 1}, {two, one, 1, 2}} {
		answer, err := pair.from.fabric.Ask(t.Context(), pair.node, []byte("hello"))
		if want := fmt.Sprintf("hello from %d", pair.own); err != nil || string(answer) != want {
			t.Errorf("answer %q (%v), want %q", answer, err, want)
		}
		if !pair.from.fabric.SendRaft(pair.node, []byte("message")) {
			t.Error("a raft message was dropped")
		}
		await(t, "a raft message", func() bool { pair.to.mu.Lock(); defer pair.to.mu.Unlock(); return len(pair.to.raft) == 1 })
		before := pair.to.sent.Load()
		await(t, "a heartbeat that answers one sent later", func() bool {
			pair.to.mu.Lock()
			defer pair.to.mu.Unlock()
			b := pair.to.beats[broker.NodeID(pair.own)]
			return b.Epoch == 7 && b.Applied == 9 && b.SentMs == -b.LedAgoMs && b.AnswersMs > before && b.AnswersMs <= pair.to.sent.Load()
		})
		stream, done, err := pair.from.fabric.Open(t.Context(), Target{Address: pair.to.address, Raft: pair.node, Node: broker.NodeID(pair.node)}, KindSnapshot, "file")
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := got.ReadFrom(stream); err != nil || got.Len() != 4000 {
			t.Errorf("%d bytes of a file (%v), want 4000", got.Len(), err)
		}
		done()
	}
	if _, err := one.fabric.Ask(t.Context(), 3, nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody was asked, and the error is %v", err)
	}
	if one.fabric.SendRaft(3, nil) {
		t.Error("a message to nobody was sent")
	}
}

// A peer that ends is noticed at once, and dialled again when it is back at another address that a seed tells.
func TestAPeerThatComesBackIsConnectedAgain(t *testing.T) {
	ca := newAuthority(t)
	one, two := ca.open(ours, 1, self(1)), ca.open(ours, 2, self(2))
	two.dial(Target{Address: one.address, Node: 1, Raft: 1})
	await(t, "a connection", func() bool { return len(two.fabric.Connected()) == 1 })
	if err := one.fabric.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "its end", func() bool { return len(two.fabric.Connected()) == 0 })
	again := ca.open(ours, 1, self(1))
	two.dial(Target{Address: one.address, Node: 1, Raft: 1}, Target{Address: again.address, Node: broker.NoNode})
	await(t, "a connection again", func() bool { return len(two.fabric.Connected()) == 1 })
}

// Bad input: whoever does not belong is refused with a sentence that names what and why, logged once however often it comes,
// and counted. X6, X12, F18.
func TestStrangersAreRefusedWithReasons(t *testing.T) {
	ca := newAuthority(t)
	for _, c := range []struct {
		name    string
		cluster broker.ClusterID // of the certificate
		node    broker.NodeID    // of the certificate
		self    Self
		target  broker.NodeID
		admit   func(Peer) error
		why     string
	}{
		{name: "another cluster", cluster: ours, node: 2, self: Self{Cluster: theirs, Node: 2, Raft: 2}, target: 1, why: "belongs to cluster"},
		{name: "a certificate of another cluster", cluster: theirs, node: 2, self: self(2), target: 1, why: "its certificate is of cluster"},
		{name: "another node's certificate", cluster: ours, node: 3, self: self(2), target: 1, why: "its certificate is node 3's"},
		{name: "a wrong address", cluster: ours, node: 2, self: self(2), target: 5, why: "looks for node 5, this is node 1"},
		{name: "a removed member", cluster: ours, node: 2, self: self(2), target: 1, admit: func(Peer) error { return fmt.Errorf("no member: %w", ErrRemoved) }, why: "it was removed"},
		{name: "this node's own directory, copied", cluster: ours, node: 1, self: self(1), target: 1, why: "was copied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			one := ca.open(ours, 1, self(1))
			one.admit = c.admit
			stranger := ca.open(c.cluster, c.node, c.self)
			stranger.dial(Target{Address: one.address, Node: c.target})
			count := func() int { one.mu.Lock(); defer one.mu.Unlock(); return one.refused }
			await(t, "refusals", func() bool { return count() >= 3 })
			for _, log := range []string{one.log.String(), stranger.log.String()} {
				if got := strings.Count(log, c.why); got != 1 {
					t.Errorf("%q stands %d times in:\n%s", c.why, got, log)
				}
			}
			stranger.mu.Lock()
			if told := stranger.gone > 0; told != (c.admit != nil) {
				t.Errorf("told that it was removed: %v", told)
			}
			stranger.mu.Unlock()
			if len(one.fabric.Connected())+len(stranger.fabric.Connected()) != 0 {
				t.Error("they are connected")
			}
		})
	}
}

// F18: of two processes with one directory the second is refused while the first lives, and taken when it has ended.
func TestACopiedDirectoryIsRefusedWhileTheOriginalLives(t *testing.T) {
	ca := newAuthority(t)
	one := ca.open(ours, 1, self(1))
	original, duplicate := ca.open(ours, 2, self(2)), ca.open(ours, 2, self(2))
	original.dial(Target{Address: one.address, Node: 1, Raft: 1})
	await(t, "the original", func() bool { return len(one.fabric.Connected()) == 1 })
	duplicate.dial(Target{Address: one.address, Node: 1, Raft: 1})
	await(t, "a refusal", func() bool { return strings.Contains(duplicate.log.String(), "a directory cannot be copied") })
	if err := original.fabric.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the copy, now alone", func() bool { return len(duplicate.fabric.Connected()) == 1 })
}

// A stranger without a certificate of the cluster's authority gets no further than TLS.
func TestAnotherAuthorityEndsInTheHandshake(t *testing.T) {
	one := newAuthority(t).open(ours, 1, self(1))
	stranger := newAuthority(t).open(ours, 2, self(2))
	stranger.dial(Target{Address: one.address, Node: 1})
	await(t, "the stranger's complaint", func() bool { return strings.Contains(stranger.log.String(), "certificate") })
	await(t, "a second refusal", func() bool { one.mu.Lock(); defer one.mu.Unlock(); return one.refused > 1 })
	if said := strings.Count(one.log.String(), "refused by the other side: it does not take this node's certificate"); said != 1 {
		t.Errorf("who was dialled says so %d times:\n%s", said, one.log.String())
	}
	if len(one.fabric.Connected()) != 0 {
		t.Error("they are connected")
	}
}

// A node that others know to have held more speaks with nobody: they need not trust its word, it need not hear of it first.
func TestANodeWhoseDirectoryIsOfAnEarlierTimeTalksToNobody(t *testing.T) {
	for _, dials := range []bool{true, false} {
		ca := newAuthority(t)
		one, two := ca.open(ours, 1, self(1)), ca.open(ours, 2, self(2))
		one.mu.Lock()
		one.held = 101 // what it knows of the other
		one.mu.Unlock()
		if dials {
			one.dial(Target{Address: two.address, Node: 2, Raft: 2})
		} else {
			two.dial(Target{Address: one.address, Node: 1, Raft: 1})
		}
		await(t, "a refusal", func() bool { return strings.Contains(two.log.String(), "of an earlier time") })
		if len(two.fabric.Connected()) != 0 {
			t.Error("they are connected")
		}
	}
}

// What is no HELLO is counted each time, and told once whoever sends it.
func TestBytesThatAreNoHelloAreRefused(t *testing.T) {
	ca := newAuthority(t)
	one := ca.open(ours, 1, self(1))
	_, client := ca.tls(ours, 2)
	for range 3 {
		conn, err := tls.Dial("tcp", one.address, client)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
			t.Error(err)
		}
		_, _ = conn.Read(make([]byte, 1)) // its end
		_ = conn.Close()
	}
	await(t, "three refusals", func() bool { one.mu.Lock(); defer one.mu.Unlock(); return one.refused == 3 })
	if said := strings.Count(one.log.String(), "refused by this node: what it says cannot be read"); said != 1 {
		t.Errorf("it is said %d times:\n%s", said, one.log.String())
	}
}

// A complaint that goes on is told once, though other peers come and go meanwhile; what happens behind a connection is news.
func TestAComplaintIsToldOnceForAsLongAsItGoesOn(t *testing.T) {
	ca := newAuthority(t)
	one, two := ca.open(ours, 1, self(1)), ca.open(ours, 2, self(2))
	complain := func() {
		one.fabric.tell(&RefusedError{Address: "10.0.0.1:1", By: thisNode, Why: "the directory is in use"})
		one.fabric.tell(fmt.Errorf("dial quic %s: no answer", two.address))
	}
	complain()
	complain()
	one.dial(Target{Address: two.address, Node: 2, Raft: 2})
	await(t, "a connection", func() bool { return len(one.fabric.Connected()) == 1 })
	complain()
	for text, want := range map[string]int{"the directory is in use": 1, "no answer": 2} {
		if said := strings.Count(one.log.String(), text); said != want {
			t.Errorf("%q is said %d times, want %d:\n%s", text, said, want, one.log.String())
		}
	}
}
