package replica

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/replica/wire"
	"github.com/millrace-io/millrace/internal/transport"
	"github.com/millrace-io/millrace/internal/vfs"
)

// authority signs the certificates of a cluster's nodes.
type authority struct {
	t           testing.TB
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newAuthority(t testing.TB) authority {
	a := authority{t: t}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cluster"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err == nil {
		a.certificate, err = x509.ParseCertificate(raw)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// config is the TLS configuration of a node, for both directions.
func (a authority) config(node broker.NodeID) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(int64(node) + 1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		URIs:        []*url.URL{{Scheme: "millrace", Host: "test", Path: fmt.Sprintf("/node/%d", node)}},
	}
	raw, err := x509.CreateCertificate(rand.Reader, leaf, a.certificate, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{transport.ALPNReplication}, RootCAs: pool, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}},
	}
}

// nodeOf is who a stream's certificate names.
func nodeOf(stream net.Conn) (node broker.NodeID, err error) {
	certificates := stream.(*transport.Stream).TLS().PeerCertificates
	if len(certificates) == 0 || len(certificates[0].URIs) != 1 {
		return 0, errors.New("no certificate of a node")
	}
	_, err = fmt.Sscanf(certificates[0].URIs[0].Path, "/node/%d", &node)
	return node, err
}

// quicPeers is what carries sessions between the nodes of a test over real sockets: a listener for each node, and a dialer,
// with connections of its own, for each node and stream.
type quicPeers struct {
	authority authority
	settings  transport.Settings

	mu        sync.Mutex
	listeners map[broker.NodeID]*transport.QUICListener
	dialers   map[broker.NodeID][2]*transport.QUICDialer
}

func newQUICPeers(t testing.TB) *quicPeers {
	return &quicPeers{
		authority: newAuthority(t), settings: transport.Settings{IdleTimeout: 5 * time.Second},
		listeners: map[broker.NodeID]*transport.QUICListener{}, dialers: map[broker.NodeID][2]*transport.QUICDialer{},
	}
}

func (q *quicPeers) socket() net.PacketConn {
	socket, err := transport.ListenUDP(context.Background(), "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		q.authority.t.Fatal(err)
	}
	return socket
}

// add brings a member to the network.
func (q *quicPeers) add(m *member) {
	t := q.authority.t
	config := q.authority.config(m.node)
	listener, err := transport.ListenQUIC(context.Background(), q.socket(), config, q.settings)
	if err != nil {
		t.Fatal(err)
	}
	dialers := [2]*transport.QUICDialer{}
	for i := range dialers {
		dialers[i] = transport.DialQUIC(q.socket(), config, q.settings, nil)
	}
	q.mu.Lock()
	q.listeners[m.node], q.dialers[m.node] = listener, dialers
	q.mu.Unlock()
	set := m.set
	m.tasks.Go("accept", func(ctx context.Context) error {
		for {
			stream, err := listener.Accept()
			if err != nil {
				return nil
			}
			m.tasks.Go("serve", func(ctx context.Context) error {
				peer, err := nodeOf(stream)
				if err != nil {
					return stream.Close()
				}
				_ = set.Serve(ctx, peer, stream)
				return nil
			})
		}
	})
}

// remove takes a member off the network, as the end of its process does.
func (q *quicPeers) remove(node broker.NodeID) {
	q.mu.Lock()
	listener, dialers := q.listeners[node], q.dialers[node]
	delete(q.listeners, node)
	q.mu.Unlock()
	if listener == nil {
		return
	}
	if err := errors.Join(listener.Close(), dialers[0].Close(), dialers[1].Close()); err != nil {
		q.authority.t.Error(err)
	}
}

// quicDialer is one node's way to the others.
type quicDialer struct {
	peers *quicPeers
	self  broker.NodeID
}

// Dial implements Dialer: the other end must be the node that is meant, by its certificate.
func (d quicDialer) Dial(ctx context.Context, node broker.NodeID, stream wire.Stream) (net.Conn, error) {
	d.peers.mu.Lock()
	listener, dialer := d.peers.listeners[node], d.peers.dialers[d.self][stream]
	d.peers.mu.Unlock()
	if listener == nil || dialer == nil {
		return nil, errors.New("no such node")
	}
	conn, err := dialer.DialContext(ctx, "udp", listener.Addr().String())
	if err != nil {
		return nil, err
	}
	if who, err := nodeOf(conn); err != nil || who != node {
		return nil, errors.Join(fmt.Errorf("node %d answers for node %d: %w", who, node, err), conn.Close())
	}
	return conn, nil
}

// TestReplicationOverQUIC is the whole of it on real sockets with mutual TLS: acknowledged by three, a follower killed and back
// over the bulk stream, large batches, another leader.
func TestReplicationOverQUIC(t *testing.T) {
	peers := newQUICPeers(t)
	c := newClusterWith(t, 0, func(*Replication) {})
	c.overQUIC(peers, 3, nil)
	defer func() {
		for n := range c.members {
			peers.remove(n)
		}
		c.stop()
	}()
	c.place(orders, 2, 3, 1, 2, 3)
	for i := range 200 {
		c.must(orders, fmt.Sprint("record ", i), 3)
	}
	c.must(orders, strings.Repeat("x", 5<<20), 1)
	c.level(orders, 2, 3)

	peers.remove(3)
	c.members[3].crash()
	c.leave(orders, 3)
	for range 40 {
		c.must(orders, strings.Repeat("y", 200<<10), 1)
	}
	c.restart(3, orders)
	peers.add(c.members[3])
	c.insync(orders, 20*time.Second, 1, 2, 3)
	c.level(orders, 2, 3)

	c.elect(orders, 2, 1, 2, 3)
	for i := range 200 {
		c.must(orders, fmt.Sprint("of the second leader ", i), 1)
	}
	c.level(orders, 1, 3)
	for n, m := range c.members {
		if counts := m.set.ReplicationCounts(); counts.Stops != 0 && n != 1 {
			t.Errorf("node %d: %+v", n, counts)
		}
	}
}

// overQUIC starts nodes whose sessions run over real sockets.
func (c *cluster) overQUIC(peers *quicPeers, nodes int, disk func() (vfs.FS, string)) {
	for n := range nodes {
		id := broker.NodeID(n + 1)
		m := &member{c: c, node: id, fs: vfs.NewMem(), dir: "/data", offline: make(chan error, 8), dialer: quicDialer{peers, id}}
		if disk != nil {
			m.disk, m.dir = disk()
		}
		c.members[id] = m
		m.start()
		peers.add(m)
	}
}

// BenchmarkReplicated is acks=all from three nodes over real sockets, in batches of 64 records of 1 KiB from 16 callers. Files
// go where TMPDIR says; on a file system in memory a sync is free.
func BenchmarkReplicated(b *testing.B) {
	peers := newQUICPeers(b)
	c := newClusterWith(b, 0, func(*Replication) {})
	c.overQUIC(peers, 3, func() (vfs.FS, string) { return vfs.OS{}, b.TempDir() })
	defer func() {
		for n := range c.members {
			peers.remove(n)
		}
		c.stop()
	}()
	c.place(orders, 2, 3, 1, 2, 3)
	c.must(orders, "before", 1)
	batch := records(b, -1, 0, 64, strings.Repeat("x", 1000))
	b.SetBytes(int64(len(batch)))
	b.SetParallelism(16 / runtime.GOMAXPROCS(0))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		own := bytes.Clone(batch)
		for pb.Next() {
			copy(own, batch)
			a := c.replica(1, orders).Append(b.Context(), Append{Batches: own, Acks: AcksAll, LeaderEpoch: broker.NoLeaderEpoch})
			if a.Err != nil {
				b.Error(a.Err)
				return
			}
		}
	})
}
