// Package driver is the driver protocol of package compat: a verb and KEY=VALUE arguments in, events as JSON lines on
// stdout, SIGTERM to end. Each client's main calls Main with its verbs.
package driver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Value is the value of every record produced.
const Value = "a value that compresses well, well, well, well, well, well, well, well, well"

// Asked is what the command line asks for.
type Asked map[string]string

// Int returns a number.
func (a Asked) Int(name string) int {
	n, err := strconv.Atoi(a[name])
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(2)
	}
	return n
}

// TLS returns how to trust a TLS listener, or nil where there is none.
func (a Asked) TLS() *tls.Config {
	if a["ca"] == "" {
		return nil
	}
	pem, err := os.ReadFile(a["ca"])
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		fmt.Fprintf(os.Stderr, "authority in %s: %v\n", a["ca"], err)
		os.Exit(2)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// Keys are those of the records to produce.
func (a Asked) Keys() []string {
	keys := make([]string, a.Int("count"))
	for i := range keys {
		keys[i] = fmt.Sprintf("%s-%05d", a["codec"], i)
	}
	return keys
}

// Verbs are what a client can do. Consume runs until its context ends.
type Verbs map[string]func(context.Context, Asked) error

// Main runs the verb of the command line.
func Main(verbs Verbs) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	asked := Asked{}
	for _, argument := range os.Args[2:] {
		name, value, _ := strings.Cut(argument, "=")
		asked[name] = value
	}
	verb := verbs[os.Args[1]]
	if verb == nil {
		fmt.Fprintln(os.Stderr, "no verb", os.Args[1])
		os.Exit(2)
	}
	if err := verb(ctx, asked); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var mu sync.Mutex // guards stdout

func emit(event map[string]any) {
	mu.Lock()
	defer mu.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(event); err != nil {
		os.Exit(1)
	}
}

// Record tells of a record that was delivered.
func Record(partition int32, offset int64, key []byte) {
	emit(map[string]any{"event": "record", "partition": partition, "offset": offset, "key": string(key)})
}

// Assigned tells all the partitions that the member owns now.
func Assigned(partitions []int32) {
	slices.Sort(partitions)
	emit(map[string]any{"event": "assigned", "partitions": append([]int32{}, partitions...)})
}
