package admin

import (
	"context"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// DrainNode implements ClusterService.
func (s *Server) DrainNode(ctx context.Context, r *adminapi.DrainNodeRequest) (*adminapi.DrainNodeResponse, error) {
	node := broker.NodeID(r.Node)
	if _, err := submit[controller.BrokerStanding](ctx, s, controller.DrainBroker{Node: node, Undo: r.Undo}); err != nil {
		return nil, err
	}
	s.Logger.Info().Int32("peer", r.Node).Bool("drained", !r.Undo).Msg("an operator drains a node, or lets it lead again")
	return ledBy(s.Metadata.Image(), node), nil
}

// ledBy counts what a node leads, and names the topics of which nobody else can lead a partition.
func ledBy(image *metadata.Image, node broker.NodeID) *adminapi.DrainNodeResponse {
	response := &adminapi.DrainNodeResponse{}
	for topic := range image.Topics() {
		sole := int32(0)
		for _, p := range image.Partitions(topic.ID) {
			if p.Leader != node {
				continue
			}
			response.LeadsPartitions++
			if len(p.Replicas) == 1 {
				sole++
			}
		}
		if sole > 0 {
			response.SolePartitions += sole
			response.SoleTopics = append(response.SoleTopics, topic.Name)
		}
	}
	slices.Sort(response.SoleTopics)
	return response
}

// DecommissionNode implements ClusterService.
func (s *Server) DecommissionNode(ctx context.Context, r *adminapi.DecommissionNodeRequest) (*adminapi.DecommissionNodeResponse, error) {
	request := controller.DecommissionBroker{Node: broker.NodeID(r.Node), ValidateOnly: r.ValidateOnly}
	reply, err := submit[controller.BrokerDecommissioned](ctx, s, request)
	if err != nil {
		return nil, err
	}
	if reply.Removed {
		s.Logger.Info().Int32("peer", r.Node).Msg("a node was decommissioned")
	}
	return &adminapi.DecommissionNodeResponse{Replicas: int32(reply.Replicas), Removed: reply.Removed}, nil
}

// partitionsOf goes through every partition of an image.
func partitionsOf(image *metadata.Image) func(yield func(*metadata.Partition) bool) {
	return func(yield func(*metadata.Partition) bool) {
		for topic := range image.Topics() {
			for _, p := range image.Partitions(topic.ID) {
				if !yield(p) {
					return
				}
			}
		}
	}
}
