package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
)

// The key of the cluster's authority lies with the node that founded the cluster, and wherever an operator has put a copy. A
// node without it asks the others in turn to make a token, or to let a newcomer in, so that any node may be asked for both.

// authorityQuestion is what a holder of the key is asked: one of the two.
type authorityQuestion struct {
	Invite *broker.NodeID `json:"invite,omitempty"`
	Join   *joinRequest   `json:"join,omitempty"`
}

// authorityAnswer is a token, or what a newcomer is given; or why there is neither.
type authorityAnswer struct {
	Missing     bool          `json:"missing,omitempty"` // the asked node does not hold the key
	Code        broker.Code   `json:"code,omitempty"`
	Refused     string        `json:"refused,omitempty"`
	Token       string        `json:"token,omitempty"`
	Raft        broker.RaftID `json:"raft,omitempty"`
	Certificate []byte        `json:"certificate,omitempty"` // DER
}

// errNoAuthority says that another node must be asked.
var errNoAuthority = errors.New("no node that can be reached holds the key of the cluster's authority (tls/ca.key): the node that founded the cluster does, start it")

// authority reads the key that nodes' certificates are signed with, where this node has it.
func (n *Node) authority() (authority, error) {
	certificate, err := readSmall(n.seams.FS, n.tlsFile(caCertName))
	if err != nil {
		return authority{}, fmt.Errorf("read %s: %w", n.tlsFile(caCertName), err)
	}
	raw, err := readSmall(n.seams.FS, n.tlsFile(caKeyName))
	if errors.Is(err, fs.ErrNotExist) {
		return authority{}, errNoAuthority
	}
	if err != nil {
		return authority{}, fmt.Errorf("read %s: %w", n.tlsFile(caKeyName), err)
	}
	pair, err := tls.X509KeyPair(certificate, raw)
	if err != nil {
		return authority{}, fmt.Errorf("load the cluster's authority: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return authority{}, fmt.Errorf("%s holds a key of a kind that this program does not make", n.tlsFile(caKeyName))
	}
	return authority{pair.Leaf, key}, nil
}

// tickets are made with a key that only holders of the authority's have.
func (n *Node) tickets(by authority) (tickets, error) {
	raw, err := x509.MarshalPKCS8PrivateKey(by.key)
	if err != nil {
		return tickets{}, fmt.Errorf("the authority's key: %w", err)
	}
	return tickets{cluster: n.identity.Cluster, key: derive("millrace join ticket ", raw), now: n.seams.Now}, nil
}

// invite makes a one-time token for a new node, and tells where it joins: here.
func (c *clusterRoom) invite(ctx context.Context, node broker.NodeID) (text, address string, err error) {
	if node < 0 {
		return "", "", broker.Errorf(broker.InvalidRequest, "%d is not a node id; use 0 or above", node)
	}
	answer, err := c.askAuthority(ctx, authorityQuestion{Invite: &node})
	if err != nil {
		return "", "", err
	}
	for _, e := range c.node.bound.endpoints(c.node.config) {
		if e.Listener == "cluster" {
			address = net.JoinHostPort(e.Host, fmt.Sprint(e.Port))
		}
	}
	return answer.Token, address, nil
}

// askAuthority has a question answered by this node, if it holds the key, or by one that does.
func (c *clusterRoom) askAuthority(ctx context.Context, q authorityQuestion) (authorityAnswer, error) {
	own := c.answerAuthority(ctx, q)
	if !own.Missing {
		return own, own.err()
	}
	question, err := json.Marshal(q)
	if err != nil {
		return authorityAnswer{}, err
	}
	for _, p := range c.fabric.Connected() {
		raw, err := c.ask(ctx, p.Raft, askAuthority, question)
		if err != nil {
			c.logger.Debug().Err(err).Int32("peer", int32(p.Node)).Msg("a node was not asked for the cluster's authority")
			continue
		}
		var answer authorityAnswer
		if err := json.Unmarshal(raw, &answer); err != nil {
			return authorityAnswer{}, fmt.Errorf("the answer of node %d: %w", p.Node, err)
		}
		if !answer.Missing {
			return answer, answer.err()
		}
	}
	return authorityAnswer{}, broker.Errorf(broker.PolicyViolation, "%v", errNoAuthority)
}

func (a authorityAnswer) err() error {
	if a.Code == broker.None {
		return nil
	}
	return &broker.Error{Code: a.Code, Message: a.Refused}
}

// answerAuthority answers with the key, if this node has it.
func (c *clusterRoom) answerAuthority(ctx context.Context, q authorityQuestion) (answer authorityAnswer) {
	by, err := c.node.authority()
	if errors.Is(err, errNoAuthority) {
		return authorityAnswer{Missing: true}
	}
	var s tickets
	if err == nil {
		s, err = c.node.tickets(by)
	}
	switch {
	case err != nil:
	case q.Invite != nil:
		t := token{ticket: s.ticket(*q.Invite, c.node.quorum.Image().Index()), authority: sha256.Sum256(by.certificate.Raw)}
		answer.Token = t.String()
	case q.Join != nil:
		answer, err = c.admitNode(ctx, *q.Join, by, s)
	default:
		err = broker.Errorf(broker.InvalidRequest, "the authority is asked for nothing")
	}
	if err != nil {
		return authorityAnswer{Code: broker.CodeOf(err), Refused: err.Error()}
	}
	return answer
}

// admitNode makes the bearer of a ticket a learner, and a certificate for it.
func (c *clusterRoom) admitNode(ctx context.Context, r joinRequest, by authority, s tickets) (answer authorityAnswer, err error) {
	request, err := x509.ParseCertificateRequest(r.Request)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return answer, fmt.Errorf("the certificate request: %w", err)
	}
	directory, err := broker.ParseUUID(r.Directory)
	if err != nil {
		return answer, err
	}
	after, err := s.check(r.Ticket, r.Node)
	if err != nil {
		return answer, err
	}
	reply, err := c.Submit(ctx, controller.JoinNode{Node: r.Node, Directory: directory, After: after})
	if err != nil {
		return answer, err
	}
	joined, ok := reply.(controller.NodeJoined)
	if !ok {
		return answer, fmt.Errorf("answered with %T", reply)
	}
	id := Identity{Cluster: c.node.identity.Cluster, Node: r.Node}
	answer.Raft = joined.Raft
	answer.Certificate, err = issue(id, r.Hosts, c.node.seams.Now(), by, request.PublicKey)
	return answer, err
}

// answerAuthorityQuestion answers another node.
func (c *clusterRoom) answerAuthorityQuestion(ctx context.Context, body []byte) []byte {
	var q authorityQuestion
	answer := authorityAnswer{Code: broker.InvalidRequest}
	if err := json.Unmarshal(body, &q); err != nil {
		answer.Refused = err.Error()
	} else {
		answer = c.answerAuthority(ctx, q)
	}
	b, err := json.Marshal(answer)
	if err != nil {
		c.logger.Error().Err(err).Msg("an answer cannot be encoded")
	}
	return b
}
