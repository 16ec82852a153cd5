package kafka

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// edit is one change that a client asks for: set, delete, append or subtract.
type edit struct {
	op    kmsg.IncrementalAlterConfigOp
	name  string
	value *string
}

func alterRequest(version int16, kind kmsg.ConfigResourceType, name string, edits ...edit) *kmsg.IncrementalAlterConfigsRequest {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	rr := kmsg.NewIncrementalAlterConfigsRequestResource()
	rr.ResourceType, rr.ResourceName = kind, name
	for _, e := range edits {
		rr.Configs = append(rr.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: e.name, Op: e.op, Value: e.value})
	}
	req.Version, req.Resources = version, append(req.Resources, rr)
	return req
}

func TestConfigsOfATopicAreChangedOneByOne(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	const set, remove, add, subtract = 0, 1, 2, 3
	text := kmsg.StringPtr
	for _, step := range []struct {
		edits []edit
		want  string
	}{
		{[]edit{{set, "retention.ms", text("5")}, {add, "cleanup.policy", text("compact")}}, "map[cleanup.policy:delete,compact retention.ms:5]"},
		{[]edit{{remove, "retention.ms", nil}, {subtract, "cleanup.policy", text("delete")}}, "map[cleanup.policy:compact]"},
		{[]edit{{remove, "cleanup.policy", nil}}, "map[]"},
	} {
		if got := ask[*kmsg.IncrementalAlterConfigsResponse](c, alterRequest(1, kmsg.ConfigResourceTypeTopic, "orders", step.edits...)).Resources[0]; got.ErrorCode != 0 {
			t.Errorf("%+v: %d %v", step.edits, got.ErrorCode, got.ErrorMessage)
		}
		if got := fmt.Sprint(f.Image().Configs(metadata.TopicResource("orders"))); got != step.want {
			t.Errorf("configs %s, want %s", got, step.want)
		}
	}
	validate := alterRequest(0, kmsg.ConfigResourceTypeTopic, "orders", edit{set, "min.insync.replicas", text("2")})
	validate.ValidateOnly = true
	ask[*kmsg.IncrementalAlterConfigsResponse](c, validate)
	if got := f.Image().TopicSetting("orders", metadata.MinInsyncReplicas); got != "1" {
		t.Errorf("validating set min.insync.replicas to %s", got)
	}
	ask[*kmsg.IncrementalAlterConfigsResponse](c, alterRequest(0, kmsg.ConfigResourceTypeTopic, "orders", edit{set, "min.insync.replicas", text("2")}))
	id, _ := f.Image().TopicNamed("orders")
	if p := f.Image().Partitions(id.ID)[0]; p.MinISR != 2 {
		t.Errorf("the partition has min.insync.replicas %d", p.MinISR)
	}
}

func TestConfigsThatCannotBeChangedAreRefused(t *testing.T) {
	f := newFace(t, nil)
	orders := f.addTopic("orders", 1)
	f.addView("clean", orders, f.bind("", orders, nil))
	c := dialRaw(t, f.serveTCP())
	text := kmsg.StringPtr("1")
	topic, group := kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeGroupConfig
	for _, tc := range []struct {
		req  *kmsg.IncrementalAlterConfigsRequest
		want broker.Code
	}{
		{alterRequest(1, topic, "absent", edit{0, "retention.ms", text}), broker.UnknownTopicOrPartition},
		{alterRequest(1, topic, "clean", edit{0, "retention.ms", text}), broker.PolicyViolation},
		{alterRequest(1, topic, "orders", edit{0, "no.such", text}), broker.InvalidConfig},
		{alterRequest(1, topic, "orders", edit{0, "retention.ms", nil}), broker.InvalidRequest},
		{alterRequest(1, topic, "orders", edit{2, "retention.ms", text}), broker.InvalidConfig},
		{alterRequest(1, topic, "orders", edit{9, "retention.ms", text}), broker.InvalidRequest},
		{alterRequest(1, topic, "orders", edit{0, "retention.ms", text}, edit{1, "retention.ms", nil}), broker.InvalidRequest},
		{alterRequest(1, group, "g", edit{0, "share.session.timeout.ms", text}), broker.InvalidConfig},
		{alterRequest(1, group, "g", edit{0, "consumer.session.timeout.ms", kmsg.StringPtr("0")}), broker.InvalidConfig},
		{alterRequest(1, group, "g", edit{0, "consumer.session.timeout.ms", kmsg.StringPtr("long")}), broker.InvalidConfig},
		{alterRequest(1, group, "g", edit{2, "consumer.session.timeout.ms", text}), broker.InvalidConfig},
		{alterRequest(1, group, "g"), broker.None},
		{alterRequest(1, group, ""), broker.InvalidRequest},
		{alterRequest(1, kmsg.ConfigResourceTypeBroker, "1", edit{0, "log.retention.ms", text}), broker.InvalidRequest},
		{alterRequest(1, kmsg.ConfigResourceTypeClientMetrics, "x"), broker.InvalidRequest},
	} {
		got := ask[*kmsg.IncrementalAlterConfigsResponse](c, tc.req).Resources[0]
		if code := broker.Code(got.ErrorCode); code != tc.want || (code != broker.None) != (got.ErrorMessage != nil) {
			t.Errorf("%+v: code %d, message %v; want code %d", tc.req.Resources[0], code, got.ErrorMessage, tc.want)
		}
	}
	twice := alterRequest(1, topic, "orders")
	twice.Resources = append(twice.Resources, twice.Resources[0])
	for _, got := range ask[*kmsg.IncrementalAlterConfigsResponse](c, twice).Resources {
		if broker.Code(got.ErrorCode) != broker.InvalidRequest {
			t.Errorf("a topic named twice: code %d", got.ErrorCode)
		}
	}
}

func TestAlterConfigsReplacesEverything(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 1)
	f.fold(configFact("orders", "retention.ms", "5"), configFact("orders", "segment.ms", "6"))
	c := dialRaw(t, f.serveTCP())
	req := kmsg.NewPtrAlterConfigsRequest()
	req.Version = 2
	req.Resources = []kmsg.AlterConfigsRequestResource{{
		ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "orders",
		Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "segment.ms", Value: kmsg.StringPtr("7")}},
	}}
	if got := ask[*kmsg.AlterConfigsResponse](c, req).Resources[0]; got.ErrorCode != 0 {
		t.Fatalf("code %d: %v", got.ErrorCode, got.ErrorMessage)
	}
	if got := fmt.Sprint(f.Image().Configs(metadata.TopicResource("orders"))); got != "map[segment.ms:7]" {
		t.Errorf("configs %s", got)
	}
	req.Resources[0].Configs[0].Value = nil
	if got := ask[*kmsg.AlterConfigsResponse](c, req).Resources[0]; broker.Code(got.ErrorCode) != broker.InvalidRequest {
		t.Errorf("a config without a value: code %d", got.ErrorCode)
	}
}

func TestConfigResourcesAreListedByKind(t *testing.T) {
	f := newFace(t, nil)
	orders := f.addTopic("orders", 1)
	f.addView("clean", orders, f.bind("", orders, nil))
	c := dialRaw(t, f.serveTCP())
	for _, tc := range []struct {
		version int16
		kinds   []int8
		want    string
	}{
		{0, nil, "[]"}, {1, nil, "[2:orders 2:clean 4:1]"}, {1, []int8{4}, "[4:1]"}, {1, []int8{2, 16, 32}, "[2:orders 2:clean]"},
	} {
		req := kmsg.NewPtrListConfigResourcesRequest()
		req.Version, req.ResourceTypes = tc.version, tc.kinds
		resp := ask[*kmsg.ListConfigResourcesResponse](c, req)
		var got []string
		for _, r := range resp.ConfigResources {
			got = append(got, fmt.Sprintf("%d:%s", r.Type, r.Name))
		}
		if fmt.Sprint(got) != tc.want || resp.ErrorCode != 0 {
			t.Errorf("version %d, kinds %v: %v with code %d, want %s", tc.version, tc.kinds, got, resp.ErrorCode, tc.want)
		}
	}
	req := kmsg.NewPtrListConfigResourcesRequest()
	req.Version, req.ResourceTypes = 1, []int8{7}
	if got := ask[*kmsg.ListConfigResourcesResponse](c, req); broker.Code(got.ErrorCode) != broker.UnsupportedVersion {
		t.Errorf("an unknown kind: code %d", got.ErrorCode)
	}
}
