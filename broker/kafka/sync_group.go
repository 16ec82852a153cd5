package kafka

import (
	"bytes"
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// SyncGroup: v0-5
//
// Behaviour:
//   - blocks until the leader of the generation has spoken
//   - v3: static members; v5: protocol type and name must be given, and be the group's

func (s *session) syncGroup(ctx context.Context, req *kmsg.SyncGroupRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.SyncGroupResponse)
	resp.MemberAssignment = []byte{}
	if req.Version >= 5 && (req.ProtocolType == nil || req.Protocol == nil) {
		resp.ErrorCode = s.note(broker.InconsistentGroupProtocol)
		return resp
	}
	sync := group.SyncRequest{
		MemberID: req.MemberID, InstanceID: deref(req.InstanceID), Generation: req.Generation,
		ProtocolType: deref(req.ProtocolType), Protocol: deref(req.Protocol),
	}
	for _, a := range req.GroupAssignment {
		// The assignment lies in the frame, which is used again; the coordinator keeps it.
		sync.Assignments = append(sync.Assignments, group.Assignment{MemberID: a.MemberID, Data: bytes.Clone(a.MemberAssignment)})
	}
	synced, err := s.Groups.Sync(ctx, req.Group, sync)
	if err != nil {
		resp.ErrorCode = s.fail(err)
		return resp
	}
	resp.ProtocolType, resp.Protocol = &synced.ProtocolType, &synced.Protocol
	if synced.Assignment != nil {
		resp.MemberAssignment = synced.Assignment
	}
	return resp
}
