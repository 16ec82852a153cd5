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
	"slices"
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
	return parent("dev", "A local cluster, without Docker or root", c.devUp(), c.devDown(), c.devStatus(), c.devReset(),
		c.devSignal("kill", "killed", "End a node as a crash would (SIGKILL)", syscall.SIGKILL),
		c.devSignal("pause", "paused", "Stop a node in its tracks (SIGSTOP)", syscall.SIGSTOP),
		c.devSignal("resume", "resumed", "Let a paused node go on (SIGCONT)", syscall.SIGCONT))
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

// devState names the file below the dev folder in which the local cluster is described.
const devState = "nodes.yaml"

// readDev returns the local cluster's nodes; none if there is no cluster.
func (c *cli) readDev() ([]*devNode, error) {
	dir, err := c.devFolder()
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, devState))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var nodes []*devNode
	if err := yaml.UnmarshalWithOptions(raw, &nodes, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: %w: `raftctl dev reset --yes` starts over", filepath.Join(dir, devState), err)
	}
	return nodes, nil
}

func (c *cli) writeDev(nodes []*devNode) error {
	dir, err := c.devFolder()
	if err != nil {
		return err
	}
	raw, err := yaml.Marshal(nodes)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, devState), raw, 0o600)
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

// paused reports whether the node's process was stopped in its tracks (proc_pid_stat(5)).
func (n *devNode) paused() bool {
	if !n.running() {
		return false
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(n.PID), "stat"))
	state := strings.LastIndexByte(string(stat), ')') + 2 // The program's name before it may hold anything.
	return err == nil && state < len(stat) && stat[state] == 'T'
}

// awaitEnd returns when a killed node takes no connection any more, which may be a little after its process is no program.
func (n *devNode) awaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, devReadyWithin)
	defer cancel()
	for {
		if conn, err := new(net.Dialer).DialContext(ctx, "tcp", n.Admin); err != nil && ctx.Err() == nil {
			return nil
		} else if err == nil {
			_ = conn.Close() // It only shows that the port is open.
		}
		select {
		case <-ctx.Done():
			return unhealthy("process %d was killed and did not end within %s", n.PID, devReadyWithin)
		case <-time.After(5 * time.Millisecond):
		}
	}
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

// freePort returns the first loopback address, from a port upward, that is free on TCP and UDP and not among others.
func freePort(first int, others []string) (string, error) {
	for port := first; port < first+devPortTries*devPortStep; port += devPortStep {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if slices.Contains(others, address) {
			continue
		}
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

func (c *cli) writeDevProfile(nodes []*devNode) error {
	all, err := c.readProfiles()
	if err != nil {
		return err
	}
	dev := profile{TLSCA: filepath.Join(nodes[0].Data, "tls", "ca.crt")}
	var admins []string
	for _, n := range nodes {
		dev.Brokers, admins = append(dev.Brokers, n.Client), append(admins, n.Admin)
	}
	dev.Admin = strings.Join(admins, ",")
	all.Profiles[devProfile], all.Current = dev, devProfile
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
		if nodes, err := c.readDev(); err == nil {
			if err := c.stopDev(cmd.Context(), nodes); err != nil {
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
