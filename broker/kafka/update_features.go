package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// UpdateFeatures: v0-2
//
// Behaviour:
//   - no feature of Kafka's is listed (T4, T5), so there is none to raise or lower: INVALID_UPDATE_VERSION for the whole
//     request, in every version

func (s *session) updateFeatures(req *kmsg.UpdateFeaturesRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.UpdateFeaturesResponse)
	if len(req.FeatureUpdates) > 0 {
		err := broker.Errorf(broker.InvalidUpdateVersion, "this cluster has no feature %q", req.FeatureUpdates[0].Feature)
		resp.ErrorCode, resp.ErrorMessage = s.fail(err), message(err)
	}
	return resp
}
