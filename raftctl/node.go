package raftctl

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

func (c *cli) nodeCommand() *cobra.Command {
	return parent("node", "The nodes of the cluster", c.nodeList(), c.nodeDescribe(), c.nodeDrain(), c.nodeUndrain(), c.nodeDecommission())
}

func (c *cli) nodeList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the nodes", Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Cluster().GetCluster(ctx, &adminapi.GetClusterRequest{})
			if err != nil {
				return err
			}
			t := &table{columns: []string{"node", "state", "leads", "replicas", "client", "cluster", "admin", "+rack", "+broker epoch"}}
			for _, n := range r.Nodes {
				t.add(n.Id, nodeState(n), n.LeadsPartitions, n.HoldsReplicas, endpoint(n, "client"), endpoint(n, "cluster"), endpoint(n, "admin"), n.Rack, n.BrokerEpoch)
			}
			return c.show(r, t)
		})
	}}
}

func (c *cli) nodeDescribe() *cobra.Command {
	return &cobra.Command{Use: "describe NODE", Short: "Show one node", Args: exactly("NODE"), RunE: func(cmd *cobra.Command, args []string) error {
		node, err := nodeNumber(args[0])
		if err != nil {
			return err
		}
		return c.withQuorum(cmd.Context(), func(ctx context.Context, client *sdk.Client, q *adminapi.GetQuorumResponse) error {
			r, err := client.Cluster().GetCluster(ctx, &adminapi.GetClusterRequest{})
			if err != nil {
				return err
			}
			at := slices.IndexFunc(r.Nodes, func(n *adminapi.Node) bool { return n.Id == node })
			if at < 0 {
				return notFound("there is no node %d: `raftctl node list` lists them", node)
			}
			return c.showNode(r.Nodes[at], q)
		})
	}}
}

func (c *cli) showNode(n *adminapi.Node, q *adminapi.GetQuorumResponse) error {
	t := &table{columns: []string{"node", "state", "role", "leads", "replicas", "rack", "broker epoch"}}
	inQuorum := ""
	directories := &table{columns: []string{"raft id", "role", "state", "behind", "directory"}}
	for _, m := range q.Members {
		if m.Node == n.Id {
			inQuorum = role(m)
			directories.add(m.RaftId, role(m), memberState(m), behind(q, m), m.Directory)
		}
	}
	t.add(n.Id, nodeState(n), inQuorum, n.LeadsPartitions, n.HoldsReplicas, n.Rack, n.BrokerEpoch)
	listeners := &table{columns: []string{"listener", "address"}}
	for _, e := range n.Endpoints {
		listeners.add(e.Listener, fmt.Sprintf("%s:%d", e.Host, e.Port))
	}
	return c.show(n, t, directories, listeners)
}

// nodeLook is how often a node's progress is looked at.
const nodeLook = 200 * time.Millisecond

func (c *cli) nodeDrain() *cobra.Command {
	return &cobra.Command{
		Use: "drain NODE", Short: "Take a node's leaderships away, and keep new replicas from it, until undrain", Args: exactly("NODE"),
		Long: "Leaders move to other in-sync replicas. The node goes on replicating; it leads only what nobody else can. Restarts do not end it.",
		RunE: func(cmd *cobra.Command, args []string) error { return c.drain(cmd.Context(), args[0], false) },
	}
}

func (c *cli) nodeUndrain() *cobra.Command {
	return &cobra.Command{
		Use: "undrain NODE", Short: "Let a drained node lead and take replicas again", Args: exactly("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.drain(cmd.Context(), args[0], true) },
	}
}

// drain drains a node and waits until it leads nothing, or ends that.
func (c *cli) drain(ctx context.Context, arg string, undo bool) error {
	node, err := nodeNumber(arg)
	if err != nil {
		return err
	}
	return c.call(ctx, func(ctx context.Context, client *sdk.Client) error {
		stop := c.progress("waiting for other leaders, seconds", secondsSince(c))
		defer stop()
		r, err := client.Cluster().DrainNode(ctx, &adminapi.DrainNodeRequest{Node: node, Undo: undo})
		// What has no other replica is not waited for: nobody can lead it instead.
		for ; err == nil && !undo && r.LeadsPartitions > r.SolePartitions; r, err = client.Cluster().DrainNode(ctx, &adminapi.DrainNodeRequest{Node: node}) {
			select {
			case <-time.After(nodeLook):
			case <-ctx.Done():
				return unhealthy("node %d is drained, and still leads %s of which no other replica is in sync: `raftctl cluster health` says which",
					node, plural(int(r.LeadsPartitions), "partition"))
			}
		}
		if err != nil {
			return err
		}
		t := &table{columns: []string{"node", "state", "leads"}}
		state := map[bool]string{false: "drained", true: "not drained"}[undo]
		t.add(node, state, r.LeadsPartitions)
		err = c.showValue(map[string]any{"node": node, "drained": !undo, "leads": r.LeadsPartitions}, t)
		if err == nil && !undo && r.SolePartitions > 0 {
			err = unhealthy("node %d is drained, and goes on leading %s that nobody else has, of %s: they are away when it stops; `raftctl topic reassign` gives them more replicas",
				node, plural(int(r.SolePartitions), "partition"), someOf(r.SoleTopics))
		}
		return err
	})
}

// someOf lists the first of names, and says how many more there are.
func someOf(names []string) string {
	const shown = 5
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}

func (c *cli) nodeDecommission() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "decommission NODE --yes", Short: "Move a node's replicas to others, then end its membership for good", Args: exactly("NODE"),
		Long: "It takes as long as the copies do. What the time limit or a crash interrupts is asked for again and goes on. A voter is demoted first.",
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "really decommission")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		node, err := nodeNumber(args[0])
		if err != nil {
			return err
		}
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Cluster().DecommissionNode(ctx, &adminapi.DecommissionNodeRequest{Node: node, ValidateOnly: true})
			if err != nil {
				return err
			}
			if !yes {
				return refused("this would move %s away from node %d and end its membership for good: repeat with --yes", plural(int(r.Replicas), "replica"), node)
			}
			if err := c.awaitDecommission(ctx, client, node); err != nil {
				return err
			}
			t := &table{columns: []string{"node", "state"}, rows: [][]any{{node, "decommissioned"}}}
			if err := c.showValue(map[string]any{"node": node, "decommissioned": true}, t); err != nil {
				return err
			}
			c.say("its process ends by itself; its directory cannot come back, a new one can join with `raftctl controller members add %d`", node)
			return nil
		})
	}
	return cmd
}

func (c *cli) awaitDecommission(ctx context.Context, client *sdk.Client, node int32) error {
	left := 0
	stop := c.progress("waiting for copies, seconds", secondsSince(c))
	defer stop()
	for {
		r, err := client.Cluster().DecommissionNode(ctx, &adminapi.DecommissionNodeRequest{Node: node})
		switch {
		case err == nil && r.Removed:
			return nil
		case err == nil:
			left = int(r.Replicas)
		case ctx.Err() == nil:
			return err
		}
		select {
		case <-time.After(nodeLook):
		case <-ctx.Done():
			return unhealthy("%s of node %d are still on their way: ask again, it goes on", plural(left, "replica"), node)
		}
	}
}
