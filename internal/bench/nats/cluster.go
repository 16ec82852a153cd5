package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What a strike is made of; the bench does the same to others.
const (
	strikeTick    = 5 * time.Millisecond
	strikeWarm    = 500 * time.Millisecond
	strikeAttempt = 100 * time.Millisecond // one message's, before the next is sent
)

// whole waits until all replicas of the streams are current.
func whole(ctx context.Context, l load) (found, error) {
	conn, js, err := l.connect()
	if err != nil {
		return found{}, err
	}
	defer conn.Close()
	for p := range l.partitions {
		for {
			info, err := l.info(ctx, js, p)
			if err == nil && current(info) {
				break
			}
			if ctx.Err() != nil {
				return found{}, fmt.Errorf("stream %s is not whole: %w", l.stream(p), errors.Join(err, ctx.Err()))
			}
			time.Sleep(look)
		}
	}
	return found{}, nil
}

func (l load) info(ctx context.Context, js jetstream.JetStream, partition int) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	stream, err := js.Stream(ctx, l.stream(partition))
	if err != nil {
		return nil, err
	}
	return stream.Info(ctx)
}

func current(info *jetstream.StreamInfo) bool {
	if info.Cluster == nil || info.Cluster.Leader == "" {
		return false
	}
	for _, r := range info.Cluster.Replicas {
		if r.Offline || !r.Current {
			return false
		}
	}
	return true
}

// strike kills the leader of a stream.
func strike(ctx context.Context, l load) (f found, err error) {
	l.partitions = 1
	if _, err := whole(ctx, l); err != nil {
		return f, err
	}
	conn, js, err := l.connect()
	if err != nil {
		return f, err
	}
	defer conn.Close()
	info, err := l.info(ctx, js, 0)
	if err != nil {
		return f, err
	}
	ids := strings.Split(l.processes, ",")
	if f.Node, err = strconv.Atoi(info.Cluster.Leader); err != nil || f.Node < 1 || f.Node > len(ids) {
		return f, fmt.Errorf("the leader is %q: %w", info.Cluster.Leader, err)
	}
	process, err := strconv.Atoi(ids[f.Node-1])
	if err != nil {
		return f, err
	}
	survivors, err := l.survivors(conn, f.Node)
	if err != nil {
		return f, err
	}
	defer survivors.Close()
	gap, err := l.gap(ctx, survivors, func() error { return syscall.Kill(process, syscall.SIGKILL) })
	f.Gap = gap.Seconds()
	return f, err
}

// survivors connects to those that are not struck: the publisher need not find its way to them.
func (l load) survivors(conn *nats.Conn, struck int) (*nats.Conn, error) {
	urls := strings.Split(l.url, ",")
	urls = append(urls[:struck-1:struck-1], urls[struck:]...)
	return nats.Connect(strings.Join(urls, ","), nats.DontRandomize(), nats.IgnoreDiscoveredServers())
}

// gap publishes every few milliseconds, each message for itself, and strikes in between.
func (l load) gap(ctx context.Context, conn *nats.Conn, strike func() error) (time.Duration, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return 0, err
	}
	payload := make([]byte, l.size)
	publish := func(done func()) {
		go func() {
			ctx, cancel := context.WithTimeout(ctx, strikeAttempt)
			defer cancel()
			if _, err := js.Publish(ctx, l.stream(0), payload, jetstream.WithRetryAttempts(0)); err == nil {
				done()
			}
		}()
	}
	var acknowledged atomic.Int64
	for begin := time.Now(); time.Since(begin) < strikeWarm; time.Sleep(strikeTick) {
		publish(func() { acknowledged.Add(1) })
	}
	if acknowledged.Load() == 0 {
		return 0, errors.New("nothing was acknowledged before the strike")
	}
	begin := time.Now()
	if err := strike(); err != nil {
		return 0, err
	}
	again := make(chan struct{}, 1)
	for ctx.Err() == nil {
		publish(func() {
			select {
			case again <- struct{}{}:
			default:
			}
		})
		select {
		case <-again:
			return time.Since(begin), nil
		case <-time.After(strikeTick):
		}
	}
	return 0, ctx.Err()
}
