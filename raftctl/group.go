package raftctl

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

func (c *cli) groupCommand() *cobra.Command {
	return parent("group", "Consumer groups", c.groupList(), c.groupDescribe(), c.groupSeek(), c.groupDelete())
}

// known prints a count that the broker may not know.
func known(n int64) string {
	if n < 0 {
		return "unknown"
	}
	return strconv.FormatInt(n, 10)
}

// committedText prints a commit; there may be none.
func committedText(offset int64) string {
	if offset < 0 {
		return "none"
	}
	return strconv.FormatInt(offset, 10)
}

func (c *cli) groupList() *cobra.Command {
	var lagging bool
	cmd := &cobra.Command{Use: "list [--lagging]", Short: "List groups with their total lag", Args: exactly()}
	cmd.Flags().BoolVar(&lagging, "lagging", false, "only groups that are behind, or may be")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Groups().ListGroups(ctx, &adminapi.ListGroupsRequest{})
			if err != nil {
				return err
			}
			if lagging {
				r.Groups = slices.DeleteFunc(r.Groups, func(g *adminapi.GroupSummary) bool { return g.TotalLag == 0 })
			}
			t := &table{columns: []string{"group", "state", "members", "total lag", "+protocol type"}}
			for _, g := range r.Groups {
				t.add(g.Group, g.State, g.Members, known(g.TotalLag), g.ProtocolType)
			}
			if err := c.show(r, t); err != nil {
				return err
			}
			c.warnOfSilent(r.Silent)
			return nil
		})
	}
	return cmd
}

// warnOfSilent names the nodes that did not answer whoever was asked: what only they know is missing.
func (c *cli) warnOfSilent(nodes []*adminapi.SilentNode) {
	for _, n := range nodes {
		c.say("warning: node %d does not answer, and what it leads is not told: %s", n.Node, n.Why)
	}
}

func (c *cli) groupDescribe() *cobra.Command {
	return &cobra.Command{Use: "describe GROUP", Short: "Show a group's members, commits and lag", Args: exactly("GROUP"), RunE: func(cmd *cobra.Command, args []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Groups().DescribeGroup(ctx, &adminapi.DescribeGroupRequest{Group: args[0]})
			if err != nil {
				return err
			}
			about := &table{columns: []string{"group", "state", "members", "total lag", "protocol", "chains on"}}
			about.add(r.Summary.Group, r.Summary.State, r.Summary.Members, known(r.Summary.TotalLag), r.Protocol, r.Bindings)
			offsets := &table{columns: []string{"topic", "partition", "committed", "end", "lag", "through a chain", "+metadata"}}
			for _, o := range r.Offsets {
				offsets.add(o.Topic, o.Partition, committedText(o.Committed), known(o.End), known(o.Lag), o.Filtered, o.Metadata)
			}
			members := &table{columns: []string{"member", "client", "host", "assigned", "+instance"}}
			for _, m := range r.Members {
				members.add(m.MemberId, m.ClientId, m.ClientHost, m.Assigned, m.InstanceId)
			}
			if err := c.show(r, about, offsets, members); err != nil {
				return err
			}
			c.warnOfSilent(r.Silent)
			return nil
		})
	}}
}

func (c *cli) groupSeek() *cobra.Command {
	request := &adminapi.SeekGroupRequest{}
	var to string
	cmd := &cobra.Command{
		Use:   "seek GROUP --to start|end|OFFSET|@TIME [--topic T ...] [--partition N ...] [--execute]",
		Short: "Move a group's commits; says what would change unless --execute is given",
		Args:  exactly("GROUP"),
	}
	cmd.Flags().StringVar(&to, "to", "", "start, end, an offset, or @ and a time (RFC 3339 or Unix milliseconds)")
	cmd.Flags().StringArrayVar(&request.Topics, "topic", nil, "only this topic (default: every topic with a commit)")
	cmd.Flags().Int32SliceVar(&request.Partitions, "partition", nil, "only these partitions")
	cmd.Flags().BoolVar(&request.Execute, "execute", false, "really move; the group must have no members")
	cmd.Flags().BoolVar(&request.RestartWindow, "restart-window", false, "also forget what was sighted before the target, so that copies of skipped records are delivered")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		target, err := seekTarget(to)
		if err != nil {
			return err
		}
		request.Group, request.Target = args[0], target
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Groups().SeekGroup(ctx, request)
			if err != nil {
				return err
			}
			t := &table{columns: []string{"topic", "partition", "from", "to"}}
			for _, change := range r.Changes {
				t.add(change.Topic, change.Partition, committedText(change.From), change.To)
			}
			if err := c.show(r, t); err != nil || r.Executed {
				return err
			}
			c.say("nothing was changed: repeat with --execute")
			return nil
		})
	}
	return cmd
}

func seekTarget(to string) (*adminapi.SeekTarget, error) {
	switch {
	case to == "start":
		return &adminapi.SeekTarget{To: &adminapi.SeekTarget_Start{Start: true}}, nil
	case to == "end":
		return &adminapi.SeekTarget{To: &adminapi.SeekTarget_End{End: true}}, nil
	case strings.HasPrefix(to, "@"):
		ms, err := timeMillis(to[1:])
		if err != nil {
			return nil, err
		}
		return &adminapi.SeekTarget{To: &adminapi.SeekTarget_TimestampMs{TimestampMs: ms}}, nil
	}
	offset, err := strconv.ParseInt(to, 10, 64)
	if err != nil || offset < 0 {
		return nil, usageError("--to %q is none of start, end, an offset, @TIME", to)
	}
	return &adminapi.SeekTarget{To: &adminapi.SeekTarget_Offset{Offset: offset}}, nil
}

// timeMillis reads RFC 3339 or Unix milliseconds.
func timeMillis(text string) (int64, error) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return ms, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, usageError("%q is neither a time like 2006-01-02T15:04:05Z nor Unix milliseconds", text)
	}
	return at.UnixMilli(), nil
}

func (c *cli) groupDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "delete GROUP --yes", Short: "Delete an empty group and its commits", Args: exactly("GROUP")}
	cmd.Flags().BoolVar(&yes, "yes", false, "really delete")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			if _, err := client.Groups().DeleteGroup(ctx, &adminapi.DeleteGroupRequest{Group: args[0], ValidateOnly: !yes}); err != nil {
				return err
			}
			if !yes {
				return refused("this would delete group %s and its commits: repeat with --yes", args[0])
			}
			return c.showValue(map[string]string{"deleted": args[0]}, &table{columns: []string{"deleted"}, rows: [][]any{{args[0]}}})
		})
	}
	return cmd
}

// plural is for sentences about counts.
func plural(n int, one string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, one)
	}
	return fmt.Sprintf("%d %ss", n, one)
}
