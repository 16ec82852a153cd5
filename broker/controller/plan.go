package controller

import (
	"cmp"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// PlanReassignment proposes where partitions should lie: on the given brokers, in as many racks as there are, with equal
// numbers of replicas and of preferred leaders on each, and with few replicas moved. What lies well stays out of the plan.
// No brokers: all that run, have space and are not drained. No topics: all.
func PlanReassignment(head *metadata.Image, topics []broker.TopicID, nodes []broker.NodeID) ([]Reassignment, error) {
	p := plan{head: head, holds: map[broker.NodeID]int{}, leads: map[broker.NodeID]int{}}
	p.places = slices.DeleteFunc(spread(head), func(at place) bool { return len(nodes) > 0 && !slices.Contains(nodes, at.node) })
	for _, node := range nodes {
		if !slices.ContainsFunc(p.places, func(at place) bool { return at.node == node }) {
			return nil, broker.Errorf(broker.InvalidReplicaAssignment, "node %d is not running, drained, short of space, or not registered", node)
		}
	}
	for topic := range head.Topics() {
		for _, partition := range head.Partitions(topic.ID) {
			p.count(partition.Target(), 1)
			if len(topics) == 0 || slices.Contains(topics, topic.ID) {
				p.moves = append(p.moves, Reassignment{partition.TopicPartition, partition.Target()})
			}
		}
	}
	if err := p.fill(); err != nil {
		return nil, err
	}
	p.level(p.exchange)
	p.level(p.handOver)
	return slices.DeleteFunc(p.moves, func(m Reassignment) bool {
		present, _ := head.Partition(m.TopicPartition)
		return slices.Equal(m.Replicas, present.Target())
	}), nil
}

// plan is a plan in the making.
type plan struct {
	head   *metadata.Image
	places []place // that may hold replicas
	holds  map[broker.NodeID]int
	leads  map[broker.NodeID]int
	moves  []Reassignment
}

// count adds a partition's replicas to what their brokers hold and lead, or takes them away.
func (p *plan) count(replicas []broker.NodeID, by int) {
	for i, node := range replicas {
		p.holds[node] += by
		if i == 0 {
			p.leads[node] += by
		}
	}
}

// change gives a partition other replicas.
func (p *plan) change(m *Reassignment, replicas []broker.NodeID) {
	p.count(m.Replicas, -1)
	m.Replicas = replicas
	p.count(m.Replicas, 1)
}

// fill puts a replica where there is a place in the stead of each that lies elsewhere: in the rack that has the fewest of
// the partition, on the broker that has the fewest of all.
func (p *plan) fill() error {
	for i := range p.moves {
		m := &p.moves[i]
		factor := len(m.Replicas)
		if factor > len(p.places) {
			return broker.Errorf(broker.InvalidReplicationFactor, "partition %s has %d replicas, and %d nodes may take them", placeName(p.head, m.TopicPartition), factor, len(p.places))
		}
		kept := keep(m.Replicas, func(n broker.NodeID) bool {
			return slices.ContainsFunc(p.places, func(at place) bool { return at.node == n })
		})
		for len(kept) < factor {
			next, _ := nextReplica(p.head, p.lightest(), kept)
			kept = append(kept, next)
		}
		p.change(m, kept)
	}
	return nil
}

// lightest lists the places, those with the fewest replicas first.
func (p *plan) lightest() []place {
	places := slices.Clone(p.places)
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(p.holds[a.node], p.holds[b.node]) })
	return places
}

// levelPassesMax bounds how often a plan is gone over; each pass that changes something makes it better.
const levelPassesMax = 100

// level goes over the partitions until a step makes none better.
func (p *plan) level(step func(*Reassignment) bool) {
	for range levelPassesMax {
		better := false
		for i := range p.moves {
			better = step(&p.moves[i]) || better
		}
		if !better {
			return
		}
	}
}

// exchange moves one replica of a partition to a rack that has fewer of it, or to a broker that holds fewer of all.
func (p *plan) exchange(m *Reassignment) bool {
	for i, from := range m.Replicas {
		others := slices.Delete(slices.Clone(m.Replicas), i, i+1)
		r, _ := p.head.Broker(from)
		present := inRack(p.head, others, r.Rack)
		for _, to := range p.lightest() {
			if slices.Contains(m.Replicas, to.node) {
				continue
			}
			n := inRack(p.head, others, to.rack)
			if n < present || n == present && p.holds[to.node]+1 < p.holds[from] {
				p.change(m, slices.Insert(others, i, to.node))
				return true
			}
		}
	}
	return false
}

// handOver makes another replica the preferred leader if its broker is that of fewer partitions.
func (p *plan) handOver(m *Reassignment) bool {
	for i, node := range m.Replicas {
		if p.leads[node]+1 < p.leads[m.Replicas[0]] {
			next := slices.Clone(m.Replicas)
			next[0], next[i] = next[i], next[0]
			p.change(m, next)
			return true
		}
	}
	return false
}
