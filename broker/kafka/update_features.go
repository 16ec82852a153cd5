package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// UpdateFeatures: v0-2
//
// Behaviour:
//   - the levels of Kafka's features are the program's (features in api_versions.go): asking for the level that one has is
//     fine, anything else is INVALID_UPDATE_VERSION for the whole request, in every version

func (s *session) updateFeatures(req *kmsg.UpdateFeaturesRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.UpdateFeaturesResponse)
	for _, update := range req.FeatureUpdates {
		if err := checkFeature(update.Feature, update.MaxVersionLevel); err != nil {
			resp.ErrorCode, resp.ErrorMessage, resp.Results = s.fail(err), message(err), nil
			return resp
		}
		result := kmsg.NewUpdateFeaturesResponseResult()
		result.Feature = update.Feature
		resp.Results = append(resp.Results, result)
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
