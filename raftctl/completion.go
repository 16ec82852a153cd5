package raftctl

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

// Shells ask raftctl itself for what may follow: `raftctl completion bash --help` says how they learn to. Names come
// from the cluster that the command line, the environment or the profile names. If none answers quickly there is nothing
// to propose, and nothing is said: a person is typing.

// completionWait is how long a person waits for names after a tab.
const completionWait = 2 * time.Second

// names lists what may stand somewhere on a command line.
type names func(ctx context.Context, client *sdk.Client) ([]string, error)

// completeNames gives every command and flag that takes names of the cluster's things its completion.
func (c *cli) completeNames(root *cobra.Command) {
	arguments := map[string][]names{ // by command path; the last stands for all that follow where the command takes more
		"raftctl topic describe":  {topicNames, nil},
		"raftctl topic delete":    {topicNames, nil},
		"raftctl topic alter":     {topicNames, nil},
		"raftctl config get":      {topicNames, nil},
		"raftctl config set":      {topicNames, nil},
		"raftctl produce":         {topicNames, nil},
		"raftctl consume":         {topicNames},
		"raftctl group describe":  {groupNames, nil},
		"raftctl group seek":      {groupNames, nil},
		"raftctl group delete":    {groupNames, nil},
		"raftctl plugin versions": {pluginNames, nil},
		"raftctl bind create":     {groupNames, pluginNames, nil},
		"raftctl bind update":     {groupNames, pluginNames, nil},
		"raftctl bind list":       {groupNames, nil},
		"raftctl bind describe":   {groupNames, nil},
		"raftctl bind delete":     {groupNames, nil},
		"raftctl view delete":     {viewNames, nil},
	}
	flags := map[string]names{"topic": topicNames, "topics": topicNames, "group": groupNames, "plugin": pluginNames}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if of, ok := arguments[cmd.CommandPath()]; ok {
			cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
				return c.propose(cmd.Context(), of[min(len(args), len(of)-1)], typed)
			}
		}
		for flag, of := range flags {
			if cmd.Flags().Lookup(flag) != nil {
				// An error says that it has one already, which no flag here has.
				_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
					return c.propose(cmd.Context(), of, typed)
				})
			}
		}
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(root)
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.Args, completion.RunE = noSuchCommand, nameACommand
	}
}

// propose returns the names that begin with the last of the names typed so far, which commas separate.
func (c *cli) propose(ctx context.Context, of names, typed string) ([]string, cobra.ShellCompDirective) {
	if of == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c.timeout = min(c.timeout, completionWait)
	before := typed[:strings.LastIndexByte(typed, ',')+1]
	var proposed []string
	err := c.call(ctx, func(ctx context.Context, client *sdk.Client) error {
		all, err := of(ctx, client)
		for _, name := range all {
			if strings.HasPrefix(name, typed[len(before):]) {
				proposed = append(proposed, before+name)
			}
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return proposed, cobra.ShellCompDirectiveNoFileComp
}

func topicNames(ctx context.Context, client *sdk.Client) (all []string, err error) {
	r, err := client.Topics().ListTopics(ctx, &adminapi.ListTopicsRequest{})
	for _, topic := range r.GetTopics() {
		all = append(all, topic.Name)
	}
	return all, err
}

func groupNames(ctx context.Context, client *sdk.Client) (all []string, err error) {
	r, err := client.Groups().ListGroups(ctx, &adminapi.ListGroupsRequest{})
	for _, group := range r.GetGroups() {
		all = append(all, group.Group)
	}
	return all, err
}

func pluginNames(ctx context.Context, client *sdk.Client) (all []string, err error) {
	r, err := client.Plugins().ListPlugins(ctx, &adminapi.ListPluginsRequest{})
	for _, plugin := range r.GetLatest() {
		all = append(all, plugin.Name)
	}
	return all, err
}

func viewNames(ctx context.Context, client *sdk.Client) (all []string, err error) {
	r, err := client.Views().ListViews(ctx, &adminapi.ListViewsRequest{})
	for _, view := range r.GetViews() {
		all = append(all, view.Name)
	}
	return all, err
}
