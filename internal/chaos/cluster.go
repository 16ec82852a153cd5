package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/internal/chaos/netns"
	"github.com/millrace-io/millrace/internal/process"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/sdk"
)

const (
	clusterSize = 3
	// volumeBytes is what the data directory of a node on a host may hold.
	volumeBytes = 512 << 20
)

// node is a broker of the cluster: its directory, its place in the network, and the process that runs there, if any.
type node struct {
	*process.Broker
	id      int
	host    *netns.Host // nil over loopback
	disk    *netns.Disk // nil on a volume that keeps everything
	cluster string      // address of the cluster listener
	admin   *sdk.Client
	runs    bool // a process was started and not ended by the run
}

// cluster is three nodes, on hosts of their own or, without a router, over loopback.
type cluster struct {
	program string
	router  *netns.Router
	disks   bool // nodes have disks that may lose their power
	nodes   [clusterSize]*node
}

// newCluster founds a cluster below dir and waits until its three nodes are voters.
func newCluster(ctx context.Context, program, dir string, router *netns.Router, disks bool) (*cluster, error) {
	c := &cluster{program: program, router: router, disks: disks}
	for i := range c.nodes {
		n := &node{id: i + 1, Broker: &process.Broker{Dir: filepath.Join(dir, fmt.Sprintf("node-%d", i+1)), Program: program}}
		c.nodes[i] = n
		if err := c.place(ctx, n); err != nil {
			return c, err
		}
	}
	for _, n := range c.nodes {
		if err := c.configure(n); err != nil {
			return c, err
		}
	}
	founder := c.nodes[0]
	if err := c.command(ctx, founder, "init", "--data", founder.Data(), "--node-id", "1", "--host", founder.hostName()); err != nil {
		return c, err
	}
	if err := errors.Join(c.start(ctx, founder), founder.Ready(ctx)); err != nil {
		return c, err
	}
	for _, n := range c.nodes[1:] {
		if err := c.join(ctx, n); err != nil {
			return c, err
		}
	}
	return c, nil
}

// place gives a node its addresses, and on a host its volume or disk.
func (c *cluster) place(ctx context.Context, n *node) (err error) {
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return err
	}
	if c.router == nil {
		err = process.FreeAddresses(&n.Client, &n.cluster, &n.Admin)
	} else {
		n.host = c.router.Hosts[n.id-1]
		n.Client, n.cluster, n.Admin = n.hostName()+":9092", n.hostName()+":9093", n.hostName()+":9094"
		if c.disks {
			n.disk, err = netns.NewDisk(ctx, n.Data(), volumeBytes)
		} else {
			err = netns.Volume(n.Data(), volumeBytes)
		}
	}
	if err != nil {
		return err
	}
	n.admin, err = sdk.New(sdk.WithAdmin(n.Admin))
	return err
}

func (n *node) hostName() string {
	if n.host == nil {
		return "127.0.0.1"
	}
	return n.host.Address.String()
}

func (c *cluster) configure(n *node) error {
	var seeds []string
	for _, other := range c.nodes {
		if other != n {
			seeds = append(seeds, other.cluster)
		}
	}
	text := fmt.Sprintf("data: %s\nnode.id: %d\ncluster.seeds: %s\ninsecure.admin: true\nlog.level: info\nlog.segment.bytes: 262144\n"+
		"listeners:\n  client:\n    bind: %s\n  cluster:\n    bind: %s\n  admin:\n    bind: %s\n",
		n.Data(), n.id, strings.Join(seeds, ","), n.Client, n.cluster, n.Admin)
	return os.WriteFile(filepath.Join(n.Dir, "millrace.yaml"), []byte(text), 0o600)
}

// on does something in a node's place in the network.
func (n *node) on(ctx context.Context, f func() error) error {
	if n.host == nil {
		return f()
	}
	return n.host.Do(ctx, f)
}

// command runs the program on a node's host to its end.
func (c *cluster) command(ctx context.Context, n *node, arguments ...string) error {
	return n.on(ctx, func() error {
		if out, err := exec.CommandContext(ctx, c.program, arguments...).CombinedOutput(); err != nil {
			return fmt.Errorf("millrace %s: %w\n%s", arguments[0], err, out)
		}
		return nil
	})
}

// start starts a node's process; it does not wait until it is ready.
func (c *cluster) start(ctx context.Context, n *node) error {
	n.runs = true
	return n.on(ctx, n.Start)
}

// end ends a node's process by a signal. That it had ended by itself is an error.
func (n *node) end(signal syscall.Signal) error {
	if !n.runs {
		return nil
	}
	n.runs = false
	return n.End(signal)
}

// gone reports whether a process that should run has ended by itself.
func (n *node) gone() bool {
	if !n.runs {
		return false
	}
	select {
	case <-n.Exited():
		return true
	default:
		return false
	}
}

// join makes an empty directory that of a member, starts it and makes it a voter.
func (c *cluster) join(ctx context.Context, n *node) error {
	founder := c.nodes[0]
	var invitation *adminapi.InviteNodeResponse
	// One that was there before must be known to be gone.
	err := until(ctx, 20*time.Second, fmt.Sprintf("an invitation of node %d", n.id), func(ctx context.Context) (err error) {
		invitation, err = founder.admin.Cluster().InviteNode(ctx, &adminapi.InviteNodeRequest{Node: int32(n.id)})
		return err
	})
	if err != nil {
		return err
	}
	err = c.command(ctx, n, "join", "--data", n.Data(), "--node-id", strconv.Itoa(n.id), "--cluster", invitation.Address,
		"--token", invitation.Token, "--host", n.hostName())
	if err != nil {
		return err
	}
	return errors.Join(c.start(ctx, n), n.Ready(ctx))
}

// promote makes voters of those who are not, in place of their nodes' earlier directories, and waits for it.
func (c *cluster) promote(ctx context.Context) error {
	return until(ctx, 30*time.Second, "three voters", func(ctx context.Context) error {
		q, err := c.nodes[0].admin.Cluster().GetQuorum(ctx, &adminapi.GetQuorumRequest{})
		if err != nil {
			return err
		}
		request := promotion(q.Members)
		if len(request.Promote) == 0 {
			return nil
		}
		_, err = c.nodes[0].admin.Cluster().AlterMembers(ctx, request)
		return err
	})
}

// promotion asks to make voters of all who are not, and to remove the voters whose nodes they are now.
func promotion(members []*adminapi.Member) *adminapi.AlterMembersRequest {
	request := &adminapi.AlterMembersRequest{}
	newcomers := map[int32]bool{}
	for _, m := range members {
		if !m.Voter {
			newcomers[m.Node] = true
			request.Promote = append(request.Promote, m.RaftId)
		}
	}
	for _, m := range members {
		if m.Voter && newcomers[m.Node] {
			request.Remove = append(request.Remove, m.RaftId)
		}
	}
	return request
}

// controller is the node that leads the metadata quorum; nil if nobody knows.
func (c *cluster) controller(ctx context.Context) *node {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, n := range c.nodes {
		if !n.runs {
			continue
		}
		if q, err := n.admin.Cluster().GetQuorum(ctx, &adminapi.GetQuorumRequest{}); err == nil && q.LeaderNode > 0 && c.nodes[q.LeaderNode-1].runs {
			return c.nodes[q.LeaderNode-1]
		}
	}
	return nil
}

// stop ends every process at the same time and waits.
func (c *cluster) stop(signal syscall.Signal) error {
	tasks := task.NewGroup(context.Background())
	for _, n := range c.nodes {
		if n != nil && n.runs {
			tasks.Go(fmt.Sprintf("stop node %d", n.id), func(context.Context) error {
				return errors.Join(n.Signal(syscall.SIGCONT), n.end(signal))
			})
		}
	}
	return tasks.Wait()
}

// until asks again and again, and returns the last error when it takes too long.
func until(ctx context.Context, within time.Duration, what string, attempt func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		attemptCtx, cancel := context.WithTimeout(ctx, soon)
		err := attempt(attemptCtx)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s without %s: %w", within, what, err)
		case <-ticker.C:
		}
	}
}
