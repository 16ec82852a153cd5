package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/process"
)

// brokerProcess is a broker of ours as clients see it.
type brokerProcess struct {
	client    string // Kafka, TCP and QUIC
	admin     string
	authority string // the file with the authority of its certificates
	way       way    // how clients are to reach it
	process   *process.Broker
	others    []*process.Broker // of its cluster
}

// quickGroups has the members of consumer groups (KIP-848) speak often: they hear of a rebalance at their next heartbeat.
const quickGroups = "group.consumer.min.heartbeat.interval.ms: 1000\ngroup.consumer.heartbeat.interval.ms: 1000\n"

// startBroker formats a directory below dir and runs a broker in it, on ports that are free, with more lines of
// configuration.
func startBroker(ctx context.Context, program, dir string, more ...string) (*brokerProcess, error) {
	return startBrokerAt(ctx, program, dir, "", more...)
}

// startBrokerAt is startBroker with an address for clients.
func startBrokerAt(ctx context.Context, program, dir, client string, more ...string) (*brokerProcess, error) {
	p, err := process.Format(ctx, program, dir, client, append([]string{quickGroups}, more...)...)
	if err != nil {
		return nil, err
	}
	if err := p.Serve(ctx); err != nil {
		return nil, errors.Join(err, p.End(syscall.SIGKILL))
	}
	return &brokerProcess{client: p.Client, admin: p.Admin, authority: p.Authority(), process: p}, nil
}

// stop ends the processes with SIGTERM and waits for them. The first is the last: what the others hand over, it takes.
func (b *brokerProcess) stop() error {
	var problems []error
	for _, other := range b.others {
		problems = append(problems, other.Stop())
	}
	return errors.Join(append(problems, b.process.Stop())...)
}

// fetches is what the broker counted: requests answered, and those among them answered with an error.
type fetches struct {
	answered, failed float64
}

// fetches reads the request counters of all nodes.
func (b *brokerProcess) fetches(ctx context.Context) (all fetches, err error) {
	for _, node := range append([]*process.Broker{b.process}, b.others...) {
		counted, err := fetchesOf(ctx, node)
		if err != nil {
			return all, err
		}
		all.answered += counted.answered
		all.failed += counted.failed
	}
	return all, nil
}

func fetchesOf(ctx context.Context, node *process.Broker) (fetches, error) {
	var counted fetches
	response, err := node.Get(ctx, "/metrics")
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
