package admin

import (
	"context"
	"slices"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Bounds of a list of moves: whose newcomers' leaders are asked, and for how long in all.
const (
	behindAskedMax = 200
	behindWithin   = 2 * time.Second
)

// PlanMoves implements TopicService.
func (s *Server) PlanMoves(_ context.Context, r *adminapi.PlanMovesRequest) (*adminapi.PlanMovesResponse, error) {
	image := s.Metadata.Image()
	var topics []broker.TopicID
	for _, name := range r.Topics {
		topic, err := named(image, name)
		if err != nil {
			return nil, err
		}
		topics = append(topics, topic.ID)
	}
	moves, err := controller.PlanReassignment(image, topics, nodeIDs(r.Nodes))
	if err != nil {
		return nil, err
	}
	response := &adminapi.PlanMovesResponse{}
	for _, m := range moves {
		topic, _ := image.Topic(m.Topic)
		response.Moves = append(response.Moves, &adminapi.Move{Topic: topic.Name, Partition: m.Partition, Replicas: numbers(m.Replicas)})
	}
	return response, nil
}

func nodeIDs(raw []int32) []broker.NodeID {
	var nodes []broker.NodeID
	for _, n := range raw {
		nodes = append(nodes, broker.NodeID(n))
	}
	return nodes
}

// MovePartitions implements TopicService.
func (s *Server) MovePartitions(ctx context.Context, r *adminapi.MovePartitionsRequest) (*adminapi.MovePartitionsResponse, error) {
	image := s.Metadata.Image()
	request := controller.AlterReassignments{ValidateOnly: r.ValidateOnly}
	for _, m := range r.Moves {
		topic, err := named(image, m.Topic)
		if err != nil {
			return nil, err
		}
		request.Partitions = append(request.Partitions, controller.Reassignment{
			TopicPartition: broker.TopicPartition{Topic: topic.ID, Partition: m.Partition}, Replicas: nodeIDs(m.Replicas),
		})
	}
	reply, err := submit[controller.ReassignmentsAltered](ctx, s, request)
	if err != nil {
		return nil, err
	}
	response := &adminapi.MovePartitionsResponse{}
	for i, refusal := range reply.Results {
		text := ""
		if refusal != nil {
			text = placeText(r.Moves[i].Topic, r.Moves[i].Partition) + ": " + refusal.Error()
		}
		response.Refusals = append(response.Refusals, text)
	}
	return response, nil
}

// ListMoves implements TopicService.
func (s *Server) ListMoves(ctx context.Context, _ *adminapi.ListMovesRequest) (*adminapi.ListMovesResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, behindWithin)
	defer cancel()
	image := s.Metadata.Image()
	response := &adminapi.ListMovesResponse{}
	for p := range partitionsOf(image) {
		if p.Reassigning() {
			topic, _ := image.Topic(p.Topic)
			response.Moves = append(response.Moves, s.move(ctx, topic.Name, p, len(response.Moves) < behindAskedMax))
		}
	}
	return response, nil
}

func (s *Server) move(ctx context.Context, topic string, p *metadata.Partition, ask bool) *adminapi.MoveState {
	state := &adminapi.MoveState{
		Topic: topic, Partition: p.Partition, Leader: int32(p.Leader), Adding: numbers(p.Adding), Removing: numbers(p.Removing), Isr: numbers(p.ISR),
	}
	for _, r := range p.Replicas {
		state.Replicas = append(state.Replicas, int32(r.Node))
	}
	for _, node := range p.Adding {
		if slices.Contains(p.ISR, node) {
			continue
		}
		newcomer := &adminapi.Newcomer{Node: int32(node), Behind: -1}
		if ask {
			if behind, err := s.Followers.Behind(ctx, p.TopicPartition, node); err == nil {
				newcomer.Behind = behind
			}
		}
		state.Newcomers = append(state.Newcomers, newcomer)
	}
	return state
}
