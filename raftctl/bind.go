package raftctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

func (c *cli) bindCommand() *cobra.Command {
	return parent("bind", "Bindings of plugin chains to consumer groups",
		c.bindCreate(), c.bindUpdate(), c.bindResume(), c.bindList(), c.bindDescribe(), c.bindDelete())
}

// chainFlags are the flags that describe a chain.
type chainFlags struct {
	config    []string
	onError   string
	window    uint32
	within    time.Duration
	fuel      uint64
	memory    uint32
	blockBits uint32
	force     bool
	breaker   string
}

func (f *chainFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.config, "config", nil, "a plugin's configuration: JSON, or @FILE; once per plugin, in order")
	cmd.Flags().StringVar(&f.onError, "on-error", "dead-letter", "dead-letter, skip, pass or stop")
	cmd.Flags().Uint32Var(&f.window, "window", 0, "reach in whole blocks of 65,536 offsets behind the current one (0: 15)")
	cmd.Flags().DurationVar(&f.within, "within", 0, "copies farther apart in time than this are none (0: no limit)")
	cmd.Flags().Uint64Var(&f.fuel, "fuel", 0, "fuel a record may use (0: 1,000,000)")
	cmd.Flags().Uint32Var(&f.memory, "mem", 0, "bytes of memory a plugin may use (0: 16 MiB)")
	cmd.Flags().StringVar(&f.breaker, "breaker", "", "K/N: hand over to the version before where K of the last N offsets are dead-lettered; stop if there is none")
	cmd.Flags().BoolVar(&f.force, "force", false, "allow a policy that is otherwise refused for the chain")
	cmd.Flags().Uint32Var(&f.blockBits, "block-bits", 0, "log2 of a block's offsets, for tests (0: 16)")
	hide(cmd, "block-bits")
}

// hide leaves a flag out of the help text.
func hide(cmd *cobra.Command, name string) {
	if flag := cmd.Flags().Lookup(name); flag != nil {
		flag.Hidden = true
	}
}

func policyNamed(name string) (adminapi.ErrorPolicy, bool) {
	policies := map[string]adminapi.ErrorPolicy{
		"dead-letter": adminapi.ErrorPolicy_ERROR_POLICY_DEAD_LETTER, "skip": adminapi.ErrorPolicy_ERROR_POLICY_SKIP,
		"pass": adminapi.ErrorPolicy_ERROR_POLICY_PASS, "stop": adminapi.ErrorPolicy_ERROR_POLICY_STOP,
	}
	policy, ok := policies[name]
	return policy, ok
}

func (f *chainFlags) spec(plugins []string) (*adminapi.ChainSpec, error) {
	policy, ok := policyNamed(f.onError)
	if !ok {
		return nil, usageError("--on-error %s: choose dead-letter, skip, pass or stop", f.onError)
	}
	if len(f.config) > len(plugins) {
		return nil, usageError("%s for %s", plural(len(f.config), "--config"), plural(len(plugins), "plugin"))
	}
	spec := &adminapi.ChainSpec{
		Window: &adminapi.Window{Blocks: f.window, WithinMs: f.within.Milliseconds()}, Policy: policy,
		RecordFuel: f.fuel, MemoryBytes: f.memory, BlockBits: f.blockBits, Force: f.force,
	}
	if f.breaker != "" {
		spec.Breaker = &adminapi.Breaker{}
		if _, err := fmt.Sscanf(f.breaker, "%d/%d", &spec.Breaker.Failures, &spec.Breaker.Offsets); err != nil {
			return nil, usageError("--breaker %s: write failures and offsets as 50/1000", f.breaker)
		}
	}
	for i, plugin := range plugins {
		stage := &adminapi.Stage{Plugin: plugin}
		if i < len(f.config) {
			var err error
			if stage.Config, err = configBytes(f.config[i]); err != nil {
				return nil, err
			}
		}
		spec.Stages = append(spec.Stages, stage)
	}
	return spec, nil
}

func (c *cli) bindCreate() *cobra.Command {
	request := &adminapi.CreateBindingRequest{}
	var chain chainFlags
	var from string
	cmd := &cobra.Command{
		Use:   "create GROUP PLUGIN[@VERSION][,PLUGIN ...] --topics T,...",
		Short: "Bind a chain to a group; returns when every partition's first offset is decided",
		Args:  exactly("GROUP", "PLUGIN"),
	}
	cmd.Flags().StringSliceVar(&request.Topics, "topics", nil, "topics to bind on (--topic does as well)")
	cmd.Flags().StringSliceVar(&request.Topics, "topic", nil, "the other commands' name for their one topic")
	hide(cmd, "topic")
	cmd.Flags().StringVar(&from, "from", "", "start or end: where the chain begins (default: start for a group with neither commits nor members, else end)")
	cmd.Flags().BoolVar(&request.ValidateOnly, "dry-run", false, "check, bind nothing")
	chain.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(request.Topics) == 0 {
			return usageError("bind create: name a topic with --topics")
		}
		var err error
		request.Group = args[0]
		if request.StartAt, err = startAt(from); err != nil {
			return err
		}
		if request.Chain, err = chain.spec(strings.Split(args[1], ",")); err != nil {
			return err
		}
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Bindings().CreateBinding(ctx, request)
			if err != nil {
				return err
			}
			return c.show(r, bindingTable(r.Bindings...))
		})
	}
	return cmd
}

func startAt(from string) (adminapi.StartAt, error) {
	switch from {
	case "":
		return adminapi.StartAt_START_AT_DEFAULT, nil
	case "start":
		return adminapi.StartAt_START_AT_LOG_START, nil
	case "end":
		return adminapi.StartAt_START_AT_LOG_END, nil
	}
	return 0, usageError("--from %s: choose start or end", from)
}

// bindingTable shows bindings by their newest row.
func bindingTable(bindings ...*adminapi.Binding) *table {
	t := &table{columns: []string{"group", "topic", "chain", "on error", "judges from", "dead letters", "+rows", "+judge key", "+id"}}
	for _, b := range bindings {
		chain, policy, from, key := "identity", "", []string{}, ""
		if len(b.Rows) > 0 {
			row := b.Rows[len(b.Rows)-1]
			chain, policy, from, key = chainText(row), policyText(row.Policy), fromText(row), row.JudgeKey
		}
		name := orElse(b.Group, "view "+b.View)
		topic := b.Topic
		if b.Detached {
			topic += " (detached)"
		}
		t.add(name, topic, chain, policy, from, b.DeadLetter, len(b.Rows), key, b.Id)
	}
	return t
}

func chainText(row *adminapi.Row) string {
	var names []string
	for _, stage := range row.Stages {
		names = append(names, stage.Plugin)
	}
	return orElse(strings.Join(names, ","), "identity")
}

func policyText(p adminapi.ErrorPolicy) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(p.String(), "ERROR_POLICY_")), "_", "-")
}

func fromText(row *adminapi.Row) []string { return cutText(row.From) }

func breakerText(b *adminapi.Breaker) string {
	if b == nil {
		return ""
	}
	return fmt.Sprintf("%d/%d", b.Failures, b.Offsets)
}

func cutText(cuts []*adminapi.Cutover) []string {
	var from []string
	for _, cut := range cuts {
		from = append(from, fmt.Sprintf("%d:%d", cut.Partition, cut.From))
	}
	return from
}

func (c *cli) bindUpdate() *cobra.Command {
	request := &adminapi.UpdateBindingRequest{}
	var chain chainFlags
	cmd := &cobra.Command{
		Use:   "update GROUP PLUGIN[@VERSION][,PLUGIN ...] --topic T",
		Short: "Cut over to another version, configuration or window, at one exact offset per partition",
		Args:  exactly("GROUP", "PLUGIN"),
	}
	cmd.Flags().StringVar(&request.Topic, "topic", "", "the bound topic")
	cmd.Flags().BoolVar(&request.ValidateOnly, "dry-run", false, "check, change nothing")
	chain.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if request.Topic == "" {
			return usageError("bind update: name the bound topic with --topic")
		}
		var err error
		request.Group = args[0]
		if request.Chain, err = chain.spec(strings.Split(args[1], ",")); err != nil {
			return err
		}
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Bindings().UpdateBinding(ctx, request)
			if err != nil {
				return err
			}
			return c.show(r, bindingTable(r.Binding))
		})
	}
	return cmd
}

func (c *cli) bindResume() *cobra.Command {
	request := &adminapi.ResumeBindingRequest{}
	var onError string
	cmd := &cobra.Command{
		Use:   "resume GROUP --topic T",
		Short: "Let the batch at which partitions stopped through under another policy, and go on behind it as before",
		Args:  exactly("GROUP"),
	}
	cmd.Flags().StringVar(&request.Topic, "topic", "", "the bound topic (may be left out if the group is bound on one only)")
	cmd.Flags().StringVar(&onError, "on-error", "dead-letter", "for that batch: dead-letter, skip or pass")
	cmd.Flags().BoolVar(&request.Force, "force", false, "allow a policy that is otherwise refused for the chain")
	cmd.Flags().BoolVar(&request.ValidateOnly, "dry-run", false, "check, change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		policy, ok := policyNamed(onError)
		if !ok || policy == adminapi.ErrorPolicy_ERROR_POLICY_STOP {
			return usageError("--on-error %s: choose dead-letter, skip or pass", onError)
		}
		request.Group, request.Policy = args[0], policy
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Bindings().ResumeBinding(ctx, request)
			if err != nil {
				return err
			}
			return c.show(r, bindingTable(r.Binding))
		})
	}
	return cmd
}

func (c *cli) bindList() *cobra.Command {
	return &cobra.Command{Use: "list [GROUP]", Short: "List bindings", Args: atMost(1), RunE: func(cmd *cobra.Command, args []string) error {
		request := &adminapi.ListBindingsRequest{}
		if len(args) == 1 {
			request.Group = args[0]
		}
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Bindings().ListBindings(ctx, request)
			if err != nil {
				return err
			}
			return c.show(r, bindingTable(r.Bindings...))
		})
	}}
}

func (c *cli) bindDescribe() *cobra.Command {
	request := &adminapi.DescribeBindingRequest{}
	cmd := &cobra.Command{Use: "describe GROUP --topic T", Short: "Show how a chain does: counts, reach, errors, and what it waits for", Args: exactly("GROUP")}
	cmd.Flags().StringVar(&request.Topic, "topic", "", "the bound topic (may be left out if the group is bound on one only)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request.Group = args[0]
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Bindings().DescribeBinding(ctx, request)
			if err != nil {
				return err
			}
			rows := &table{columns: []string{"row", "chain", "on error", "window", "within", "from", "tripped", "+breaker", "+judge key"}}
			for _, row := range r.Binding.Rows {
				rows.add(row.Id, chainText(row), policyText(row.Policy), fmt.Sprintf("%d blocks", row.Window.GetBlocks()),
					withinText(row.Window.GetWithinMs()), cutText(row.From), cutText(row.Tripped), breakerText(row.Breaker), row.JudgeKey)
			}
			if err := c.show(r, bindingTable(r.Binding), rows, chainTable(r.Partitions)); err != nil {
				return err
			}
			c.describeErrors(r)
			c.warnOfSilent(r.Silent)
			return nil
		})
	}
	return cmd
}

func withinText(ms int64) string {
	if ms == 0 {
		return "no limit"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}

func chainTable(partitions []*adminapi.ChainPartition) *table {
	t := &table{columns: []string{"partition", "leader", "state", "judged to", "of", "committed", "lag", "passed", "dropped", "duplicates", "replaced", "dead letters", "failed", "reach from", "+at", "+origin", "+fuel", "reason"}}
	for _, p := range partitions {
		at := ""
		if p.ReachFromMs > 0 {
			at = time.UnixMilli(p.ReachFromMs).UTC().Format(time.RFC3339)
		}
		t.add(p.Partition, nodeOrNone(p.Leader), p.State, p.JudgedTo, p.LastStable, committedText(p.Committed), known(p.Lag), p.Passed, p.Dropped, p.Duplicates, p.Replaced, p.Lettered, p.Failed, p.ReachFrom, at, p.Origin, p.FuelUsed, p.Reason)
	}
	return t
}

// describeErrors prints the last error of each partition with what the plugin wrote to its standard error, and warnings.
func (c *cli) describeErrors(r *adminapi.DescribeBindingResponse) {
	for _, p := range r.Partitions {
		if p.LastError == "" {
			continue
		}
		c.say("\nlast error, partition %d offset %d: %s", p.Partition, p.LastErrorOffset, p.LastError)
		if p.LastStderr != "" {
			c.say("  the plugin wrote: %s", strings.ReplaceAll(strings.TrimSpace(p.LastStderr), "\n", "\n    "))
		}
	}
	for _, warning := range r.Warnings {
		c.say("warning: %s", warning)
	}
}

func (c *cli) bindDelete() *cobra.Command {
	request := &adminapi.DeleteBindingRequest{}
	var yes bool
	cmd := &cobra.Command{Use: "delete GROUP --topic T --yes", Short: "Unbind; the group reads the topic raw from then on", Args: exactly("GROUP")}
	cmd.Flags().StringVar(&request.Topic, "topic", "", "the bound topic")
	cmd.Flags().BoolVar(&yes, "yes", false, "really unbind")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request.Group, request.ValidateOnly = args[0], !yes
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			if _, err := client.Bindings().DeleteBinding(ctx, request); err != nil {
				return err
			}
			if !yes {
				return refused("this would unbind group %s from topic %s; it would then receive every record, duplicates included: repeat with --yes", args[0], request.Topic)
			}
			return c.showValue(map[string]string{"group": args[0], "topic": request.Topic},
				&table{columns: []string{"unbound", "topic"}, rows: [][]any{{args[0], request.Topic}}})
		})
	}
	return cmd
}
