package raftctl

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

func (c *cli) configCommand() *cobra.Command {
	return parent("config", "Configuration of topics, and of the node that answers", c.configGet(), c.configSet())
}

func (c *cli) configGet() *cobra.Command {
	var node bool
	cmd := &cobra.Command{Use: "get TOPIC [KEY ...] | --node [KEY ...]", Short: "Show what holds for a topic, or what the node was started with"}
	cmd.Flags().BoolVar(&node, "node", false, "the configuration of the node that answers")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 && !node {
			return usageError("config get: name a topic, or --node: %s", cmd.UseLine())
		}
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			var all []*adminapi.ConfigEntry
			keys := args
			if node {
				r, err := client.Cluster().GetNodeConfig(ctx, &adminapi.GetNodeConfigRequest{})
				if err != nil {
					return err
				}
				all = r.Configs
			} else {
				r, err := client.Topics().DescribeTopic(ctx, &adminapi.DescribeTopicRequest{Name: args[0]})
				if err != nil {
					return err
				}
				all, keys = r.Configs, args[1:]
			}
			entries, err := chosen(all, keys)
			if err != nil {
				return err
			}
			return c.show(&adminapi.DescribeTopicResponse{Configs: entries}, configTable(entries))
		})
	}
	return cmd
}

// chosen returns the entries of the given keys, or all of them where no key is given.
func chosen(all []*adminapi.ConfigEntry, keys []string) ([]*adminapi.ConfigEntry, error) {
	if len(keys) == 0 {
		return all, nil
	}
	var entries []*adminapi.ConfigEntry
	for _, key := range keys {
		at := slices.IndexFunc(all, func(e *adminapi.ConfigEntry) bool { return e.Name == key })
		if at < 0 {
			return nil, notFound("there is no config %s here; without a key all are shown", key)
		}
		entries = append(entries, all[at])
	}
	return entries, nil
}

func configTable(entries []*adminapi.ConfigEntry) *table {
	t := &table{columns: []string{"config", "value", "source"}}
	for _, entry := range entries {
		t.add(entry.Name, entry.Value, entry.Source)
	}
	return t
}

func (c *cli) configSet() *cobra.Command {
	request := &adminapi.AlterTopicRequest{}
	cmd := &cobra.Command{
		Use:   "set TOPIC [KEY=VALUE ...] [--unset KEY ...] [--dry-run]",
		Short: "Change a topic's configuration while it runs",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) == 1 && len(request.Unset) == 0 {
				return usageError("config set: name a topic, and what to set or --unset: %s", cmd.UseLine())
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&request.Unset, "unset", nil, "config that is to follow the default again")
	cmd.Flags().BoolVar(&request.ValidateOnly, "dry-run", false, "check, change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if request.Set, err = keyValues(args[1:]); err != nil {
			return err
		}
		request.Name = args[0]
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Topics().AlterTopic(ctx, request)
			if err != nil {
				return err
			}
			if err := c.show(r, configTable(changed(r.Configs, request))); err != nil {
				return err
			}
			c.warnOfInsync(r.Topic)
			c.sayDry(request)
			return nil
		})
	}
	return cmd
}

// changed returns the entries that a request is about.
func changed(all []*adminapi.ConfigEntry, request *adminapi.AlterTopicRequest) []*adminapi.ConfigEntry {
	return slices.DeleteFunc(slices.Clone(all), func(e *adminapi.ConfigEntry) bool {
		_, set := request.Set[e.Name]
		return !set && !slices.Contains(request.Unset, e.Name)
	})
}

// sayDry says of a dry run that what was shown is what holds, not what was asked for.
func (c *cli) sayDry(request *adminapi.AlterTopicRequest) {
	if request.ValidateOnly {
		c.say("this would be accepted; nothing was changed, and what is shown holds: repeat without --dry-run")
	}
}

func (c *cli) topicAlter() *cobra.Command {
	request := &adminapi.AlterTopicRequest{}
	var settings []string
	cmd := &cobra.Command{
		Use:   "alter NAME [-p N] [-c KEY=VALUE ...] [--unset KEY ...] [--dry-run]",
		Short: "Add partitions to a topic, or change its configuration",
		Long: "Add partitions to a topic, or change its configuration.\n\n" +
			"Records of one key go to another partition once there are more: a chain with unique sees them there for the first time.",
		Args: exactly("NAME"),
	}
	cmd.Flags().Int32VarP(&request.Partitions, "partitions", "p", 0, "how many partitions the topic is to have; never fewer than it has")
	cmd.Flags().StringArrayVarP(&settings, "config", "c", nil, "topic config, KEY=VALUE")
	cmd.Flags().StringSliceVar(&request.Unset, "unset", nil, "config that is to follow the default again")
	cmd.Flags().BoolVar(&request.ValidateOnly, "dry-run", false, "check, change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if request.Set, err = keyValues(settings); err != nil {
			return err
		}
		if request.Partitions == 0 && len(request.Set)+len(request.Unset) == 0 {
			return usageError("topic alter: say what to change with --partitions, --config or --unset")
		}
		request.Name = args[0]
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Topics().AlterTopic(ctx, request)
			if err != nil {
				return err
			}
			if err := c.show(r, topicTable(r.Topic), configTable(changed(r.Configs, request))); err != nil {
				return err
			}
			c.warnOfInsync(r.Topic)
			c.sayDry(request)
			return nil
		})
	}
	return cmd
}
