package raftctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/internal/vfs"
)

// devNode is one process of the local cluster, as its state file describes it.
type devNode struct {
	ID      int    `yaml:"id" json:"id"`
	Data    string `yaml:"data" json:"data"`
	Client  string `yaml:"client" json:"client"`
	Cluster string `yaml:"cluster" json:"cluster"`
	Admin   string `yaml:"admin" json:"admin"`
	PID     int    `yaml:"pid" json:"pid"`
	Program string `yaml:"program" json:"program"`
}

// First ports of a local cluster; when one is taken the next free one is sought.
const (
	devClientPort  = 19092
	devClusterPort = 19093
	devAdminPort   = 18080
	devPortStep    = 10
	devPortTries   = 100
)

// devReadyWithin bounds how long a node may take to serve, and to stop.
const devReadyWithin = 30 * time.Second

func (c *cli) devCommand() *cobra.Command {
	return parent("dev", "A local cluster, without Docker or root", c.devUp(), c.devDown(), c.devStatus(), c.devReset())
}

func (c *cli) devFolder() (string, error) {
	dir, err := c.homeFolder("XDG_STATE_HOME", filepath.Join(".local", "state"))
	return filepath.Join(dir, "millrace", "dev"), err
}

// lockDev keeps another raftctl from starting or removing the local cluster at the same time.
func (c *cli) lockDev() (release func(), err error) {
	dir, err := c.devFolder()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := vfs.OS{}.Lock(filepath.Join(dir, "LOCK"))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, refused("another raftctl is starting or stopping the local cluster: wait for it")
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = lock.Close() }, nil // The process's end would release it too.
}

// readDev returns the local cluster's node, or nil if there is none.
func (c *cli) readDev() (*devNode, error) {
	dir, err := c.devFolder()
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, "node.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var node devNode
	if err := yaml.UnmarshalWithOptions(raw, &node, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: %w: `raftctl dev reset --yes` starts over", filepath.Join(dir, "node.yaml"), err)
	}
	return &node, nil
}

func (c *cli) writeDev(node *devNode) error {
	dir, err := c.devFolder()
	if err != nil {
		return err
	}
	raw, err := yaml.Marshal(node)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "node.yaml"), raw, 0o600)
}

// running reports whether the node's process is alive and is still the program that was started: a process id may have
// been given to a stranger since.
func (n *devNode) running() bool {
	if n == nil || n.PID <= 0 || syscall.Kill(n.PID, 0) != nil {
		return false
	}
	cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(n.PID), "cmdline"))
	return err == nil && containsArgument(cmdline, n.Data)
}

func containsArgument(cmdline []byte, argument string) bool {
	for len(cmdline) > 0 {
		end := 0
		for end < len(cmdline) && cmdline[end] != 0 {
			end++
		}
		if string(cmdline[:end]) == argument {
			return true
		}
		cmdline = cmdline[min(end+1, len(cmdline)):]
	}
	return false
}

func (c *cli) devUp() *cobra.Command {
	var program string
	var nodes int
	cmd := &cobra.Command{Use: "up [--millrace PATH]", Short: "Start a local cluster and make it the current profile", Args: exactly()}
	cmd.Flags().StringVar(&program, "millrace", "", "the millrace program (default: beside raftctl, else on PATH)")
	cmd.Flags().IntVar(&nodes, "nodes", 1, "number of nodes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if nodes != 1 {
			return usageError("--nodes %d: clusters of several nodes are not built yet; this version runs one", nodes)
		}
		release, err := c.lockDev()
		if err != nil {
			return err
		}
		defer release()
		node, err := c.readDev()
		if err != nil {
			return err
		}
		if node.running() {
			return errors.Join(c.devReport(node, "already running"), c.writeDevProfile(node))
		}
		started := c.now()
		if node, err = c.startDev(cmd.Context(), node, program); err != nil {
			return err
		}
		return c.devReport(node, fmt.Sprintf("ready after %.1f s", c.now().Sub(started).Seconds()))
	}
	return cmd
}

// startDev starts the node that was there before, or makes one.
func (c *cli) startDev(ctx context.Context, node *devNode, program string) (*devNode, error) {
	dir, err := c.devFolder()
	if err != nil {
		return nil, err
	}
	if node == nil {
		node = &devNode{ID: 1, Data: filepath.Join(dir, "node-1")}
	}
	if node.Program, err = c.findProgram(program); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		address *string
		first   int
	}{{&node.Client, devClientPort}, {&node.Cluster, devClusterPort}, {&node.Admin, devAdminPort}} {
		if *p.address, err = freePort(p.first); err != nil {
			return nil, err
		}
	}
	if err := c.writeDev(node); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, "node-1.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	run := exec.Command(node.Program, "run", "--init", "--data", node.Data, "--node-id", strconv.Itoa(node.ID),
		"--listeners-client-bind", node.Client, "--listeners-cluster-bind", node.Cluster, "--listeners-admin-bind", node.Admin)
	run.Stdout, run.Stderr = log, log
	run.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // It outlives this command and its terminal.
	if err := errors.Join(run.Start(), log.Close()); err != nil {
		return nil, fmt.Errorf("start %s: %w", node.Program, err)
	}
	node.PID = run.Process.Pid
	if err := c.writeDev(node); err != nil {
		return nil, err
	}
	stop := c.progress("starting, seconds", secondsSince(c))
	err = waitReady(ctx, node, log.Name())
	stop()
	if err != nil {
		return nil, err
	}
	// Nobody waits for the process from here on: it outlives this one.
	return node, errors.Join(run.Process.Release(), c.writeDevProfile(node))
}

// findProgram looks for the millrace program: the flag, beside raftctl, on PATH.
func (c *cli) findProgram(given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	if own, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(own), "millrace")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	if found, err := exec.LookPath("millrace"); err == nil {
		return found, nil
	}
	return "", usageError("the millrace program is neither beside raftctl nor on PATH: `go install github.com/millrace-io/millrace/cmd/...`, or name it with --millrace PATH")
}

// freePort returns the first loopback address, from a port upward, that is free on TCP and UDP.
func freePort(first int) (string, error) {
	for port := first; port < first+devPortTries*devPortStep; port += devPortStep {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", address)
		if err == nil {
			err = udp.Close()
		}
		if errors.Join(err, tcp.Close()) == nil {
			return address, nil
		}
	}
	return "", fmt.Errorf("no free port from %d upward", first)
}

// waitReady waits until the node serves, and notices when it ends instead. It is this process's child until then.
func waitReady(ctx context.Context, node *devNode, log string) error {
	limited, cancel := context.WithTimeout(ctx, devReadyWithin)
	defer cancel()
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	for {
		if ready(limited, node.Admin) {
			return nil
		}
		var status syscall.WaitStatus
		if pid, err := syscall.Wait4(node.PID, &status, syscall.WNOHANG, nil); err == nil && pid == node.PID {
			return fmt.Errorf("the node ended with exit code %d%s; its log is %s", status.ExitStatus(), lastLine(log), log)
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted; the node goes on starting: `raftctl dev status` shows it, `raftctl dev down` stops it")
			}
			return unhealthy("the node was not ready within %s; its log is %s", devReadyWithin, log)
		case <-ticker.C:
		}
	}
}

// logTailBytes is how much of a log's end is looked at for its last line.
const logTailBytes = 4 << 10

// lastLine returns the last line of a log, to be put into a sentence, or nothing.
func lastLine(name string) string {
	raw, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	text := strings.TrimSpace(string(raw[max(0, len(raw)-logTailBytes):]))
	if text == "" {
		return ""
	}
	return ": " + text[strings.LastIndexByte(text, '\n')+1:]
}

func ready(ctx context.Context, admin string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	return errors.Join(response.Body.Close()) == nil && response.StatusCode == http.StatusOK
}

// devProfile is the name of the local cluster's profile.
const devProfile = "dev"

func (c *cli) writeDevProfile(node *devNode) error {
	all, err := c.readProfiles()
	if err != nil {
		return err
	}
	all.Profiles[devProfile] = profile{Brokers: []string{node.Client}, Admin: node.Admin, TLSCA: filepath.Join(node.Data, "tls", "ca.crt")}
	all.Current = devProfile
	return c.writeProfiles(all)
}

// dropDevProfile forgets the profile of a local cluster that is gone.
func (c *cli) dropDevProfile() error {
	all, err := c.readProfiles()
	if err != nil {
		return err
	}
	if _, ok := all.Profiles[devProfile]; !ok {
		return nil
	}
	delete(all.Profiles, devProfile)
	if all.Current == devProfile {
		all.Current = ""
	}
	return c.writeProfiles(all)
}

// devReport shows the local cluster; node is nil if there is none.
func (c *cli) devReport(node *devNode, state string) error {
	t := &table{columns: []string{"node", "state", "kafka (tcp, quic)", "admin", "pid", "+data"}}
	nodes := []*devNode{}
	if node != nil {
		nodes = append(nodes, node)
		t.add(node.ID, state, node.Client, "http://"+node.Admin, node.PID, node.Data)
	}
	if err := c.showValue(map[string]any{"state": state, "nodes": nodes}, t); err != nil {
		return err
	}
	if node.running() {
		c.say("profile dev is current; next: raftctl topic create hello")
	}
	return nil
}

func (c *cli) devStatus() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Say whether the local cluster runs", Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		node, err := c.readDev()
		switch {
		case err != nil:
			return err
		case node == nil:
			return notFound("there is no local cluster: `raftctl dev up` starts one")
		case !node.running():
			return errors.Join(c.devReport(node, "stopped"), unhealthy("the local cluster is stopped"))
		case !ready(cmd.Context(), node.Admin):
			return errors.Join(c.devReport(node, "not ready"), unhealthy("the local cluster is not ready"))
		}
		return c.devReport(node, "ready")
	}}
}

func (c *cli) devDown() *cobra.Command {
	return &cobra.Command{Use: "down", Short: "Stop the local cluster; its data stays", Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		node, err := c.readDev()
		if err != nil {
			return err
		}
		if !node.running() {
			return c.devReport(node, "stopped")
		}
		if err := c.stopDev(cmd.Context(), node); err != nil {
			return err
		}
		return c.devReport(node, "stopped")
	}}
}

func (c *cli) stopDev(ctx context.Context, node *devNode) error {
	if err := syscall.Kill(node.PID, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop process %d: %w", node.PID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, devReadyWithin)
	defer cancel()
	stop := c.progress("stopping, seconds", secondsSince(c))
	defer stop()
	for node.running() {
		select {
		case <-ctx.Done():
			return unhealthy("process %d did not stop within %s: `kill -KILL %d` ends it", node.PID, devReadyWithin, node.PID)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (c *cli) devReset() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "reset --yes", Short: "Stop the local cluster and delete its data", Args: exactly()}
	cmd.Flags().BoolVar(&yes, "yes", false, "really delete")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := c.devFolder()
		if err != nil {
			return err
		}
		if !yes {
			return refused("this would stop the local cluster and delete %s: repeat with --yes", dir)
		}
		release, err := c.lockDev()
		if err != nil {
			return err
		}
		defer release()
		// A state file that cannot be read must not stand in the way of starting over.
		if node, err := c.readDev(); err == nil && node.running() {
			if err := c.stopDev(cmd.Context(), node); err != nil {
				return err
			}
		}
		if err := errors.Join(os.RemoveAll(dir), c.dropDevProfile()); err != nil {
			return err
		}
		return c.showValue(map[string]string{"deleted": dir}, &table{columns: []string{"deleted"}, rows: [][]any{{dir}}})
	}
	return cmd
}
