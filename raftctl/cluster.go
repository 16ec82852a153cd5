package raftctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

func (c *cli) clusterCommand() *cobra.Command {
	return parent("cluster", "The cluster as a whole", c.clusterInfo(), c.clusterHealth())
}

func (c *cli) clusterInfo() *cobra.Command {
	return &cobra.Command{Use: "info", Short: "Show the cluster and its nodes", Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Cluster().GetCluster(ctx, &adminapi.GetClusterRequest{})
			if err != nil {
				return err
			}
			about := &table{columns: []string{"cluster", "topics", "partitions", "metadata index", "raft term", "feature level"}}
			about.add(r.ClusterId, r.Topics, r.Partitions, r.MetadataIndex, r.RaftTerm, r.FeatureLevel)
			nodes := &table{columns: []string{"node", "state", "voter", "raft leader", "client", "admin", "+rack", "+broker epoch", "+raft id", "+version"}}
			for _, n := range r.Nodes {
				nodes.add(n.Id, nodeState(n), n.Voter, n.RaftLeader, endpoint(n, "client"), endpoint(n, "admin"), n.Rack, n.BrokerEpoch, n.RaftId, n.Version)
			}
			return c.show(r, about, nodes)
		})
	}}
}

func nodeState(n *adminapi.Node) string {
	switch {
	case n.Stopping:
		return "stopping"
	case n.Fenced:
		return "fenced"
	case n.Drained:
		return "drained"
	case n.ShortOfSpace:
		return "short of space"
	}
	return "running"
}

func endpoint(n *adminapi.Node, listener string) string {
	for _, e := range n.Endpoints {
		if e.Listener == listener {
			return fmt.Sprintf("%s:%d", e.Host, e.Port)
		}
	}
	return ""
}

// healthEvery is how often --watch and --exit-when-healthy look again.
const healthEvery = 500 * time.Millisecond

func (c *cli) clusterHealth() *cobra.Command {
	var watch, exitWhenHealthy bool
	cmd := &cobra.Command{Use: "health [--watch] [--exit-when-healthy]", Short: "Say whether everything is served, and what is not", Args: exactly()}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "look again until interrupted")
	cmd.Flags().BoolVarP(&exitWhenHealthy, "exit-when-healthy", "e", false, "look again until healthy, for at most --timeout")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		if !watch && !exitWhenHealthy {
			return c.health(ctx, true)
		}
		if exitWhenHealthy {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, c.timeout)
			defer cancel()
		}
		stop := c.progress("waiting, seconds", secondsSince(c))
		defer stop()
		return c.watchHealth(ctx, watch, exitWhenHealthy)
	}
	return cmd
}

// watchHealth looks again and again, until the cluster is healthy if that is to end it, or until ctx ends.
func (c *cli) watchHealth(ctx context.Context, showEach, exitWhenHealthy bool) error {
	for {
		err := c.health(ctx, showEach)
		if err == nil && exitWhenHealthy {
			return nil
		}
		select {
		case <-ctx.Done():
			if !exitWhenHealthy {
				return nil // Interrupted, as a watch always is.
			}
			return unhealthy("the cluster did not become healthy within %s: %w", c.timeout, err)
		case <-time.After(healthEvery):
		}
		if err != nil && showEach && !errors.Is(err, errUnhealthy) {
			c.complain(err)
		}
	}
}

var errUnhealthy = errors.New("the cluster is not healthy")

// health asks once. What is wrong is an error.
func (c *cli) health(ctx context.Context, show bool) error {
	return c.call(ctx, func(ctx context.Context, client *sdk.Client) error {
		r, err := client.Cluster().GetHealth(ctx, &adminapi.GetHealthRequest{})
		if err != nil {
			return err
		}
		if show {
			err = c.showHealth(r)
		}
		if err != nil || r.Healthy {
			return err
		}
		if len(r.Problems) > 0 && !show {
			return unhealthy("%w: %s: %s", errUnhealthy, r.Problems[0].Subject, r.Problems[0].What)
		}
		return &codedError{exitUnhealthy, errUnhealthy}
	})
}

func (c *cli) showHealth(r *adminapi.GetHealthResponse) error {
	about := &table{columns: []string{"healthy", "leaderless", "under min.insync", "at min.insync", "under-replicated", "offline", "stalled chains"}}
	about.add(r.Healthy, r.LeaderlessPartitions, r.UnderMinIsrPartitions, r.AtMinIsrPartitions, r.UnderReplicatedPartitions, r.OfflinePartitions, r.StalledChains)
	if len(r.Problems) == 0 {
		return c.show(r, about)
	}
	problems := &table{columns: []string{"what is wrong", "where", "what to do"}}
	for _, p := range r.Problems {
		problems.add(p.What, p.Subject, p.Action)
	}
	return c.show(r, about, problems)
}
