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
		node := &adminapi.Node{Id: int32(member.ID), RaftId: uint64(member.Raft), Voter: member.Voter, RaftLeader: member.Raft == leader, Fenced: true}
		if member.ID == s.Node {
			node.Version = s.Version
		}
		if registration, ok := image.Broker(member.ID); ok {
			node.BrokerEpoch, node.Fenced, node.Stopping = int64(registration.Epoch), registration.Fenced, registration.Stopping
			node.Rack, node.Drained, node.ShortOfSpace = registration.Rack, registration.Drained, registration.ShortOfSpace
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
	m := s.Machine()
	r := &adminapi.GetNodeConfigResponse{
		Node: int32(s.Node), NowMs: s.NowMs(), Version: s.Version,
		DiskFreeBytes: m.DiskFreeBytes, DiskTotalBytes: m.DiskTotalBytes, ReadOnly: m.ReadOnly,
	}
	for _, c := range m.Certificates {
		if ms := c.Expires.UnixMilli(); r.CertificateExpiresMs == 0 || ms < r.CertificateExpiresMs {
			r.CertificateExpiresMs = ms
		}
	}
	for _, c := range s.NodeConfigs {
		r.Configs = append(r.Configs, &adminapi.ConfigEntry{Name: c.Name, Value: c.Value, Source: "broker"})
	}
	return r, nil
}

// GetHealth implements ClusterService: what is not served, why, and what to do.
func (s *Server) GetHealth(ctx context.Context, _ *adminapi.GetHealthRequest) (*adminapi.GetHealthResponse, error) {
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
		if registration.ShortOfSpace && !registration.Fenced {
			problem(fmt.Sprintf("node %d", registration.Node), "short of disk space: it takes no records from clients, and no new replicas while others can",
				"delete topics or records, add space, or move replicas to other nodes: `raftctl topic reassign plan`")
		}
	}
	for topic := range image.Topics() {
		topicHealth(r, topic, image.Partitions(topic.ID), problem)
	}
	reports := s.Nodes.Inquire(ctx, serving(image), Inquiry{Troubles: true})
	for _, report := range reports {
		nodeHealth(r, image, report, problem)
	}
	s.certificateHealth(reports, problem, 0)
	r.Healthy = len(r.Problems) == 0 // What only will be one does not count yet.
	s.certificateHealth(reports, problem, certificateSoon)
	return r, nil
}

// certificateSoon is how long before its end a certificate is told of.
const certificateSoon = 30 * 24 * time.Hour

// certificateHealth tells of certificates that have expired, or of the others that expire soon.
func (s *Server) certificateHealth(reports []Report, problem func(subject, what, action string), soon time.Duration) {
	for _, r := range reports {
		subject := fmt.Sprintf("node %d", r.Node)
		for _, c := range r.Certificates {
			switch left := c.Expires.Sub(time.UnixMilli(s.NowMs())); {
			case left <= 0 && soon == 0:
				problem(subject, "the certificate in "+c.File+" has expired", c.Renew)
			case left > 0 && left < soon:
				problem(subject, fmt.Sprintf("the certificate in %s expires in %d days", c.File, int(left.Hours()/24)), c.Renew)
			}
		}
	}
}

// nodeHealth is what only the node itself knows.
func nodeHealth(r *adminapi.GetHealthResponse, image *metadata.Image, report Report, problem func(subject, what, action string)) {
	if report.Silent != "" {
		problem(fmt.Sprintf("node %d", report.Node), "does not tell how its chains and replicas are: "+report.Silent, "ask again, or read its log")
	}
	for _, why := range report.NotRenewed {
		problem(fmt.Sprintf("certificates of node %d", report.Node), "not renewed: "+why, "put files there that fit together; those before stay in force until then")
	}
	for _, status := range report.Chains {
		binding, ok := image.Binding(status.Binding)
		if !ok {
			continue
		}
		r.StalledChains++
		problem(fmt.Sprintf("chain of %s, partition %d", ownerOf(image, binding), status.Partition), status.State+": "+status.Reason, "see `raftctl bind describe`")
	}
	for _, damaged := range report.Damaged {
		topic, ok := image.Topic(damaged.Topic)
		if !ok {
			continue
		}
		r.OfflinePartitions++
		action := "restore the file from a copy, or delete the topic"
		if p, ok := image.Partition(damaged.TopicPartition); ok && p.Leader != broker.NoNode {
			action = "wait: it is repaired from the leader; then look after the disk"
		}
		problem(fmt.Sprintf("topic %s partition %d", topic.Name, damaged.Partition),
			fmt.Sprintf("the replica on node %d is offline: %s", report.Node, damaged.OfflineBecause), action)
	}
}

// topicHealth tells what partitions lack; those that lack the same are one problem, since a node that is down is missing from many.
func topicHealth(r *adminapi.GetHealthResponse, topic *metadata.Topic, partitions []*metadata.Partition, problem func(subject, what, action string)) {
	var found []string // in the order of their first partitions
	with := map[string][]int32{}
	actions := map[string]string{}
	for _, p := range partitions {
		what, action := partitionHealth(r, p)
		if what == "" {
			continue
		}
		if with[what] == nil {
			found = append(found, what)
		}
		with[what], actions[what] = append(with[what], p.Partition), action
	}
	for _, what := range found {
		problem("topic "+topic.Name+" "+partitionsText(with[what]), what, actions[what])
	}
}

// partitionsText names ascending partitions, neighbours by the first and the last: "partitions 0-7,9".
func partitionsText(ascending []int32) string {
	if len(ascending) == 1 {
		return fmt.Sprintf("partition %d", ascending[0])
	}
	var ranges []string
	for first := 0; first < len(ascending); {
		last := first
		for last+1 < len(ascending) && ascending[last+1] == ascending[last]+1 {
			last++
		}
		if first == last {
			ranges = append(ranges, fmt.Sprint(ascending[first]))
		} else {
			ranges = append(ranges, fmt.Sprintf("%d-%d", ascending[first], ascending[last]))
		}
		first = last + 1
	}
	return "partitions " + strings.Join(ranges, ",")
}

// partitionHealth counts a partition, and says what it lacks and what to do; nothing where it lacks nothing.
func partitionHealth(r *adminapi.GetHealthResponse, p *metadata.Partition) (what, action string) {
	least := p.EffectiveMinISR()
	switch {
	case p.Leader == broker.NoNode:
		r.LeaderlessPartitions++
		return "no leader", "start the nodes that hold it; `raftctl topic describe` names them"
	case len(p.ISR) < least:
		r.UnderReplicatedPartitions++
		r.UnderMinIsrPartitions++
		return fmt.Sprintf("%d of %d replicas in sync, %d needed: acks=all is refused; missing: %s", len(p.ISR), p.Factor(), least, missing(p)),
			"start the missing nodes, or wait for them to catch up"
	case len(p.ISR) < p.Factor():
		r.UnderReplicatedPartitions++
		if len(p.ISR) == least {
			r.AtMinIsrPartitions++
		}
		return fmt.Sprintf("%d of %d replicas in sync; missing: %s", len(p.ISR), p.Factor(), missing(p)),
			"start the missing nodes, or wait for them to catch up"
	}
	return "", ""
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
