package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/internal/task"
)

// A crowd is many connections that want little: most asked one thing and are silent, some send a request a byte at a time
// for ever, some ask for all there is and read nothing.
const (
	crowdIdle      = 10_000
	crowdSlow      = 1_000
	crowdPairs     = 3
	crowdWindow    = 6 * time.Second
	crowdRate      = 5_000 // records a second, far below any peak: it is about their latency
	crowdTopic     = "beside-the-crowd"
	crowdDrip      = 500 * time.Millisecond // between two bytes of a slow sender
	crowdPerHost   = 2_000                  // connections from one loopback address, below what a broker takes from one
	crowdGreeting  = 10 * time.Second
	crowdSettles   = 3 * time.Second // after it came: its arrival is measured by itself
	crowdSlowBytes = 1000            // of a slow sender's request, which takes minutes
)

// crowdPart loads a topic at a steady rate, in turn alone and beside a crowd.
func crowdPart(ctx context.Context, v *visit) error {
	return v.fresh(ctx, func(time.Time) error {
		address := v.system.(*millrace).client
		d := kafkaDriver{address: address}
		l := load{topic: crowdTopic, partitions: 6, records: 20_000, size: v.at.Size}
		if err := d.CreateTopic(ctx, l.topic, l.partitions); err != nil {
			return err
		}
		if err := d.Produce(ctx, l); err != nil { // also something to ask for
			return err
		}
		for range crowdPairs {
			if err := v.crowded(ctx, d, "crowd-off", nil); err != nil {
				return err
			}
			c := &crowd{address: address, topic: crowdTopic, parts: l.partitions}
			// All of them come, even if the window ends before.
			err := v.crowded(ctx, d, "crowd-arrives", func(context.Context) error { return c.gather(ctx, v.share(crowdIdle), v.share(crowdSlow)) })
			if err == nil {
				v.settle(ctx, crowdSettles/time.Duration(v.shorter))
				err = v.crowded(ctx, d, "crowd-on", c.drip)
			}
			if err = errors.Join(err, c.disperse()); err != nil {
				return err
			}
		}
		return nil
	})
}

// share is a number of connections, fewer in a smoke run.
func (v *visit) share(n int) int { return n / v.shorter }

// crowded is one window, with what happens beside it.
func (v *visit) crowded(ctx context.Context, d kafkaDriver, scenario string, beside func(context.Context) error) error {
	return v.step(ctx, scenario, func(m *measure) error {
		group := task.NewGroup(ctx)
		if beside != nil {
			group.Go("crowd", beside)
		}
		// No batch waits for others: it would hide what the crowd adds.
		found, err := d.openLoop(ctx, crowdTopic, v.at.Size, crowdRate, crowdWindow/time.Duration(v.shorter), kgo.ProducerLinger(0))
		group.Stop()
		m.Records, m.Seconds, m.P50Millis, m.P99Millis, m.LateP99Millis = found.Records, found.Seconds, found.P50, found.P99, found.LateP99
		return errors.Join(err, group.Wait())
	})
}

// crowd is connections to one broker. It belongs to one goroutine at a time.
type crowd struct {
	address string
	topic   string
	parts   int32
	made    int
	idle    []net.Conn
	slow    []net.Conn // send
	deaf    []net.Conn // read nothing
	request []byte     // what slow ones send
	sent    int        // bytes of it
}

// gather opens the connections.
func (c *crowd) gather(ctx context.Context, idle, slow int) error {
	versions := kmsg.NewRequestFormatter().AppendRequest(nil, &kmsg.ApiVersionsRequest{}, 1)
	c.request = append(binary.BigEndian.AppendUint32(nil, crowdSlowBytes), make([]byte, crowdSlowBytes)...)
	copy(c.request[4:], versions[4:])
	for range idle {
		conn, err := c.open(ctx, versions)
		if err != nil {
			return err
		}
		c.idle = append(c.idle, conn)
		if err := answered(conn); err != nil {
			return err
		}
	}
	for range slow / 2 {
		conn, err := c.open(ctx, nil)
		if err != nil {
			return err
		}
		c.slow = append(c.slow, conn)
	}
	everything := c.fetch()
	for range slow - slow/2 {
		conn, err := c.open(ctx, everything)
		if err != nil {
			return err
		}
		c.deaf = append(c.deaf, conn)
	}
	return nil
}

// open dials, from one address of loopback after the other, and sends a request.
func (c *crowd) open(ctx context.Context, request []byte) (net.Conn, error) {
	from := net.IPv4(127, 0, 1, byte(1+c.made/crowdPerHost))
	c.made++
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	conn, err := dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, fmt.Errorf("connection %d of the crowd: %w", c.made, err)
	}
	if _, err := conn.Write(request); err != nil {
		return nil, errors.Join(fmt.Errorf("connection %d of the crowd: %w", c.made, err), conn.Close())
	}
	return conn, nil
}

// answered reads one response.
func answered(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(crowdGreeting)); err != nil {
		return err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return fmt.Errorf("a connection of the crowd was not answered: %w", err)
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(conn, body)
	return err
}

// fetch is a request for all that the topic has.
func (c *crowd) fetch() []byte {
	request := kmsg.NewFetchRequest()
	request.Version, request.ReplicaID, request.MinBytes, request.MaxBytes = 12, -1, 1, 1<<30
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = c.topic
	for i := range c.parts {
		partition := kmsg.NewFetchRequestTopicPartition()
		partition.Partition, partition.PartitionMaxBytes, partition.CurrentLeaderEpoch = i, 1<<30, -1
		topic.Partitions = append(topic.Partitions, partition)
	}
	request.Topics = append(request.Topics, topic)
	return kmsg.NewRequestFormatter().AppendRequest(nil, &request, 1)
}

// drip has every slow sender send a byte, and another a while later.
func (c *crowd) drip(ctx context.Context) error {
	tick := time.NewTicker(crowdDrip)
	defer tick.Stop()
	for {
		for _, conn := range c.slow {
			if _, err := conn.Write(c.request[c.sent : c.sent+1]); err != nil {
				return fmt.Errorf("a slow sender was cut off: %w", err)
			}
		}
		c.sent++
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *crowd) disperse() error {
	var errs []error
	for _, conns := range [][]net.Conn{c.idle, c.slow, c.deaf} {
		for _, conn := range conns {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}
