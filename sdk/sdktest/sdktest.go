package sdktest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker/node"
	"github.com/millrace-io/millrace/internal/vfs"
	"github.com/millrace-io/millrace/sdk"
)

// Cluster is a node that runs in this process. Its methods are safe for concurrent use, but for Restart and Close.
type Cluster struct {
	config  node.Config
	node    *node.Node
	logger  zerolog.Logger
	scratch string // removed by Close; empty if the directory is the caller's
}

// Option changes how a node is run.
type Option func(*Cluster) error

// Config returns an option that sets one key of the configuration, such as "num.partitions".
func Config(key, value string) Option {
	return func(c *Cluster) error { return c.config.Set(key, value) }
}

// In returns an option that keeps the node's data in a directory of the caller's.
func In(dir string) Option {
	return func(c *Cluster) error { c.config.Data = dir; return nil }
}

// Logger returns an option that logs what the node says; without it the node is silent.
func Logger(logger zerolog.Logger) Option {
	return func(c *Cluster) error { c.logger = logger; return nil }
}

// Run formats and runs a node on free loopback ports, outside of a test. Close it when done.
func Run(ctx context.Context, options ...Option) (*Cluster, error) {
	c := &Cluster{config: node.Defaults(), logger: zerolog.Nop()}
	c.config.Client.Bind, c.config.Cluster.Bind, c.config.Admin.Bind = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	for _, option := range options {
		if err := option(c); err != nil {
			return nil, err
		}
	}
	if c.config.Data == "" {
		dir, err := os.MkdirTemp("", "millrace-")
		if err != nil {
			return nil, err
		}
		c.config.Data, c.scratch = filepath.Join(dir, "node"), dir
	}
	err := node.EnsureFormatted(vfs.OS{}, c.config, time.Now())
	if err == nil {
		err = c.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.removeScratch())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	var err error
	if c.node, err = node.Start(ctx, c.config, node.SystemSeams(), c.logger); err != nil {
		return err
	}
	// A restart comes back where clients know it.
	at := c.node.Addresses()
	c.config.Client.Bind, c.config.Cluster.Bind, c.config.Admin.Bind = at.Client, at.Cluster, at.Admin
	return nil
}

func (c *Cluster) removeScratch() error {
	if c.scratch == "" {
		return nil
	}
	return os.RemoveAll(c.scratch)
}

// Close stops the node cleanly and removes its data unless the caller chose the directory.
func (c *Cluster) Close() error { return errors.Join(c.node.Stop(), c.removeScratch()) }

// Restart stops the node cleanly and starts it again on the same ports.
func (c *Cluster) Restart(ctx context.Context) error {
	if err := c.node.Stop(); err != nil {
		return err
	}
	return c.start(ctx)
}

// Broker is the address for Kafka clients, on TCP and QUIC.
func (c *Cluster) Broker() string { return c.node.Addresses().Client }

// Admin is the address of the admin API.
func (c *Cluster) Admin() string { return c.node.Addresses().Admin }

// CAFile is the certificate authority that QUIC clients trust.
func (c *Cluster) CAFile() string { return filepath.Join(c.config.Data, "tls", "ca.crt") }

// Data is the node's data directory.
func (c *Cluster) Data() string { return c.config.Data }

// Test is a node inside a test. What goes wrong with it fails the test.
type Test struct {
	*Cluster
	t testing.TB
}

// Start runs a node for a test and stops it when the test ends; a node that does not stop cleanly fails the test. With
// go test -v its warnings go to standard error.
func Start(t testing.TB, options ...Option) *Test {
	t.Helper()
	own := []Option{In(filepath.Join(t.TempDir(), "node"))}
	if testing.Verbose() {
		own = append(own, Logger(zerolog.New(os.Stderr).Level(zerolog.WarnLevel).With().Timestamp().Logger()))
	}
	cluster, err := Run(context.Background(), append(own, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Errorf("stop the node: %v", err)
		}
	})
	return &Test{cluster, t}
}

// Client returns a client of the node, over QUIC unless the options say otherwise; it is closed when the test ends.
func (c *Test) Client(options ...sdk.Option) *sdk.Client {
	c.t.Helper()
	own := []sdk.Option{sdk.WithBrokers(c.Broker()), sdk.WithAdmin(c.Admin()), sdk.WithCAFile(c.CAFile())}
	client, err := sdk.New(append(own, options...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := client.Close(); err != nil {
			c.t.Errorf("close a client: %v", err)
		}
	})
	return client
}
