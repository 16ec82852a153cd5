package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// cluster is a controller with its image, driven a request at a time: decide, fold, print what changed.
type cluster struct {
	core    *Core
	img     *metadata.Image
	nowMs   int64
	topics  []broker.TopicID // in the order of their making
	entries int
	homing  map[broker.NodeID]*Homing
}

func newCluster(seed byte) *cluster {
	return &cluster{core: New(Config{}, rand.NewChaCha8([32]byte{seed})), img: metadata.NewImage(), nowMs: 1_000_000, homing: map[broker.NodeID]*Homing{}}
}

func (c *cluster) decide(req Request) (Reply, error) {
	d, err := c.core.Decide(c.img, req, c.nowMs)
	if err != nil {
		return nil, err
	}
	for _, facts := range d.Changes {
		entries, err := metadata.EncodeChange(facts)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			if len(entry) > metadata.EntryBytesMax {
				return nil, fmt.Errorf("an entry of %d bytes", len(entry))
			}
			next, changes, err := metadata.Apply(c.img, c.img.Index()+1, 1, entry)
			if err != nil {
				return nil, err
			}
			if len(changes.Stale) > 0 {
				return nil, fmt.Errorf("decided a stale fact: %+v", changes.Stale)
			}
			c.img = next
			c.entries++
		}
	}
	for t := range c.img.Topics() {
		if !slices.Contains(c.topics, t.ID) {
			c.topics = append(c.topics, t.ID)
		}
	}
	return d.Reply, nil
}

func (c *cluster) epoch(n broker.NodeID) broker.BrokerEpoch {
	if r, ok := c.img.Broker(n); ok {
		return r.Epoch
	}
	return 0
}

func directoryOf(n broker.NodeID) broker.DirectoryID { return broker.DirectoryID{0xd, byte(n)} }

// describe prints brokers and partitions as a transcript shows them.
func (c *cluster) describe() string {
	var out strings.Builder
	for _, r := range c.img.Brokers() {
		standing := "running"
		switch {
		case r.Fenced:
			standing = "fenced"
		case r.Stopping:
			standing = "stopping"
		}
		if r.Drained {
			standing += " drained"
		}
		if r.ShortOfSpace {
			standing += " short of space"
		}
		fmt.Fprintf(&out, "broker %d: epoch %d %s\n", r.Node, r.Epoch, standing)
	}
	for _, id := range c.topics {
		t, ok := c.img.Topic(id)
		if !ok {
			continue
		}
		for _, p := range c.img.Partitions(id) {
			fmt.Fprintf(&out, "%s-%d: leader %d LE %d PE %d isr %v elr %v", t.Name, p.Partition, p.Leader, p.LeaderEpoch, p.PartitionEpoch, p.ISR, p.ELR)
			if len(p.LastKnownELR) > 0 {
				fmt.Fprintf(&out, " last-known %v", p.LastKnownELR)
			}
			fmt.Fprintf(&out, " min-isr %d rids", p.MinISR)
			for _, r := range p.Replicas {
				fmt.Fprintf(&out, " %d:%d", r.Node, r.ID)
			}
			if p.Recovering {
				out.WriteString(" recovering")
			}
			if p.Reassigning() {
				fmt.Fprintf(&out, " adding %v removing %v", p.Adding, p.Removing)
			}
			out.WriteString("\n")
		}
	}
	return out.String()
}

func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		c := newCluster(1)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			before := c.entries
			reply, err := c.command(t, d)
			var code broker.Code
			switch {
			case err != nil:
				code = broker.CodeOf(err)
				return fmt.Sprintf("error %d: %v\n", int16(code), err)
			case d.Cmd == "show":
				return c.describe()
			}
			var out strings.Builder
			fmt.Fprintf(&out, "%d entries", c.entries-before)
			if altered, ok := reply.(PartitionsAltered); ok {
				for _, r := range altered.Results {
					if r.Err != nil {
						fmt.Fprintf(&out, ", error %d: %s", int16(r.Err.Code), strings.ReplaceAll(r.Err.Message, r.TopicPartition.String(), "the partition"))
					}
				}
			} else if d.Cmd != "create" {
				fmt.Fprintf(&out, ", %+v", reply)
			}
			return out.String() + "\n" + c.describe()
		})
	})
}

func intArg(t *testing.T, d *datadriven.TestData, key string, otherwise int64) int64 {
	t.Helper()
	for _, arg := range d.CmdArgs {
		if arg.Key == key {
			n, err := strconv.ParseInt(arg.Vals[0], 10, 64)
			if err != nil {
				d.Fatalf(t, "%s: %v", key, err)
			}
			return n
		}
	}
	return otherwise
}

// nodesArg reads key=(1,2,3); nil without it.
func nodesArg(d *datadriven.TestData, key string) []broker.NodeID {
	var nodes []broker.NodeID
	for _, arg := range d.CmdArgs {
		if arg.Key != key {
			continue
		}
		for _, v := range arg.Vals {
			n, _ := strconv.Atoi(v)
			nodes = append(nodes, broker.NodeID(n))
		}
	}
	return nodes
}

func (c *cluster) command(t *testing.T, d *datadriven.TestData) (Reply, error) {
	t.Helper()
	node := broker.NodeID(intArg(t, d, "node", 0))
	epoch := broker.BrokerEpoch(intArg(t, d, "epoch", int64(c.epoch(node))))
	tp := broker.TopicPartition{Partition: int32(intArg(t, d, "partition", 0))}
	if len(c.topics) > 0 {
		tp.Topic = c.topics[0]
	}
	p, _ := c.img.Partition(tp)
	switch d.Cmd {
	case "show":
		return nil, nil
	case "register":
		r := RegisterBroker{
			Node: node, Raft: broker.RaftID(node), Incarnation: broker.UUID{byte(intArg(t, d, "incarnation", 1)), byte(node)},
			Directory: broker.DirectoryID{0xd, byte(intArg(t, d, "directory", int64(node)))},
		}
		if d.HasArg("damaged") {
			replica, _ := p.ReplicaOn(node)
			r.Damaged = []ReplicaRef{{tp, replica.ID}}
		}
		return c.decide(r)
	case "unfence":
		return c.decide(UnfenceBroker{Node: node, Epoch: epoch, Applied: broker.Index(intArg(t, d, "applied", int64(c.img.Index())))})
	case "fence":
		return c.decide(FenceBroker{Node: node, Epoch: epoch})
	case "stop":
		return c.decide(StopBroker{Node: node, Epoch: epoch})
	case "drain":
		return c.decide(DrainBroker{Node: node})
	case "undrain":
		return c.decide(DrainBroker{Node: node, Undo: true})
	case "decommission":
		return c.decide(DecommissionBroker{Node: node, ValidateOnly: d.HasArg("dry")})
	case "elect":
		reply, err := c.decide(ElectLeaders{Partitions: []broker.TopicPartition{tp}})
		if elected, ok := reply.(LeadersElected); ok && elected.Results[0] != nil {
			return nil, broker.Errorf(elected.Results[0].Code, "%s", strings.ReplaceAll(elected.Results[0].Message, tp.String(), "t-0"))
		}
		return reply, err
	case "fail":
		replica, _ := p.ReplicaOn(node)
		rid := broker.ReplicaID(intArg(t, d, "rid", int64(replica.ID)))
		return c.decide(ReportFailedReplicas{Node: node, Epoch: epoch, Replicas: []ReplicaRef{{tp, rid}}})
	case "short-of-space":
		return c.decide(ReportSpace{Node: node, Epoch: epoch, Short: !d.HasArg("no-more")})
	case "home":
		c.nowMs += intArg(t, d, "after", 0)
		if c.homing[node] == nil {
			c.homing[node] = NewHoming(node, 1000)
		}
		due := c.homing[node].OnTick(c.nowMs, c.img)
		if due == nil {
			return LeadersElected{}, nil
		}
		return c.decide(ElectLeaders{Partitions: due})
	case "create":
		req := CreateTopic{
			Name: "t", Partitions: 1, ReplicationFactor: -1, Assignment: map[int32][]broker.NodeID{}, Configs: map[string]string{},
		}
		if d.HasArg("replicas") {
			req.Assignment[0] = nodesArg(d, "replicas")
		} else if d.HasArg("internal") {
			req.ReplicationFactor, req.Internal, req.Name = 1, true, broker.OffsetsTopic
		}
		if d.HasArg("unclean") {
			req.Configs[metadata.UncleanElection] = "true"
		}
		if n := intArg(t, d, "min-isr", 0); n > 0 {
			req.Configs[metadata.MinInsyncReplicas] = strconv.FormatInt(n, 10)
		}
		return c.decide(req)
	case "min-isr":
		topic, _ := c.img.Topic(tp.Topic)
		return c.decide(AlterConfigs{
			Resource: metadata.TopicResource(topic.Name),
			Set:      map[string]string{metadata.MinInsyncReplicas: strconv.FormatInt(intArg(t, d, "value", 1), 10)},
		})
	case "alter":
		return c.decide(c.alteration(t, d, node, epoch, p))
	case "reassign":
		move := Reassignment{TopicPartition: tp, Replicas: nodesArg(d, "to")}
		reply, err := c.decide(AlterReassignments{Partitions: []Reassignment{move}, KeepFactor: d.HasArg("keep-factor"), ValidateOnly: d.HasArg("dry")})
		if altered, ok := reply.(ReassignmentsAltered); ok && altered.Results[0] != nil {
			refusal := *altered.Results[0]
			refusal.Message = strings.ReplaceAll(refusal.Message, tp.String(), "t-0")
			return nil, &refusal
		}
		return reply, err
	case "tidy":
		c.nowMs += intArg(t, d, "after", 0)
		return c.decide(Tidy{})
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
		return nil, nil
	}
}

func (c *cluster) alteration(t *testing.T, d *datadriven.TestData, node broker.NodeID, epoch broker.BrokerEpoch, p *metadata.Partition) AlterPartition {
	t.Helper()
	change := ISRChange{
		TopicPartition: p.TopicPartition,
		LeaderEpoch:    broker.LeaderEpoch(intArg(t, d, "le", int64(p.LeaderEpoch))),
		PartitionEpoch: broker.PartitionEpoch(intArg(t, d, "pe", int64(p.PartitionEpoch))),
		Recovered:      d.HasArg("recovered"),
	}
	for _, arg := range d.CmdArgs {
		if arg.Key != "isr" {
			continue
		}
		for _, v := range arg.Vals {
			n, _ := strconv.Atoi(v)
			member := ISRMember{Node: broker.NodeID(n), Epoch: c.epoch(broker.NodeID(n))}
			if r, ok := p.ReplicaOn(member.Node); ok {
				member.ID = r.ID
			}
			change.ISR = append(change.ISR, member)
		}
	}
	if len(change.ISR) > 0 {
		last := &change.ISR[len(change.ISR)-1]
		last.ID = broker.ReplicaID(intArg(t, d, "last-rid", int64(last.ID)))
		last.Epoch = broker.BrokerEpoch(intArg(t, d, "last-epoch", int64(last.Epoch)))
	}
	return AlterPartition{Node: node, Epoch: epoch, Partitions: []ISRChange{change}}
}
