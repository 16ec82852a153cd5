package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/metadata"
)

// GetCluster implements ClusterService.
func (s *Server) GetCluster(context.Context, *adminapi.GetClusterRequest) (*adminapi.GetClusterResponse, error) {
	image := s.Metadata.Image()
	cluster := image.Cluster()
	r := &adminapi.GetClusterResponse{
		ClusterId: cluster.ID.String(), FeatureLevel: cluster.FeatureLevel,
		MetadataIndex: uint64(image.Index()), RaftTerm: uint64(image.Term()), AnsweringNode: int32(s.Node),
	}
	leads, holds := map[broker.NodeID]int32{}, map[broker.NodeID]int32{}
	for topic := range image.Topics() {
		r.Topics++
		r.Partitions += topic.Partitions
		for _, p := range image.Partitions(topic.ID) {
			leads[p.Leader]++
			for _, replica := range p.Replicas {
				holds[replica.Node]++
			}
		}
	}
	leader := s.Metadata.RaftLeader()
	for _, member := range image.Nodes() {
		node := &adminapi.Node{Id: int32(member.ID), RaftId: uint64(member.Raft), Voter: member.Voter, RaftLeader: member.Raft == leader, Version: s.Version, Fenced: true}
		if registration, ok := image.Broker(member.ID); ok {
			node.BrokerEpoch, node.Fenced, node.Stopping = int64(registration.Epoch), registration.Fenced, registration.Stopping
			node.Rack, node.Drained = registration.Rack, registration.Drained
			for _, e := range registration.Endpoints {
				node.Endpoints = append(node.Endpoints, &adminapi.Endpoint{Listener: e.Listener, Host: e.Host, Port: e.Port})
			}
		}
		node.LeadsPartitions, node.HoldsReplicas = leads[member.ID], holds[member.ID]
		r.Nodes = append(r.Nodes, node)
	}
	return r, nil
}

// GetNodeConfig implements ClusterService.
func (s *Server) GetNodeConfig(context.Context, *adminapi.GetNodeConfigRequest) (*adminapi.GetNodeConfigResponse, error) {
	r := &adminapi.GetNodeConfigResponse{Node: int32(s.Node), NowMs: s.NowMs(), Version: s.Version}
	if s.Machine != nil {
		m := s.Machine()
		r.DiskFreeBytes, r.DiskTotalBytes, r.ReadOnly = m.DiskFreeBytes, m.DiskTotalBytes, m.ReadOnly
		for _, c := range m.Certificates {
			if ms := c.Expires.UnixMilli(); r.CertificateExpiresMs == 0 || ms < r.CertificateExpiresMs {
				r.CertificateExpiresMs = ms
			}
		}
	}
	for _, c := range s.NodeConfigs {
		r.Configs = append(r.Configs, &adminapi.ConfigEntry{Name: c.Name, Value: c.Value, Source: "broker"})
	}
	return r, nil
}

// GetHealth implements ClusterService: what is not served, why, and what to do.
func (s *Server) GetHealth(context.Context, *adminapi.GetHealthRequest) (*adminapi.GetHealthResponse, error) {
	image := s.Metadata.Image()
	r := &adminapi.GetHealthResponse{}
	problem := func(subject, what, action string) {
		r.Problems = append(r.Problems, &adminapi.Problem{Subject: subject, What: what, Action: action})
	}
	if s.Metadata.RaftLeader() == 0 {
		problem("metadata quorum", "no leader is known", "start a majority of the voters; `raftctl cluster info` lists them")
	}
	for _, registration := range image.Brokers() {
		if registration.Fenced && !registration.Stopping {
			problem(fmt.Sprintf("node %d", registration.Node), "not serving", "start it, or read its log")
		}
	}
	for topic := range image.Topics() {
		for _, p := range image.Partitions(topic.ID) {
			s.partitionHealth(r, topic, p, problem)
		}
	}
	for _, binding := range image.Bindings() {
		for _, status := range s.Chains.Status(binding.ID) {
			if status.State == "stalled" || status.State == "stopped" {
				r.StalledChains++
				problem(fmt.Sprintf("chain of %s, partition %d", ownerOf(image, binding), status.Partition), status.State+": "+status.Reason, "see `raftctl bind describe`")
			}
		}
	}
	s.certificateHealth(problem, 0)
	r.Healthy = len(r.Problems) == 0 // What only will be one does not count yet.
	s.certificateHealth(problem, certificateSoon)
	return r, nil
}

// certificateSoon is how long before its end a certificate is told of.
const certificateSoon = 30 * 24 * time.Hour

// certificateHealth tells of the answering node's certificates: of those that have expired, or of the others that expire soon.
func (s *Server) certificateHealth(problem func(subject, what, action string), soon time.Duration) {
	if s.Machine == nil {
		return
	}
	subject := fmt.Sprintf("node %d", s.Node)
	for _, c := range s.Machine().Certificates {
		switch left := c.Expires.Sub(time.UnixMilli(s.NowMs())); {
		case left <= 0 && soon == 0:
			problem(subject, "the certificate in "+c.File+" has expired", c.Renew)
		case left > 0 && left < soon:
			problem(subject, fmt.Sprintf("the certificate in %s expires in %d days", c.File, int(left.Hours()/24)), c.Renew)
		}
	}
}

func (s *Server) partitionHealth(r *adminapi.GetHealthResponse, topic *metadata.Topic, p *metadata.Partition, problem func(subject, what, action string)) {
	subject := fmt.Sprintf("topic %s partition %d", topic.Name, p.Partition)
	if p.Leader == broker.NoNode {
		r.LeaderlessPartitions++
		problem(subject, "no leader", "start the nodes that hold it; `raftctl topic describe` names them")
	}
	least := p.EffectiveMinISR()
	switch {
	case p.Leader == broker.NoNode:
	case len(p.ISR) < least:
		r.UnderReplicatedPartitions++
		r.UnderMinIsrPartitions++
		problem(subject, fmt.Sprintf("%d of %d replicas in sync, %d needed: acks=all is refused; missing: %s", len(p.ISR), p.Factor(), least, missing(p)),
			"start the missing nodes, or wait for them to catch up")
	case len(p.ISR) < p.Factor():
		r.UnderReplicatedPartitions++
		if len(p.ISR) == least {
			r.AtMinIsrPartitions++
		}
		problem(subject, fmt.Sprintf("%d of %d replicas in sync; missing: %s", len(p.ISR), p.Factor(), missing(p)),
			"start the missing nodes, or wait for them to catch up")
	}
	if state := s.Partitions.State(p.TopicPartition); state.OfflineBecause != "" {
		r.OfflinePartitions++
		action := "restore the file from a copy, or delete the topic"
		if p.Leader != broker.NoNode {
			action = "wait: it is repaired from the leader; then look after the disk"
		}
		problem(subject, fmt.Sprintf("the replica on node %d is offline: %s", s.Node, state.OfflineBecause), action)
	}
}

// missing names the nodes whose replicas are not in sync.
func missing(p *metadata.Partition) string {
	var nodes []string
	for _, r := range p.Replicas {
		if !slices.Contains(p.ISR, r.Node) {
			nodes = append(nodes, fmt.Sprintf("node %d", r.Node))
		}
	}
	return strings.Join(nodes, ", ")
}

// ownerOf names the group or view that a binding belongs to.
func ownerOf(image *metadata.Image, binding *metadata.Binding) string {
	if binding.Group != "" {
		return "group " + binding.Group
	}
	for _, view := range image.Views() {
		if view.Binding == binding.ID {
			return "view " + view.Name
		}
	}
	return fmt.Sprintf("binding %d", binding.ID)
}
