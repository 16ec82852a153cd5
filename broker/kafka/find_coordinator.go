package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
)

// FindCoordinator: v0-6
//
// Behaviour:
//   - a group's coordinator is the leader of its partition of the offsets topic, which the first question makes
//   - transactional ids get TRANSACTIONAL_ID_AUTHORIZATION_FAILED: clients take it for fatal, where "not available" would
//     have them ask for ever; share groups get INVALID_REQUEST
//   - v4: many keys at once

// The kinds of key that have a coordinator.
const (
	coordinatorGroup       = 0
	coordinatorTransaction = 1
)

func (s *session) findCoordinator(ctx context.Context, req *kmsg.FindCoordinatorRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
	if req.Version >= 4 {
		for _, key := range req.CoordinatorKeys {
			resp.Coordinators = append(resp.Coordinators, s.coordinator(ctx, req.CoordinatorType, key))
		}
		return resp
	}
	c := s.coordinator(ctx, req.CoordinatorType, req.CoordinatorKey)
	resp.NodeID, resp.Host, resp.Port = c.NodeID, c.Host, c.Port
	resp.ErrorCode, resp.ErrorMessage = c.ErrorCode, c.ErrorMessage
	return resp
}

func (s *session) coordinator(ctx context.Context, kind int8, key string) kmsg.FindCoordinatorResponseCoordinator {
	c := kmsg.NewFindCoordinatorResponseCoordinator()
	c.Key, c.NodeID, c.Port = key, -1, -1
	found, err := s.findGroup(ctx, kind, key)
	if err != nil {
		c.ErrorCode, c.ErrorMessage = s.fail(err), message(err)
		return c
	}
	c.NodeID, c.Host, c.Port = found.NodeID, found.Host, found.Port
	return c
}

func (s *session) findGroup(ctx context.Context, kind int8, key string) (address, error) {
	switch {
	case kind == coordinatorTransaction:
		return address{}, broker.Errorf(broker.TransactionalIDAuthFailed, "transactions are not supported")
	case kind != coordinatorGroup:
		return address{}, broker.Errorf(broker.InvalidRequest, "coordinator type %d is not supported", kind)
	}
	if !s.mayGroup(key) {
		return address{}, broker.Errorf(broker.GroupAuthorizationFailed, "no access to group %s", key)
	}
	img := s.Metadata.Image()
	offsets, exists := img.TopicNamed(broker.OffsetsTopic)
	if !exists {
		if err := s.createOffsetsTopic(ctx); err != nil {
			s.Logger.Debug().Err(err).Msg("offsets topic not created yet")
			return address{}, broker.Errorf(broker.CoordinatorNotAvailable, "the offsets topic cannot be made yet: %v", err)
		}
		img = s.Metadata.Image()
		if offsets, exists = img.TopicNamed(broker.OffsetsTopic); !exists {
			return address{}, broker.CoordinatorNotAvailable
		}
	}
	tp := broker.TopicPartition{Topic: offsets.ID, Partition: s.Groups.PartitionFor(key)}
	if state, ok := img.Partition(tp); ok {
		if leader, live := s.brokerAddress(img, state.Leader); live {
			return leader, nil
		}
	}
	return address{}, broker.CoordinatorNotAvailable
}

// createOffsetsTopic makes the topic that groups live on, unless somebody else just did.
func (s *session) createOffsetsTopic(ctx context.Context) error {
	_, err := s.Controller.Submit(ctx, controller.CreateTopic{
		Name: broker.OffsetsTopic, Partitions: broker.OffsetsPartitions, ReplicationFactor: -1, Internal: true,
		Configs: map[string]string{"cleanup.policy": "compact", "segment.bytes": "104857600"},
	})
	if broker.CodeOf(err) == broker.TopicAlreadyExists {
		return nil
	}
	return err
}
