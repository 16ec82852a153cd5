package kafka

import (
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// ListConfigResources: v0-1
//
// Behaviour:
//   - v0 asks for client metrics subscriptions, of which there are none; v1 names the kinds, or none for all of them
//   - topics with views and brokers are listed, and the groups that have configs of their own; client metrics are not
//   - a kind that Kafka cannot list either is UNSUPPORTED_VERSION, as there

func (s *session) listConfigResources(req *kmsg.ListConfigResourcesRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ListConfigResourcesResponse)
	if req.Version == 0 {
		return resp
	}
	known := []kmsg.ConfigResourceType{
		kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger,
		kmsg.ConfigResourceTypeClientMetrics, kmsg.ConfigResourceTypeGroupConfig,
	}
	for _, kind := range req.ResourceTypes {
		if !slices.Contains(known, kmsg.ConfigResourceType(kind)) {
			resp.ErrorCode = s.note(broker.UnsupportedVersion)
			return resp
		}
	}
	wanted := func(kind kmsg.ConfigResourceType) bool {
		return len(req.ResourceTypes) == 0 || slices.Contains(req.ResourceTypes, int8(kind))
	}
	list := func(kind kmsg.ConfigResourceType, name string) {
		r := kmsg.NewListConfigResourcesResponseConfigResource()
		r.Name, r.Type = name, int8(kind)
		resp.ConfigResources = append(resp.ConfigResources, r)
	}
	img := s.Metadata.Image()
	if wanted(kmsg.ConfigResourceTypeTopic) {
		for topic := range img.Topics() {
			if s.mayTopic(topic.Name) {
				list(kmsg.ConfigResourceTypeTopic, topic.Name)
			}
		}
		for _, view := range img.Views() {
			if _, code := resolveView(img, view); code == broker.None && s.mayTopic(view.Name) {
				list(kmsg.ConfigResourceTypeTopic, view.Name)
			}
		}
	}
	if wanted(kmsg.ConfigResourceTypeGroupConfig) {
		for _, name := range img.ConfiguredGroups() {
			list(kmsg.ConfigResourceTypeGroupConfig, name)
		}
	}
	if wanted(kmsg.ConfigResourceTypeBroker) {
		for _, registration := range img.Brokers() {
			list(kmsg.ConfigResourceTypeBroker, strconv.Itoa(int(registration.Node)))
		}
	}
	return resp
}
