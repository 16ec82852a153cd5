package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// way is how clients reach a broker and prove who they are. The zero way is plain TCP, with nothing to prove.
type way struct {
	name      string // of -over
	told      string // in the report
	tls       bool
	mechanism string // of SASL; empty: none
	nodes     int    // of the cluster, and replicas of each topic; 0: one
	authority string // the file with the authority of the broker's certificates
}

const (
	trialUser     = "trial"
	trialPassword = "not a secret"
)

var ways = []way{
	{name: "tcp"},
	{name: "tls", told: "TLS", tls: true},
	{name: "scram", told: "SASL SCRAM-SHA-512", mechanism: "SCRAM-SHA-512"},
	{name: "plain", told: "SASL PLAIN and TLS", tls: true, mechanism: "PLAIN"},
	{name: "cluster", told: "TCP, three nodes with three replicas", nodes: 3},
}

// waysNamed finds the ways of -over.
func waysNamed(names string) ([]way, error) {
	var found []way
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(ways, func(w way) bool { return w.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-over: no way %q; there are tcp, tls, scram, plain and cluster", name)
		}
		found = append(found, ways[i])
	}
	return found, nil
}

// replicas is how many a topic has.
func (w way) replicas() int16 { return int16(max(w.nodes, 1)) }

// config has a broker speak it.
func (w way) config() []string {
	var lines []string
	if w.tls {
		lines = append(lines, "listeners.client.tls: true")
	}
	if w.mechanism != "" {
		lines = append(lines, "sasl.enabled.mechanisms: "+w.mechanism)
	}
	return lines
}

// arguments has a driver speak it.
func (w way) arguments() []string {
	var arguments []string
	if w.tls {
		arguments = append(arguments, "ca="+w.authority)
	}
	if w.mechanism != "" {
		arguments = append(arguments, "mechanism="+w.mechanism, "user="+trialUser, "password="+trialPassword)
	}
	return arguments
}

// options has a client of our own speak it.
func (w way) options() ([]kgo.Opt, error) {
	var opts []kgo.Opt
	if w.tls {
		trust, err := trusting(w.authority)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(trust))
	}
	switch w.mechanism {
	case "PLAIN":
		opts = append(opts, kgo.SASL(plain.Auth{User: trialUser, Pass: trialPassword}.AsMechanism()))
	case "SCRAM-SHA-512":
		opts = append(opts, kgo.SASL(scram.Auth{User: trialUser, Pass: trialPassword}.AsSha512Mechanism()))
	}
	return opts, nil
}

// trusting is a configuration that trusts the authority in a file.
func trusting(authority string) (*tls.Config, error) {
	pem, err := os.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", authority)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// user is who a broker is to know.
type user struct {
	name, password string
	mechanism      kadm.ScramMechanism
}

// trialUsers are those of the trials: PLAIN is checked against what SCRAM keeps.
var trialUsers = []user{{trialUser, trialPassword, kadm.ScramSha512}}

// startGuardedAt is startBrokerAt for a configuration with SASL: the broker runs without it first, and is told of users.
func startGuardedAt(ctx context.Context, program, dir, client string, users []user, more ...string) (*brokerProcess, error) {
	open, err := startBroker(ctx, program, dir)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(makeUsers(ctx, open.client, users), open.stop()); err != nil {
		return nil, fmt.Errorf("make users: %w", err)
	}
	return startBrokerAt(ctx, program, dir, client, more...)
}

func makeUsers(ctx context.Context, bootstrap string, users []user) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		return err
	}
	defer client.Close()
	var wanted []kadm.UpsertSCRAM
	for _, u := range users {
		wanted = append(wanted, kadm.UpsertSCRAM{User: u.name, Password: u.password, Mechanism: u.mechanism, Iterations: 4096})
	}
	made, err := kadm.NewClient(client).AlterUserSCRAMs(ctx, nil, wanted)
	if err != nil {
		return err
	}
	return made.Error()
}

// startOver runs a broker that is reached in a way.
func startOver(ctx context.Context, program, dir string, w way) (*brokerProcess, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	start := func() (*brokerProcess, error) { return startBroker(ctx, program, dir, w.config()...) }
	if w.mechanism != "" {
		start = func() (*brokerProcess, error) {
			return startGuardedAt(ctx, program, dir, "", trialUsers, w.config()...)
		}
	}
	b, err := start()
	if err != nil {
		return nil, err
	}
	if err := b.grow(ctx, w.nodes); err != nil {
		return nil, errors.Join(err, b.stop())
	}
	b.way = w
	b.way.authority = b.authority
	return b, nil
}
