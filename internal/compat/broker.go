package main

import (
	"bufio"
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
)

// brokerProcess is a real `millrace run` in a directory of its own.
type brokerProcess struct {
	client    string // Kafka, TCP and QUIC
	admin     string
	authority string // the file with the authority of its certificates
	way       way    // how clients are to reach it
	cmd       *exec.Cmd
}

// quickGroups has the members of consumer groups (KIP-848) speak often: they hear of a rebalance at their next heartbeat.
const quickGroups = "group.consumer.min.heartbeat.interval.ms: 1000\ngroup.consumer.heartbeat.interval.ms: 1000\n"

// startBroker formats a directory below dir and runs a broker in it, on ports that are free, with more lines of
// configuration.
func startBroker(ctx context.Context, program, dir string, more ...string) (*brokerProcess, error) {
	client, err := freeAddress()
	if err != nil {
		return nil, err
	}
	return startBrokerAt(ctx, program, dir, client, more...)
}

// startBrokerAt is startBroker with an address for clients.
func startBrokerAt(ctx context.Context, program, dir, client string, more ...string) (*brokerProcess, error) {
	b := &brokerProcess{client: client}
	var cluster string
	for _, address := range []*string{&cluster, &b.admin} {
		var err error
		if *address, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	data, config := filepath.Join(dir, "data"), filepath.Join(dir, "millrace.yaml")
	b.authority = filepath.Join(data, "tls", "ca.crt")
	if _, err := os.Stat(data); errors.Is(err, fs.ErrNotExist) { // else it ran here before
		if out, err := exec.CommandContext(ctx, program, "init", "--data", data).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("millrace init: %w\n%s", err, out)
		}
	}
	text := fmt.Sprintf("data: %s\nlisteners:\n  client:\n    bind: %s\n  cluster:\n    bind: %s\n  admin:\n    bind: %s\nlog.level: info\n%s",
		data, b.client, cluster, b.admin, quickGroups)
	text += strings.Join(append(more, ""), "\n")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "millrace.log"))
	if err != nil {
		return nil, err
	}
	b.cmd = exec.Command(program, "run", "--config", config)
	b.cmd.Stdout, b.cmd.Stderr = log, log
	if err := errors.Join(b.cmd.Start(), log.Close()); err != nil {
		return nil, fmt.Errorf("start the broker: %w", err)
	}
	if !eventually(ctx, 30*time.Second, func() bool { return b.ready(ctx) }) {
		return nil, errors.Join(fmt.Errorf("the broker in %s did not become ready; see millrace.log there", dir), b.stop())
	}
	return b, nil
}

func (b *brokerProcess) ready(ctx context.Context) bool {
	response, err := b.get(ctx, "/readyz")
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}

func (b *brokerProcess) get(ctx context.Context, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.admin+path, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(request)
}

// stop ends the process with SIGTERM and waits for it.
func (b *brokerProcess) stop() error {
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return b.cmd.Wait()
}

// fetches is what the broker counted: requests answered, and those among them answered with an error.
type fetches struct {
	answered, failed float64
}

// fetches reads the request counters.
func (b *brokerProcess) fetches(ctx context.Context) (fetches, error) {
	var counted fetches
	response, err := b.get(ctx, "/metrics")
	if err != nil {
		return counted, err
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		labels, ok := strings.CutPrefix(lines.Text(), `millrace_kafka_requests_total{api="Fetch"`)
		if !ok {
			continue
		}
		_, text, _ := strings.Cut(labels, "} ")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return counted, fmt.Errorf("metrics line %q: %w", lines.Text(), err)
		}
		counted.answered += value
		if !strings.Contains(labels, `code="0"`) {
			counted.failed += value
		}
	}
	return counted, lines.Err()
}

// freeAddress returns a loopback address whose port is free on TCP and UDP.
func freeAddress() (string, error) {
	for range 32 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		address := tcp.Addr().String()
		udp, err := net.ListenPacket("udp", address)
		if closeErr := tcp.Close(); closeErr != nil {
			return "", closeErr
		}
		if err == nil {
			return address, udp.Close()
		}
	}
	return "", errors.New("no port is free on both TCP and UDP")
}

// free reports whether an address can be listened at.
func free(address string) bool {
	l, err := net.Listen("tcp", address)
	return err == nil && l.Close() == nil
}

// eventually asks until the answer is yes, and reports whether it was within the time.
func eventually(ctx context.Context, within time.Duration, ask func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !ask() {
		select {
		case <-ctx.Done():
			return ask()
		case <-ticker.C:
		}
	}
	return true
}
