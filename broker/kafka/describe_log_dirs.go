package kafka

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// DescribeLogDirs: v1-5
//
// Behaviour:
//   - the node's one data directory (D14) with the size of each replica that it holds, of all topics or of those asked for
//   - v4: total and free bytes of its file system, -1 where they cannot be told
//   - views have no log of their own and are not in it

// LogDir is the node's data directory.
type LogDir struct {
	Path       string
	TotalBytes int64 // of its file system; -1: not known
	FreeBytes  int64
}

func (s *session) describeLogDirs(req *kmsg.DescribeLogDirsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	dir := kmsg.NewDescribeLogDirsResponseDir()
	where := LogDir{TotalBytes: -1, FreeBytes: -1}
	if s.LogDir != nil {
		where = s.LogDir()
	}
	dir.Dir, dir.TotalBytes, dir.UsableBytes = where.Path, where.TotalBytes, where.FreeBytes
	wanted := func(string, int32) bool { return true }
	if req.Topics != nil {
		asked := make(map[string][]int32, len(req.Topics))
		for _, rt := range req.Topics {
			asked[rt.Topic] = append(asked[rt.Topic], rt.Partitions...)
		}
		wanted = func(topic string, partition int32) bool { return slices.Contains(asked[topic], partition) }
	}
	img := s.Metadata.Image()
	for topic := range img.Topics() {
		if !s.mayTopic(topic.Name) {
			continue
		}
		described := kmsg.NewDescribeLogDirsResponseDirTopic()
		described.Topic = topic.Name
		for _, p := range img.Partitions(topic.ID) {
			if _, here := p.ReplicaOn(s.Node); !here || !wanted(topic.Name, p.Partition) {
				continue
			}
			partition, err := s.Partitions.Partition(broker.TopicPartition{Topic: topic.ID, Partition: p.Partition})
			if err != nil {
				continue // not opened yet, or damaged: there is no size to tell
			}
			dp := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
			dp.Partition, dp.Size = p.Partition, partition.SizeBytes()
			described.Partitions = append(described.Partitions, dp)
		}
		if len(described.Partitions) > 0 {
			dir.Topics = append(dir.Topics, described)
		}
	}
	resp.Dirs = append(resp.Dirs, dir)
	return resp
}
