package raftctl

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
)

// The fakes answer the admin API with one fixed cluster. Names that begin with "code-" are answered with the error of
// that Connect code.

// fakeAdmin serves them all.
func fakeAdmin() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(adminapiconnect.NewClusterServiceHandler(fakeCluster{}))
	mux.Handle(adminapiconnect.NewTopicServiceHandler(fakeTopics{}))
	mux.Handle(adminapiconnect.NewGroupServiceHandler(fakeGroups{}))
	mux.Handle(adminapiconnect.NewPluginServiceHandler(fakePlugins{}))
	mux.Handle(adminapiconnect.NewBindingServiceHandler(fakeBindings{}))
	mux.Handle(adminapiconnect.NewViewServiceHandler(fakeViews{}))
	return mux
}

// fakeNames are what the cluster has.
var fakeNames = map[string]bool{"orders": true, "orders-clean": true, "billing": true, "dedup-key": true}

func fakeError(name string) error {
	if code, ok := strings.CutPrefix(name, "code-"); ok {
		var c connect.Code
		if err := c.UnmarshalText([]byte(code)); err != nil {
			return err
		}
		return connect.NewError(c, fmt.Errorf("%s: as asked for", name))
	}
	if !fakeNames[name] {
		return connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no %s", name))
	}
	return nil
}

type fakeCluster struct {
	adminapiconnect.UnimplementedClusterServiceHandler
}

func (fakeCluster) GetCluster(context.Context, *adminapi.GetClusterRequest) (*adminapi.GetClusterResponse, error) {
	return &adminapi.GetClusterResponse{
		ClusterId: "2fTnAqSbRgKqdzOhCbxYdg", FeatureLevel: 1, MetadataIndex: 42, RaftTerm: 3, AnsweringNode: 1, Topics: 2, Partitions: 5,
		Nodes: []*adminapi.Node{
			{Id: 1, RaftId: 1, BrokerEpoch: 7, Voter: true, RaftLeader: true, Rack: "a", Version: "0.1.0", Endpoints: []*adminapi.Endpoint{
				{Listener: "client", Host: "127.0.0.1", Port: 9092}, {Listener: "admin", Host: "127.0.0.1", Port: 9094}}},
			{Id: 2, RaftId: 9, Fenced: true},
		},
	}, nil
}

func (fakeCluster) GetNodeConfig(context.Context, *adminapi.GetNodeConfigRequest) (*adminapi.GetNodeConfigResponse, error) {
	return &adminapi.GetNodeConfigResponse{Node: 1, Configs: []*adminapi.ConfigEntry{
		{Name: "log.retention.ms", Value: "60000", Source: "broker"}, {Name: "num.partitions", Value: "3", Source: "broker"},
	}}, nil
}

func (fakeCluster) GetHealth(context.Context, *adminapi.GetHealthRequest) (*adminapi.GetHealthResponse, error) {
	return &adminapi.GetHealthResponse{UnderReplicatedPartitions: 2, Problems: []*adminapi.Problem{
		{Subject: "node 2", What: "is fenced", Action: "see its log"},
	}}, nil
}

// SaveSnapshot fails on node 2.
func (fakeCluster) SaveSnapshot(_ context.Context, r *adminapi.SaveSnapshotRequest) (*adminapi.SaveSnapshotResponse, error) {
	one := &adminapi.SavedSnapshot{Node: 1, Index: 42, Term: 3, Bytes: 2048, File: "/data/raft/snapshots/42-3.snap", Written: len(r.Nodes) == 0}
	if r.All {
		return &adminapi.SaveSnapshotResponse{Snapshots: []*adminapi.SavedSnapshot{one, {Node: 2, Failure: "no space"}}}, nil
	}
	return &adminapi.SaveSnapshotResponse{Snapshots: []*adminapi.SavedSnapshot{one}}, nil
}

// DecommissionNode refuses node 1, a voter, and has copies of node 2 under way for ever.
func (fakeCluster) DecommissionNode(_ context.Context, r *adminapi.DecommissionNodeRequest) (*adminapi.DecommissionNodeResponse, error) {
	switch r.Node {
	case 1:
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("node 1 is a voter"))
	case 2:
		return &adminapi.DecommissionNodeResponse{Replicas: 7}, nil
	}
	return &adminapi.DecommissionNodeResponse{Removed: !r.ValidateOnly}, nil
}

// DrainNode has node 2 lead for ever what others have and cannot lead, and node 0 what nobody else has.
func (fakeCluster) DrainNode(_ context.Context, r *adminapi.DrainNodeRequest) (*adminapi.DrainNodeResponse, error) {
	switch {
	case r.Node > 2:
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no node %d", r.Node))
	case r.Node == 2:
		return &adminapi.DrainNodeResponse{LeadsPartitions: 3, SolePartitions: 2, SoleTopics: []string{"a"}}, nil
	case r.Node == 0:
		return &adminapi.DrainNodeResponse{LeadsPartitions: 7, SolePartitions: 7, SoleTopics: []string{"a", "b", "c", "d", "e", "f", "g"}}, nil
	}
	return &adminapi.DrainNodeResponse{}, nil
}

type fakeTopics struct {
	adminapiconnect.UnimplementedTopicServiceHandler
}

func ordersTopic() *adminapi.Topic {
	return &adminapi.Topic{Id: "AAAAAAAAAAAAAAAAAAAAAQ", Name: "orders", Partitions: 2, ReplicationFactor: 1, MinInsyncReplicas: 1, SizeBytes: 1536}
}

func (fakeTopics) CreateTopic(_ context.Context, r *adminapi.CreateTopicRequest) (*adminapi.CreateTopicResponse, error) {
	if fakeNames[r.Name] {
		return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("topic %s exists already", r.Name))
	}
	if strings.HasPrefix(r.Name, "code-") {
		return nil, fakeError(r.Name)
	}
	topic := &adminapi.Topic{Name: r.Name, Partitions: max(r.Partitions, 1), ReplicationFactor: max(r.ReplicationFactor, 1)}
	return &adminapi.CreateTopicResponse{Topic: withInsync(topic, r.Configs)}, nil
}

// withInsync is a topic with min.insync.replicas, where that is set.
func withInsync(t *adminapi.Topic, configs map[string]string) *adminapi.Topic {
	if n, err := strconv.Atoi(configs["min.insync.replicas"]); err == nil {
		t.MinInsyncReplicas = int32(n)
	}
	return t
}

func (fakeTopics) ListTopics(_ context.Context, r *adminapi.ListTopicsRequest) (*adminapi.ListTopicsResponse, error) {
	topics := []*adminapi.Topic{ordersTopic(), {Id: "AAAAAAAAAAAAAAAAAAAAAg", Name: "orders-clean", Partitions: 2, ReplicationFactor: 1, ViewOf: "orders"}}
	if r.IncludeInternal {
		topics = append(topics, &adminapi.Topic{Id: "AAAAAAAAAAAAAAAAAAAAAw", Name: "__consumer_offsets", Partitions: 16, ReplicationFactor: 1, Internal: true})
	}
	return &adminapi.ListTopicsResponse{Topics: topics}, nil
}

func (fakeTopics) DescribeTopic(_ context.Context, r *adminapi.DescribeTopicRequest) (*adminapi.DescribeTopicResponse, error) {
	if err := fakeError(r.Name); err != nil {
		return nil, err
	}
	return &adminapi.DescribeTopicResponse{
		Topic: ordersTopic(),
		Partitions: []*adminapi.PartitionState{
			{Partition: 0, Leader: 1, LeaderEpoch: 4, Replicas: []int32{1, 2}, Isr: []int32{1}, LogStart: 10, HighWatermark: 99, LogEnd: 100, SizeBytes: 1536},
			{Partition: 1, Leader: -1, LeaderEpoch: 2, Replicas: []int32{2}, OfflineReason: "node 2: damaged", LogStart: -1, HighWatermark: -1, LogEnd: -1, SizeBytes: -1},
		},
		Configs: []*adminapi.ConfigEntry{{Name: "retention.ms", Value: "60000", Source: "topic"}},
	}, nil
}

func (fakeTopics) AlterTopic(_ context.Context, r *adminapi.AlterTopicRequest) (*adminapi.AlterTopicResponse, error) {
	if err := fakeError(r.Name); err != nil {
		return nil, err
	}
	topic := ordersTopic()
	topic.Partitions = max(topic.Partitions, r.Partitions)
	response := &adminapi.AlterTopicResponse{Topic: withInsync(topic, r.Set)}
	for _, name := range []string{"cleanup.policy", "retention.ms", "segment.ms"} {
		entry := &adminapi.ConfigEntry{Name: name, Value: "as before", Source: "default"}
		if value, ok := r.Set[name]; ok {
			entry.Value, entry.Source = value, "topic"
		}
		response.Configs = append(response.Configs, entry)
	}
	return response, nil
}

func (fakeTopics) DeleteTopic(_ context.Context, r *adminapi.DeleteTopicRequest) (*adminapi.DeleteTopicResponse, error) {
	return &adminapi.DeleteTopicResponse{Id: ordersTopic().Id}, fakeError(r.Name)
}

func (fakeTopics) PlanMoves(_ context.Context, r *adminapi.PlanMovesRequest) (*adminapi.PlanMovesResponse, error) {
	for _, name := range r.Topics {
		if err := fakeError(name); err != nil {
			return nil, err
		}
	}
	return &adminapi.PlanMovesResponse{Moves: []*adminapi.Move{{Topic: "orders", Partition: 1, Replicas: append([]int32{3}, r.Nodes...)}}}, nil
}

// MovePartitions refuses what is to go to node 9, or has nothing to be cancelled.
func (fakeTopics) MovePartitions(_ context.Context, r *adminapi.MovePartitionsRequest) (*adminapi.MovePartitionsResponse, error) {
	response := &adminapi.MovePartitionsResponse{}
	for _, m := range r.Moves {
		refusal := ""
		if len(m.Replicas) > 0 && m.Replicas[0] == 9 {
			refusal = fmt.Sprintf("%s-%d: node 9 is not registered", m.Topic, m.Partition)
		}
		response.Refusals = append(response.Refusals, refusal)
	}
	return response, nil
}

func (fakeTopics) ListMoves(context.Context, *adminapi.ListMovesRequest) (*adminapi.ListMovesResponse, error) {
	return &adminapi.ListMovesResponse{Moves: []*adminapi.MoveState{{
		Topic: "orders", Partition: 1, Leader: 1, Replicas: []int32{3, 4, 1}, Adding: []int32{3, 4}, Removing: []int32{1}, Isr: []int32{1},
		Newcomers: []*adminapi.Newcomer{{Node: 3, Behind: 1700}, {Node: 4, Behind: -1}},
	}}}, nil
}

type fakeGroups struct {
	adminapiconnect.UnimplementedGroupServiceHandler
}

func (fakeGroups) ListGroups(context.Context, *adminapi.ListGroupsRequest) (*adminapi.ListGroupsResponse, error) {
	return &adminapi.ListGroupsResponse{Groups: []*adminapi.GroupSummary{
		{Group: "billing", State: "Stable", ProtocolType: "consumer", Members: 2, TotalLag: 12},
		{Group: "idle", State: "Empty", ProtocolType: "consumer"},
		{Group: "lost", State: "Empty", ProtocolType: "consumer", TotalLag: -1},
	}}, nil
}

func (fakeGroups) DescribeGroup(_ context.Context, r *adminapi.DescribeGroupRequest) (*adminapi.DescribeGroupResponse, error) {
	if err := fakeError(r.Group); err != nil {
		return nil, err
	}
	return &adminapi.DescribeGroupResponse{
		Summary:  &adminapi.GroupSummary{Group: "billing", State: "Stable", Members: 1, TotalLag: 12},
		Protocol: "cooperative-sticky", Bindings: []string{"orders"},
		Members: []*adminapi.GroupMember{{MemberId: "m-1", ClientId: "app", ClientHost: "/10.0.0.1", Assigned: []string{"orders-0", "orders-1"}}},
		Offsets: []*adminapi.GroupOffset{
			{Topic: "orders", Partition: 0, Committed: 88, End: 100, Lag: 12, Filtered: true},
			{Topic: "orders", Partition: 1, Committed: -1, End: 5, Lag: -1},
		},
	}, nil
}

func (fakeGroups) SeekGroup(_ context.Context, r *adminapi.SeekGroupRequest) (*adminapi.SeekGroupResponse, error) {
	if err := fakeError(r.Group); err != nil {
		return nil, err
	}
	if r.Group == "billing" && r.Execute {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("group billing has 2 members: stop them first"))
	}
	to := int64(10)
	if o, ok := r.Target.To.(*adminapi.SeekTarget_Offset); ok {
		to = o.Offset
	}
	if t, ok := r.Target.To.(*adminapi.SeekTarget_TimestampMs); ok {
		to = t.TimestampMs
	}
	return &adminapi.SeekGroupResponse{Executed: r.Execute, Changes: []*adminapi.SeekChange{{Topic: "orders", Partition: 0, From: 88, To: to}}}, nil
}

func (fakeGroups) DeleteGroup(_ context.Context, r *adminapi.DeleteGroupRequest) (*adminapi.DeleteGroupResponse, error) {
	return &adminapi.DeleteGroupResponse{}, fakeError(r.Group)
}

type fakePlugins struct {
	adminapiconnect.UnimplementedPluginServiceHandler
}

func dedupVersion() *adminapi.PluginVersion {
	return &adminapi.PluginVersion{
		Name: "dedup-key", Version: "1.0.0", GivenSha256: "00ff", MeteredSha256: "11ee", Abi: 1, CostTable: 1, Language: "c",
		Projection: []string{"key"}, Verdicts: []string{"unique"}, SizeBytes: 2048, Builtin: true, CreatedMs: 1_700_000_000_000,
	}
}

func (fakePlugins) PushPlugin(_ context.Context, stream *connect.ClientStream[adminapi.PushPluginRequest]) (*adminapi.PushPluginResponse, error) {
	manifest, size := false, 0
	for stream.Receive() {
		manifest = manifest || len(stream.Msg().GetManifest()) > 0
		size += len(stream.Msg().GetChunk())
	}
	if err := stream.Err(); err != nil || !manifest || size == 0 {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("manifest %t, %d bytes: %w", manifest, size, err))
	}
	v := dedupVersion()
	v.SizeBytes = int64(size)
	return &adminapi.PushPluginResponse{Version: v, CasesPassed: 3, FuelMaxRecord: 512}, nil
}

func (fakePlugins) ListPlugins(context.Context, *adminapi.ListPluginsRequest) (*adminapi.ListPluginsResponse, error) {
	return &adminapi.ListPluginsResponse{Latest: []*adminapi.PluginVersion{dedupVersion()}}, nil
}

func (fakePlugins) ListPluginVersions(_ context.Context, r *adminapi.ListPluginVersionsRequest) (*adminapi.ListPluginVersionsResponse, error) {
	return &adminapi.ListPluginVersionsResponse{Versions: []*adminapi.PluginVersion{dedupVersion()}}, fakeError(r.Name)
}

type fakeBindings struct {
	adminapiconnect.UnimplementedBindingServiceHandler
}

// boundBy is the binding that a chain makes.
func boundBy(group, topic string, chain *adminapi.ChainSpec) *adminapi.Binding {
	row := &adminapi.Row{
		Id: 21, Policy: chain.GetPolicy(), Window: chain.GetWindow(), RecordFuel: chain.GetRecordFuel(), JudgeKey: "beef",
		From: []*adminapi.Cutover{{Partition: 0, From: 10}, {Partition: 1, From: 0}},
	}
	for _, stage := range chain.GetStages() {
		row.Stages = append(row.Stages, &adminapi.Stage{Plugin: stage.Plugin, Config: stage.Config})
	}
	return &adminapi.Binding{Id: 20, Group: group, Topic: topic, DeadLetter: topic + ".dlq." + group, Rows: []*adminapi.Row{row}}
}

func (fakeBindings) CreateBinding(_ context.Context, r *adminapi.CreateBindingRequest) (*adminapi.CreateBindingResponse, error) {
	response := &adminapi.CreateBindingResponse{}
	for _, topic := range r.Topics {
		if err := fakeError(topic); err != nil {
			return nil, err
		}
		response.Bindings = append(response.Bindings, boundBy(r.Group, topic, r.Chain))
	}
	return response, nil
}

func (fakeBindings) UpdateBinding(_ context.Context, r *adminapi.UpdateBindingRequest) (*adminapi.UpdateBindingResponse, error) {
	return &adminapi.UpdateBindingResponse{Binding: boundBy(r.Group, r.Topic, r.Chain)}, fakeError(r.Group)
}

func (fakeBindings) ResumeBinding(_ context.Context, r *adminapi.ResumeBindingRequest) (*adminapi.ResumeBindingResponse, error) {
	return &adminapi.ResumeBindingResponse{Binding: boundBy(r.Group, r.Topic, &adminapi.ChainSpec{
		Policy: adminapi.ErrorPolicy_ERROR_POLICY_STOP, Stages: []*adminapi.Stage{{Plugin: "dedup-key@1.0.0"}},
	})}, fakeError(r.Group)
}

func boundToDedup() *adminapi.Binding {
	return boundBy("billing", "orders", &adminapi.ChainSpec{
		Policy: adminapi.ErrorPolicy_ERROR_POLICY_DEAD_LETTER, Window: &adminapi.Window{Blocks: 15, WithinMs: 3_600_000},
		Stages: []*adminapi.Stage{{Plugin: "dedup-key@1.0.0"}},
	})
}

func (fakeBindings) ListBindings(_ context.Context, r *adminapi.ListBindingsRequest) (*adminapi.ListBindingsResponse, error) {
	if r.Group != "" && r.Group != "billing" {
		return &adminapi.ListBindingsResponse{}, nil
	}
	detached := &adminapi.Binding{Id: 5, View: "old-view", Topic: "gone", Detached: true}
	return &adminapi.ListBindingsResponse{Bindings: []*adminapi.Binding{boundToDedup(), detached}}, nil
}

func (fakeBindings) DescribeBinding(_ context.Context, r *adminapi.DescribeBindingRequest) (*adminapi.DescribeBindingResponse, error) {
	if err := fakeError(r.Group); err != nil {
		return nil, err
	}
	return &adminapi.DescribeBindingResponse{
		Binding: boundToDedup(),
		Partitions: []*adminapi.ChainPartition{{
			Partition: 0, Leader: 1, State: "stopped", JudgedTo: 57, LastStable: 100, Committed: 50, End: 57, Lag: 7, Passed: 70, Duplicates: 20, Failed: 1,
			ReachFrom: 10, LastError: "trap: unreachable", LastErrorOffset: 57, LastStderr: "panic: boom\n\ngoroutine 1 [running]:\nmain.go:7\n",
			Reason: "it failed",
		}, {
			Partition: 1, Leader: 3, State: "unknown", Committed: -1, End: -1, Lag: -1, LastErrorOffset: -1, Reason: "node 3, which leads it, does not answer",
		}},
		Silent:   []*adminapi.SilentNode{{Node: 3, Why: "nothing came within 2s"}},
		Warnings: []string{"the window reaches 20 minutes back, and within is 1h"},
	}, nil
}

func (fakeBindings) DeleteBinding(_ context.Context, r *adminapi.DeleteBindingRequest) (*adminapi.DeleteBindingResponse, error) {
	return &adminapi.DeleteBindingResponse{}, fakeError(r.Group)
}

type fakeViews struct {
	adminapiconnect.UnimplementedViewServiceHandler
}

func (fakeViews) CreateView(_ context.Context, r *adminapi.CreateViewRequest) (*adminapi.CreateViewResponse, error) {
	return &adminapi.CreateViewResponse{View: &adminapi.View{Name: r.Name, Topic: r.Topic, Group: r.Group, Binding: 20}}, fakeError(r.Topic)
}

func (fakeViews) ListViews(context.Context, *adminapi.ListViewsRequest) (*adminapi.ListViewsResponse, error) {
	return &adminapi.ListViewsResponse{Views: []*adminapi.View{{Name: "orders-clean", Id: "AAAAAAAAAAAAAAAAAAAAAg", Topic: "orders", Group: "billing", Binding: 20}}}, nil
}

func (fakeViews) DeleteView(_ context.Context, r *adminapi.DeleteViewRequest) (*adminapi.DeleteViewResponse, error) {
	return &adminapi.DeleteViewResponse{}, fakeError(r.Name)
}
