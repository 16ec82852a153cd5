package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/chaos/netns"
)

// cutBetween cuts every link between two sets of hosts.
func (t *trial) cutBetween(left, right []*netns.Host) {
	for _, a := range left {
		for _, b := range right {
			t.router.Both(a, b, netns.Link{Cut: true})
		}
	}
}

// others are the hosts of the brokers beside n.
func (t *trial) others(n *node) (hosts []*netns.Host) {
	for _, other := range t.nodes {
		if other != n {
			hosts = append(hosts, other.host)
		}
	}
	return hosts
}

// someone is a node that matters: a leader, the controller, or any.
func (t *trial) someone(ctx context.Context) (string, *node) {
	switch t.random.IntN(3) {
	case 0:
		if leader, err := t.leaderOf(ctx, t.random.Int32N(partitions)); err == nil {
			return "a leader", leader
		}
	case 1:
		if controller := t.controller(ctx); controller != nil {
			return "the controller", controller
		}
	}
	return "one", t.pick(1)[0]
}

// isolations is F6: links are cut in one of the shapes that partitions have.
func (t *trial) isolations(ctx context.Context) error {
	who, n := t.someone(ctx)
	hold := time.Duration(500+t.random.IntN(8000)) * time.Millisecond
	say := func(shape string) { t.say("%s: %s (node %d) for %s", shape, who, n.id, hold) }
	clients := t.router.Own
	switch shape := t.random.IntN(8); shape {
	case 0, 1:
		say("cut off from everybody")
		t.cutBetween([]*netns.Host{n.host}, append(t.others(n), clients))
	case 2:
		say("cut off from the brokers, not from clients")
		t.cutBetween([]*netns.Host{n.host}, t.others(n))
	case 3:
		say("cut off from clients alone")
		t.router.Both(n.host, clients, netns.Link{Cut: true})
	case 4:
		say("hears the brokers, is not heard")
		for _, h := range t.others(n) {
			t.router.Set(n.host, h, netns.Link{Cut: true})
		}
	case 5:
		say("is heard by the brokers, does not hear")
		for _, h := range t.others(n) {
			t.router.Set(h, n.host, netns.Link{Cut: true})
		}
	case 6:
		other := t.others(n)[t.random.IntN(clusterSize-1)]
		say("a ring that is open between two, " + other.Address.String() + " and")
		t.router.Both(n.host, other, netns.Link{Cut: true})
	default:
		controller := t.controller(ctx)
		if controller == nil || controller == n {
			controller, n = n, t.nodes[n.id%clusterSize]
		}
		say(fmt.Sprintf("cut off from the controller (node %d) alone", controller.id))
		t.router.Both(n.host, controller.host, netns.Link{Cut: true})
	}
	return t.wait(ctx, hold)
}

// flaps is F7: links come and go quickly, or are clogged one by one and opened in another order.
func (t *trial) flaps(ctx context.Context) error {
	if t.random.IntN(2) == 0 {
		_, n := t.someone(ctx)
		times := 4 + t.random.IntN(16)
		t.say("the links of node %d come and go %d times", n.id, times)
		for range times {
			t.cutBetween([]*netns.Host{n.host}, t.others(n))
			err := t.moment(ctx, 50, 900)
			t.router.Heal()
			if err := errors.Join(err, t.moment(ctx, 50, 900)); err != nil {
				return err
			}
		}
		return nil
	}
	t.say("links are clogged one by one, and opened in another order")
	type direction struct{ from, to *netns.Host }
	var links []direction
	for _, a := range t.nodes {
		for _, b := range t.others(a) {
			links = append(links, direction{a.host, b})
		}
	}
	for _, clogged := range []bool{true, false} {
		t.random.Shuffle(len(links), func(i, j int) { links[i], links[j] = links[j], links[i] })
		for _, l := range links[:len(links)-1] {
			t.router.Set(l.from, l.to, netns.Link{Cut: clogged})
			if err := t.moment(ctx, 50, 700); err != nil {
				return err
			}
		}
	}
	return nil
}

// weather is F8: every link, clients' too, loses, doubles, damages, delays and reorders.
func (t *trial) weather(ctx context.Context) error {
	var l netns.Link
	what := ""
	switch t.random.IntN(6) {
	case 0:
		l.Loss = 0.01 + 0.49*t.random.Float64()*t.random.Float64()
		what = fmt.Sprintf("%.0f %% of packets are lost", l.Loss*100)
	case 1:
		l.Double, l.Jitter = 0.3, 20*time.Millisecond
		what = "packets arrive twice and out of order"
	case 2:
		l.Damage = 0.05
		what = "5 % of packets arrive damaged"
	case 3:
		l.Delay = time.Duration(10+t.random.IntN(240)) * time.Millisecond
		l.Jitter = l.Delay / 2
		what = fmt.Sprintf("packets are late by %s and up to a half more", l.Delay)
	case 4:
		l.SizeMax = 1300
		what = "packets above 1300 bytes vanish"
	default:
		l = netns.Link{Loss: 0.05, Double: 0.05, Damage: 0.01, Delay: 20 * time.Millisecond, Jitter: 60 * time.Millisecond}
		what = "some of everything"
	}
	hold := time.Duration(2000+t.random.IntN(6000)) * time.Millisecond
	t.say("%s for %s", what, hold)
	t.everyLink(l)
	return t.wait(ctx, hold)
}

// everyLink sets the links between brokers, and, but for a size limit, those to clients.
func (t *trial) everyLink(l netns.Link) {
	for _, a := range t.nodes {
		for _, b := range t.others(a) {
			t.router.Set(a.host, b, l)
		}
		if l.SizeMax == 0 {
			t.router.Both(a.host, t.router.Own, l)
		}
	}
}

// slowLinks is F9: one node's links to the others carry a megabit a second.
func (t *trial) slowLinks(ctx context.Context) error {
	who, n := t.someone(ctx)
	hold := time.Duration(3000+t.random.IntN(7000)) * time.Millisecond
	t.say("a megabit a second: %s (node %d) for %s", who, n.id, hold)
	for _, h := range t.others(n) {
		t.router.Both(n.host, h, netns.Link{RateBytes: 125_000})
	}
	return t.wait(ctx, hold)
}

// controllers is F21: the controller is killed again and again, or two of three nodes are down.
func (t *trial) controllers(ctx context.Context) error {
	if t.random.IntN(3) == 0 {
		nodes := t.pick(2)
		t.say("no quorum: %s killed", names(nodes))
		for _, n := range nodes {
			if err := n.end(syscall.SIGKILL); err != nil {
				return err
			}
		}
		return t.moment(ctx, 1000, 6000)
	}
	for range 3 {
		n := t.controller(ctx)
		if n == nil {
			return t.moment(ctx, 500, 1500)
		}
		t.say("kill -9: the controller, node %d", n.id)
		if err := errors.Join(n.end(syscall.SIGKILL), t.moment(ctx, 50, 2500), t.start(ctx, n), t.moment(ctx, 50, 2500)); err != nil {
			return err
		}
	}
	return nil
}
