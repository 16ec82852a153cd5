package raftctl

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

func (c *cli) viewCommand() *cobra.Command {
	return parent("view", "Views: filtered logs as read-only topics, for any Kafka client", c.viewCreate(), c.viewList(), c.viewDelete())
}

func (c *cli) viewCreate() *cobra.Command {
	request := &adminapi.CreateViewRequest{}
	var chain chainFlags
	var plugins, from string
	cmd := &cobra.Command{
		Use:   "create VIEW --topic T (--group G | --plugin PLUGIN[@VERSION][,...])",
		Short: "Make a view of a group's binding, or with a chain of its own",
		Args:  exactly("VIEW"),
	}
	cmd.Flags().StringVar(&request.Topic, "topic", "", "the base topic")
	cmd.Flags().StringVar(&request.Group, "group", "", "show what this group's chain delivers")
	cmd.Flags().StringVar(&plugins, "plugin", "", "or a chain of the view's own")
	cmd.Flags().StringVar(&from, "from", "", "start or end: where the view's own chain begins")
	chain.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if request.Topic == "" || (request.Group == "") == (plugins == "") {
			return usageError("view create: name the base topic with --topic, and either --group or --plugin")
		}
		var err error
		request.Name = args[0]
		if request.StartAt, err = startAt(from); err != nil {
			return err
		}
		if plugins != "" {
			if request.Chain, err = chain.spec(strings.Split(plugins, ",")); err != nil {
				return err
			}
		}
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Views().CreateView(ctx, request)
			if err != nil {
				return err
			}
			return c.show(r, viewTable(r.View))
		})
	}
	return cmd
}

func viewTable(views ...*adminapi.View) *table {
	t := &table{columns: []string{"view", "topic", "group", "state", "+binding", "+id"}}
	for _, v := range views {
		state := "attached"
		if v.Detached {
			state = "detached"
		}
		t.add(v.Name, v.Topic, v.Group, state, v.Binding, v.Id)
	}
	return t
}

func (c *cli) viewList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List views", Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Views().ListViews(ctx, &adminapi.ListViewsRequest{})
			if err != nil {
				return err
			}
			return c.show(r, viewTable(r.Views...))
		})
	}}
}

func (c *cli) viewDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "delete VIEW --yes", Short: "Delete a view; the base topic's records stay", Args: exactly("VIEW")}
	cmd.Flags().BoolVar(&yes, "yes", false, "really delete")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			if !yes {
				return wouldDeleteView(ctx, client, args[0])
			}
			if _, err := client.Views().DeleteView(ctx, &adminapi.DeleteViewRequest{Name: args[0]}); err != nil {
				return err
			}
			return c.showValue(map[string]string{"deleted": args[0]}, &table{columns: []string{"deleted"}, rows: [][]any{{args[0]}}})
		})
	}
	return cmd
}

// wouldDeleteView is the answer without --yes: the view is not there, or a refusal.
func wouldDeleteView(ctx context.Context, client *sdk.Client, name string) error {
	r, err := client.Views().ListViews(ctx, &adminapi.ListViewsRequest{})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(r.Views, func(v *adminapi.View) bool { return v.Name == name }) {
		return notFound("there is no view %s; `raftctl view list` names them", name)
	}
	return refused("this would delete view %s; its readers would find no such topic: repeat with --yes", name)
}
