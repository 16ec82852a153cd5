package node

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
	"github.com/millrace-io/millrace/broker/replica"
	"github.com/millrace-io/millrace/internal/vfs"
)

const (
	runGroup     = "billing"
	runBlockBits = 4 // of the chain: a file of it every 16 records
)

// crashConfig is a node whose files are small, so that a short run meets every kind of operation.
func crashConfig(data string) Config {
	c := Defaults()
	c.Data = data
	c.Client.Bind, c.Cluster.Bind, c.Admin.Bind = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.snapshotEvery = 16
	c.RetentionCheck, c.CleanerBackoff = time.Hour, time.Hour // the run says when
	return c
}

// startOn starts a node on a file system and returns what it logs.
func startOn(ctx context.Context, files vfs.FS, config Config) (*Node, *journal, error) {
	seams := SystemSeams()
	seams.FS = files
	log := &journal{}
	n, err := Start(ctx, config, seams, zerolog.New(log).Level(zerolog.WarnLevel))
	return n, log, err
}

// recording is a run whose operations are on a tape.
type recording struct {
	t      *testing.T
	tape   *vfs.Tape
	config Config
	number int // of the next record

	process *vfs.Process
	node    *Node
	client  *kgo.Client
	admin   *kadm.Client
}

// record runs a node through three lives, of which the first and the last end by kill -9, and returns the tape.
func recordRun(t *testing.T, config Config) *vfs.Tape {
	t.Helper()
	r := &recording{t: t, tape: vfs.NewTape(vfs.NewMem()), config: config}
	r.stage("init")
	r.process = r.tape.Process()
	if err := EnsureFormatted(r.process, config, time.Now()); err != nil {
		t.Fatal(err)
	}
	r.tape.Remark(deed{what: formatted})
	r.firstLife()
	r.secondLife()
	r.thirdLife()
	return r.tape
}

func (r *recording) stage(name string) { r.tape.Remark(deed{what: entering, value: name}) }

func (r *recording) must(errs ...error) {
	r.t.Helper()
	for _, err := range errs {
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// start begins a life.
func (r *recording) start() {
	r.t.Helper()
	r.stage("start")
	var err error
	r.node, _, err = startOn(r.t.Context(), r.process, r.config)
	r.must(err)
	r.client, err = kgo.NewClient(kgo.SeedBrokers(r.node.Addresses().Client), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	r.must(err)
	r.admin = kadm.NewClient(r.client)
	r.stage("serve")
}

// kill ends a life as kill -9 does.
func (r *recording) kill() {
	r.t.Helper()
	r.must(r.process.Kill())
	r.client.Close()
	if err := r.node.Stop(); err != nil && !strings.Contains(err.Error(), vfs.ErrKilled.Error()) {
		r.t.Fatal(err)
	}
	r.process = r.tape.Process()
}

func (r *recording) stop() {
	r.t.Helper()
	r.client.Close()
	r.stage("stop")
	r.must(r.node.Stop())
	r.process = r.tape.Process()
}

func (r *recording) topic(name string, partitions int32, configs ...string) {
	r.t.Helper()
	set := map[string]*string{"segment.bytes": kadm.StringPtr("1500")}
	for i := 0; i < len(configs); i += 2 {
		set[configs[i]] = &configs[i+1]
	}
	r.tape.Remark(deed{what: making, topic: name})
	_, err := r.admin.CreateTopic(r.t.Context(), partitions, 1, set, name)
	r.must(err)
	r.tape.Remark(deed{what: made, topic: name})
}

func (r *recording) remove(name string) {
	r.t.Helper()
	r.tape.Remark(deed{what: deleting, topic: name})
	_, err := r.admin.DeleteTopic(r.t.Context(), name)
	r.must(err)
	r.tape.Remark(deed{what: deleted, topic: name})
}

func (r *recording) chain(withinMs int64) *adminapi.ChainSpec {
	return &adminapi.ChainSpec{
		Stages: []*adminapi.Stage{{Plugin: "dedup-key"}}, BlockBits: runBlockBits, Window: &adminapi.Window{Blocks: 1000, WithinMs: withinMs},
	}
}

func (r *recording) bindings() adminapiconnect.BindingServiceClient {
	r.t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return adminapiconnect.NewBindingServiceClient(http.DefaultClient, "http://"+r.node.Addresses().Admin)
}

// send produces records, a few at a time, with keys that come again.
func (r *recording) send(topic string, partitions int32, count int) {
	r.t.Helper()
	for i := range count {
		r.number++
		value, key := fmt.Sprintf("%06d-%s", r.number, bytes.Repeat([]byte{'x'}, 60)), fmt.Sprintf("k%d", r.number*7%23)
		d := deed{topic: topic, partition: int32(i) % partitions, key: key, value: value}
		d.what = sending
		r.tape.Remark(d)
		record := &kgo.Record{Topic: topic, Partition: d.partition, Key: []byte(key), Value: []byte(value)}
		r.client.Produce(r.t.Context(), record, func(got *kgo.Record, err error) {
			if err != nil {
				r.t.Errorf("produce %+v: %v", d, err)
				return
			}
			d.what, d.offset = sent, got.Offset
			r.tape.Remark(d)
		})
		if r.number%3 == 0 {
			r.must(r.client.Flush(r.t.Context()))
		}
	}
	r.must(r.client.Flush(r.t.Context()))
}

func (r *recording) commit(topic string, partition int32, offset int64) {
	r.t.Helper()
	d := deed{what: committing, topic: topic, partition: partition, offset: offset}
	r.tape.Remark(d)
	r.must(r.admin.CommitAllOffsets(r.t.Context(), runGroup, kadm.OffsetsFromRecords(kgo.Record{Topic: topic, Partition: partition, Offset: offset - 1})))
	d.what = committed
	r.tape.Remark(d)
}

// cut moves a log's start.
func (r *recording) cut(topic string, offset int64) {
	r.t.Helper()
	d := deed{what: starting, topic: topic, offset: offset}
	r.tape.Remark(d)
	var before kadm.Offsets
	before.Add(kadm.Offset{Topic: topic, At: offset})
	deletedRecords, err := r.admin.DeleteRecords(r.t.Context(), before)
	r.must(err, deletedRecords.Error())
	d.what = started
	r.tape.Remark(d)
}

func (r *recording) compact() {
	r.t.Helper()
	r.stage("compact")
	r.must(r.node.set.Clean(r.t.Context(), replica.Cleaner{}))
	r.stage("serve")
}

// retain lets retention take the topics that keep nothing.
func (r *recording) retain(topic string, end int64) {
	r.t.Helper()
	r.stage("retain")
	r.tape.Remark(deed{what: starting, topic: topic, offset: end})
	r.must(r.node.set.Retain(r.t.Context(), time.Now().Add(time.Hour)))
	r.stage("serve")
}

func (r *recording) firstLife() {
	r.start()
	r.topic("orders", 2)
	r.topic("table", 1, "cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.01")
	r.topic("passing", 1, "retention.ms", "60000")
	r.stage("bind")
	_, err := r.bindings().CreateBinding(r.t.Context(), &adminapi.CreateBindingRequest{Group: runGroup, Topics: []string{"orders"}, Chain: r.chain(0)})
	r.must(err)
	r.tape.Remark(deed{what: bound})
	r.stage("serve")
	r.send("orders", 2, 50)
	r.commit("orders", 0, 5)
	r.send("table", 1, 40)
	r.send("passing", 1, 40)
	r.commit("orders", 1, 7)
	r.compact()
	r.cut("passing", 9)
	r.commit("orders", 0, 11)
	r.send("orders", 2, 20)
	r.kill()
}

func (r *recording) secondLife() {
	r.start()
	r.send("orders", 2, 30)
	r.topic("brief", 2)
	r.send("brief", 2, 6)
	r.commit("orders", 0, 20)
	r.stage("bind")
	_, err := r.bindings().UpdateBinding(r.t.Context(), &adminapi.UpdateBindingRequest{Group: runGroup, Topic: "orders", Chain: r.chain(1 << 40)})
	r.must(err)
	r.stage("serve")
	r.send("orders", 2, 30)
	r.remove("brief")
	r.send("table", 1, 40)
	r.compact()
	r.retain("passing", 40)
	r.send("passing", 1, 10)
	r.commit("orders", 1, 30)
	r.stop()
}

func (r *recording) thirdLife() {
	r.start()
	r.send("orders", 2, 10)
	r.topic("late", 1)
	r.send("table", 1, 10)
	r.must(r.node.flusher.Sync()) // the journal knows everything: what is damaged from here on is no torn tail
	r.kill()
}
