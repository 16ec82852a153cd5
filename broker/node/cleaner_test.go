package node

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/replica"
	"github.com/millrace-io/millrace/internal/vfs"
)

func commitOffset(t *testing.T, client *kgo.Client, group string, topic *metadata.Topic, offset int64) {
	t.Helper()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = group
	rt, rp := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
	rt.Topic, rt.TopicID, rp.Offset = topic.Name, topic.ID, offset
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), client)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func committedOffset(t *testing.T, client *kgo.Client, group string, topic *metadata.Topic) int64 {
	t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	g, gt := kmsg.NewOffsetFetchRequestGroup(), kmsg.NewOffsetFetchRequestGroupTopic()
	g.Group, gt.Topic, gt.TopicID, gt.Partitions = group, topic.Name, topic.ID, []int32{0}
	g.Topics = append(g.Topics, gt)
	req.Groups = append(req.Groups, g)
	resp, err := req.RequestWith(t.Context(), client)
	if err != nil || len(resp.Groups) != 1 {
		t.Fatalf("%+v, %v", resp, err)
	}
	return resp.Groups[0].Topics[0].Partitions[0].Offset
}

func TestCommitsSurviveTheCompactionOfTheOffsetsTopic(t *testing.T) {
	s := newSeat(t, vfs.NewMem(), "/data").format()
	n := s.start()
	s.createTopic(n, "orders", 1, nil)
	image := n.quorum.Image()
	orders, _ := image.TopicNamed("orders")
	topic, _ := image.TopicNamed(broker.OffsetsTopic)
	options := n.options(image, topic.ID)
	if !options.Compact || options.RetentionMs != -1 || options.SegmentMs != 604800000 || options.MinDirtyRatio != 0.5 {
		t.Fatalf("the offsets topic: %+v", options)
	}
	for _, p := range image.Partitions(topic.ID) {
		r, err := n.set.Get(p.TopicPartition)
		if err != nil {
			t.Fatal(err)
		}
		small := options
		small.SegmentBytes = 3000
		r.Configure(small)
	}
	client := s.client(n)
	for i := range int64(200) {
		commitOffset(t, client, "billing", orders, i)
	}
	commitOffset(t, client, "audit", orders, 7)
	if err := n.flusher.Sync(); err != nil {
		t.Fatal(err)
	}
	var removed int64
	how := replica.Cleaner{Gate: n.plugins.enterGate, Done: func(_ broker.TopicPartition, done commitlog.Cleaned) { removed += done.Removed }}
	if err := n.set.Clean(t.Context(), how); err != nil || removed < 150 {
		t.Fatalf("%d commits were removed, %v", removed, err)
	}
	s.stop(n)
	n = s.start()
	defer s.stop(n)
	client = s.client(n)
	for group, want := range map[string]int64{"billing": 199, "audit": 7} {
		if got := committedOffset(t, client, group, orders); got != want {
			t.Errorf("group %s is at %d after compaction and a restart, want %d", group, got, want)
		}
	}
}
