package peer

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/broker"
)

// Kinds of connection.
const (
	KindControl  = "control"
	KindSnapshot = "snapshot"
	KindRecords  = "records"  // one stream of a replication session
	KindLifeline = "lifeline" // over TCP: nothing is said on it
)

// versions of the protocol that this program talks, the best first (RM11).
var versions = []int{1}

// helloBytesMax bounds a HELLO.
const helloBytesMax = 16 << 10

// Self is who this process is.
type Self struct {
	Cluster     broker.ClusterID
	Node        broker.NodeID
	Raft        broker.RaftID
	Directory   broker.DirectoryID
	Incarnation broker.UUID // drawn at the start of the process
}

// Peer is who is at the other end of a connection.
type Peer struct {
	Node        broker.NodeID
	Raft        broker.RaftID
	Directory   broker.DirectoryID
	Incarnation broker.UUID
	Address     string // where its packets come from, which is where its cluster listener is
}

// hello opens a connection, and answers that.
type hello struct {
	Cluster     string        `json:"cluster,omitempty"`
	From        broker.NodeID `json:"from"`
	To          broker.NodeID `json:"to"` // broker.NoNode: whoever answers at a seed's address
	Raft        broker.RaftID `json:"raft,omitempty"`
	Directory   string        `json:"directory,omitempty"`
	Incarnation string        `json:"incarnation,omitempty"`
	Kind        string        `json:"kind,omitempty"`
	Versions    []int         `json:"versions,omitempty"`
	Subject     string        `json:"subject,omitempty"` // what a connection of its kind is about
	Held        broker.Index  `json:"held,omitempty"`    // up to which the directory of whom it is said to has held the metadata
	Version     int           `json:"version,omitempty"` // of an answer
	Refused     string        `json:"refused,omitempty"` // of an answer: why
	Removed     bool          `json:"removed,omitempty"` // of a refusal: whoever dialled was removed from the cluster
}

// hello is what this node says to a member first; raft 0: to whoever answers.
func (f *Fabric) hello(to broker.NodeID, raft broker.RaftID, kind, subject string) hello {
	h := f.self.hello(to, kind, subject)
	h.Held = f.handler.Held(raft)
	return h
}

// ErrRemoved is wrapped by a refusal of a member that was removed from the cluster.
var ErrRemoved = errors.New("it was removed, or replaced")

// errMalformed is wrapped by errors about bytes that no program of ours would send.
var errMalformed = errors.New("what it says cannot be read")

// RefusedError says that one side would not have the other.
type RefusedError struct {
	Address string
	By      string // thisNode, or who else
	Why     string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("connection with %s refused by %s: %s", e.Address, e.By, e.Why)
}

func (s Self) hello(to broker.NodeID, kind, subject string) hello {
	return hello{
		Cluster: s.Cluster.String(), From: s.Node, To: to, Raft: s.Raft, Directory: s.Directory.String(),
		Incarnation: s.Incarnation.String(), Kind: kind, Versions: versions, Subject: subject,
	}
}

func (s Self) refusal(why error) hello {
	return hello{From: s.Node, Cluster: s.Cluster.String(), Refused: why.Error(), Removed: errors.Is(why, ErrRemoved)}
}

// peerOf reads who a HELLO says that it is from.
func (h hello) peerOf(address string) (Peer, error) {
	p := Peer{Node: h.From, Raft: h.Raft, Address: address}
	var err error
	if p.Directory, err = broker.ParseUUID(h.Directory); err != nil {
		return p, fmt.Errorf("its directory id: %w", err)
	}
	if p.Incarnation, err = broker.ParseUUID(h.Incarnation); err != nil {
		return p, fmt.Errorf("its incarnation: %w", err)
	}
	return p, nil
}

// checkHello holds what the other side says against its certificate and against this node; it returns why not, or nothing.
func (s Self) checkHello(h hello, state tls.ConnectionState) string {
	cluster, node, err := nodeOfConnection(state)
	switch {
	case err != nil:
		return err.Error()
	case cluster != s.Cluster:
		return fmt.Sprintf("its certificate is of cluster %s, this is cluster %s", cluster, s.Cluster)
	case h.Cluster != s.Cluster.String():
		return fmt.Sprintf("node %d belongs to cluster %s, this is cluster %s: give it the seeds of its own cluster", h.From, h.Cluster, s.Cluster)
	case h.From != node:
		return fmt.Sprintf("it says that it is node %d, its certificate is node %d's", h.From, node)
	case h.To != broker.NoNode && h.To != s.Node:
		return fmt.Sprintf("node %d looks for node %d, this is node %d: an advertised address is wrong", h.From, h.To, s.Node)
	}
	return ""
}

// commonVersion is the best version that both talk, 0 if there is none.
func commonVersion(theirs []int) int {
	for _, v := range versions {
		if slices.Contains(theirs, v) {
			return v
		}
	}
	return 0
}

func writeHello(w io.Writer, h hello) error {
	body, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// heard is the error of reading the HELLO of whoever dialled: a refusal if that was none.
func (f *Fabric) heard(from net.Addr, err error) error {
	if !errors.Is(err, errMalformed) {
		return fmt.Errorf("read the HELLO of %s: %w", from, err)
	}
	f.handler.OnRefused()
	return &RefusedError{Address: from.String(), By: thisNode, Why: err.Error()}
}

func readHello(r io.Reader) (hello, error) {
	var h hello
	body, err := readFrame(r, helloBytesMax)
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(body, &h); err != nil {
		return h, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return h, nil
}

// readFrame reads a u32 length and as many bytes.
func readFrame(r io.Reader, bytesMax int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := int(binary.LittleEndian.Uint32(head[:]))
	if size > bytesMax {
		return nil, fmt.Errorf("%w: a frame of more than %d bytes", errMalformed, bytesMax)
	}
	body := make([]byte, size)
	_, err := io.ReadFull(r, body)
	return body, err
}

// NodeURI is the name by which a certificate tells whose it is (RM7).
func NodeURI(cluster broker.ClusterID, node broker.NodeID) *url.URL {
	return &url.URL{Scheme: "millrace", Host: cluster.String(), Path: "/node/" + strconv.Itoa(int(node))}
}

// NodeOf reads whose a certificate is.
func NodeOf(certificate *x509.Certificate) (broker.ClusterID, broker.NodeID, error) {
	for _, uri := range certificate.URIs {
		number, ok := strings.CutPrefix(uri.Path, "/node/")
		if uri.Scheme != "millrace" || !ok {
			continue
		}
		cluster, err := broker.ParseUUID(uri.Host)
		if err != nil {
			return broker.ClusterID{}, 0, fmt.Errorf("the certificate's %s: %w", uri, err)
		}
		node, err := strconv.ParseInt(number, 10, 32)
		if err != nil {
			return broker.ClusterID{}, 0, fmt.Errorf("the certificate's %s names no node", uri)
		}
		return cluster, broker.NodeID(node), nil
	}
	return broker.ClusterID{}, 0, errors.New("its certificate names no node of a cluster")
}

func nodeOfConnection(state tls.ConnectionState) (broker.ClusterID, broker.NodeID, error) {
	if len(state.PeerCertificates) == 0 {
		return broker.ClusterID{}, 0, errors.New("it shows no certificate")
	}
	return NodeOf(state.PeerCertificates[0])
}
