package raftctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

// movePlan is a plan as a file, in the form of Kafka's own tool.
type movePlan struct {
	Version    int           `json:"version"`
	Partitions []plannedMove `json:"partitions"`
}

type plannedMove struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Replicas  []int32 `json:"replicas"`
}

func (c *cli) reassignCommand() *cobra.Command {
	return parent("reassign", "Move partitions to other nodes while they are written and read",
		c.reassignPlan(), c.reassignApply(), c.reassignStatus(), c.reassignCancel())
}

func (c *cli) reassignPlan() *cobra.Command {
	request := &adminapi.PlanMovesRequest{}
	var nodes []string
	cmd := &cobra.Command{
		Use: "plan [TOPIC...] [--to-nodes 1,2,3]", Short: "Print a plan that balances replicas and leaders over nodes and racks; changes nothing",
		Long: "The plan is JSON, the form of kafka-reassign-partitions. It lists what is to move and leaves out what lies well.",
	}
	cmd.Flags().StringSliceVar(&nodes, "to-nodes", nil, "where replicas may lie (default: all nodes that run, have space and are not drained)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		to, err := nodeNumbers(nodes)
		if err != nil {
			return err
		}
		request.Topics, request.Nodes = args, to
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Topics().PlanMoves(ctx, request)
			if err != nil {
				return err
			}
			plan := movePlan{Version: 1, Partitions: []plannedMove{}}
			for _, m := range r.Moves {
				plan.Partitions = append(plan.Partitions, plannedMove{m.Topic, m.Partition, m.Replicas})
			}
			text, err := json.MarshalIndent(plan, "", "  ")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "%s\n", text)
			return err
		})
	}
	return cmd
}

// readPlan reads a plan from a file, or from standard input for "-".
func (c *cli) readPlan(name string) ([]*adminapi.Move, error) {
	raw, err := os.ReadFile(name)
	if name == "-" {
		raw, err = io.ReadAll(c.in)
	}
	if err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	var plan movePlan
	if err := json.Unmarshal(raw, &plan); err != nil {
		return nil, usageError("%s is no plan: %v", name, err)
	}
	if plan.Version != 1 {
		return nil, usageError("%s has version %d, want 1", name, plan.Version)
	}
	var moves []*adminapi.Move
	for _, m := range plan.Partitions {
		if m.Topic == "" || len(m.Replicas) == 0 {
			return nil, usageError("%s: partition %q-%d has no topic or no replicas", name, m.Topic, m.Partition)
		}
		moves = append(moves, &adminapi.Move{Topic: m.Topic, Partition: m.Partition, Replicas: m.Replicas})
	}
	return moves, nil
}

func (c *cli) reassignApply() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "apply FILE --yes", Short: "Check a plan, and with --yes begin its moves; - is standard input", Args: exactly("FILE")}
	cmd.Flags().BoolVar(&yes, "yes", false, "really move")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		moves, err := c.readPlan(args[0])
		if err != nil {
			return err
		}
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			if err := move(ctx, client, moves, true); err != nil {
				return err
			}
			if !yes {
				return refused("this would move %s: repeat with --yes", plural(len(moves), "partition"))
			}
			if err := move(ctx, client, moves, false); err != nil {
				return err
			}
			return c.showMoves(ctx, client)
		})
	}
	return cmd
}

// move has partitions moved, or asks whether they could be. What is refused is an error that names each.
func move(ctx context.Context, client *sdk.Client, moves []*adminapi.Move, validateOnly bool) error {
	r, err := client.Topics().MovePartitions(ctx, &adminapi.MovePartitionsRequest{Moves: moves, ValidateOnly: validateOnly})
	if err != nil {
		return err
	}
	refusals := slices.DeleteFunc(r.Refusals, func(text string) bool { return text == "" })
	if len(refusals) > 0 {
		return refused("%d of %d refused: %s", len(refusals), len(moves), strings.Join(refusals, "; "))
	}
	return nil
}

var errMoving = errors.New("partitions are still being moved")

func (c *cli) reassignStatus() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{Use: "status [--wait]", Short: "List the moves under way, with what newcomers lack", Args: exactly()}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until there is none; 4 if the time limit comes first")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			stop := c.progress("waiting for moves, seconds", secondsSince(c))
			defer stop()
			for wait {
				r, err := client.Topics().ListMoves(ctx, &adminapi.ListMovesRequest{})
				if err == nil && len(r.Moves) == 0 {
					break
				}
				select {
				case <-time.After(nodeLook):
				case <-ctx.Done():
					return unhealthy("%w", errMoving)
				}
			}
			return c.showMoves(ctx, client)
		})
	}
	return cmd
}

func (c *cli) showMoves(ctx context.Context, client *sdk.Client) error {
	r, err := client.Topics().ListMoves(ctx, &adminapi.ListMovesRequest{})
	if err != nil {
		return err
	}
	t := &table{columns: []string{"topic", "partition", "leader", "adding", "removing", "in sync", "records behind"}}
	for _, m := range r.Moves {
		var behind []string
		for _, n := range m.Newcomers {
			text := "not known"
			if n.Behind >= 0 {
				text = fmt.Sprint(n.Behind)
			}
			behind = append(behind, fmt.Sprintf("%d: %s", n.Node, text))
		}
		t.add(m.Topic, m.Partition, nodeOrNone(m.Leader), m.Adding, m.Removing, m.Isr, strings.Join(behind, ", "))
	}
	return c.show(r, t)
}

func (c *cli) reassignCancel() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "cancel [TOPIC...] --yes", Short: "Take the moves under way back, of some topics or of all"}
	cmd.Flags().BoolVar(&yes, "yes", false, "really cancel")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Topics().ListMoves(ctx, &adminapi.ListMovesRequest{})
			if err != nil {
				return err
			}
			var back []*adminapi.Move
			for _, m := range r.Moves {
				if len(args) == 0 || slices.Contains(args, m.Topic) {
					back = append(back, &adminapi.Move{Topic: m.Topic, Partition: m.Partition})
				}
			}
			if !yes && len(back) > 0 {
				return refused("this would take back the moves of %s: repeat with --yes", plural(len(back), "partition"))
			}
			if err := move(ctx, client, back, false); err != nil {
				return err
			}
			return c.showMoves(ctx, client)
		})
	}
	return cmd
}
