package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/admin"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
	"github.com/millrace-io/millrace/broker/controller"
)

// office is what an operator asks of one node of a cluster whose topic people has one partition on each, and a chain that
// stops at what is no JSON.
type office struct {
	*trio
	bindings adminapiconnect.BindingServiceClient
	topics   adminapiconnect.TopicServiceClient
	groups   adminapiconnect.GroupServiceClient
	cluster  adminapiconnect.ClusterServiceClient
}

// newOffice has partition i led by node i+1 alone. Node 2, which has a vote in newTrio's cluster, is asked.
func newOffice(t *testing.T) *office {
	t.Helper()
	c := newTrio(t)
	request := controller.CreateTopic{Name: "people", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]broker.NodeID{0: {1}, 1: {2}, 2: {3}}}
	if _, err := c.nodes[1].cluster.Submit(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{}
	t.Cleanup(client.CloseIdleConnections)
	url := "http://" + c.nodes[1].Addresses().Admin
	o := &office{
		trio: c, bindings: adminapiconnect.NewBindingServiceClient(client, url), topics: adminapiconnect.NewTopicServiceClient(client, url),
		groups: adminapiconnect.NewGroupServiceClient(client, url), cluster: adminapiconnect.NewClusterServiceClient(client, url),
	}
	producer := c.seats[1].client(c.nodes[1])
	for partition := range int32(3) {
		values := []string{`{"id":1,"email":"a@b"}`, `{"id":2,"email":"a@b"}`}
		if partition == 2 {
			values = append(values, "no JSON", `{"id":4}`)
		}
		for _, value := range values {
			if err := producer.ProduceSync(t.Context(), record("people", partition, value)).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err := o.bindings.CreateBinding(t.Context(), &adminapi.CreateBindingRequest{Group: "g", Topics: []string{"people"}, Chain: &adminapi.ChainSpec{
		Stages: []*adminapi.Stage{{Plugin: "redact", Config: []byte(`{"fields":["email"]}`)}}, Policy: adminapi.ErrorPolicy_ERROR_POLICY_STOP,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *office) describe() *adminapi.DescribeBindingResponse {
	o.t.Helper()
	d, err := o.bindings.DescribeBinding(o.t.Context(), &adminapi.DescribeBindingRequest{Group: "g"})
	if err != nil {
		o.t.Fatal(err)
	}
	return d
}

// judged returns when every partition is judged as far as it can be.
func (o *office) judged() (d *adminapi.DescribeBindingResponse) {
	o.t.Helper()
	o.await("chains that have judged", func() bool {
		d = o.describe()
		return !slices.ContainsFunc(d.Partitions, func(p *adminapi.ChainPartition) bool {
			return p.JudgedTo != 2 || p.Partition == 2 && p.State != "stopped"
		})
	})
	return d
}

// Whichever node is asked tells of every partition of a binding, as its leader knows it.
func TestABindingIsDescribedWhole(t *testing.T) {
	o := newOffice(t)
	kafka := kadm.NewClient(o.seats[1].client(o.nodes[1]))
	offsets := kadm.Offsets{}
	offsets.AddOffset("people", 2, 1, -1)
	if err := kafka.CommitAllOffsets(t.Context(), "g", offsets); err != nil {
		t.Fatal(err)
	}
	d := o.judged()
	if len(d.Partitions) != 3 || len(d.Silent) != 0 {
		t.Fatalf("described as %v", d)
	}
	for i, p := range d.Partitions {
		if p.Partition != int32(i) || p.Leader != int32(i+1) || p.Passed != 2 || p.Replaced != 2 {
			t.Errorf("partition %d: %v", i, p)
		}
	}
	stopped := d.Partitions[2]
	if stopped.LastErrorOffset != 2 || !strings.Contains(stopped.LastError, "holds no JSON") || !strings.Contains(stopped.Reason, "redact@1.0.0") ||
		stopped.LastStable != 4 || stopped.Committed != 1 || stopped.Lag != stopped.End-1 || stopped.Lag < 1 {
		t.Errorf("what stands still: %v", stopped)
	}
	if p := d.Partitions[0]; p.Committed != -1 || p.Lag != -1 {
		t.Errorf("partition 0, where nothing was committed: %v", p)
	}
	health, err := o.cluster.GetHealth(t.Context(), &adminapi.GetHealthRequest{})
	if err != nil || health.StalledChains != 1 || !slices.ContainsFunc(health.Problems, func(p *adminapi.Problem) bool { return p.Subject == "chain of group g, partition 2" }) {
		t.Errorf("health %v, %v", health, err)
	}
	group, err := o.groups.DescribeGroup(t.Context(), &adminapi.DescribeGroupRequest{Group: "g"})
	if err != nil || len(group.Offsets) != 1 || !group.Offsets[0].Filtered || group.Offsets[0].Lag != stopped.Lag || group.Summary.TotalLag != stopped.Lag {
		t.Errorf("the group through its chain: %v, %v; the binding has lag %d", group, err, stopped.Lag)
	}
	coordinates := o.nodes[1].cluster.groups().coordinator("g")
	awaitSamples(t, o.nodes[coordinates-1], map[string]string{`millrace_group_lag_records{group="g",topic="people"}`: fmt.Sprint(stopped.Lag)})
	if age := scrape(t, o.nodes[coordinates-1])[`millrace_group_lag_seconds{group="g"}`]; age == "" || age == "0" {
		t.Errorf("the group is behind by %q seconds", age)
	}
	if _, err := o.bindings.ResumeBinding(t.Context(), &adminapi.ResumeBindingRequest{Group: "g", ValidateOnly: true}); err != nil {
		t.Errorf("what stands still elsewhere cannot be resumed from here: %v", err)
	}
}

// Ends, sizes and times of partitions are those that the leaders know.
func TestATopicIsDescribedAsItsLeadersKnowIt(t *testing.T) {
	o := newOffice(t)
	d, err := o.topics.DescribeTopic(t.Context(), &adminapi.DescribeTopicRequest{Name: "people"})
	if err != nil || len(d.Partitions) != 3 {
		t.Fatalf("%v, %v", d, err)
	}
	sum := int64(0)
	for i, p := range d.Partitions {
		sum += p.SizeBytes
		if want := []int64{2, 2, 4}[i]; p.LogEnd != want || p.HighWatermark != want || p.SizeBytes <= 0 {
			t.Errorf("partition %d: %v", i, p)
		}
	}
	listed, err := o.topics.ListTopics(t.Context(), &adminapi.ListTopicsRequest{})
	at := slices.IndexFunc(listed.GetTopics(), func(t *adminapi.Topic) bool { return t.Name == "people" })
	if err != nil || at < 0 || listed.Topics[at].SizeBytes != sum || d.Topic.SizeBytes != sum {
		t.Errorf("partitions have %d bytes together; described %v; listed %v, %v", sum, d.Topic, listed, err)
	}
	for to, target := range map[string]*adminapi.SeekTarget{
		"0 0 0": {To: &adminapi.SeekTarget_Start{}}, "2 2 4": {To: &adminapi.SeekTarget_End{}},
		"0 0 0 at a time": {To: &adminapi.SeekTarget_TimestampMs{TimestampMs: 1}},
		"2 2 4 at a time": {To: &adminapi.SeekTarget_TimestampMs{TimestampMs: time.Now().Add(time.Hour).UnixMilli()}},
	} {
		seek, err := o.groups.SeekGroup(t.Context(), &adminapi.SeekGroupRequest{Group: "other", Topics: []string{"people"}, Target: target})
		var got []string
		for _, change := range seek.GetChanges() {
			got = append(got, fmt.Sprint(change.To))
		}
		if err != nil || !strings.HasPrefix(to, strings.Join(got, " ")) || len(got) != 3 {
			t.Errorf("seek to %s: %v, %v", to, got, err)
		}
	}
}

// A node that hangs is named, and what the others know is told within the bound.
func TestANodeThatTellsNothingIsNamed(t *testing.T) {
	o := newOffice(t)
	o.judged()
	o.stop(2)
	o.await("node 2 knows that nobody leads partition 2", func() bool {
		image := o.nodes[1].quorum.Image()
		people, _ := image.TopicNamed("people")
		p, ok := image.Partition(broker.TopicPartition{Topic: people.ID, Partition: 2})
		return ok && p.Leader == broker.NoNode
	})
	d := o.describe()
	if p := d.Partitions[2]; len(d.Partitions) != 3 || p.State != "unknown" || p.Leader != -1 || !strings.Contains(p.Reason, "no leader") {
		t.Errorf("a partition whose only node stopped: %v", d.Partitions)
	}
	if p := d.Partitions[0]; p.Leader != 1 || p.State != "running" {
		t.Errorf("what runs: %v", p)
	}
	// One that is asked, and hears nothing.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	reports := o.nodes[1].cluster.Inquire(ctx, []broker.NodeID{1, 3, 2}, admin.Inquiry{Sizes: true})
	if len(reports) != 3 || reports[0].Node != 1 || reports[0].Silent == "" || reports[1].Silent == "" || reports[2].Silent != "" || len(reports[2].Sizes) == 0 {
		t.Errorf("reports %+v", reports)
	}
}

// A snapshot of the metadata is written where an operator asks for one, whichever node is asked.
func TestSnapshotsAreWrittenOnEveryNodeThatIsAsked(t *testing.T) {
	o := newOffice(t)
	saved, err := o.cluster.SaveSnapshot(t.Context(), &adminapi.SaveSnapshotRequest{All: true})
	if err != nil || len(saved.Snapshots) != 3 {
		t.Fatalf("%v, %v", saved, err)
	}
	for i, s := range saved.Snapshots {
		info, err := o.seats[i].fs.Open(s.File)
		if err != nil || s.Failure != "" || !strings.HasPrefix(s.File, o.seats[i].config.Data) {
			t.Fatalf("%v, %v", s, err)
		}
		size, err := info.Size()
		if err := errors.Join(err, info.Close()); err != nil || size != s.Bytes || s.Index > uint64(o.nodes[i].quorum.Image().Index()) {
			t.Errorf("%v: %d bytes, %v", s, size, err)
		}
	}
	if _, err := o.cluster.SaveSnapshot(t.Context(), &adminapi.SaveSnapshotRequest{Nodes: []int32{9}}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("of a node that is none: %v", err)
	}
	here, err := o.cluster.SaveSnapshot(t.Context(), &adminapi.SaveSnapshotRequest{})
	if err != nil || len(here.Snapshots) != 1 || here.Snapshots[0].Node != 2 {
		t.Errorf("of the node that answers: %v, %v", here, err)
	}
}
