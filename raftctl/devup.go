package raftctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

func (c *cli) devUp() *cobra.Command {
	var program string
	var nodes int
	cmd := &cobra.Command{Use: "up [--nodes 1|3|5] [--millrace PATH]", Short: "Start a local cluster and make it the current profile", Args: exactly()}
	cmd.Flags().StringVar(&program, "millrace", "", "the millrace program (default: beside raftctl, else on PATH)")
	cmd.Flags().IntVar(&nodes, "nodes", 1, "number of nodes: 1, 3 or 5; more than there are join the others")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if nodes != 1 && nodes != 3 && nodes != 5 {
			return usageError("--nodes %d: a local cluster has 1, 3 or 5 nodes, all of which vote", nodes)
		}
		release, err := c.lockDev()
		if err != nil {
			return err
		}
		defer release()
		cluster, err := c.readDev()
		if err != nil {
			return err
		}
		if !cmd.Flags().Changed("nodes") {
			nodes = max(1, len(cluster))
		}
		if len(cluster) > nodes {
			return refused("the local cluster has %d nodes: `raftctl dev reset --yes` starts over", len(cluster))
		}
		for _, n := range cluster {
			if n.paused() {
				return devUnready(cluster, map[*devNode]string{n: "paused"})
			}
		}
		up := devUp{cli: c, nodes: cluster}
		if up.program, err = c.findProgram(program); err != nil {
			return err
		}
		started := c.now()
		began, err := up.all(cmd.Context(), nodes)
		if err != nil {
			return err
		}
		state := fmt.Sprintf("ready after %.1f s", c.now().Sub(started).Seconds())
		if !began {
			state = "already running"
		}
		err = errors.Join(c.devReport(up.nodes, state, nil), c.writeDevProfile(up.nodes))
		c.devNext()
		return err
	}
	return cmd
}

// devUp brings a local cluster up.
type devUp struct {
	*cli
	program string
	nodes   []*devNode
}

// all starts what does not run, and has more nodes join until there are so many. It reports whether there was anything to
// do. Nodes that were members before start together: one alone has no quorum.
func (u *devUp) all(ctx context.Context, count int) (began bool, err error) {
	if len(u.nodes) == 0 {
		if err := u.add(); err != nil {
			return false, err
		}
	}
	var starting []*devNode
	for _, n := range u.nodes {
		if n.running() {
			continue
		}
		if !n.formatted() && n.ID > 1 {
			break // Its join was broken off; it is made up for below.
		}
		if err := u.start(n); err != nil {
			return true, err
		}
		starting = append(starting, n)
	}
	if err := u.await(ctx, starting); err != nil {
		return true, err
	}
	began = len(starting) > 0
	for i := 1; i < count; i++ {
		if i == len(u.nodes) {
			if err := u.add(); err != nil {
				return true, err
			}
		}
		if n := u.nodes[i]; !n.formatted() {
			began = true
			if err := u.join(ctx, n); err != nil {
				return true, err
			}
		}
	}
	if count == 1 {
		return began, nil
	}
	return began, u.promote(ctx)
}

// add gives the cluster one more node, with addresses of its own.
func (u *devUp) add() error {
	dir, err := u.devFolder()
	if err != nil {
		return err
	}
	id := len(u.nodes) + 1
	u.nodes = append(u.nodes, &devNode{ID: id, Data: filepath.Join(dir, "node-"+strconv.Itoa(id))})
	return nil
}

// formatted reports whether the node's directory is that of a member.
func (n *devNode) formatted() bool {
	_, err := os.Stat(filepath.Join(n.Data, "node.meta"))
	return err == nil
}

// address gives a node that does not run the addresses that it had, if they are free, or others.
func (u *devUp) address(n *devNode) error {
	var taken []string
	for _, other := range u.nodes {
		if other != n {
			taken = append(taken, other.Client, other.Cluster, other.Admin)
		}
	}
	for _, p := range []struct {
		address *string
		first   int
	}{{&n.Client, devClientPort}, {&n.Cluster, devClusterPort}, {&n.Admin, devAdminPort}} {
		first := p.first + (n.ID-1)*devPortStep
		if _, port, ok := strings.Cut(*p.address, ":"); ok {
			if had, err := strconv.Atoi(port); err == nil && had >= devUnprivileged {
				first = had
			}
		}
		var err error
		if *p.address, err = freePort(first, taken); err != nil {
			return err
		}
	}
	return nil
}

// devUnprivileged is the first port that anybody may bind.
const devUnprivileged = 1024

// start starts a node's process, and does not wait for it.
func (u *devUp) start(n *devNode) error {
	if err := u.address(n); err != nil {
		return err
	}
	n.Program = u.program
	if err := u.writeDev(u.nodes); err != nil {
		return err
	}
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	args := []string{"run", "--data", n.Data, "--node-id", strconv.Itoa(n.ID), "--listeners-client-bind", n.Client,
		"--listeners-cluster-bind", n.Cluster, "--listeners-admin-bind", n.Admin}
	if n.ID == 1 {
		args = append(args, "--init")
	}
	if seeds := u.seeds(n); seeds != "" {
		args = append(args, "--cluster-seeds", seeds)
	}
	run := exec.Command(n.Program, args...)
	run.Stdout, run.Stderr = log, log
	run.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // It outlives this command and its terminal.
	if err := errors.Join(run.Start(), log.Close()); err != nil {
		return fmt.Errorf("start %s: %w", n.Program, err)
	}
	n.PID = run.Process.Pid
	// Nobody waits for the process by this handle: it outlives this one.
	return errors.Join(run.Process.Release(), u.writeDev(u.nodes))
}

// seeds are the cluster listeners of the others, as far as they have one.
func (u *devUp) seeds(n *devNode) string {
	var all []string
	for _, other := range u.nodes {
		if other != n && other.Cluster != "" {
			all = append(all, other.Cluster)
		}
	}
	return strings.Join(all, ",")
}

func (n *devNode) log() string { return n.Data + ".log" }

// await waits until nodes serve.
func (u *devUp) await(ctx context.Context, nodes []*devNode) error {
	stop := u.progress("starting, seconds", secondsSince(u.cli))
	defer stop()
	for _, n := range nodes {
		if err := waitReady(ctx, n, n.log()); err != nil {
			return err
		}
	}
	return nil
}

// join makes a node a member: a token from the first, the program's join, and a start.
func (u *devUp) join(ctx context.Context, n *devNode) error {
	if err := os.RemoveAll(n.Data); err != nil { // What a join that was broken off has left.
		return err
	}
	var invitation *adminapi.InviteNodeResponse
	err := u.admin(ctx, func(ctx context.Context, client *sdk.Client) (err error) {
		invitation, err = client.Cluster().InviteNode(ctx, &adminapi.InviteNodeRequest{Node: int32(n.ID)})
		return err
	})
	if err != nil {
		return fmt.Errorf("let node %d join: %w", n.ID, err)
	}
	file := n.Data + ".token"
	if err := os.WriteFile(file, []byte(invitation.Token), 0o600); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, u.program, "join", "--data", n.Data, "--node-id", strconv.Itoa(n.ID),
		"--cluster", invitation.Address, "--token-file", file).CombinedOutput()
	if err := errors.Join(err, os.Remove(file)); err != nil {
		return fmt.Errorf("let node %d join: %w: %s", n.ID, err, strings.TrimSpace(string(out)))
	}
	if err := u.start(n); err != nil {
		return err
	}
	return u.await(ctx, []*devNode{n})
}

// promote makes voters of all that dev started, in one step; others may have joined.
func (u *devUp) promote(ctx context.Context) error {
	return u.admin(ctx, func(ctx context.Context, client *sdk.Client) error {
		q, err := client.Cluster().GetQuorum(ctx, &adminapi.GetQuorumRequest{})
		if err != nil {
			return err
		}
		request := &adminapi.AlterMembersRequest{}
		for _, m := range q.Members {
			if !m.Voter && slices.ContainsFunc(u.nodes, func(n *devNode) bool { return int32(n.ID) == m.Node }) {
				request.Promote = append(request.Promote, m.RaftId)
			}
		}
		if len(request.Promote) == 0 {
			return nil
		}
		return alterWhenLevel(ctx, client, request)
	})
}

// admin talks to the first node's admin listener.
func (u *devUp) admin(ctx context.Context, f func(ctx context.Context, client *sdk.Client) error) error {
	client, err := sdk.New(sdk.WithAdmin("http://" + u.nodes[0].Admin))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, devReadyWithin)
	defer cancel()
	return errors.Join(f(ctx, client), client.Close())
}

// devReport shows the local cluster; each gives a node's state where it is not that of all.
func (c *cli) devReport(nodes []*devNode, state string, each func(*devNode) string) error {
	t := &table{columns: []string{"node", "state", "kafka (tcp, quic)", "admin", "pid", "+data"}}
	for _, n := range nodes {
		own := state
		if each != nil {
			own = each(n)
		}
		pid := "" // a number that somebody else may have by now
		if n.running() {
			pid = strconv.Itoa(n.PID)
		}
		t.add(n.ID, own, n.Client, "http://"+n.Admin, pid, n.Data)
	}
	if nodes == nil {
		nodes = []*devNode{}
	}
	return c.showValue(map[string]any{"state": state, "nodes": nodes}, t)
}

// devNext says how to go on with a local cluster that serves.
func (c *cli) devNext() { c.say("profile dev is current; next: raftctl topic create hello") }

func (c *cli) devStatus() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Say whether the local cluster runs", Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		nodes, err := c.readDev()
		switch {
		case err != nil:
			return err
		case len(nodes) == 0:
			return notFound("there is no local cluster: `raftctl dev up` starts one")
		}
		states := map[*devNode]string{}
		count := map[string]int{}
		for _, n := range nodes {
			states[n] = devStateOf(cmd.Context(), n)
			count[states[n]]++
		}
		each := func(n *devNode) string { return states[n] }
		switch {
		case count["ready"] == len(nodes):
			err := c.devReport(nodes, "ready", each)
			c.devNext()
			return err
		case count["stopped"] == len(nodes):
			return errors.Join(c.devReport(nodes, "stopped", each), unhealthy("the local cluster is stopped: `raftctl dev up` starts it"))
		}
		return errors.Join(c.devReport(nodes, "not ready", each), devUnready(nodes, states))
	}}
}

// devUnready says how many nodes serve, and how to make the others.
func devUnready(nodes []*devNode, states map[*devNode]string) error {
	readyNodes, do := 0, "wait for the others"
	for _, n := range nodes {
		switch states[n] {
		case "ready":
			readyNodes++
		case "stopped":
			do = "`raftctl dev up` starts the others"
		case "paused":
			return unhealthy("node %d of the local cluster is paused: `raftctl dev resume %d` lets it go on", n.ID, n.ID)
		}
	}
	return unhealthy("the local cluster is not ready, %d of %d nodes are: %s", readyNodes, len(nodes), do)
}

func devStateOf(ctx context.Context, n *devNode) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	switch {
	case !n.running():
		return "stopped"
	case n.paused():
		return "paused"
	case !ready(ctx, n.Admin):
		return "not ready"
	}
	return "ready"
}

func (c *cli) devDown() *cobra.Command {
	return &cobra.Command{Use: "down", Short: "Stop the local cluster; its data stays", Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		nodes, err := c.readDev()
		if err != nil {
			return err
		}
		if err := c.stopDev(cmd.Context(), nodes); err != nil {
			return err
		}
		return c.devReport(nodes, "stopped", nil)
	}}
}

// stopDev stops every node that runs, the first last: it is the one that others are asked through.
func (c *cli) stopDev(ctx context.Context, nodes []*devNode) error {
	ctx, cancel := context.WithTimeout(ctx, devReadyWithin)
	defer cancel()
	stop := c.progress("stopping, seconds", secondsSince(c))
	defer stop()
	for _, n := range nodes {
		if !n.running() {
			continue
		}
		// A paused process hears nothing else.
		if err := errors.Join(syscall.Kill(n.PID, syscall.SIGTERM), syscall.Kill(n.PID, syscall.SIGCONT)); err != nil {
			return fmt.Errorf("stop process %d: %w", n.PID, err)
		}
	}
	for _, n := range nodes {
		for n.running() {
			select {
			case <-ctx.Done():
				return unhealthy("process %d did not stop within %s: `kill -KILL %d` ends it", n.PID, devReadyWithin, n.PID)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// devSignal makes a command that does something to one node's process.
func (c *cli) devSignal(name, done, short string, signal syscall.Signal) *cobra.Command {
	return &cobra.Command{Use: name + " NODE", Short: short, Args: exactly("NODE"), RunE: func(cmd *cobra.Command, args []string) error {
		number, err := nodeNumber(args[0])
		if err != nil {
			return err
		}
		nodes, err := c.readDev()
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.ID != int(number) {
				continue
			}
			if !n.running() {
				return notFound("node %d of the local cluster does not run: `raftctl dev up` starts it", number)
			}
			if err := syscall.Kill(n.PID, signal); err != nil {
				return fmt.Errorf("%s process %d: %w", name, n.PID, err)
			}
			if signal == syscall.SIGKILL {
				if err := n.awaitEnd(cmd.Context()); err != nil {
					return err
				}
			}
			return c.devReport([]*devNode{n}, done, nil)
		}
		return notFound("the local cluster has no node %d: `raftctl dev status` lists them", number)
	}}
}
