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
//   - no features are listed: none with a minimum of 0 may be before v4 (T4), and none is finalized (T5)

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
	return resp
}

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
