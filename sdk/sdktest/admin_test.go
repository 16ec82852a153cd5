package sdktest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

// TestAdminRefusesWithACodeAndASentence goes through what can be asked wrongly of a node: each has the code that decides
// raftctl's exit code, and says what is wrong.
func TestAdminRefusesWithACodeAndASentence(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := sdktest.Start(t).Client()
	if _, err := client.CreateTopic(ctx, "orders", 2, nil); err != nil {
		t.Fatal(err)
	}
	if err := client.Produce(ctx, &sdk.Record{Topic: "orders", Key: []byte("k"), Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Bind(ctx, "bound", "dedup-key", nil, "orders"); err != nil {
		t.Fatal(err)
	}
	bind := func(plugin, config string, policy adminapi.ErrorPolicy) error {
		_, err := client.Bindings().CreateBinding(ctx, &adminapi.CreateBindingRequest{Group: "g", Topics: []string{"orders"}, Chain: &adminapi.ChainSpec{
			Stages: []*adminapi.Stage{{Plugin: plugin, Config: []byte(config)}}, Policy: policy,
		}})
		return err
	}
	deadLetter := adminapi.ErrorPolicy_ERROR_POLICY_DEAD_LETTER
	manifest := []byte("name: broken\nversion: 1.0.0\nabi: 1\nlanguage: c\nprojection: [key]\n")
	tests := []struct {
		name string
		code connect.Code
		says string
		ask  func() error
	}{
		{"topic name", connect.CodeInvalidArgument, "only letters", func() error { _, err := client.CreateTopic(ctx, "or/ders", 1, nil); return err }},
		{"topic twice", connect.CodeAlreadyExists, "orders", func() error { _, err := client.CreateTopic(ctx, "orders", 1, nil); return err }},
		{"topic config", connect.CodeInvalidArgument, "retention.ms", func() error {
			_, err := client.CreateTopic(ctx, "other", 1, map[string]string{"retention.ms": "soon"})
			return err
		}},
		{"no topic", connect.CodeNotFound, "nope", func() error {
			_, err := client.Topics().DescribeTopic(ctx, &adminapi.DescribeTopicRequest{Name: "nope"})
			return err
		}},
		{"internal topic", connect.CodeFailedPrecondition, "internal", func() error {
			_, err := client.Topics().DeleteTopic(ctx, &adminapi.DeleteTopicRequest{Name: "__consumer_offsets"})
			return err
		}},
		{"no plugin", connect.CodeNotFound, "plugin list", func() error { return bind("nope", "", deadLetter) }},
		{"no such version", connect.CodeNotFound, "dedup-key@9", func() error { return bind("dedup-key@9", "", deadLetter) }},
		{"config where none is taken", connect.CodeInvalidArgument, "takes no configuration", func() error { return bind("dedup-key", `{"a":1}`, deadLetter) }},
		{"config that is wrong", connect.CodeInvalidArgument, "field", func() error { return bind("dedup-json", `{"feild":"a"}`, deadLetter) }},
		{"skip with dedup", connect.CodeFailedPrecondition, "--force", func() error { return bind("dedup-key", "", adminapi.ErrorPolicy_ERROR_POLICY_SKIP) }},
		{"pass with a redactor", connect.CodeFailedPrecondition, "--force", func() error {
			return bind("redact", `{"fields":["a"]}`, adminapi.ErrorPolicy_ERROR_POLICY_PASS)
		}},
		{"a redactor of nothing", connect.CodeInvalidArgument, "redact@1.0.0", func() error { return bind("redact", `{}`, deadLetter) }},
		{"resume of what runs", connect.CodeInvalidArgument, "bind describe", func() error {
			_, err := client.Bindings().ResumeBinding(ctx, &adminapi.ResumeBindingRequest{Group: "bound"})
			return err
		}},
		{"bound twice", connect.CodeAlreadyExists, "bind update", func() error { _, err := client.Bind(ctx, "bound", "dedup-key", nil, "orders"); return err }},
		{"no module", connect.CodeInvalidArgument, "missing", func() error { _, err := client.PushPlugin(ctx, manifest, nil); return err }},
		{"not a module", connect.CodeInvalidArgument, "broken@1.0.0", func() error { _, err := client.PushPlugin(ctx, manifest, []byte("not wasm at all")); return err }},
		{"not a manifest", connect.CodeInvalidArgument, "plugin.yaml:1", func() error { _, err := client.PushPlugin(ctx, []byte("nmae: x\n"), []byte("x")); return err }},
		{"view of no binding", connect.CodeNotFound, "bind one first", func() error { _, err := client.CreateView(ctx, "v", "orders", "nobody"); return err }},
		{"no view", connect.CodeNotFound, "view list", func() error {
			_, err := client.Views().DeleteView(ctx, &adminapi.DeleteViewRequest{Name: "nope"})
			return err
		}},
		{"no group", connect.CodeNotFound, "group list", func() error {
			_, err := client.Groups().DescribeGroup(ctx, &adminapi.DescribeGroupRequest{Group: "nope"})
			return err
		}},
		{"seek beyond the end", connect.CodeInvalidArgument, "offset 99", func() error {
			_, err := client.Groups().SeekGroup(ctx, &adminapi.SeekGroupRequest{
				Group: "g", Topics: []string{"orders"}, Target: &adminapi.SeekTarget{To: &adminapi.SeekTarget_Offset{Offset: 99}},
			})
			return err
		}},
		{"seek of no partition", connect.CodeNotFound, "no partition 7 of orders", func() error {
			_, err := client.Groups().SeekGroup(ctx, &adminapi.SeekGroupRequest{
				Group: "g", Topics: []string{"orders"}, Partitions: []int32{0, 7}, Target: &adminapi.SeekTarget{To: &adminapi.SeekTarget_End{End: true}},
			})
			return err
		}},
		{"deletion of no group", connect.CodeNotFound, "there is no such group", func() error {
			_, err := client.Groups().DeleteGroup(ctx, &adminapi.DeleteGroupRequest{Group: "nope"})
			return err
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.ask()
			if connect.CodeOf(err) != test.code || err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v (%v), want %v with %q in it", err, connect.CodeOf(err), test.code, test.says)
			}
		})
	}
}

// TestSeekSaysWhatItWouldDoBeforeItDoes moves a group back and forth, and refuses while the group has members.
func TestSeekSaysWhatItWouldDoBeforeItDoes(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := sdktest.Start(t).Client()
	if _, err := client.CreateTopic(ctx, "orders", 1, nil); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := client.Produce(ctx, &sdk.Record{Topic: "orders", Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	consumer, err := client.Consume("g", []string{"orders"})
	if err != nil {
		t.Fatal(err)
	}
	for read := 0; read < 3; {
		records, err := consumer.Poll(ctx)
		if err != nil {
			t.Fatal(err)
		}
		read += len(records)
	}
	if err := consumer.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	toStart := &adminapi.SeekGroupRequest{Group: "g", Target: &adminapi.SeekTarget{To: &adminapi.SeekTarget_Start{Start: true}}}
	if _, err := client.Groups().SeekGroup(ctx, toStart); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("a seek under a live member: %v", err)
	}
	if err := consumer.Close(); err != nil {
		t.Fatal(err)
	}
	committed := func() int64 {
		d, err := client.Groups().DescribeGroup(ctx, &adminapi.DescribeGroupRequest{Group: "g"})
		if err != nil {
			t.Fatal(err)
		}
		return d.Offsets[0].Committed
	}
	said, err := client.Groups().SeekGroup(ctx, toStart)
	if err != nil || len(said.Changes) != 1 || said.Changes[0].From != 3 || said.Changes[0].To != 0 || committed() != 3 {
		t.Fatalf("a dry run said %v, %v, and the commit is %d", said, err, committed())
	}
	toStart.Execute = true
	if _, err := client.Groups().SeekGroup(ctx, toStart); err != nil || committed() != 0 {
		t.Errorf("after the seek the commit is %d: %v", committed(), err)
	}
}
