package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// UpdateFeatures: v0-2
//
// Behaviour:
//   - no feature of Kafka's is listed (T4, T5), so there is none to raise or lower: each is INVALID_UPDATE_VERSION, by
//     itself up to v1, and for the whole request from v2 on
//   - a request without a feature is INVALID_REQUEST

func (s *session) updateFeatures(req *kmsg.UpdateFeaturesRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.UpdateFeaturesResponse)
	if len(req.FeatureUpdates) == 0 {
		err := broker.Errorf(broker.InvalidRequest, "name the features to update")
		resp.ErrorCode, resp.ErrorMessage = s.fail(err), message(err)
		return resp
	}
	for _, update := range req.FeatureUpdates {
		err := broker.Errorf(broker.InvalidUpdateVersion, "this cluster has no feature %q", update.Feature)
		if req.Version >= 2 {
			resp.ErrorCode, resp.ErrorMessage = s.fail(err), message(err)
			return resp
		}
		result := kmsg.NewUpdateFeaturesResponseResult()
		result.Feature, result.ErrorCode, result.ErrorMessage = update.Feature, s.fail(err), message(err)
		resp.Results = append(resp.Results, result)
	}
	return resp
}
