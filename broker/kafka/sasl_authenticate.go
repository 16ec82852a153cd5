package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// SaslAuthenticate: v0-2
//
// Behaviour:
//   - carries the tokens of the mechanism that SaslHandshake v1 chose; without one it is ILLEGAL_SASL_STATE
//   - a failure is SASL_AUTHENTICATION_FAILED with a sentence that does not say whether the user exists (X7), comes a
//     little late, and ends the connection
//   - v1: how long the session may last before the client proves itself again (KIP-368), 0 for ever

func (s *session) saslAuthenticate(ctx context.Context, req *kmsg.SASLAuthenticateRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
	resp.SASLAuthBytes = []byte{}
	if !s.handshaken {
		err := broker.Errorf(broker.IllegalSaslState, "SaslHandshake comes before SaslAuthenticate")
		resp.ErrorCode, resp.ErrorMessage = s.fail(err), message(err)
		return resp
	}
	answer, err := s.token(ctx, req.SASLAuthBytes)
	if err != nil {
		err = broker.Errorf(broker.SaslAuthenticationFailed, "authentication failed under %s: the user or the password is not right", s.mechanism)
		resp.ErrorCode, resp.ErrorMessage = s.fail(err), message(err)
		return resp
	}
	if s.exchange == nil { // done
		s.handshaken = false
		resp.SessionLifetimeMillis = s.Sasl.SessionLifetime.Milliseconds()
	}
	if answer != nil {
		resp.SASLAuthBytes = answer
	}
	return resp
}
