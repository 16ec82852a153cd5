package node

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
)

// scrape returns the samples of /metrics by name and labels.
func scrape(t *testing.T, n *Node) map[string]string {
	t.Helper()
	resp, err := http.Get("http://" + n.Addresses().Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", resp.Status, err, body)
	}
	samples := map[string]string{}
	for line := range strings.Lines(string(body)) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), " "); found && !strings.HasPrefix(line, "#") {
			samples[name] = value
		}
	}
	return samples
}

// awaitSamples scrapes until the samples are there; what a scrape shows follows what is done by a moment.
func awaitSamples(t *testing.T, n *Node, want map[string]string) {
	t.Helper()
	var got map[string]string
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		got = scrape(t, n)
		missing := false
		for name, value := range want {
			missing = missing || got[name] != value
		}
		if !missing {
			return
		}
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
	}
}

// Two views with bindings of their own have no group to tell them apart: their series did not differ, and the scrape failed.
func TestAScrapeTellsOfGroupsChainsAndPlugins(t *testing.T) {
	n := serving(t)
	admin, ctx := administrator(t, n)
	if _, err := admin.CreateTopic(ctx, 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	client := stock(t, n)
	old := &kgo.Record{Topic: "orders", Key: []byte("k"), Value: []byte(`{"a":1}`), Timestamp: time.Now().Add(-time.Hour)}
	for range 2 {
		if err := client.ProduceSync(ctx, old).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	produceTo(t, client, "orders", 0, "no JSON")
	views := adminapiconnect.NewViewServiceClient(http.DefaultClient, "http://"+n.Addresses().Admin)
	for _, name := range []string{"orders.a", "orders.b"} {
		_, err := views.CreateView(ctx, &adminapi.CreateViewRequest{Name: name, Topic: "orders", Chain: &adminapi.ChainSpec{
			Stages: []*adminapi.Stage{{Plugin: "redact", Config: []byte(`{"fields":["a"]}`)}}, Policy: adminapi.ErrorPolicy_ERROR_POLICY_STOP,
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	reader := stock(t, n, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	for read := 0; read < 3; {
		read += reader.PollFetches(ctx).NumRecords()
	}
	if err := reader.CommitRecords(ctx, &kgo.Record{Topic: "orders", Offset: 0, LeaderEpoch: -1}); err != nil {
		t.Fatal(err)
	}
	awaitSamples(t, n, map[string]string{
		`millrace_chain_stopped_partitions{group="orders.a",topic="orders"}`: "1", `millrace_chain_stopped_partitions{group="orders.b",topic="orders"}`: "1",
		`millrace_chain_unjudged_records{group="orders.a",topic="orders"}`: "1", `millrace_chain_tripped_partitions{group="orders.a",topic="orders"}`: "0",
		`millrace_group_lag_records{group="g",topic="orders"}`: "2", `millrace_group_rebalances_total{group="g"}`: "1",
		`millrace_under_replicated_partitions`: "0", `millrace_plugin_modules`: "1",
	})
	got := scrape(t, n)
	for _, name := range []string{`millrace_plugin_instances`, `millrace_plugin_memory_bytes`, `millrace_plugin_load_seconds_total`, `millrace_plugin_cache_misses_total`} {
		if got[name] == "" || got[name] == "0" {
			t.Errorf("%s is %q", name, got[name])
		}
	}
	if lag := got[`millrace_group_lag_seconds{group="g"}`]; !strings.HasPrefix(lag, "36") || len(lag) < 4 {
		t.Errorf("the group is behind by %s seconds, want an hour", lag)
	}
}
