package raftctl

import (
	"context"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/sdk"
)

// cli is what the commands share: streams, global flags, and the client made from them.
type cli struct {
	in       io.Reader
	out      io.Writer
	errs     io.Writer
	lookup   func(string) (string, bool)
	form     string
	timeout  time.Duration
	profile  string
	brokers  []string
	admin    string
	caFile   string
	tcp      bool
	access   access
	quiet    bool
	now      func() time.Time
	resolved bool
}

// Main runs raftctl with the process's arguments and returns its exit code.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.LookupEnv)
}

// Run runs raftctl with the given arguments, streams and environment and returns its exit code.
func Run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer, lookup func(string) (string, bool)) int {
	c := &cli{in: in, out: out, errs: errs, lookup: lookup, now: time.Now}
	root := c.root()
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		c.form = formAskedFor(args) // Behind a flag that is wrong none is read.
		return usageError("%w", err)
	})
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	if err != nil {
		c.complain(err)
	}
	return exitCode(err)
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "raftctl",
		Short:         "Operate Millrace: clusters, topics, groups, plugins, bindings and views",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSuchCommand,
		RunE:          nameACommand,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.timeout <= 0 {
				return usageError("--timeout %s leaves no time for an answer", c.timeout)
			}
			return checkForm(c.form)
		},
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&c.form, "output", "o", formTable, "table, wide, json, yaml or ndjson")
	flags.DurationVar(&c.timeout, "timeout", 30*time.Second, "how long one request may take")
	flags.StringVar(&c.profile, "profile", "", "profile to use (default: the current one)")
	flags.StringSliceVar(&c.brokers, "brokers", nil, "client listeners, HOST:PORT, to produce and consume")
	flags.StringVar(&c.admin, "admin", "", "admin listeners, HOST:PORT or https://HOST:PORT, comma-separated; the first whose node is ready is asked")
	flags.StringVar(&c.caFile, "tls-ca", "", "certificate authority that signed the brokers' certificates (PEM)")
	flags.BoolVar(&c.tcp, "tcp", false, "produce and consume over TCP instead of QUIC")
	c.access.flags(flags)
	flags.BoolVarP(&c.quiet, "quiet", "q", false, "no progress on standard error")
	root.AddCommand(
		c.devCommand(), c.clusterCommand(), c.nodeCommand(), c.controllerCommand(), c.topicCommand(), c.configCommand(), c.produceCommand(), c.consumeCommand(),
		c.groupCommand(), c.pluginCommand(), c.bindCommand(), c.viewCommand(), c.profileCommand(), c.debugCommand(), c.doctorCommand(),
		c.userCommand(), c.aclCommand(),
		c.versionCommand(),
	)
	c.completeNames(root)
	return root
}

// parent makes a command that only holds others.
func parent(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: noSuchCommand, RunE: nameACommand}
	cmd.AddCommand(children...)
	return cmd
}

func nameACommand(cmd *cobra.Command, _ []string) error {
	return usageError("%s: name a command; `%s --help` lists them", cmd.CommandPath(), cmd.CommandPath())
}

// noSuchCommand refuses arguments of a command that only holds others, and says what was perhaps meant.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	if meant := cmd.SuggestionsFor(args[0]); len(meant) > 0 {
		return usageError("%s has no command %s: %s was perhaps meant", cmd.CommandPath(), args[0], strings.Join(meant, " or "))
	}
	return usageError("%s has no command %s; `%s --help` lists them", cmd.CommandPath(), args[0], cmd.CommandPath())
}

// exactly returns an argument check whose error is a usage error that shows the usage line.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usageError("%s takes %s, not %d: %s", cmd.CommandPath(), plural(len(names), "argument"), len(args), cmd.UseLine())
		}
		return nil
	}
}

// atMost is exactly for a last argument that may be left out.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError("%s takes at most %s, not %d: %s", cmd.CommandPath(), plural(n, "argument"), len(args), cmd.UseLine())
		}
		return nil
	}
}

// client makes the SDK client that the flags, the environment and the profile ask for.
func (c *cli) client(more ...sdk.Option) (*sdk.Client, error) {
	if err := c.resolve(); err != nil {
		return nil, err
	}
	opts := append([]sdk.Option{sdk.WithBrokers(c.brokers...), sdk.WithAdmin(c.admins()...)}, more...)
	switch {
	case c.access.tls:
		opts = append(opts, sdk.WithTransport(sdk.TLS))
	case c.tcp:
		opts = append(opts, sdk.WithTransport(sdk.TCP))
	}
	proof, err := c.proof(true)
	if err != nil {
		return nil, err
	}
	return sdk.New(append(opts, proof...)...)
}

// admins are the admin listeners to ask.
func (c *cli) admins() []string { return strings.Split(c.admin, ",") }

// call runs one request to the admin API within the time limit.
func (c *cli) call(ctx context.Context, f func(ctx context.Context, client *sdk.Client) error) error {
	if err := c.resolve(); err != nil {
		return err
	}
	proof, err := c.proof(strings.HasPrefix(c.admin, "https://"))
	if err != nil {
		return err
	}
	client, err := sdk.New(append(proof, sdk.WithAdmin(c.admins()...))...) // No brokers: no socket is opened for them.
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err = f(ctx, client)
	if closeErr := client.Close(); err == nil {
		err = closeErr
	}
	return err
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Say which build this is", Args: exactly(), RunE: func(*cobra.Command, []string) error {
		return c.showValue(map[string]string{"version": sdk.Version}, &table{columns: []string{"version"}, rows: [][]any{{sdk.Version}}})
	}}
}
