package controller

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// PartitionsMax is the most partitions that one topic may have.
const PartitionsMax = 10_000

// place returns the replicas of each partition of a new topic, the preferred leader first.
func (c *Core) place(head *metadata.Image, r CreateTopic) ([][]broker.NodeID, error) {
	if len(r.Assignment) > 0 {
		return checkAssignment(head, r)
	}
	partitions, factor := r.Partitions, int(r.ReplicationFactor)
	if partitions == -1 {
		partitions = c.config.Partitions
	}
	if factor == -1 {
		factor = min(DefaultReplicationFactor, max(1, len(spreadAll(head))))
	}
	switch {
	case partitions < 1 || partitions > PartitionsMax:
		return nil, broker.Errorf(broker.InvalidPartitions, "a topic has 1 to %d partitions, not %d", PartitionsMax, partitions)
	case factor < 1 || factor > math.MaxInt16:
		return nil, broker.Errorf(broker.InvalidReplicationFactor, "the replication factor is at least 1, not %d", factor)
	}
	return c.deal(head, int(partitions), factor)
}

// deal places partitions of factor replicas each on the active brokers.
func (c *Core) deal(head *metadata.Image, partitions, factor int) ([][]broker.NodeID, error) {
	candidates := spread(head)
	if factor > len(candidates) { // Better a replica that waits for space than a topic with fewer, or none.
		candidates = spreadAll(head)
	}
	if factor > len(candidates) {
		return nil, broker.Errorf(broker.InvalidReplicationFactor, "replication factor %d needs as many brokers; %d are running and not drained", factor, len(candidates))
	}
	var random [8]byte
	if err := c.draw(random[:]); err != nil {
		return nil, err
	}
	// The low half says where the leaders begin, the high half how far the followers stand from them.
	draw := binary.LittleEndian.Uint64(random[:])
	return stripe(head, candidates, partitions, factor, int(draw&math.MaxUint16), int(draw>>32&math.MaxUint16)), nil
}

// stripe deals partitions over brokers: leaders in turn from start, followers on the brokers behind with a gap that grows
// each time the leaders have gone round, so that the load of a broker that fails goes to all others. A rack gets a second
// replica of a partition only when every rack has one.
func stripe(head *metadata.Image, places []place, partitions, factor, start, shift int) [][]broker.NodeID {
	n := len(places)
	assignment := make([][]broker.NodeID, partitions)
	for p := range assignment {
		first := (start + p) % n
		nodes := []broker.NodeID{places[first].node}
		var behind []place
		for j := range n - 1 {
			gap := 1 + (shift+p/n+j)%(n-1)
			behind = append(behind, places[(first+gap)%n])
		}
		for len(nodes) < factor {
			next, _ := nextReplica(head, behind, nodes)
			nodes = append(nodes, next)
		}
		assignment[p] = nodes
	}
	return assignment
}

// place is a broker that may take replicas, with its failure domain.
type place struct {
	node broker.NodeID
	rack string
}

// spread lists the brokers that may take replicas, and have space, so that one of each rack comes before the second of any.
func spread(head *metadata.Image) []place {
	return spreadOver(head, func(r *metadata.Registration) bool { return !r.ShortOfSpace })
}

// spreadAll is spread with those that are short of space.
func spreadAll(head *metadata.Image) []place {
	return spreadOver(head, func(*metadata.Registration) bool { return true })
}

func spreadOver(head *metadata.Image, wanted func(*metadata.Registration) bool) []place {
	type seated struct {
		place
		turn int
	}
	var list []seated
	turns := map[string]int{}
	for _, r := range head.Brokers() {
		if !r.Fenced && !r.Stopping && !r.Drained && wanted(r) {
			list = append(list, seated{place{r.Node, r.Rack}, turns[r.Rack]})
			turns[r.Rack]++
		}
	}
	if len(turns) > 1 {
		slices.SortFunc(list, func(a, b seated) int {
			return cmp.Or(cmp.Compare(a.turn, b.turn), cmp.Compare(a.rack, b.rack), cmp.Compare(a.node, b.node))
		})
	}
	places := make([]place, len(list))
	for i, s := range list {
		places[i] = s.place
	}
	return places
}

// inRack counts the nodes that are in a rack.
func inRack(head *metadata.Image, nodes []broker.NodeID, rack string) int {
	n := 0
	for _, node := range nodes {
		if r, ok := head.Broker(node); ok && r.Rack == rack {
			n++
		}
	}
	return n
}

// nextReplica returns the first of candidates that is not chosen and whose rack has the fewest of those that are (KIP-36).
func nextReplica(head *metadata.Image, candidates []place, chosen []broker.NodeID) (broker.NodeID, bool) {
	best, fewest := broker.NoNode, len(chosen)+1
	for _, c := range candidates {
		if n := inRack(head, chosen, c.rack); n < fewest && !slices.Contains(chosen, c.node) {
			best, fewest = c.node, n
		}
	}
	return best, best != broker.NoNode
}

func checkAssignment(head *metadata.Image, r CreateTopic) ([][]broker.NodeID, error) {
	if r.Partitions > 0 && int(r.Partitions) != len(r.Assignment) || r.ReplicationFactor > 0 || len(r.Assignment) > PartitionsMax {
		return nil, broker.Errorf(broker.InvalidRequest, "an assignment stands in place of the numbers of partitions and replicas")
	}
	assignment := make([][]broker.NodeID, len(r.Assignment))
	for p := range assignment {
		nodes, ok := r.Assignment[int32(p)]
		if !ok || len(nodes) == 0 {
			return nil, broker.Errorf(broker.InvalidReplicaAssignment, "partition %d has no replicas assigned; partitions are numbered from 0", p)
		}
		if len(nodes) != len(r.Assignment[0]) {
			return nil, broker.Errorf(broker.InvalidReplicaAssignment, "partitions 0 and %d have different numbers of replicas", p)
		}
		if err := checkReplicas(head, p, nodes); err != nil {
			return nil, err
		}
		assignment[p] = slices.Clone(nodes)
	}
	return assignment, nil
}

// checkReplicas refuses an assignment to brokers that are not there.
func checkReplicas(head *metadata.Image, partition int, nodes []broker.NodeID) error {
	for i, node := range nodes {
		r, known := head.Broker(node)
		switch {
		case !known || slices.Contains(nodes[:i], node):
			return broker.Errorf(broker.InvalidReplicaAssignment, "partition %d: node %d is not registered, or is assigned twice", partition, node)
		case r.Drained:
			return broker.Errorf(broker.InvalidReplicaAssignment, "partition %d: node %d is drained and takes no new replicas", partition, node)
		case r.ShortOfSpace:
			return broker.Errorf(broker.InvalidReplicaAssignment, "partition %d: node %d is short of space and takes no new replicas", partition, node)
		}
	}
	if len(keep(nodes, electorate{head: head}.active)) == 0 {
		return broker.Errorf(broker.InvalidReplicaAssignment, "partition %d: none of its brokers is running", partition)
	}
	return nil
}
