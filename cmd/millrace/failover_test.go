package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker/adminapi"
)

// gapMax is how long the kill of one broker may keep a producer waiting, whatever it led.
const gapMax = 2500 * time.Millisecond

// RH7: the broker that leads both the metadata quorum and the partition is killed, and the next record is acknowledged before
// a suspicion by silence alone would have ended. KILLS=20 kills so often; the gaps are in the log.
func TestAKilledLeaderOfEverythingIsReplacedAtOnce(t *testing.T) {
	kills := times(t, "KILLS", 3)
	c := newTrio(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(kills)*20*time.Second)
	defer cancel()
	if _, err := c.nodes[0].sdk.CreateTopic(ctx, "orders", 1, nil); err != nil {
		t.Fatal(err)
	}
	client := c.franz(kgo.ProducerLinger(0), kgo.DefaultProduceTopic("orders"))
	defer client.Close()
	var gaps []time.Duration
	for kill := range kills {
		victim := c.level("orders")
		c.handOver(victim)
		if err := client.ProduceSync(ctx, &kgo.Record{Value: fmt.Append(nil, "before ", kill)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		c.nodes[victim].end(syscall.SIGKILL)
		if err := client.ProduceSync(ctx, &kgo.Record{Value: fmt.Append(nil, "behind ", kill)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		gaps = append(gaps, time.Since(began).Round(time.Millisecond))
		t.Logf("node %d led everything and was killed: %v until the next record was acknowledged", victim+1, gaps[kill])
		c.await(c.start(victim))
	}
	slices.Sort(gaps)
	t.Logf("%d kills: median %v, longest %v", kills, gaps[len(gaps)/2], gaps[len(gaps)-1])
	if longest := gaps[len(gaps)-1]; longest > gapMax {
		t.Errorf("a record waited for %v, at most %v are promised", longest, gapMax)
	}
}

// times is how often a test does what it does, which the environment may say.
func times(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: give a number from 1 up", name, text)
	}
	return n
}

// level waits until all replicas of a topic are in sync, and returns who leads its first partition.
func (c *trio) level(topic string) (leader int) {
	c.t.Helper()
	c.eventually("three replicas in sync", func() error {
		for i := range c.nodes { // Every node must know.
			r, err := c.nodes[i].sdk.Topics().DescribeTopic(c.t.Context(), &adminapi.DescribeTopicRequest{Name: topic})
			if err != nil {
				return err
			}
			leader = int(r.Partitions[0].Leader) - 1
			for _, p := range r.Partitions {
				if len(p.Isr) != 3 || p.Leader < 1 {
					return fmt.Errorf("node %d: partition %d has leader %d, ISR %v", i+1, p.Partition, p.Leader, p.Isr)
				}
			}
		}
		return nil
	})
	return leader
}

// handOver makes a node the leader of the metadata quorum, as every node knows.
func (c *trio) handOver(to int) {
	c.t.Helper()
	c.eventually("the quorum led by node "+strconv.Itoa(to+1), func() error {
		for i := range c.nodes {
			q, err := c.quorum(i)
			if err != nil {
				return err
			}
			if int(q.LeaderNode) == to+1 {
				continue
			}
			at := slices.IndexFunc(q.Members, func(m *adminapi.Member) bool { return int(m.Node) == to+1 })
			_, err = c.nodes[i].sdk.Cluster().TransferController(c.t.Context(), &adminapi.TransferControllerRequest{RaftId: q.Members[at].RaftId})
			return fmt.Errorf("node %d takes node %d for the leader; handed over: %v", i+1, q.LeaderNode, err)
		}
		return nil
	})
}
