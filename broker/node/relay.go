package node

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Every node has a control connection with every voter, and two learners have none with each other. What one asks the
// other goes through a voter, which passes question and answer on as they are. Only questions that are answered alike
// whoever asks travel so: what a node asks the controller is asked in its own name, and the controller is a voter.

// askMember puts a question of answerLog's to a member, through a voter if there is no connection with it. NotController: it
// was not sent.
func (c *clusterRoom) askMember(ctx context.Context, to broker.RaftID, kind byte, body []byte) ([]byte, error) {
	answer, err := c.ask(ctx, to, kind, body)
	if broker.CodeOf(err) != broker.NotController {
		return c.logAnswer(answer, err)
	}
	passed := append(binary.LittleEndian.AppendUint64(nil, uint64(to)), kind)
	passed = append(passed, body...)
	members := c.node.quorum.Image().Nodes()
	for _, p := range c.fabric.Connected() {
		if !slices.ContainsFunc(members, func(m *metadata.Node) bool { return m.Voter && m.Raft == p.Raft }) {
			continue
		}
		answer, err := c.logAnswer(c.ask(ctx, p.Raft, askRelay, passed))
		if broker.CodeOf(err) != broker.NotController {
			return answer, err
		}
	}
	return nil, err
}

// relay passes a question of one node on to another that this one has a connection with, and the answer back.
func (c *clusterRoom) relay(ctx context.Context, question []byte) []byte {
	refuse := func(err error) []byte { return append([]byte{logRefused}, c.answer(nil, err)...) }
	if len(question) < 9 || !ofLogs(question[8]) {
		return refuse(broker.Errorf(broker.InvalidRequest, "a question that is not passed on"))
	}
	answer, err := c.ask(ctx, broker.RaftID(binary.LittleEndian.Uint64(question)), question[8], question[9:])
	if err != nil {
		return refuse(err)
	}
	return answer
}

// ofLogs reports whether answerLog answers questions of a kind.
func ofLogs(kind byte) bool {
	switch kind {
	case askAppend, askRead, askCommitted, askGroups, askBehind, askLeads, askReport, askSave:
		return true
	}
	return false
}
