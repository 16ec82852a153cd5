package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/admin"
	"github.com/millrace-io/millrace/broker/coordinator"
)

// clusterGroups are the groups of the whole cluster: what is about one is asked of the broker that coordinates it.
type clusterGroups struct {
	cluster *clusterRoom
	here    adminGroups
}

var _ admin.Groups = clusterGroups{}

func (c *clusterRoom) groups() clusterGroups {
	return clusterGroups{c, adminGroups{c.node.groups, c.node.quorum.Image}}
}

// groupQuestion is what one broker asks another about groups, as JSON. The answer is JSON too.
type groupQuestion struct {
	What         string              // list, describe, commit or delete
	Group        string              `json:",omitempty"`
	Offsets      []admin.GroupOffset `json:",omitempty"`
	ValidateOnly bool                `json:",omitempty"`
}

// ask has a question answered by a broker, this one included, and reads the answer into one, if it is not nil.
func (g clusterGroups) ask(ctx context.Context, node broker.NodeID, q groupQuestion, answer any) error {
	question, err := json.Marshal(q)
	if err != nil {
		return err
	}
	var given []byte
	if node == g.cluster.node.identity.Node {
		given, err = g.answer(ctx, question)
	} else if m, ok := memberOf(g.cluster.node.quorum.Image(), node); ok {
		given, err = g.cluster.askLog(ctx, m.Raft, askGroups, question)
	} else {
		err = broker.Errorf(broker.CoordinatorNotAvailable, "no broker that can be reached coordinates group %q; try again", q.Group)
	}
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(given, answer)
}

// answer answers a question about groups that are coordinated here.
func (g clusterGroups) answer(ctx context.Context, question []byte) ([]byte, error) {
	var q groupQuestion
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, broker.Errorf(broker.InvalidRequest, "a question about groups that cannot be read: %v", err)
	}
	var answer any
	var err error
	switch q.What {
	case "list":
		answer, err = g.here.List(ctx)
	case "describe":
		answer, err = g.here.Describe(ctx, q.Group)
	case "commit":
		err = g.here.Commit(ctx, q.Group, q.Offsets)
	case "delete":
		err = g.here.Delete(ctx, q.Group, q.ValidateOnly)
	default:
		err = broker.Errorf(broker.InvalidRequest, "a question about groups of kind %q: run programs of neighbouring releases", q.What)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

// coordinator is the broker that coordinates a group; NoNode while nobody does.
func (g clusterGroups) coordinator(name string) broker.NodeID {
	image := g.cluster.node.quorum.Image()
	t, ok := image.TopicNamed(broker.OffsetsTopic)
	if !ok {
		return broker.NoNode
	}
	p, ok := image.Partition(broker.TopicPartition{Topic: t.ID, Partition: coordinator.PartitionFor(name)})
	if !ok {
		return broker.NoNode
	}
	return p.Leader
}

// List implements admin.Groups.
func (g clusterGroups) List(ctx context.Context) ([]admin.GroupSummary, error) {
	image := g.cluster.node.quorum.Image()
	t, ok := image.TopicNamed(broker.OffsetsTopic)
	if !ok {
		return nil, nil
	}
	var all []admin.GroupSummary
	var problems []error
	asked := map[broker.NodeID]bool{}
	for _, p := range image.Partitions(t.ID) {
		if asked[p.Leader] {
			continue
		}
		asked[p.Leader] = true
		var some []admin.GroupSummary
		problems = append(problems, g.ask(ctx, p.Leader, groupQuestion{What: "list"}, &some))
		all = append(all, some...)
	}
	slices.SortFunc(all, func(a, b admin.GroupSummary) int { return cmp.Compare(a.Group, b.Group) })
	return all, errors.Join(problems...)
}

// Describe implements admin.Groups.
func (g clusterGroups) Describe(ctx context.Context, name string) (described admin.Group, err error) {
	err = g.ask(ctx, g.coordinator(name), groupQuestion{What: "describe", Group: name}, &described)
	return described, err
}

// Commit implements admin.Groups.
func (g clusterGroups) Commit(ctx context.Context, name string, offsets []admin.GroupOffset) error {
	return g.ask(ctx, g.coordinator(name), groupQuestion{What: "commit", Group: name, Offsets: offsets}, nil)
}

// Delete implements admin.Groups.
func (g clusterGroups) Delete(ctx context.Context, name string, validateOnly bool) error {
	return g.ask(ctx, g.coordinator(name), groupQuestion{What: "delete", Group: name, ValidateOnly: validateOnly}, nil)
}
