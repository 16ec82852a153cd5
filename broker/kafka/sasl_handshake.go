package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// SaslHandshake: v0-1
//
// Behaviour:
//   - chooses a mechanism; another than those offered is UNSUPPORTED_SASL_MECHANISM with the list, and ends the connection
//   - PLAIN is offered over TLS and QUIC, elsewhere only if the configuration says so (X7)
//   - v0: the tokens follow in frames without a header; v1: in SaslAuthenticate
//   - on a connection that is authenticated it begins to prove the same user again (KIP-368)
//   - where there is no SASL, or in the middle of an exchange, it is ILLEGAL_SASL_STATE

func (s *session) saslHandshake(req *kmsg.SASLHandshakeRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
	code := s.begin(req.Mechanism)
	resp.SupportedMechanisms, resp.ErrorCode = s.offered(), s.note(code)
	switch code {
	case broker.None:
		s.raw = req.Version == 0
		s.handshaken = req.Version > 0
	case broker.UnsupportedSaslMechanism:
		s.ending = refuse("authentication", "mechanism %q is not offered", req.Mechanism)
	}
	return resp
}
