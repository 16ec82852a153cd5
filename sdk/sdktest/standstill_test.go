package sdktest_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

// TestARedactorThatStopsSaysWhyAndIsResumed goes the way of an operator: a value that holds no JSON stops the partition,
// the binding says which and why, and resuming letters that one batch.
func TestARedactorThatStopsSaysWhyAndIsResumed(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := sdktest.Start(t).Client()
	if _, err := client.CreateTopic(ctx, "people", 1, nil); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{`{"id":1,"email":"a@b"}`, "email=a@b", `{"email":"c@d","id":3}`} {
		if err := client.Produce(ctx, &sdk.Record{Topic: "people", Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := client.Bindings().CreateBinding(ctx, &adminapi.CreateBindingRequest{Group: "g", Topics: []string{"people"}, Chain: &adminapi.ChainSpec{
		Stages: []*adminapi.Stage{{Plugin: "redact", Config: []byte(`{"fields":["email"]}`)}}, Policy: adminapi.ErrorPolicy_ERROR_POLICY_STOP,
	}})
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := client.Consume("g", []string{"people"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumer.Close() }()
	var got []string
	read := func(n int) {
		t.Helper()
		for len(got) < n {
			records, err := consumer.Poll(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				got = append(got, string(r.Value))
			}
		}
	}
	read(1)
	described := func() *adminapi.ChainPartition {
		t.Helper()
		d, err := client.Bindings().DescribeBinding(ctx, &adminapi.DescribeBindingRequest{Group: "g"})
		if err != nil || len(d.Partitions) != 1 {
			t.Fatalf("%v, %v", d, err)
		}
		return d.Partitions[0]
	}
	stopped := described()
	for stopped.State != "stopped" { // the first record may be delivered before the second is judged
		if ctx.Err() != nil {
			t.Fatalf("it does not stop: %v", stopped)
		}
		stopped = described()
	}
	if stopped.LastErrorOffset != 1 || !strings.Contains(stopped.Reason, "redact@1.0.0 failed at the record at offset 1") ||
		!strings.Contains(stopped.LastError, "holds no JSON") || stopped.LastStable != 3 {
		t.Fatalf("described as %v", stopped)
	}
	health, err := client.Cluster().GetHealth(ctx, &adminapi.GetHealthRequest{})
	if err != nil || health.Healthy || health.StalledChains != 1 {
		t.Fatalf("health %v, %v", health, err)
	}
	resumed, err := client.Bindings().ResumeBinding(ctx, &adminapi.ResumeBindingRequest{Group: "g"})
	if err != nil || len(resumed.Binding.Rows) != 3 || resumed.Binding.Rows[1].From[0].From != 1 || resumed.Binding.Rows[2].From[0].From != 2 {
		t.Fatalf("resumed as %v, %v", resumed, err)
	}
	read(2)
	if want := []string{`{"id":1}`, `{"id":3}`}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	if p := described(); p.Lettered != 1 {
		t.Fatalf("described as %v", p)
	}
}
