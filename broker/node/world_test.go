package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/internal/transport"
	"github.com/millrace-io/millrace/internal/vfs"
)

// journal collects what a node logs.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}
func (j *journal) String() string { j.mu.Lock(); defer j.mu.Unlock(); return j.text.String() }

// seat is a place where nodes run one after another: a file system and a configuration.
type seat struct {
	t      *testing.T
	fs     vfs.FS
	config Config
	log    journal
	dialer *cutter // nil: the system's
}

func newSeat(t *testing.T, files vfs.FS, data string) *seat {
	t.Helper()
	s := &seat{t: t, fs: files, config: Defaults()}
	s.config.Data = data
	s.config.Client.Bind, s.config.Cluster.Bind, s.config.Admin.Bind = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	return s
}

// lastingAddress is a free address of loopback that nobody else is given while nothing is bound there: its port lies below those
// that the system hands out.
func lastingAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		tcp, udp, err := transport.Bind(t.Context(), address, zerolog.Nop())
		if err != nil {
			continue
		}
		if err := errors.Join(tcp.Close(), udp.Close()); err != nil {
			t.Fatal(err)
		}
		return address
	}
	t.Fatal("no port is free")
	return ""
}

func (s *seat) format() *seat {
	s.t.Helper()
	if _, err := Format(s.fs, FormatSpec{Data: s.config.Data, Node: 1, Now: time.Now()}); err != nil {
		s.t.Fatal(err)
	}
	return s
}

func (s *seat) tryStart(ctx context.Context) (*Node, error) {
	seams := SystemSeams()
	seams.FS = s.fs
	if s.dialer != nil {
		seams.Net = s.dialer
	}
	return Start(ctx, s.config, seams, zerolog.New(&s.log))
}

func (s *seat) start() *Node {
	s.t.Helper()
	n, err := s.tryStart(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *seat) stop(n *Node) {
	s.t.Helper()
	if err := n.Stop(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *seat) createTopic(n *Node, name string, partitions int32, configs map[string]string) broker.TopicID {
	s.t.Helper()
	_, err := n.quorum.Submit(s.t.Context(), controller.CreateTopic{Name: name, Partitions: partitions, ReplicationFactor: 1, Configs: configs})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := n.executor.await(s.t.Context(), n.quorum.Image().Index()); err != nil {
		s.t.Fatal(err)
	}
	topic, _ := n.quorum.Image().TopicNamed(name)
	return topic.ID
}

func (s *seat) client(n *Node, options ...kgo.Opt) *kgo.Client {
	s.t.Helper()
	own := []kgo.Opt{kgo.SeedBrokers(n.Addresses().Client), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0)}
	client, err := kgo.NewClient(append(own, options...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	return client
}

// values reads every record of a partition that clients can see.
func values(n *Node, topic broker.TopicID, partition int32) ([]string, error) {
	r, err := n.set.Get(broker.TopicPartition{Topic: topic, Partition: partition})
	if err != nil {
		return nil, err
	}
	var all []string
	for b, err := range (internalLog{r}).Batches(context.Background()) {
		if err != nil {
			return nil, err
		}
		more, err := valuesOf(b)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

func record(topic string, partition int32, value string) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Append(nil, value)}
}

func valuesOf(b batch.View) ([]string, error) {
	records, err := b.Records(new(batch.Decompressor))
	if err != nil {
		return nil, err
	}
	var all []string
	for r := (batch.Record{}); records.Next(&r); {
		all = append(all, string(r.Value))
	}
	return all, records.Err()
}
