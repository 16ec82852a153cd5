package sdktest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker/node"
	"github.com/millrace-io/millrace/internal/vfs"
	"github.com/millrace-io/millrace/sdk"
)

// Cluster is a node under test. It is safe for concurrent use, but for Restart and Crash.
type Cluster struct {
	t       testing.TB
	dir     string
	config  node.Config
	node    *node.Node
	clients []*sdk.Client
}

// Option changes the configuration of the node.
type Option func(*node.Config)

// Config returns an option that sets one key of the configuration file, such as "num.partitions".
func Config(key, value string) Option {
	return func(c *node.Config) {
		if err := c.Set(key, value); err != nil {
			panic(err)
		}
	}
}

// Start formats and runs a node and stops it when the test ends; a node that does not stop cleanly fails the test.
func Start(t testing.TB, options ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t, dir: t.TempDir(), config: node.Defaults()}
	c.config.Data = filepath.Join(c.dir, "node")
	c.config.Client.Bind, c.config.Cluster.Bind, c.config.Admin.Bind = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	for _, option := range options {
		option(&c.config)
	}
	if _, err := node.Format(vfs.OS{}, node.FormatSpec{Data: c.config.Data, Node: 1, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	c.start()
	t.Cleanup(c.stop)
	return c
}

func (c *Cluster) start() {
	c.t.Helper()
	logger := zerolog.Nop()
	if testing.Verbose() {
		logger = zerolog.New(os.Stderr).Level(zerolog.WarnLevel).With().Timestamp().Logger()
	}
	var err error
	if c.node, err = node.Start(context.Background(), c.config, node.SystemSeams(), logger); err != nil {
		c.t.Fatal(err)
	}
	// A restart comes back where clients know it.
	at := c.node.Addresses()
	c.config.Client.Bind, c.config.Cluster.Bind, c.config.Admin.Bind = at.Client, at.Cluster, at.Admin
}

func (c *Cluster) stop() {
	for _, client := range c.clients {
		if err := client.Close(); err != nil {
			c.t.Errorf("close a client: %v", err)
		}
	}
	if err := c.node.Stop(); err != nil {
		c.t.Errorf("stop the node: %v", err)
	}
}

// Restart stops the node cleanly and starts it again on the same ports.
func (c *Cluster) Restart() {
	c.t.Helper()
	if err := c.node.Stop(); err != nil {
		c.t.Fatalf("stop the node: %v", err)
	}
	c.start()
}

// Client returns a client of the cluster over QUIC, or as the options say; it is closed when the test ends.
func (c *Cluster) Client(options ...sdk.Option) *sdk.Client {
	c.t.Helper()
	own := []sdk.Option{sdk.WithBrokers(c.Broker()), sdk.WithAdmin(c.Admin()), sdk.WithCAFile(c.CAFile())}
	client, err := sdk.New(append(own, options...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.clients = append(c.clients, client)
	return client
}

// Broker is the address for Kafka clients, on TCP and QUIC.
func (c *Cluster) Broker() string { return c.node.Addresses().Client }

// Admin is the address of the admin API.
func (c *Cluster) Admin() string { return c.node.Addresses().Admin }

// CAFile is the certificate authority that QUIC clients trust.
func (c *Cluster) CAFile() string { return filepath.Join(c.config.Data, "tls", "ca.crt") }

// Data is the node's data directory.
func (c *Cluster) Data() string { return c.config.Data }
