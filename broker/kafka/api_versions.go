package kafka

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// ApiVersions: v0-4
//
// Behaviour:
//   - never required (T6), answered before authentication (T3)
//   - the response's header is never flexible (T2)
//   - a version above ours is answered in version 0 with UNSUPPORTED_VERSION and our own range (KIP-511, T3)
//   - v3: the client's software name and version must be well formed, else INVALID_REQUEST
//   - the features are group.version 1, which says that consumer groups are served; those with a minimum of 0 are left
//     out before v4 (T4), because clients of old take 0 for an error

// errFutureApiVersions marks an ApiVersions request of a version that is not served; its body is not read.
var errFutureApiVersions = errors.New("unsupported version of ApiVersions")

func futureApiVersions() kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = int16(broker.UnsupportedVersion)
	row, _ := lookup(keyApiVersions)
	resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: row.key, MinVersion: row.listed, MaxVersion: row.max}}
	return resp
}

func (s *session) apiVersions(req *kmsg.ApiVersionsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	if req.Version >= 3 && !(wellFormed(req.ClientSoftwareName) && wellFormed(req.ClientSoftwareVersion)) {
		resp.ErrorCode = s.note(broker.InvalidRequest)
		return resp
	}
	for _, row := range matrix {
		key := kmsg.NewApiVersionsResponseApiKey()
		key.ApiKey, key.MinVersion, key.MaxVersion = row.key, row.listed, row.max
		resp.ApiKeys = append(resp.ApiKeys, key)
	}
	for _, f := range features {
		if req.Version < 3 {
			break
		}
		if f.min > 0 || req.Version >= 4 {
			supported := kmsg.NewApiVersionsResponseSupportedFeature()
			supported.Name, supported.MinVersion, supported.MaxVersion = f.name, f.min, f.max
			resp.SupportedFeatures = append(resp.SupportedFeatures, supported)
		}
		finalized := kmsg.NewApiVersionsResponseFinalizedFeature()
		finalized.Name, finalized.MinVersionLevel, finalized.MaxVersionLevel = f.name, f.level, f.level
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, finalized)
		resp.FinalizedFeaturesEpoch = featuresEpoch
	}
	return resp
}

// feature is one of Kafka's features, with the versions that could be and the one that is.
type feature struct {
	name            string
	min, max, level int16
}

// features are what clients look for beside the listed requests. Their levels are the program's.
var features = []feature{{name: "group.version", min: 0, max: 1, level: 1}}

// featuresEpoch is the epoch of features that never change while a program runs.
const featuresEpoch = 1

// wellFormed reports whether text is letters and digits, with '.' and '-' between them.
func wellFormed(text string) bool {
	if text == "" {
		return false
	}
	for i, c := range []byte(text) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case (c == '.' || c == '-') && i > 0 && i < len(text)-1:
		default:
			return false
		}
	}
	return true
}
