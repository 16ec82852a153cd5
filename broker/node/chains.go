package node

import (
	"context"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/kafka"
	"github.com/millrace-io/millrace/broker/metadata"
)

// newChains makes the delivery host and glues it to its neighbours.
func (n *Node) newChains() (*delivery.Host, error) {
	return delivery.New(delivery.Config{
		FS: n.seams.FS, Dir: n.config.Data, Metadata: decisions{n}, Engine: n.plugins, Groups: chainGroups{n.cluster},
		OpenLog: n.openLetters, Gate: n.plugins.gate, Logger: n.component("delivery"), Metrics: delivery.Metrics{Failed: n.metrics.pluginFailed},
	})
}

// openLetters opens a partition of a dead-letter topic, wherever it is led.
func (n *Node) openLetters(topic string, partition int32) (delivery.Log, error) {
	log := clusterLog{n.cluster, topic, partition}
	_, _, err := log.place()
	return log, err
}

// decisions is the metadata log as delivery uses it.
type decisions struct{ node *Node }

// Image implements delivery.Metadata.
func (d decisions) Image() delivery.Image { return d.node.quorum.Image() }

// ProposeFrom implements delivery.Metadata.
func (d decisions) ProposeFrom(ctx context.Context, p delivery.Proposal) error {
	_, err := d.node.cluster.Submit(ctx, controller.ProposeFrom{
		Binding: p.Binding, Row: p.Row, Partition: p.Partition, LeaderEpoch: p.LeaderEpoch, From: p.Offset, Clamp: p.Clamp,
	})
	return err
}

// ProposeTrip implements delivery.Metadata.
func (d decisions) ProposeTrip(ctx context.Context, p delivery.Proposal) error {
	_, err := d.node.cluster.Submit(ctx, controller.ProposeTrip{
		Binding: p.Binding, Row: p.Row, Partition: p.Partition, LeaderEpoch: p.LeaderEpoch, At: p.Offset,
	})
	return err
}

// ProposeOrigin implements delivery.Metadata.
func (d decisions) ProposeOrigin(ctx context.Context, p delivery.Proposal) error {
	_, err := d.node.cluster.Submit(ctx, controller.ProposeOrigin{
		Binding: p.Binding, Partition: p.Partition, LeaderEpoch: p.LeaderEpoch, Origin: p.Offset,
	})
	return err
}

// clientChains shows delivery to the Kafka face.
type clientChains struct{ host *delivery.Host }

// Filtered implements kafka.Chains.
func (c clientChains) Filtered(binding broker.BindingID, tp broker.TopicPartition) (kafka.Filtered, error) {
	f, err := c.host.Filtered(binding, tp)
	if err != nil {
		return nil, err
	}
	return clientFiltered{f}, nil
}

// clientFiltered is a filtered log as the Kafka face reads it.
type clientFiltered struct{ delivery.Filtered }

// Read implements kafka.Filtered.
func (f clientFiltered) Read(r kafka.FilteredRead) (kafka.Records, error) {
	result, err := f.Filtered.Read(delivery.FilteredRead{From: r.From, MaxBytes: r.MaxBytes, MinOne: r.MinOne, View: r.View})
	if err != nil {
		return kafka.Records{}, err
	}
	return kafka.Records{Bytes: result.Bytes, Release: result.Release, Ends: clientEnds(result.FilteredEnds)}, nil
}

// Ends implements kafka.Filtered.
func (f clientFiltered) Ends(view bool) kafka.Ends { return clientEnds(f.Filtered.Ends(view)) }

func clientEnds(e delivery.FilteredEnds) kafka.Ends {
	return kafka.Ends{LogStart: e.LogStart, HighWatermark: e.HighWatermark, LastStable: e.LastStable, LeaderEpoch: broker.NoLeaderEpoch}
}

// adminChains shows delivery to the admin API.
type adminChains struct{ node *Node }

// JudgeKey implements admin.Chains.
func (c adminChains) JudgeKey(topic broker.TopicID, row *metadata.Row) string {
	kind := delivery.FrameBatch
	image := c.node.quorum.Image()
	if t, ok := image.Topic(topic); ok && image.Compacted(t.Name) {
		kind = delivery.FrameRecord
	}
	return delivery.KeyOf(topic, kind, row).Hex()
}

// filteredEnd is where a filtered log ends for its reader, as far as it is known here.
func (n *Node) filteredEnd(binding broker.BindingID, tp broker.TopicPartition) (broker.Offset, bool) {
	f, err := n.chains.Filtered(binding, tp)
	if err != nil {
		return 0, false
	}
	return f.Ends(true).HighWatermark, true
}

// clientController is the controller as the Kafka face uses it.
type clientController struct{ executor *executor }

// Submit implements kafka.Controller.
func (c clientController) Submit(ctx context.Context, request controller.Request) (controller.Reply, error) {
	return c.executor.submit(ctx, request)
}

// adminMetadata is the quorum as the admin API uses it.
type adminMetadata struct{ node *Node }

// Image implements admin.Metadata.
func (m adminMetadata) Image() *metadata.Image { return m.node.quorum.Image() }

// Submit implements admin.Metadata.
func (m adminMetadata) Submit(ctx context.Context, request controller.Request) (controller.Reply, error) {
	return m.node.executor.submit(ctx, request)
}

// RaftLeader implements admin.Metadata.
func (m adminMetadata) RaftLeader() broker.RaftID { return m.node.quorum.Status().Leader }

// Await implements admin.Metadata.
func (m adminMetadata) Await(ctx context.Context, done func(*metadata.Image) bool) error {
	return m.node.cluster.awaitImage(ctx, done)
}
