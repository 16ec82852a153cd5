package raftctl

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

func (c *cli) pluginCommand() *cobra.Command {
	return parent("plugin", "Plugins: write, test, upload",
		c.pluginNew(), c.pluginBuild(), c.pluginTest(), c.pluginRun(), c.pluginPush(), c.pluginList(), c.pluginVersions())
}

// Files of a plugin project.
const (
	manifestName = "plugin.yaml"
	moduleName   = "plugin.wasm"
)

func (c *cli) pluginPush() *cobra.Command {
	var noBuild bool
	cmd := &cobra.Command{
		Use:   "push [DIR]",
		Short: "Build the plugin in a folder and upload it under the version of its manifest",
		Args:  atMost(1),
	}
	cmd.Flags().BoolVar(&noBuild, "no-build", false, "upload plugin.wasm as it lies")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir := projectDir(args)
		manifest, err := os.ReadFile(filepath.Join(dir, manifestName))
		if err != nil {
			return usageError("plugin push: %w: run it in a plugin's folder, or name one", err)
		}
		if !noBuild {
			if err := c.build(cmd.Context(), dir); err != nil {
				return err
			}
		}
		module, err := os.ReadFile(filepath.Join(dir, moduleName))
		if err != nil {
			return usageError("plugin push: %w: `raftctl plugin build` makes it", err)
		}
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.PushPlugin(ctx, manifest, module)
			if err != nil {
				return err
			}
			t := &table{columns: []string{"plugin", "version", "cases passed", "largest fuel", "was there", "+sha256", "+metered sha256"}}
			t.add(r.Version.Name, r.Version.Version, r.CasesPassed, r.FuelMaxRecord, r.Existed, r.Version.GivenSha256, r.Version.MeteredSha256)
			return c.show(r, t)
		})
	}
	return cmd
}

func projectDir(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return "."
}

func pluginTable(versions ...*adminapi.PluginVersion) *table {
	t := &table{columns: []string{"plugin", "version", "language", "reads", "verdicts", "size", "built in", "uploaded", "+abi", "+cost table", "+sha256"}}
	for _, v := range versions {
		uploaded := ""
		if v.CreatedMs > 0 {
			uploaded = time.UnixMilli(v.CreatedMs).UTC().Format(time.RFC3339)
		}
		t.add(v.Name, v.Version, v.Language, v.Projection, v.Verdicts, bytesText(v.SizeBytes), v.Builtin, uploaded, v.Abi, v.CostTable, v.GivenSha256)
	}
	return t
}

func (c *cli) pluginList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List plugins by their newest version", Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Plugins().ListPlugins(ctx, &adminapi.ListPluginsRequest{})
			if err != nil {
				return err
			}
			return c.show(r, pluginTable(r.Latest...))
		})
	}}
}

func (c *cli) pluginVersions() *cobra.Command {
	return &cobra.Command{Use: "versions NAME", Short: "List a plugin's versions", Args: exactly("NAME"), RunE: func(cmd *cobra.Command, args []string) error {
		return c.call(cmd.Context(), func(ctx context.Context, client *sdk.Client) error {
			r, err := client.Plugins().ListPluginVersions(ctx, &adminapi.ListPluginVersionsRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return c.show(r, pluginTable(r.Versions...))
		})
	}}
}
