package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/internal/invariant"
)

// InitProducerId: v0-5
//
// Behaviour:
//   - gives out fresh producer ids with epoch 0 from blocks that the controller hands to this node, whatever id the
//     client had before (KIP-360 asks for no more without a transactional id)
//   - an empty transactional id, or one of id and epoch without the other (v3), is INVALID_REQUEST
//   - while the node registers again, COORDINATOR_LOAD_IN_PROGRESS, which clients try again; as in Kafka, where a block of
//     ids that cannot be had says so
//   - a transactional id gets TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which clients take for fatal

func (s *session) initProducerID(ctx context.Context, req *kmsg.InitProducerIDRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = int64(broker.NoProducerID), -1
	if lonely := (req.ProducerID == int64(broker.NoProducerID)) != (req.ProducerEpoch == -1); req.Version >= 3 && lonely ||
		req.TransactionalID != nil && *req.TransactionalID == "" {
		resp.ErrorCode = s.note(broker.InvalidRequest)
		return resp
	}
	if req.TransactionalID != nil {
		resp.ErrorCode = s.note(broker.TransactionalIDAuthFailed)
		return resp
	}
	if !s.mayProduceSomewhere() {
		resp.ErrorCode = s.note(broker.ClusterAuthorizationFailed)
		return resp
	}
	s.work.stop()
	id, err := s.producerIDs.take(ctx, s.allocateProducerIDs)
	s.work.start()
	if err != nil {
		resp.ErrorCode = s.fail(err)
		return resp
	}
	resp.ProducerID, resp.ProducerEpoch = int64(id), 0
	return resp
}

func (s *Server) allocateProducerIDs(ctx context.Context) (controller.ProducerIDs, error) {
	self, registered := s.Metadata.Image().Broker(s.Node)
	if !registered {
		return controller.ProducerIDs{}, broker.Errorf(broker.CoordinatorNotAvailable, "the broker is not registered yet")
	}
	reply, err := s.Controller.Submit(ctx, controller.AllocateProducerIDs{Node: s.Node, Epoch: self.Epoch})
	switch {
	case broker.CodeOf(err) == broker.StaleBrokerEpoch: // It registers again just now: the node's own matter, and soon over.
		return controller.ProducerIDs{}, broker.Errorf(broker.CoordinatorLoadInProgress, "the broker registers again")
	case err != nil:
		return controller.ProducerIDs{}, err
	}
	block, ok := reply.(controller.ProducerIDs)
	invariant.Check(ok && block.Count > 0, "allocating producer ids was answered with %+v", reply)
	return block, nil
}

// producerIDBlock is what is left of the node's block. Whoever holds the one value in the channel owns it, also while
// the controller is asked for the next: the others wait.
type producerIDBlock chan controller.ProducerIDs

func newProducerIDBlock() producerIDBlock {
	block := make(producerIDBlock, 1)
	block <- controller.ProducerIDs{}
	return block
}

func (b producerIDBlock) take(ctx context.Context, allocate func(context.Context) (controller.ProducerIDs, error)) (broker.ProducerID, error) {
	var left controller.ProducerIDs
	select {
	case left = <-b:
	case <-ctx.Done():
		return broker.NoProducerID, broker.Errorf(broker.CoordinatorNotAvailable, "the broker is stopping")
	}
	defer func() { b <- left }()
	if left.Count == 0 {
		next, err := allocate(ctx)
		if err != nil {
			return broker.NoProducerID, err
		}
		left = next
	}
	id := left.First
	left.First, left.Count = left.First+1, left.Count-1
	return id, nil
}
