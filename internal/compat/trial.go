package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/sdk"
)

const (
	partitions   = 3
	codecRecords = 60
	patience     = 20 * time.Second // for what should take well below a second, and a rebalance a few
)

// trial is one client going through the steps on a broker. It writes and checks with a client of its own.
type trial struct {
	client client
	driver driver
	broker *brokerProcess
	admin  *sdk.Client // nil on Apache Kafka
	kafka  *kgo.Client
	trust  []kgo.Opt // how the listener is reached
	topic  string
	notes  []string // of the step that is running
}

// newTrial connects; close it when done.
func newTrial(c client, command []string, broker *brokerProcess) (*trial, error) {
	t := &trial{
		client: c, broker: broker, driver: driver{command: command, bootstrap: broker.client},
		topic: c.name + "-" + c.version,
	}
	t.driver.more = broker.way.arguments()
	if c.quic {
		t.driver.more = append(t.driver.more, "transport=quic", "ca="+broker.authority)
	}
	if c.protocol != "" {
		t.driver.more = append(t.driver.more, "protocol="+c.protocol)
	}
	var err error
	if t.trust, err = broker.way.options(); err != nil {
		return nil, err
	}
	if broker.admin != "" {
		if t.admin, err = sdk.New(sdk.WithAdmin(broker.admin)); err != nil {
			return nil, err
		}
	}
	// Gzip is the one codec that every client reads; compressed, so that filtered batches have to be written anew.
	t.kafka, err = kgo.NewClient(append(slices.Clone(t.trust), kgo.SeedBrokers(broker.client), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.MetadataMinAge(100*time.Millisecond))...)
	return t, err
}

func (t *trial) close() error {
	t.kafka.Close()
	if t.admin == nil {
		return nil
	}
	return t.admin.Close()
}

func (t *trial) note(format string, arguments ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, arguments...))
}

// step is one thing that every client is asked to do. A nil error is a pass, skipped a skip.
type step struct {
	name string
	run  func(*trial, context.Context) error
	some func(client) bool // which clients have it; nil: all
}

var steps = []step{
	{name: "create", run: (*trial).create},
	{name: "produce", run: (*trial).produce},
	{name: "group", run: (*trial).group},
	{name: "commit", run: (*trial).commit},
	{name: "resume", run: (*trial).resume},
	{name: "seek", run: (*trial).seek},
	{name: "view", run: (*trial).view},
	{name: "rack", run: (*trial).rack},
	{name: "drain", run: (*trial).drain, some: func(c client) bool { return c.drains }},
}

func (t *trial) create(ctx context.Context) error {
	if t.client.noCreate != "" {
		if _, err := kadm.NewClient(t.kafka).CreateTopic(ctx, partitions, t.broker.way.replicas(), nil, t.topic); err != nil {
			return err
		}
		return skipped(t.client.noCreate)
	}
	if _, err := t.driver.run(ctx, "create", "topic="+t.topic, fmt.Sprintf("partitions=%d", partitions),
		fmt.Sprintf("replicas=%d", t.broker.way.replicas())); err != nil {
		return err
	}
	ends, err := t.ends(ctx, t.topic)
	if err == nil && len(ends) != partitions {
		err = fmt.Errorf("the topic has %d partitions", len(ends))
	}
	return err
}

// produce writes with every codec and reads the records back, with the codec that their batches carry.
func (t *trial) produce(ctx context.Context) error {
	if t.client.noZstdFetch {
		if _, err := kadm.NewClient(t.kafka).CreateTopic(ctx, 1, t.broker.way.replicas(), nil, t.topicOf("zstd")); err != nil {
			return err
		}
	}
	var problems []error
	for _, codec := range t.client.codecs {
		if _, err := t.driver.run(ctx, "produce", "topic="+t.topicOf(codec), "codec="+codec, fmt.Sprintf("count=%d", codecRecords)); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", codec, err))
		}
	}
	for _, codec := range t.client.codecs {
		found, err := t.readBack(ctx, t.topicOf(codec))
		problems = append(problems, err)
		if found[codec] != codecRecords {
			problems = append(problems, fmt.Errorf("%s: %d of %d records are in the log with that codec", codec, found[codec], codecRecords))
		}
	}
	t.note("%s", strings.Join(t.client.codecs, ", "))
	return errors.Join(problems...)
}

// topicOf is where records of a codec go: zstd goes to a topic of its own for a client that cannot read it.
func (t *trial) topicOf(codec string) string {
	if codec == "zstd" && t.client.noZstdFetch {
		return t.topic + "-zstd"
	}
	return t.topic
}

// readBack counts the records of a topic by codec; a record counts if its key names the codec of its batch.
func (t *trial) readBack(ctx context.Context, topic string) (map[string]int, error) {
	names := map[uint8]string{0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
	ends, err := t.ends(ctx, topic)
	if err != nil {
		return nil, err
	}
	left := int64(0)
	for _, end := range ends {
		left += end
	}
	reader, err := kgo.NewClient(append(slices.Clone(t.trust), kgo.SeedBrokers(t.broker.client), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found := map[string]int{}
	for left > 0 {
		fetched := reader.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			return found, fmt.Errorf("read back: %w", err)
		}
		fetched.EachRecord(func(r *kgo.Record) {
			left--
			if codec := names[r.Attrs.CompressionType()]; strings.HasPrefix(string(r.Key), codec+"-") {
				found[codec]++
			}
		})
	}
	return found, nil
}

// group consumes while a second member comes and goes: both get partitions, and no record is left out.
func (t *trial) group(ctx context.Context) error {
	if err := t.write(ctx, t.topic, "before", 20); err != nil {
		return err
	}
	first, err := t.consume(ctx, t.topic, t.topic, "")
	if err != nil {
		return err
	}
	defer first.abandon()
	if err := t.all(ctx, first); err != nil {
		return fmt.Errorf("alone: %w", err)
	}
	second, err := t.consume(ctx, t.topic, t.topic, "")
	if err != nil {
		return err
	}
	defer second.abandon()
	shared := eventually(ctx, patience, func() bool {
		one, two := first.partitions(), second.partitions()
		return len(one) > 0 && len(two) > 0 && slices.Equal(slices.Sorted(slices.Values(slices.Concat(one, two))), []int32{0, 1, 2})
	})
	if !shared {
		return fmt.Errorf("with two members: they own %v and %v: %s %s", first.partitions(), second.partitions(), first.lastWords(), second.lastWords())
	}
	if err := t.write(ctx, t.topic, "shared", 10); err != nil {
		return err
	}
	if err := t.all(ctx, first, second); err != nil {
		return fmt.Errorf("with two members: %w", err)
	}
	if err := second.stop(ctx); err != nil {
		return fmt.Errorf("second member: %w", err)
	}
	if !eventually(ctx, patience, func() bool { return len(first.partitions()) == partitions }) {
		return fmt.Errorf("after the second left, the first owns %v: %s", first.partitions(), first.lastWords())
	}
	if err := t.write(ctx, t.topic, "after", 10); err != nil {
		return err
	}
	if err := t.all(ctx, first, second); err != nil {
		return fmt.Errorf("after the second left: %w", err)
	}
	if err := first.stop(ctx); err != nil {
		return fmt.Errorf("first member: %w", err)
	}
	if repeated := len(first.seen()) + len(second.seen()) - len(distinct(first, second)); repeated > 0 {
		t.note("%d redelivered in the rebalances", repeated)
	}
	return nil
}

// commit demands that the group that ended has committed all that it consumed.
func (t *trial) commit(ctx context.Context) error {
	ends, err := t.ends(ctx, t.topic)
	if err != nil {
		return err
	}
	committed, err := t.committed(ctx, t.topic, t.topic)
	if err == nil && !slices.Equal(committed, ends) {
		err = fmt.Errorf("committed %v, consumed to %v", committed, ends)
	}
	return err
}

// resume demands that a new member starts where the group ended: what is new comes, and nothing else.
func (t *trial) resume(ctx context.Context) error {
	ends, err := t.ends(ctx, t.topic)
	if err != nil {
		return err
	}
	if err := t.write(ctx, t.topic, "resumed", 5); err != nil {
		return err
	}
	member, err := t.consume(ctx, t.topic, t.topic, "")
	if err != nil {
		return err
	}
	defer member.abandon()
	if !eventually(ctx, patience, func() bool { return len(distinct(member)) >= 5*partitions }) {
		return fmt.Errorf("%d of %d new records came: %s", len(member.seen()), 5*partitions, member.lastWords())
	}
	if err := member.stop(ctx); err != nil {
		return err
	}
	for _, r := range member.seen() {
		if r.Offset < ends[r.Partition] {
			return fmt.Errorf("offset %d of partition %d came again, committed was %d", r.Offset, r.Partition, ends[r.Partition])
		}
	}
	return nil
}

// seek demands ten records from an offset in the middle.
func (t *trial) seek(ctx context.Context) error {
	const from, count = 5, 10
	records, err := t.driver.run(ctx, "read", "topic="+t.topic, "partition=1", fmt.Sprintf("offset=%d", from), fmt.Sprintf("count=%d", count))
	if err != nil {
		return err
	}
	for i, r := range records[:min(count, len(records))] {
		if r.Partition != 1 || r.Offset != from+int64(i) {
			return fmt.Errorf("record %d after seeking to %d is offset %d of partition %d", i, from, r.Offset, r.Partition)
		}
	}
	if len(records) < count {
		return fmt.Errorf("%d of %d records came", len(records), count)
	}
	return nil
}

// consume starts a member of a group.
func (t *trial) consume(ctx context.Context, topic, group, rack string) (*running, error) {
	arguments := []string{"topic=" + topic, "group=" + group}
	if rack != "" {
		arguments = append(arguments, "rack="+rack)
	}
	return t.driver.start(ctx, "consume", arguments...)
}

// all waits until the members together have delivered every record of the topic.
func (t *trial) all(ctx context.Context, members ...*running) error {
	ends, err := t.ends(ctx, t.topic)
	if err != nil {
		return err
	}
	want := 0
	for _, end := range ends {
		want += int(end)
	}
	if !eventually(ctx, patience, func() bool { return len(distinct(members...)) == want }) {
		words := ""
		for _, m := range members {
			words += " " + m.lastWords()
		}
		return fmt.Errorf("%d of %d records came:%s", len(distinct(members...)), want, words)
	}
	return nil
}

// distinct is the set of places that members delivered.
func distinct(members ...*running) map[[2]int64]bool {
	places := map[[2]int64]bool{}
	for _, m := range members {
		for _, r := range m.seen() {
			places[[2]int64{int64(r.Partition), r.Offset}] = true
		}
	}
	return places
}

// write appends records with keys of their own to each partition, one batch each.
func (t *trial) write(ctx context.Context, topic, label string, count int) error {
	for p := range int32(partitions) {
		keys := make([]string, count)
		for i := range keys {
			keys[i] = fmt.Sprintf("%s-%d-%d", label, p, i)
		}
		if err := t.writeBatch(ctx, topic, p, keys); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) writeBatch(ctx context.Context, topic string, partition int32, keys []string) error {
	var records []*kgo.Record
	for _, key := range keys {
		records = append(records, &kgo.Record{Topic: topic, Partition: partition, Key: []byte(key), Value: []byte("v")})
	}
	if err := t.kafka.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("write to %s: %w", topic, err)
	}
	return nil
}

// ends returns the end offset of each partition.
func (t *trial) ends(ctx context.Context, topic string) ([]int64, error) {
	listed, err := kadm.NewClient(t.kafka).ListEndOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("end offsets of %s: %w", topic, err)
	}
	ends := make([]int64, len(listed[topic]))
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends, nil
}

// committed returns the group's committed offset of each partition, -1 for none.
func (t *trial) committed(ctx context.Context, group, topic string) ([]int64, error) {
	fetched, err := kadm.NewClient(t.kafka).FetchOffsets(ctx, group)
	if err == nil {
		err = fetched.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("committed offsets of %s: %w", group, err)
	}
	committed := make([]int64, partitions)
	for p := range committed {
		committed[p] = -1
		if o, ok := fetched.Lookup(topic, int32(p)); ok {
			committed[p] = o.At
		}
	}
	return committed, nil
}
