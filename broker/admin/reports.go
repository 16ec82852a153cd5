package admin

import (
	"context"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/metadata"
)

// What only a partition's leader knows, or only the node that has a disk, is asked of them: whichever node an operator asks
// tells of all of them, and names those that did not answer.

// Nodes asks nodes of the cluster, the one that runs this server among them.
type Nodes interface {
	// Inquire returns a report of each of the nodes within a bounded time, in their order. Of a node that does not answer there
	// is only why.
	Inquire(ctx context.Context, nodes []broker.NodeID, q Inquiry) []Report
}

// Inquiry is what nodes are asked to tell.
type Inquiry struct {
	Binding  broker.BindingID `json:",omitempty"` // how its chain does on the partitions that the node leads
	Logs     []LogAsked       `json:",omitempty"` // how the partitions of these topics are
	Ages     []RecordAt       `json:",omitempty"` // how old these records are
	Sizes    bool             `json:",omitempty"` // bytes of what the node leads, by topic
	Troubles bool             `json:",omitempty"` // chains that do not move, replicas that are damaged, certificates
}

// LogAsked is a topic as somebody reads it: with a binding through its chain.
type LogAsked struct {
	Topic   broker.TopicID
	Binding broker.BindingID `json:",omitempty"`
	AtMs    *int64           `json:",omitempty"` // also the first offset at or after this time
}

// Report is what one node tells.
type Report struct {
	Node         broker.NodeID
	Silent       string        `json:",omitempty"` // why it did not answer; the rest is empty then
	Chains       []ChainStatus `json:",omitempty"`
	Logs         []LogState    `json:",omitempty"`
	Ages         []RecordAge   `json:",omitempty"`
	Sizes        []TopicSize   `json:",omitempty"`
	Damaged      []LogState    `json:",omitempty"`
	Certificates []Certificate `json:",omitempty"`
	NotRenewed   []string      `json:",omitempty"` // why certificates that were put in place of others are not used
}

// LogState is a partition as its leader knows it, or why a replica of it is offline.
type LogState struct {
	broker.TopicPartition
	Binding        broker.BindingID `json:",omitempty"`
	OfflineBecause string           `json:",omitempty"` // the rest is empty then

	LogStart, HighWatermark, LogEnd broker.Offset
	SizeBytes                       int64
	End                             broker.Offset // where reading ends: in the filtered log, or at the high watermark
	Filtered                        bool          // End is the filtered log's
	At                              broker.Offset // the offset for AtMs; the high watermark if there is none
	NoAt                            string        `json:",omitempty"` // why At is not known
}

// RecordAt is the first record at or behind an offset.
type RecordAt struct {
	broker.TopicPartition
	Offset broker.Offset
}

// RecordAge is how old a record is, by the producer's time and to the batch.
type RecordAge struct {
	RecordAt
	Ms int64
}

// TopicSize is how many bytes of a topic a node leads.
type TopicSize struct {
	Topic broker.TopicID
	Bytes int64
}

// leaders are the nodes that lead partitions of some topics.
func leaders(image *metadata.Image, topics ...broker.TopicID) []broker.NodeID {
	return nodesOf(image, topics, func(p *metadata.Partition) []broker.NodeID { return []broker.NodeID{p.Leader} })
}

// holders are the nodes that have replicas of a topic, and run.
func holders(image *metadata.Image, topic broker.TopicID) []broker.NodeID {
	running := serving(image)
	all := nodesOf(image, []broker.TopicID{topic}, func(p *metadata.Partition) (nodes []broker.NodeID) {
		for _, r := range p.Replicas {
			nodes = append(nodes, r.Node)
		}
		return nodes
	})
	return slices.DeleteFunc(all, func(n broker.NodeID) bool { return !slices.Contains(running, n) })
}

func nodesOf(image *metadata.Image, topics []broker.TopicID, of func(*metadata.Partition) []broker.NodeID) []broker.NodeID {
	var all []broker.NodeID
	for _, id := range topics {
		for _, p := range image.Partitions(id) {
			all = append(all, of(p)...)
		}
		slices.Sort(all)
		all = slices.Compact(all)
	}
	return slices.DeleteFunc(all, func(n broker.NodeID) bool { return n == broker.NoNode })
}

// serving are the brokers that are not fenced.
func serving(image *metadata.Image) []broker.NodeID {
	var all []broker.NodeID
	for _, r := range image.Brokers() {
		if !r.Fenced {
			all = append(all, r.Node)
		}
	}
	return all
}

// silent names the nodes that did not answer.
func silent(reports []Report) []*adminapi.SilentNode {
	var all []*adminapi.SilentNode
	for _, r := range reports {
		if r.Silent != "" {
			all = append(all, &adminapi.SilentNode{Node: int32(r.Node), Why: r.Silent})
		}
	}
	return all
}

// silence says why a node's answer is missing; empty if it is not.
func silence(reports []Report, node broker.NodeID) string {
	for _, r := range reports {
		if r.Node == node && r.Silent != "" {
			return fmt.Sprintf("node %d, which leads it, does not answer: %s", node, r.Silent)
		}
	}
	return ""
}

// logKey names a partition as somebody reads it.
type logKey struct {
	broker.TopicPartition
	binding broker.BindingID
}

// logs are the states that leaders told.
func logs(reports []Report) map[logKey]LogState {
	all := map[logKey]LogState{}
	for _, r := range reports {
		for _, l := range r.Logs {
			if l.OfflineBecause == "" {
				all[logKey{l.TopicPartition, l.Binding}] = l
			}
		}
	}
	return all
}

// unheard says why nothing is known of a partition.
func unheard(reports []Report, p *metadata.Partition) string {
	if p.Leader == broker.NoNode {
		return "it has no leader"
	}
	if why := silence(reports, p.Leader); why != "" {
		return why
	}
	return fmt.Sprintf("node %d does not lead it any more; ask again", p.Leader)
}
