package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// UpdateFeatures: v0-2
//
// Behaviour:
<<<<<<< HEAD
//   - the levels of Kafka's features are the program's (features in api_versions.go): asking for the level that one has is
//     fine, anything else is INVALID_UPDATE_VERSION, by itself up to v1, and for the whole request from v2 on
//   - a request without a feature is INVALID_REQUEST
=======
//   - no feature of Kafka's is listed (T4, T5), so there is none to raise or lower: INVALID_UPDATE_VERSION for the whole
//     request, in every version
>>>>>>> main

func (s *session) updateFeatures(req *kmsg.UpdateFeaturesRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.UpdateFeaturesResponse)
	if len(req.FeatureUpdates) > 0 {
		err := broker.Errorf(broker.InvalidUpdateVersion, "this cluster has no feature %q", req.FeatureUpdates[0].Feature)
		resp.ErrorCode, resp.ErrorMessage = s.fail(err), message(err)
<<<<<<< HEAD
		return resp
	}
	for _, update := range req.FeatureUpdates {
		err := checkFeature(update.Feature, update.MaxVersionLevel)
		if req.Version >= 2 && err == nil {
			continue
		}
		if req.Version >= 2 {
			resp.ErrorCode, resp.ErrorMessage = s.fail(err), message(err)
			return resp
		}
		result := kmsg.NewUpdateFeaturesResponseResult()
		if result.Feature = update.Feature; err != nil {
			result.ErrorCode, result.ErrorMessage = s.fail(err), message(err)
		}
		resp.Results = append(resp.Results, result)
=======
>>>>>>> main
	}
	return resp
}

// checkFeature refuses a level that a feature does not have.
func checkFeature(name string, level int16) error {
	for _, f := range features {
		switch {
		case f.name == name && f.level == level:
			return nil
		case f.name == name:
			return broker.Errorf(broker.InvalidUpdateVersion, "feature %s is at level %d, which comes with the program and does not change", name, f.level)
		}
	}
	return broker.Errorf(broker.InvalidUpdateVersion, "this cluster has no feature %q", name)
}
