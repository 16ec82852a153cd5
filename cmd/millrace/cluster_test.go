package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

// trio is three brokers of one cluster, each a process of its own; more may join.
type trio struct {
	t     *testing.T
	nodes []*member
}

// member is a data directory with its addresses, and the process that runs in it.
type member struct {
	id                     int
	data                   string
	client, cluster, admin string // the same at every start
	cmd                    *exec.Cmd
	sdk                    *sdk.Client
	ended                  chan struct{} // closed when the log ends
}

func newTrio(t *testing.T) *trio {
	t.Helper()
	c := &trio{t: t}
	for range 3 {
		c.member()
	}
	t.Cleanup(func() {
		for _, m := range c.nodes {
			m.end(syscall.SIGKILL)
			_ = m.sdk.Close() // its broker is gone
		}
	})
	c.await(c.start(0, "--init"))
	for i := 1; i < 3; i++ {
		c.join(i)
		c.await(c.start(i))
	}
	c.promote()
	return c
}

// member makes a place for one more node.
func (c *trio) member() {
	c.t.Helper()
	m := &member{id: len(c.nodes) + 1, data: c.t.TempDir() + "/data", client: free(c.t), cluster: free(c.t), admin: free(c.t)}
	var err error
	if m.sdk, err = sdk.New(sdk.WithBrokers(m.client), sdk.WithAdmin("http://"+m.admin), sdk.WithTransport(sdk.TCP)); err != nil {
		c.t.Fatal(err)
	}
	c.nodes = append(c.nodes, m)
}

// free returns a loopback address whose port is free on TCP and UDP.
func free(t *testing.T) string {
	t.Helper()
	for range 50 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			err = udp.Close()
		}
		if closed := tcp.Close(); err == nil && closed == nil {
			return tcp.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// program makes a command of the program under test.
func program(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// join has node i+1 join with a one-time token of node 1's.
func (c *trio) join(i int) {
	c.t.Helper()
	m := c.nodes[i]
	r, err := c.nodes[0].sdk.Cluster().InviteNode(c.t.Context(), &adminapi.InviteNodeRequest{Node: int32(m.id)})
	if err != nil {
		c.t.Fatal(err)
	}
	args := []string{"join", "--data", m.data, "--node-id", strconv.Itoa(m.id), "--cluster", r.Address, "--token", r.Token}
	if out, err := program(args...).CombinedOutput(); err != nil {
		c.t.Fatalf("join: %v\n%s", err, out)
	}
	if out, err := program(append(args, "--data", c.t.TempDir()+"/other")...).CombinedOutput(); err == nil || !strings.Contains(string(out), "it was used") {
		c.t.Errorf("a token was good for a second node: %v\n%s", err, out)
	}
}

// start starts a node and returns a channel that is closed when it serves.
func (c *trio) start(i int, more ...string) (serves chan struct{}) {
	c.t.Helper()
	m := c.nodes[i]
	m.cmd = program(append([]string{"run", "--data", m.data, "--node-id", strconv.Itoa(m.id), "--listeners-client-bind", m.client,
		"--listeners-cluster-bind", m.cluster, "--listeners-admin-bind", m.admin, "--cluster-seeds", c.nodes[0].cluster}, more...)...)
	stderr, err := m.cmd.StderrPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	serves, m.ended = make(chan struct{}), make(chan struct{})
	go func(ended chan struct{}) {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			var line struct{ Level, Message string }
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Level == "error" {
				c.t.Logf("node %d: %s", m.id, lines.Bytes())
			}
			if line.Message == "node serves" {
				close(serves)
			}
		}
		close(ended)
	}(m.ended)
	return serves
}

func (c *trio) await(serves chan struct{}) {
	c.t.Helper()
	select {
	case <-serves:
	case <-time.After(30 * time.Second):
		c.t.Fatal("a node does not serve")
	}
}

// end ends a node's process by a signal.
func (m *member) end(signal syscall.Signal) {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Signal(signal)
	<-m.ended
	_ = m.cmd.Wait()
	m.cmd = nil
}

func (c *trio) quorum(i int) (*adminapi.GetQuorumResponse, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
	defer cancel()
	return c.nodes[i].sdk.Cluster().GetQuorum(ctx, &adminapi.GetQuorumRequest{})
}

func (c *trio) promote() {
	c.t.Helper()
	q, err := c.quorum(0)
	if err != nil {
		c.t.Fatal(err)
	}
	request := &adminapi.AlterMembersRequest{}
	for _, m := range q.Members {
		if !m.Voter {
			request.Promote = append(request.Promote, m.RaftId)
		}
	}
	c.eventually("three voters", func() error {
		_, err := c.nodes[0].sdk.Cluster().AlterMembers(c.t.Context(), request)
		return err
	})
}

func (c *trio) eventually(what string, attempt func() error) {
	c.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := attempt()
		if err == nil {
			return
		}
		if time.Since(began) > 20*time.Second {
			c.t.Fatalf("20 s without: %s: %v", what, err)
		}
	}
}

func (c *trio) leader() int {
	c.t.Helper()
	at := -1
	c.eventually("a leader", func() error {
		for i := range c.nodes {
			if q, err := c.quorum(i); err == nil && q.LeaderNode > 0 {
				at = int(q.LeaderNode) - 1
				return nil
			}
		}
		return fmt.Errorf("no node knows a leader")
	})
	return at
}

func (c *trio) knows(i int, topic string) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
	defer cancel()
	r, err := c.nodes[i].sdk.Topics().ListTopics(ctx, &adminapi.ListTopicsRequest{})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(r.Topics, func(t *adminapi.Topic) bool { return t.Name == topic }) {
		return fmt.Errorf("node %d does not know topic %s", i+1, topic)
	}
	return nil
}

// RM7, RH5, invariants 17 and 36: three processes share their metadata. Whichever is killed, the others decide on; whoever
// comes back knows what was decided without it; and all three, killed at once, come back without an operator.
func TestMetadataSurvivesKillsOfProcesses(t *testing.T) {
	c := newTrio(t)
	for round := range 3 {
		victim := c.leader()
		c.nodes[victim].end(syscall.SIGKILL)
		killed := time.Now()
		topic, other := fmt.Sprintf("decided-%d", round), (victim+1)%3
		c.eventually("a topic without node "+strconv.Itoa(victim+1), func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := c.nodes[other].sdk.CreateTopic(ctx, topic, 1, nil)
			return err
		})
		t.Logf("node %d led and was killed: %s to the next decision", victim+1, time.Since(killed).Round(time.Millisecond))
		c.await(c.start(victim))
		c.eventually("the killed node has the topic", func() error { return c.knows(victim, topic) })
	}
	for i := range c.nodes {
		c.nodes[i].end(syscall.SIGKILL)
	}
	began := time.Now()
	var all []chan struct{}
	for i := range c.nodes {
		all = append(all, c.start(i))
	}
	for _, serves := range all {
		c.await(serves)
	}
	t.Logf("all three killed and started again: %s until all serve", time.Since(began).Round(time.Millisecond))
	for i := range c.nodes {
		for round := range 3 {
			if err := c.knows(i, fmt.Sprintf("decided-%d", round)); err != nil {
				t.Error(err)
			}
		}
	}
	for i := range c.nodes {
		c.nodes[i].end(syscall.SIGTERM)
	}
}
