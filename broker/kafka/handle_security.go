package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleSecurity answers what concerns users, what they may do, and how they prove who they are.
func (s *session) handleSecurity(ctx context.Context, req kmsg.Request) kmsg.Response {
	switch req := req.(type) {
	case *kmsg.SASLHandshakeRequest:
		return s.saslHandshake(req)
	case *kmsg.SASLAuthenticateRequest:
		return s.saslAuthenticate(ctx, req)
	case *kmsg.DescribeACLsRequest:
		return s.describeACLs(req)
	case *kmsg.CreateACLsRequest:
		return s.createACLs(ctx, req)
	case *kmsg.DeleteACLsRequest:
		return s.deleteACLs(ctx, req)
	case *kmsg.DescribeUserSCRAMCredentialsRequest:
		return s.describeUserScramCredentials(req)
	case *kmsg.AlterUserSCRAMCredentialsRequest:
		return s.alterUserScramCredentials(ctx, req)
	default:
		return s.handleGroup(ctx, req)
	}
}
