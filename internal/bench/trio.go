package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/chaos/netns"
	"github.com/millrace-io/millrace/internal/process"
)

// trioNodes is how many brokers a cluster has.
const trioNodes = 3

// firstPort is that of a broker's first listener on a host of its own, where every port is free.
const firstPort = 9092

// clustered is a system of three brokers, whose numbers are 1 to 3.
type clustered interface {
	system
	// Signal sends a signal to one broker; one that ends is waited for.
	Signal(node int, signal syscall.Signal) error
	// StartNode starts a broker again on what it left, and does not wait for it.
	StartNode(ctx context.Context, node int) (execAt time.Time, err error)
	// Cut drops every packet to and from a broker, until Heal. Only brokers on hosts of their own have links.
	Cut(node int)
	Heal()
	// Strike kills the broker that leads what is written to, stops it, or cuts it off, while one record is written after another,
	// and returns the time from then to the acknowledgement of a record sent later.
	Strike(ctx context.Context, s strike) (struck, error)
	// Whole returns when every broker has every record of the topic and answers.
	Whole(ctx context.Context, topic string) error
}

// strike is what is done to a broker under load.
type strike struct {
	topic  string // made for it, with replicas on all brokers
	signal syscall.Signal
	cut    bool // its link is cut instead; there is no signal
	both   bool // the broker that is struck leads the metadata quorum as well
	// defaults leaves the client's metadata age and timeouts as they are.
	defaults bool
	size     int
}

// struck is what came of a strike.
type struck struct {
	Node int     `json:"node"`
	Gap  float64 `json:"gap_seconds"`
}

// trio is what three brokers of any system have in common.
type trio struct {
	name    string
	home    workshop
	daemons [trioNodes]daemon
	router  *netns.Router     // between the brokers' hosts; nil: all are on this one
	clients [trioNodes]string // addresses
}

func newTrio(name string, home workshop, router *netns.Router) trio {
	t := trio{name: name, home: home, router: router}
	for i := range t.daemons {
		t.daemons[i].log = home.log(fmt.Sprintf("%s-%d", name, i+1))
	}
	return t
}

// Name implements system.
func (t *trio) Name() string { return t.name }

// Processes implements system.
func (t *trio) Processes() (all []int) {
	for i := range t.daemons {
		all = append(all, t.daemons[i].pids()...)
	}
	return all
}

func (t *trio) seeds() string       { return strings.Join(t.clients[:], ",") }
func (t *trio) data(i int) string   { return t.home.data(fmt.Sprintf("%s-%d", t.name, i+1)) }
func (t *trio) driver() kafkaDriver { return kafkaDriver{address: t.seeds(), replicas: trioNodes} }

// Signal implements clustered.
func (t *trio) Signal(node int, signal syscall.Signal) error {
	d := &t.daemons[node-1]
	if signal == syscall.SIGKILL || signal == syscall.SIGTERM {
		return d.end(signal)
	}
	return d.process.Signal(signal)
}

// Cut implements clustered.
func (t *trio) Cut(node int) {
	victim := t.router.Hosts[node-1]
	for _, other := range append([]*netns.Host{t.router.Own}, t.router.Hosts...) {
		t.router.Both(victim, other, netns.Link{Cut: true})
	}
}

// Heal implements clustered.
func (t *trio) Heal() { t.router.Heal() }

// hit does to a broker what a strike is.
func (t *trio) hit(s strike, node int) error {
	if s.cut {
		t.Cut(node)
		return nil
	}
	return t.Signal(node, s.signal)
}

// place fills in addresses of a broker's listeners.
func (t *trio) place(i int, addresses ...*string) error {
	if t.router == nil {
		return process.FreeAddresses(addresses...)
	}
	for n, address := range addresses {
		*address = netip.AddrPortFrom(t.router.Hosts[i].Address, firstPort+uint16(n)).String()
	}
	return nil
}

// start runs a broker's command in its place.
func (t *trio) start(ctx context.Context, i int, name string, arguments ...string) (execAt time.Time, err error) {
	if t.router == nil {
		return t.daemons[i].start(name, arguments...)
	}
	err = t.router.Hosts[i].Do(ctx, func() error {
		execAt, err = t.daemons[i].start(name, arguments...)
		return err
	})
	return execAt, err
}

// Stop implements system. A broker that was stopped by a signal obeys SIGKILL alone.
func (t *trio) Stop() error {
	var errs []error
	for i := range t.daemons {
		errs = append(errs, t.daemons[i].end(syscall.SIGKILL), os.RemoveAll(t.data(i)))
	}
	return errors.Join(errs...)
}

// clean empties the data directories.
func (t *trio) clean() error {
	var errs []error
	for i := range t.daemons {
		errs = append(errs, os.RemoveAll(t.data(i)))
	}
	return errors.Join(errs...)
}

// serving waits for all brokers.
func (t *trio) serving(ctx context.Context) error {
	for i := range t.daemons {
		if err := t.daemons[i].serving(ctx, t.clients[i]); err != nil {
			return err
		}
	}
	return nil
}

// triosNamed returns clusters in the order of names, on the hosts of the router if there is one.
func triosNamed(names string, home workshop, keys []string, router *netns.Router) ([]system, error) {
	known := map[string]system{
		"millrace": &millraceTrio{trio: newTrio("millrace", home, router), keys: keys},
		"kafka":    &kafkaTrio{trio: newTrio("kafka", home, router)},
		"nats":     &natsTrio{trio: newTrio("nats", home, router)},
	}
	var chosen []system
	for name := range strings.SplitSeq(names, ",") {
		s, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("-systems: as a cluster %q is none of millrace, kafka, nats", name)
		}
		chosen = append(chosen, s)
	}
	return chosen, nil
}
