package raftctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

func (c *cli) controllerCommand() *cobra.Command {
	return parent("controller", "The metadata quorum: who decides, who votes, who joins",
		c.controllerStatus(), c.controllerTransfer(), c.controllerSnapshot(),
		parent("members", "Who the quorum consists of", c.membersAdd(), c.membersPromote(), c.membersRemove()))
}

func (c *cli) controllerStatus() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Show the quorum as its leader sees it", Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		return c.withQuorum(cmd.Context(), func(_ context.Context, _ *sdk.Client, q *adminapi.GetQuorumResponse) error {
			return errors.Join(c.showQuorum(q), noLeader(q))
		})
	}}
}

// noLeader is the error of a quorum that nobody leads.
func noLeader(q *adminapi.GetQuorumResponse) error {
	if q.LeaderRaftId == 0 {
		return unhealthy("the quorum has no leader: a majority of its voters must run")
	}
	return nil
}

func (c *cli) showQuorum(q *adminapi.GetQuorumResponse) error {
	about := &table{columns: []string{"leader", "term", "commit", "voters", "changing"}}
	about.add(nodeOrNone(q.LeaderNode), q.Term, q.Commit, len(voters(q)), q.Joint)
	members := &table{columns: []string{"node", "role", "state", "behind", "raft id", "+cluster listener", "+directory"}}
	for _, m := range q.Members {
		members.add(m.Node, role(m), memberState(m), behind(q, m), m.RaftId, m.Address, m.Directory)
	}
	return c.show(q, about, members)
}

func voters(q *adminapi.GetQuorumResponse) []*adminapi.Member {
	return slices.DeleteFunc(slices.Clone(q.Members), func(m *adminapi.Member) bool { return !m.Voter })
}

func nodeOrNone(node int32) string {
	if node < 0 {
		return "none"
	}
	return strconv.Itoa(int(node))
}

func role(m *adminapi.Member) string {
	switch {
	case m.Leader:
		return "leader"
	case m.Voter:
		return "voter"
	}
	return "learner"
}

func memberState(m *adminapi.Member) string {
	switch {
	case !m.Recent:
		return "silent"
	case m.Fenced:
		return "fenced"
	}
	return "running"
}

// behind is how many entries a member lacks of what is committed; nothing where nobody knows.
func behind(q *adminapi.GetQuorumResponse, m *adminapi.Member) string {
	if q.LeaderRaftId == 0 {
		return ""
	}
	return strconv.FormatUint(q.Commit-min(q.Commit, m.Match), 10)
}

func (c *cli) controllerTransfer() *cobra.Command {
	return &cobra.Command{Use: "transfer NODE", Short: "Hand the quorum's leadership to a voter", Args: exactly("NODE"), RunE: func(cmd *cobra.Command, args []string) error {
		node, err := nodeNumber(args[0])
		if err != nil {
			return err
		}
		return c.withQuorum(cmd.Context(), func(ctx context.Context, client *sdk.Client, q *adminapi.GetQuorumResponse) error {
			at := slices.IndexFunc(q.Members, func(m *adminapi.Member) bool { return m.Node == node && m.Voter })
			if at < 0 {
				return notFound("node %d is no voter: `raftctl controller members promote` makes voters", node)
			}
			if _, err := client.Cluster().TransferController(ctx, &adminapi.TransferControllerRequest{RaftId: q.Members[at].RaftId}); err != nil {
				return err
			}
			return c.showValue(map[string]any{"leader": node}, &table{columns: []string{"leader"}, rows: [][]any{{node}}})
		})
	}}
}

func (c *cli) controllerSnapshot() *cobra.Command {
	request := &adminapi.SaveSnapshotRequest{}
	cmd := &cobra.Command{Use: "snapshot [NODE...] [--all]", Short: "Write a snapshot of the metadata now: on the node that answers, on some, or on all"}
	cmd.Flags().BoolVar(&request.All, "all", false, "on every node that is not fenced")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if request.Nodes, err = nodeNumbers(args); err != nil {
			return err
		}
		if request.All && len(args) > 0 {
			return usageError("name nodes, or all of them with --all")
		}
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Cluster().SaveSnapshot(ctx, request)
			if err != nil {
				return err
			}
			return errors.Join(c.showSnapshots(r), failedSnapshots(r))
		})
	}
	return cmd
}

func (c *cli) showSnapshots(r *adminapi.SaveSnapshotResponse) error {
	t := &table{columns: []string{"node", "index", "term", "size", "written", "file"}}
	for _, s := range r.Snapshots {
		if s.Failure == "" {
			written := "now"
			if !s.Written {
				written = "before; nothing changed"
			}
			t.add(s.Node, s.Index, s.Term, bytesText(s.Bytes), written, s.File)
		}
	}
	return c.show(r, t)
}

// failedSnapshots is the error of nodes that wrote none.
func failedSnapshots(r *adminapi.SaveSnapshotResponse) error {
	var failures []error
	for _, s := range r.Snapshots {
		if s.Failure != "" {
			failures = append(failures, fmt.Errorf("node %d: %s", s.Node, s.Failure))
		}
	}
	return errors.Join(failures...)
}

func (c *cli) membersAdd() *cobra.Command {
	return &cobra.Command{Use: "add NODE", Short: "Make a one-time token with which a new node joins", Args: exactly("NODE"), RunE: func(cmd *cobra.Command, args []string) error {
		node, err := nodeNumber(args[0])
		if err != nil {
			return err
		}
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Cluster().InviteNode(ctx, &adminapi.InviteNodeRequest{Node: node})
			if err != nil {
				return err
			}
			t := &table{columns: []string{"node", "good for", "cluster", "token"}}
			t.add(node, "one hour, once", r.Address, r.Token)
			if err := c.show(r, t); err != nil {
				return err
			}
			c.say("next, on the new host: millrace join --data DIR --node-id %d --cluster %s --token %s", node, r.Address, r.Token)
			return nil
		})
	}}
}

func (c *cli) membersPromote() *cobra.Command {
	var demote []string
	cmd := &cobra.Command{
		Use: "promote NODE... [--demote NODE,...]", Short: "Make voters of learners, in one step: the quorum has 1, 3 or 5 voters", Args: atLeastOne("NODE"),
	}
	cmd.Flags().StringSliceVar(&demote, "demote", nil, "voters that become learners in the same step")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		nodes, err := nodeNumbers(args)
		if err != nil {
			return err
		}
		return c.withQuorum(cmd.Context(), func(ctx context.Context, client *sdk.Client, q *adminapi.GetQuorumResponse) error {
			request, err := promotion(q, nodes)
			if err != nil {
				return err
			}
			if request.Demote, err = votersOf(q, demote); err != nil {
				return err
			}
			return c.alterMembers(ctx, client, request)
		})
	}
	return cmd
}

// votersOf returns the raft ids of nodes that vote.
func votersOf(q *adminapi.GetQuorumResponse, names []string) ([]uint64, error) {
	nodes, err := nodeNumbers(names)
	if err != nil {
		return nil, err
	}
	var ids []uint64
	for _, node := range nodes {
		at := slices.IndexFunc(q.Members, func(m *adminapi.Member) bool { return m.Node == node && m.Voter })
		if at < 0 {
			return nil, notFound("node %d is no voter: `raftctl controller status` lists the members", node)
		}
		ids = append(ids, q.Members[at].RaftId)
	}
	return ids, nil
}

// promotion names the learners of some nodes, and the voters whose places they take because their directories are lost.
func promotion(q *adminapi.GetQuorumResponse, nodes []int32) (*adminapi.AlterMembersRequest, error) {
	request := &adminapi.AlterMembersRequest{}
	for _, node := range nodes {
		at := slices.IndexFunc(q.Members, func(m *adminapi.Member) bool { return m.Node == node && !m.Voter })
		if at < 0 {
			return nil, notFound("node %d is no learner of the quorum: `raftctl controller status` lists the members", node)
		}
		request.Promote = append(request.Promote, q.Members[at].RaftId)
		for _, m := range q.Members {
			if m.Node == node && m.Voter {
				request.Remove = append(request.Remove, m.RaftId)
			}
		}
	}
	return request, nil
}

func (c *cli) membersRemove() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "remove NODE... --yes", Short: "Take stopped nodes out of the quorum; their directories never come back", Args: atLeastOne("NODE")}
	cmd.Flags().BoolVar(&yes, "yes", false, "really remove")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		nodes, err := nodeNumbers(args)
		if err != nil {
			return err
		}
		return c.withQuorum(cmd.Context(), func(ctx context.Context, client *sdk.Client, q *adminapi.GetQuorumResponse) error {
			request := &adminapi.AlterMembersRequest{}
			for _, node := range nodes {
				before := len(request.Remove)
				for _, m := range q.Members {
					if m.Node == node {
						request.Remove = append(request.Remove, m.RaftId)
					}
				}
				if len(request.Remove) == before {
					return notFound("node %d is no member of the quorum", node)
				}
			}
			if !yes {
				return refused("this would remove %s (raft ids %v) from the quorum for ever; what is removed can only join again with an empty directory: repeat with --yes",
					"node "+strings.Join(args, ", node "), request.Remove)
			}
			return c.alterMembers(ctx, client, request)
		})
	}
	return cmd
}

// levelLook is how often a promotion is tried again while a learner catches up.
const levelLook = 200 * time.Millisecond

// alterMembers has the members altered and shows the quorum then.
func (c *cli) alterMembers(ctx context.Context, client *sdk.Client, request *adminapi.AlterMembersRequest) error {
	stop := c.progress("waiting for the quorum, seconds", secondsSince(c))
	err := alterWhenLevel(ctx, client, request)
	stop()
	if err != nil {
		return err
	}
	q, err := client.Cluster().GetQuorum(ctx, &adminapi.GetQuorumRequest{})
	if err != nil {
		return err
	}
	return c.showQuorum(q)
}

// alterWhenLevel has the members altered as soon as those that are promoted are level.
func alterWhenLevel(ctx context.Context, client *sdk.Client, request *adminapi.AlterMembersRequest) error {
	for {
		_, err := client.Cluster().AlterMembers(ctx, request)
		if err == nil || connect.CodeOf(err) != connect.CodeUnavailable {
			return err
		}
		select {
		case <-time.After(levelLook):
		case <-ctx.Done():
			return err
		}
	}
}

// withQuorum asks how the quorum stands and goes on with that.
func (c *cli) withQuorum(ctx context.Context, f func(ctx context.Context, client *sdk.Client, q *adminapi.GetQuorumResponse) error) error {
	return c.call(ctx, func(ctx context.Context, client *sdk.Client) error {
		q, err := client.Cluster().GetQuorum(ctx, &adminapi.GetQuorumRequest{})
		if err != nil {
			return err
		}
		return f(ctx, client, q)
	})
}

func nodeNumber(text string) (int32, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return 0, usageError("%q is not the number of a node", text)
	}
	return int32(n), nil
}

func nodeNumbers(texts []string) ([]int32, error) {
	var all []int32
	for _, text := range texts {
		n, err := nodeNumber(text)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

func atLeastOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError("%s takes at least one %s: %s", cmd.CommandPath(), name, cmd.UseLine())
		}
		return nil
	}
}
