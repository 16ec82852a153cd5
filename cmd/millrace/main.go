// Command millrace is the broker and controller: `init` founds a cluster in a data directory, `join` makes one that of a
// further node, `run` runs the node in it, `recover` makes one voter go on alone where the others are lost, `version`
// says what this is. It turns flags, environment and file into a node.Config and runs it; everything else is in
// broker/node.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/node"
	"github.com/millrace-io/millrace/internal/vfs"
)

func main() {
	if err := root().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "millrace:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "millrace",
		Short:         "Millrace: a stream platform with Wasm plugins at the point where a consumer group drinks",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(initCommand(), joinCommand(), runCommand(), recoverCommand(), versionCommand())
	return cmd
}

func initCommand() *cobra.Command {
	var spec node.FormatSpec
	var id int32
	var passwordFile string
	cmd := &cobra.Command{
		Use:   "init --data DIR [--node-id N] [--host NAME ...] [--user NAME --password-file FILE]",
		Short: "Found a cluster of one node in an empty directory",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if spec.Data == "" {
				return errors.New("init: name the directory with --data DIR")
			}
			if (spec.User == "") != (passwordFile == "") {
				return errors.New("init: --user and --password-file come together")
			}
			if passwordFile != "" {
				raw, err := os.ReadFile(passwordFile)
				if err != nil {
					return fmt.Errorf("init: read the password: %w", err)
				}
				line, _, _ := strings.Cut(string(raw), "\n")
				spec.Password = strings.TrimSuffix(line, "\r")
			}
			spec.Node, spec.Now = broker.NodeID(id), time.Now()
			identity, err := node.Format(vfs.OS{}, spec)
			if err != nil {
				return fmt.Errorf("init: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "node %d of the new cluster %s in %s\nnext: millrace run --data %s\n",
				identity.Node, identity.Cluster, spec.Data, spec.Data)
			return nil
		},
	}
	cmd.Flags().StringVar(&spec.Data, "data", "", "data directory to format")
	cmd.Flags().Int32Var(&id, "node-id", 1, "the node's number, as Kafka clients see it")
	cmd.Flags().StringArrayVar(&spec.Hosts, "host", nil, "a name or address that the node's certificate is good for, beside loopback")
	cmd.Flags().StringVar(&spec.User, "user", "", "the first user, whom clients can authenticate as by SCRAM or PLAIN")
	cmd.Flags().StringVar(&passwordFile, "password-file", "", "file that begins with the first user's password")
	return cmd
}

func joinCommand() *cobra.Command {
	var spec node.JoinSpec
	var id int32
	var tokenFile string
	cmd := &cobra.Command{
		Use:   "join --data DIR --node-id N --cluster HOST:PORT (--token TOKEN | --token-file FILE) [--host NAME ...]",
		Short: "Make an empty directory that of a new node of a running cluster",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if spec.Data == "" || spec.Cluster == "" || (spec.Token == "") == (tokenFile == "") || !cmd.Flags().Changed("node-id") {
				return errors.New("join: give --data, --node-id, --cluster, and --token or --token-file; `raftctl controller members add N` prints them")
			}
			if tokenFile != "" {
				raw, err := os.ReadFile(tokenFile)
				if err != nil {
					return fmt.Errorf("join: read the token: %w", err)
				}
				spec.Token = strings.TrimSpace(string(raw))
			}
			spec.Node = broker.NodeID(id)
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			identity, err := node.Join(ctx, node.SystemSeams(), spec)
			if err != nil {
				return fmt.Errorf("join: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "node %d of cluster %s in %s, raft id %d\nnext: millrace run --data %s --cluster-seeds %s\n",
				identity.Node, identity.Cluster, spec.Data, identity.Raft, spec.Data, spec.Cluster)
			return nil
		},
	}
	cmd.Flags().StringVar(&spec.Data, "data", "", "empty data directory for the node")
	cmd.Flags().Int32Var(&id, "node-id", 0, "the node's number, as Kafka clients see it")
	cmd.Flags().StringVar(&spec.Cluster, "cluster", "", "cluster listener of any running node")
	cmd.Flags().StringVar(&spec.Token, "token", "", "the one-time token; others on this host can read it in the list of processes")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file that holds the one-time token")
	cmd.Flags().StringArrayVar(&spec.Hosts, "host", nil, "a name or address that the node's certificate is good for, beside loopback")
	return cmd
}

func recoverCommand() *cobra.Command {
	var data string
	var unsafe, yes bool
	cmd := &cobra.Command{
		Use:   "recover --data DIR --unsafe [--yes]",
		Short: "Make a voter go on alone where the majority of the metadata quorum is lost for good",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" || !unsafe {
				return errors.New("recover: give --data and --unsafe; it is for a quorum whose majority will never come back, and what only they knew is lost")
			}
			r, err := node.Recover(cmd.Context(), vfs.OS{}, data, yes)
			if err != nil {
				return fmt.Errorf("recover: %w", err)
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "this voter's metadata ends at index %d; it goes on alone from index %d\n", r.Last, r.Begins)
			for _, m := range r.Removed {
				fmt.Fprintf(out, "node %d (raft id %d, directory %s) is a member no more: never start that directory again\n", m.ID, m.Raft, m.Directory)
			}
			fmt.Fprint(out, "MAY BE LOST: topics, settings, credentials and groups' placements that were decided behind that index, and with\n"+
				"every leader that was elected behind it the records that it acknowledged since\n")
			if !yes {
				return errors.New("recover: nothing was changed; copy the data directory, then repeat this with --yes")
			}
			fmt.Fprintf(out, "next: millrace run --data %s; then let new nodes join with `raftctl controller members add`\n", data)
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory of a voter that is left; of several, the one whose index is highest")
	cmd.Flags().BoolVar(&unsafe, "unsafe", false, "say that you know that metadata and records may be lost")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it; without, it is only told what would be done")
	return cmd
}

func runCommand() *cobra.Command {
	var file string
	var format bool
	cmd := &cobra.Command{
		Use:   "run [--config FILE] [--data DIR] [--KEY VALUE ...]",
		Short: "Run the node in a data directory until SIGTERM",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML)")
	cmd.Flags().BoolVar(&format, "init", false, "format the data directory first if it holds no node")
	keyByFlag := map[string]string{}
	for _, key := range node.Keys() {
		name, initial, doc := key[0], key[1], key[2]
		keyByFlag[node.Flag(name)] = name
		cmd.Flags().String(node.Flag(name), initial, doc)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		flags := map[string]string{}
		cmd.Flags().Visit(func(f *pflag.Flag) {
			if key, ok := keyByFlag[f.Name]; ok {
				flags[key] = f.Value.String()
			}
		})
		config, err := node.Load(file, os.LookupEnv, flags)
		if err != nil {
			return fmt.Errorf("configuration:\n%w", err)
		}
		return run(config, format)
	}
	return cmd
}

// run starts the node and takes it down at SIGTERM or SIGINT; a second signal ends the process at once.
func run(config node.Config, format bool) error {
	logger := zerolog.New(os.Stderr).Level(config.LogLevel).With().Timestamp().Logger()
	if format {
		if err := node.EnsureFormatted(vfs.OS{}, config, time.Now()); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop)
	return node.Run(ctx, config, node.SystemSeams(), logger)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which build this is",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			revision := "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						revision = s.Value
					}
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "millrace %s (revision %s, %s)\n", node.Version, revision, runtime.Version())
		},
	}
}
