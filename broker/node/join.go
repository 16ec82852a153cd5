package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/peer"
	"github.com/millrace-io/millrace/broker/quorum"
	"github.com/millrace-io/millrace/internal/transport"
	"github.com/millrace-io/millrace/internal/vfs"
)

// A new node joins over TLS on the cluster listener's TCP port. It has no certificate yet; what it has is a token.
//
//	cluster → newcomer   {authority}                            PEM; the newcomer holds it against its token
//	newcomer → cluster   {ticket, node, directory, hosts, request}   a certificate request: its key never travels
//	cluster → newcomer   {cluster, raft, certificate, snapshot} or {refused}
//
// each a JSON value. The snapshot is where the newcomer's metadata begins; it is a learner of the quorum by then.
const (
	alpnJoin        = "millrace-join/1"
	joinWithin      = 30 * time.Second
	joinRequestMax  = 64 << 10
	joinsAtOnceMax  = 4
	joinGreetingMax = 64 << 10
)

type joinGreeting struct {
	Authority []byte `json:"authority"`
}

type joinRequest struct {
	Ticket    []byte        `json:"ticket"`
	Node      broker.NodeID `json:"node"`
	Directory string        `json:"directory"`
	Hosts     []string      `json:"hosts,omitempty"`
	Request   []byte        `json:"request"` // PKCS #10, DER
}

type joinAnswer struct {
	Refused     string        `json:"refused,omitempty"`
	Cluster     string        `json:"cluster,omitempty"`
	Raft        broker.RaftID `json:"raft,omitempty"`
	Certificate []byte        `json:"certificate,omitempty"` // DER
	Snapshot    []byte        `json:"snapshot,omitempty"`
}

// serveNewcomer lets a new node in; few at a time.
func (c *clusterRoom) serveNewcomer(ctx context.Context, conn net.Conn) error {
	select {
	case c.joining <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	defer func() { <-c.joining }()
	return c.serveJoin(ctx, conn)
}

func (c *clusterRoom) serveJoin(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	if err := conn.SetDeadline(time.Now().Add(joinWithin)); err != nil {
		return err
	}
	authority, err := c.node.authorityCertificate()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(conn).Encode(joinGreeting{Authority: authority}); err != nil {
		return err
	}
	var r joinRequest
	if err := json.NewDecoder(io.LimitReader(conn, joinRequestMax)).Decode(&r); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	welcome, err := c.welcome(ctx, r)
	if err != nil {
		c.fabric.Refused(conn.RemoteAddr().String(), fmt.Errorf("node %d does not join: %w", r.Node, err))
		return json.NewEncoder(conn).Encode(joinAnswer{Refused: err.Error()})
	}
	c.logger.Info().Int32("peer", int32(r.Node)).Uint64("raft_id", uint64(welcome.Raft)).Msg("a node joins")
	return json.NewEncoder(conn).Encode(welcome)
}

// welcome gives a newcomer what it needs to run, if its token is good.
func (c *clusterRoom) welcome(ctx context.Context, r joinRequest) (joinAnswer, error) {
	admitted, err := c.askAuthority(ctx, authorityQuestion{Join: &r})
	if err != nil {
		return joinAnswer{}, err
	}
	snapshot, err := c.node.quorum.Export(ctx, admitted.Raft)
	if err != nil {
		return joinAnswer{}, err
	}
	return joinAnswer{
		Cluster: c.node.identity.Cluster.String(), Raft: admitted.Raft, Certificate: admitted.Certificate, Snapshot: snapshot,
	}, nil
}

// authorityCertificate is the certificate of the cluster's authority, DER; every node has it.
func (n *Node) authorityCertificate() ([]byte, error) {
	content, err := readSmall(n.seams.FS, n.tlsFile(caCertName))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", n.tlsFile(caCertName), err)
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s: %w", n.tlsFile(caCertName), errNoPEM)
	}
	return block.Bytes, nil
}

// JoinSpec says how a new node comes to a cluster.
type JoinSpec struct {
	Data    string
	Node    broker.NodeID
	Cluster string   // HOST:PORT of the cluster listener of any member
	Token   string   // one-time, from `raftctl controller members add`
	Hosts   []string // names and addresses that the node's certificate is good for, beside loopback
}

// Join makes an empty directory that of a new member of a running cluster, a learner. Like Format it writes node.meta last.
// A join that was broken off is repeated with a new token.
func Join(ctx context.Context, seams Seams, spec JoinSpec) (Identity, error) {
	t, err := parseToken(spec.Token)
	if err != nil {
		return Identity{}, err
	}
	if spec.Node < 0 {
		return Identity{}, fmt.Errorf("node id %d: give a number from 0 up", spec.Node)
	}
	if err := makeDurableDir(seams.FS, spec.Data); err != nil {
		return Identity{}, fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := seams.FS.Lock(filepath.Join(spec.Data, lockName))
	if err != nil {
		return Identity{}, fmt.Errorf("data directory %s: %w", spec.Data, err)
	}
	id, err := joinWith(ctx, seams, spec, t)
	return id, errors.Join(err, lock.Close())
}

func joinWith(ctx context.Context, seams Seams, spec JoinSpec, t token) (Identity, error) {
	id, files := Identity{Node: spec.Node}, seams.FS
	if err := checkUnused(files, spec.Data); err != nil {
		return id, err
	}
	if _, err := rand.Read(id.Directory[:]); err != nil {
		return id, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return id, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return id, fmt.Errorf("make a certificate request: %w", err)
	}
	ca, welcome, err := askToJoin(ctx, seams.Net, spec, t, joinRequest{
		Ticket: t.ticket[:], Node: spec.Node, Directory: id.Directory.String(), Hosts: spec.Hosts, Request: request,
	})
	if err != nil {
		return id, fmt.Errorf("join the cluster at %s: %w", spec.Cluster, err)
	}
	if id.Cluster, err = broker.ParseUUID(welcome.Cluster); err != nil {
		return id, err
	}
	id.Raft = welcome.Raft
	if err := writePEMs(files, filepath.Join(spec.Data, "tls"), map[string]any{caCertName: ca, nodeCertName: welcome.Certificate, nodeKeyName: key}); err != nil {
		return id, err
	}
	if _, err := quorum.Plant(files, spec.Data, welcome.Snapshot); err != nil {
		return id, err
	}
	return id, replaceFile(files, filepath.Join(spec.Data, metaName), id.encode())
}

// askToJoin talks to the cluster. It shows its token only to a server whose certificate comes from the authority that the
// token names.
func askToJoin(ctx context.Context, network transport.Network, spec JoinSpec, t token, r joinRequest) (ca []byte, welcome joinAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	raw, err := network.Dial(ctx, spec.Cluster)
	if err != nil {
		return nil, welcome, err
	}
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpnJoin},
		InsecureSkipVerify: true, // The authority comes first; the chain is checked against it below.
	})
	defer conn.Close()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, welcome, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, welcome, err
		}
	}
	decoder := json.NewDecoder(io.LimitReader(conn, joinGreetingMax+2*quorum.SnapshotBytesMax))
	var greeting joinGreeting
	if err := decoder.Decode(&greeting); err != nil {
		return nil, welcome, fmt.Errorf("it does not talk as a cluster listener does: %w", err)
	}
	if err := checkServer(greeting.Authority, conn.ConnectionState(), t); err != nil {
		return nil, welcome, err
	}
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return nil, welcome, err
	}
	if err := decoder.Decode(&welcome); err != nil {
		return nil, welcome, fmt.Errorf("read the answer: %w", err)
	}
	if welcome.Refused != "" {
		return nil, welcome, errors.New(welcome.Refused)
	}
	return greeting.Authority, welcome, nil
}

func checkServer(authority []byte, state tls.ConnectionState, t token) error {
	if sha256.Sum256(authority) != t.authority {
		return errors.New("another cluster answers there than the token is for")
	}
	ca, err := x509.ParseCertificate(authority)
	if err != nil {
		return fmt.Errorf("the cluster's authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	if err := verifyChain(state.PeerCertificates, pool, x509.ExtKeyUsageServerAuth, time.Now()); err != nil {
		return err
	}
	_, _, err = peer.NodeOf(state.PeerCertificates[0])
	return err
}

// checkUnused refuses a directory that holds a node, or anything that a broken-off init or join did not leave.
func checkUnused(files vfs.FS, dir string) error {
	if old, err := ReadIdentity(files, dir); !errors.Is(err, ErrNotFormatted) {
		if err != nil {
			return err
		}
		return fmt.Errorf("%s already holds node %d of cluster %s: run it, or name another directory", dir, old.Node, old.Cluster)
	}
	names, err := files.List(dir)
	if err != nil {
		return fmt.Errorf("look into %s: %w", dir, err)
	}
	return checkEmpty(dir, names)
}
