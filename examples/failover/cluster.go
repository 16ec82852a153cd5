package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/millrace-io/millrace/sdk"
)

// nodes is how many brokers the local cluster has.
const nodes = 3

// localCluster is `raftctl dev` with its state in a directory of its own.
type localCluster struct {
	raftctl     string
	environment []string
}

// build compiles raftctl and, beside it, the broker that it starts.
func build(ctx context.Context, dir string) (*localCluster, error) {
	bin := filepath.Join(dir, "bin") + string(filepath.Separator)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin,
		"github.com/millrace-io/millrace/cmd/millrace", "github.com/millrace-io/millrace/cmd/raftctl")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go build: %w", err)
	}
	return &localCluster{
		raftctl:     filepath.Join(bin, "raftctl"),
		environment: append(os.Environ(), "XDG_STATE_HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir),
	}, nil
}

// run is one command of raftctl, as it would be typed; it returns what the command prints.
func (c *localCluster) run(ctx context.Context, arguments ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.raftctl, arguments...)
	cmd.Env = c.environment
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("raftctl %s: %w\n%s", arguments, err, trouble.Bytes())
	}
	return out.Bytes(), nil
}

// up starts every node that does not run, and waits until all of them have what they should.
func (c *localCluster) up(ctx context.Context) error {
	if _, err := c.run(ctx, "dev", "up", "--nodes", strconv.Itoa(nodes)); err != nil {
		return err
	}
	_, err := c.run(ctx, "cluster", "health", "--watch", "--exit-when-healthy")
	return err
}

// client returns a client that knows all nodes.
func (c *localCluster) client(ctx context.Context) (*sdk.Client, error) {
	out, err := c.run(ctx, "dev", "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	var status struct {
		Nodes []struct{ Client, Admin, Data string }
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return nil, fmt.Errorf("raftctl dev status: %w", err)
	}
	var brokers, admins []string
	for _, n := range status.Nodes {
		brokers, admins = append(brokers, n.Client), append(admins, n.Admin)
	}
	return sdk.New(sdk.WithBrokers(brokers...), sdk.WithAdmin(admins...),
		sdk.WithCAFile(filepath.Join(status.Nodes[0].Data, "tls", "ca.crt")))
}
