package raftctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

func (c *cli) topicCommand() *cobra.Command {
	return parent("topic", "Topics", c.topicCreate(), c.topicList(), c.topicDescribe(), c.topicAlter(), c.topicDelete(), c.reassignCommand())
}

func (c *cli) topicCreate() *cobra.Command {
	request := &adminapi.CreateTopicRequest{}
	var settings []string
	cmd := &cobra.Command{Use: "create NAME [-p N] [-r N] [-c KEY=VALUE ...]", Short: "Make a topic", Args: exactly("NAME")}
	cmd.Flags().Int32VarP(&request.Partitions, "partitions", "p", 0, "number of partitions (0: the cluster's default)")
	cmd.Flags().Int32VarP(&request.ReplicationFactor, "replicas", "r", 0, "replicas of each partition (0: the cluster's default)")
	cmd.Flags().StringArrayVarP(&settings, "config", "c", nil, "topic config, KEY=VALUE")
	cmd.Flags().BoolVar(&request.ValidateOnly, "dry-run", false, "check, make nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		configs, err := keyValues(settings)
		if err != nil {
			return err
		}
		request.Name, request.Configs = args[0], configs
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Topics().CreateTopic(ctx, request)
			if err != nil {
				return err
			}
			if err := c.show(r, topicTable(r.Topic)); err != nil {
				return err
			}
			c.warnOfInsync(r.Topic)
			return nil
		})
	}
	return cmd
}

func keyValues(pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	values := map[string]string{}
	for _, pair := range pairs {
		key, value, found := strings.Cut(pair, "=")
		if !found || key == "" {
			return nil, usageError("%q is not KEY=VALUE", pair)
		}
		values[key] = value
	}
	return values, nil
}

// insyncBeyond says what is odd about a topic that asks for more in-sync replicas than it has, and what to do; nothing of others.
func insyncBeyond(t *adminapi.Topic) (what, do string) {
	if t.MinInsyncReplicas <= t.ReplicationFactor {
		return "", ""
	}
	return fmt.Sprintf("min.insync.replicas is %d and the topic has %s: it counts as %d, and acks=all is refused while any replica is away",
			t.MinInsyncReplicas, plural(int(t.ReplicationFactor), "replica"), t.ReplicationFactor),
		fmt.Sprintf("`raftctl config set %s min.insync.replicas=N`, or give it more replicas with `raftctl topic reassign`", t.Name)
}

func (c *cli) warnOfInsync(t *adminapi.Topic) {
	if what, do := insyncBeyond(t); what != "" {
		c.say("warning: %s; %s", what, do)
	}
}

func topicTable(topics ...*adminapi.Topic) *table {
	t := &table{columns: []string{"topic", "partitions", "replicas", "size", "view of", "+internal", "+id"}}
	for _, topic := range topics {
		t.add(topic.Name, topic.Partitions, topic.ReplicationFactor, bytesText(topic.SizeBytes), topic.ViewOf, topic.Internal, topic.Id)
	}
	return t
}

func (c *cli) topicList() *cobra.Command {
	request := &adminapi.ListTopicsRequest{}
	cmd := &cobra.Command{Use: "list [--internal]", Short: "List topics and views", Args: exactly()}
	cmd.Flags().BoolVar(&request.IncludeInternal, "internal", false, "internal topics too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Topics().ListTopics(ctx, request)
			if err != nil {
				return err
			}
			if err := c.show(r, topicTable(r.Topics...)); err != nil {
				return err
			}
			c.warnOfSilent(r.Silent)
			return nil
		})
	}
	return cmd
}

func (c *cli) topicDescribe() *cobra.Command {
	return &cobra.Command{Use: "describe NAME", Short: "Show a topic's partitions and configuration", Args: exactly("NAME"), RunE: func(cmd *cobra.Command, args []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Topics().DescribeTopic(ctx, &adminapi.DescribeTopicRequest{Name: args[0]})
			if err != nil {
				return err
			}
			partitions := &table{columns: []string{"partition", "leader", "epoch", "replicas", "isr", "log start", "high watermark", "log end", "size", "offline because", "+elr", "+partition epoch"}}
			for _, p := range r.Partitions {
				size := "unknown"
				if p.SizeBytes >= 0 {
					size = bytesText(p.SizeBytes)
				}
				partitions.add(p.Partition, nodeOrNone(p.Leader), p.LeaderEpoch, p.Replicas, p.Isr, known(p.LogStart), known(p.HighWatermark), known(p.LogEnd),
					size, p.OfflineReason, p.Elr, p.PartitionEpoch)
			}
			if err := c.show(r, topicTable(r.Topic), partitions, configTable(r.Configs)); err != nil {
				return err
			}
			c.warnOfInsync(r.Topic)
			c.warnOfSilent(r.Silent)
			return nil
		})
	}}
}

func (c *cli) topicDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "delete NAME --yes", Short: "Delete a topic and its records", Args: exactly("NAME")}
	cmd.Flags().BoolVar(&yes, "yes", false, "really delete")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			d, err := client.Topics().DescribeTopic(ctx, &adminapi.DescribeTopicRequest{Name: args[0]})
			if err != nil {
				return err
			}
			if !yes {
				return refused("this would delete topic %s with %s and %s of records, for ever: repeat with --yes",
					args[0], plural(int(d.Topic.Partitions), "partition"), bytesText(d.Topic.SizeBytes))
			}
			r, err := client.Topics().DeleteTopic(ctx, &adminapi.DeleteTopicRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return c.show(r, &table{columns: []string{"deleted", "id"}, rows: [][]any{{args[0], r.Id}}})
		})
	}
	return cmd
}
