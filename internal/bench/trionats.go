package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// natsTrioSettings are the release's defaults, but for the largest store.
const natsTrioSettings = `listen: %[1]s
server_name: "%[2]d"
jetstream {
  store_dir: %[3]q
  max_file_store: 20GB
}
cluster {
  name: bench
  listen: %[4]s
  routes: [%[5]s]
}
`

// natsTrio is three NATS servers, whose streams have three replicas.
type natsTrio struct {
	trio
	version string
	routes  [trioNodes]string // addresses
}

// Version implements system.
func (n *natsTrio) Version() string {
	return n.version + ", JetStream on files, three servers, sync_interval 2m"
}

// Driver implements system.
func (n *natsTrio) Driver() driver { return n.driver() }

func (n *natsTrio) driver() natsDriver {
	return natsDriver{program: n.home.bin("nats"), url: "nats://" + strings.ReplaceAll(n.seeds(), ",", ",nats://"), replicas: trioNodes}
}

// Install implements system.
func (n *natsTrio) Install(ctx context.Context) error {
	one := newNATS(n.name, n.home, "2m")
	err := one.Install(ctx)
	n.version = one.version
	return err
}

func (n *natsTrio) config(i int) string { return n.data(i) + ".conf" }

// Start implements system.
func (n *natsTrio) Start(ctx context.Context) (execAt time.Time, err error) {
	if err := n.clean(); err != nil {
		return time.Time{}, err
	}
	for i := range n.clients {
		if err := n.place(i, &n.clients[i], &n.routes[i]); err != nil {
			return time.Time{}, err
		}
	}
	routes := "nats://" + strings.Join(n.routes[:], ", nats://")
	for i := range n.clients {
		text := fmt.Sprintf(natsTrioSettings, n.clients[i], i+1, n.data(i), n.routes[i], routes)
		if err := os.WriteFile(n.config(i), []byte(text), 0o600); err != nil {
			return time.Time{}, err
		}
		if execAt, err = n.StartNode(ctx, i+1); err != nil {
			return execAt, err
		}
	}
	return execAt, n.serving(ctx)
}

// StartNode implements clustered.
func (n *natsTrio) StartNode(ctx context.Context, node int) (time.Time, error) {
	return n.start(ctx, node-1, n.home.bin("nats-server"), "-c", n.config(node-1))
}

// Strike implements clustered: the driver finds the leader of the stream and strikes it by its process id.
func (n *natsTrio) Strike(ctx context.Context, s strike) (found struck, err error) {
	if s.both || s.defaults || s.signal != syscall.SIGKILL {
		return found, errors.New("only kill -9 of a stream's leader is tried on NATS")
	}
	if err := n.driver().CreateTopic(ctx, s.topic, 1); err != nil {
		return found, err
	}
	var ids []string
	for _, id := range n.Processes() {
		ids = append(ids, fmt.Sprint(id))
	}
	err = n.driver().ask(ctx, "strike", load{topic: s.topic, partitions: 1, size: s.size}, &found, "-processes", strings.Join(ids, ","))
	if err != nil {
		return found, err
	}
	d := &n.daemons[found.Node-1]
	<-d.process.Exited()
	d.process = nil
	return found, nil
}

// Whole implements clustered.
func (n *natsTrio) Whole(ctx context.Context, topic string) error {
	_, err := n.driver().run(ctx, "whole", load{topic: topic, partitions: 1})
	return err
}
