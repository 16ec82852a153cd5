package raftctl

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
)

// patient is a node as the doctor meets it.
type patient struct {
	adminapiconnect.UnimplementedClusterServiceHandler
	adminapiconnect.UnimplementedTopicServiceHandler
	nodes    *[]*adminapi.Node
	topics   []*adminapi.Topic
	problems []*adminapi.Problem
	config   *adminapi.GetNodeConfigResponse
	ahead    time.Duration
}

func (p *patient) GetCluster(context.Context, *adminapi.GetClusterRequest) (*adminapi.GetClusterResponse, error) {
	return &adminapi.GetClusterResponse{ClusterId: "2fTnAqSbRgKqdzOhCbxYdg", Nodes: *p.nodes}, nil
}

func (p *patient) GetHealth(context.Context, *adminapi.GetHealthRequest) (*adminapi.GetHealthResponse, error) {
	return &adminapi.GetHealthResponse{Problems: p.problems}, nil
}

func (p *patient) GetNodeConfig(context.Context, *adminapi.GetNodeConfigRequest) (*adminapi.GetNodeConfigResponse, error) {
	p.config.NowMs = time.Now().Add(p.ahead).UnixMilli()
	return p.config, nil
}

func (p *patient) ListTopics(context.Context, *adminapi.ListTopicsRequest) (*adminapi.ListTopicsResponse, error) {
	return &adminapi.ListTopicsResponse{Topics: p.topics}, nil
}

// admit serves the patient and returns its address as an endpoint.
func (p *patient) admit(t *testing.T) *adminapi.Endpoint {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(adminapiconnect.NewClusterServiceHandler(p))
	mux.Handle(adminapiconnect.NewTopicServiceHandler(p))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return endpointAt(t, "admin", server.Listener.Addr().String())
}

func endpointAt(t *testing.T, listener, address string) *adminapi.Endpoint {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return &adminapi.Endpoint{Listener: listener, Host: host, Port: int32(n)}
}

// healthyConfig is that of a node of which there is nothing to say.
func healthyConfig() *adminapi.GetNodeConfigResponse {
	return &adminapi.GetNodeConfigResponse{
		Version: "1", DiskFreeBytes: 900, DiskTotalBytes: 1000, CertificateExpiresMs: time.Now().Add(365 * 24 * time.Hour).UnixMilli(),
		Configs: []*adminapi.ConfigEntry{{Name: "num.partitions", Value: "1"}, {Name: "broker.rack", Value: "a"}},
	}
}

func examine(t *testing.T, admin *adminapi.Endpoint) (findings []finding, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	address := net.JoinHostPort(admin.Host, strconv.Itoa(int(admin.Port)))
	home := t.TempDir()
	lookup := func(name string) (string, bool) { return home, name == "HOME" }
	code = Run(t.Context(), []string{"doctor", "-o", "json", "--admin", address}, strings.NewReader(""), &out, &errs, lookup)
	if err := json.Unmarshal(out.Bytes(), &findings); err != nil {
		t.Fatalf("%v: %s%s", err, out.String(), errs.String())
	}
	return findings, code
}

func TestTheDoctorHasNothingToSayOfAHealthyCluster(t *testing.T) {
	var nodes []*adminapi.Node
	for id := range int32(3) {
		p := &patient{nodes: &nodes, config: healthyConfig()}
		p.config.Configs[1].Value = strconv.Itoa(int(id)) // racks differ
		nodes = append(nodes, &adminapi.Node{Id: id + 1, Voter: true, RaftLeader: id == 0, Endpoints: []*adminapi.Endpoint{p.admit(t)}})
	}
	if findings, code := examine(t, nodes[0].Endpoints[0]); len(findings) > 0 || code != exitDone {
		t.Fatalf("code %d, %+v", code, findings)
	}
}

func TestTheDoctorFindsWhatIsWrong(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shut := endpointAt(t, "client", closed.Addr().String())
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	var nodes []*adminapi.Node
	well := &patient{nodes: &nodes, config: healthyConfig(), topics: []*adminapi.Topic{
		{Name: "orders", ReplicationFactor: 3, MinInsyncReplicas: 2}, {Name: "greedy", ReplicationFactor: 2, MinInsyncReplicas: 3},
	}}
	ill := &patient{
		nodes: &nodes, config: healthyConfig(), ahead: 10 * time.Second,
		problems: []*adminapi.Problem{{Subject: "topic orders partition 0", What: "no leader", Action: "start the nodes that hold it"}},
	}
	ill.config.Version, ill.config.DiskFreeBytes, ill.config.ReadOnly = "2", 1, true
	ill.config.CertificateExpiresMs = time.Now().Add(72*time.Hour + time.Minute).UnixMilli()
	ill.config.Configs[0].Value = "7"
	also := &patient{nodes: &nodes, config: healthyConfig(), problems: ill.problems}
	also.config.DiskFreeBytes, also.config.CertificateExpiresMs = 50, 1
	nodes = append(nodes,
		&adminapi.Node{Id: 1, Voter: true, RaftLeader: true, Endpoints: []*adminapi.Endpoint{well.admit(t)}},
		&adminapi.Node{Id: 2, Voter: true, Fenced: true, Endpoints: []*adminapi.Endpoint{shut, ill.admit(t)}},
		&adminapi.Node{Id: 3, Stopping: true, Endpoints: []*adminapi.Endpoint{also.admit(t)}},
		&adminapi.Node{Id: 4},
	)
	findings, code := examine(t, nodes[0].Endpoints[0])
	if code != exitUnhealthy {
		t.Errorf("code %d", code)
	}
	for _, want := range []struct{ severity, where, what string }{
		{severityWarning, "metadata quorum", "2 voters"},
		{severityError, "node 2", "fenced"},
		{severityError, "node 2", "its client listener cannot be reached"},
		{severityError, "node 2", "its clock differs by "},
		{severityError, "node 2", "too little space"},
		{severityWarning, "node 2", "expires in 3 days"},
		{severityWarning, "node 3", "stopping"},
		{severityWarning, "node 3", "50 B of 1000 B free"},
		{severityError, "node 3", "its certificate has expired"},
		{severityError, "node 4", "never registered"},
		{severityError, "topic orders partition 0", "no leader"},
		{severityWarning, "topic greedy", "min.insync.replicas is 3 and the topic has 2 replicas: it counts as 2"},
		{severityWarning, "cluster", "1 on node 1 and node 3, 2 on node 2"},
		{severityWarning, "config num.partitions", "1 on node 1 and node 3, 7 on node 2"},
	} {
		at := slices.IndexFunc(findings, func(f finding) bool {
			return f.Severity == want.severity && f.Where == want.where && strings.Contains(f.What, want.what) && f.Do != ""
		})
		if at < 0 {
			t.Errorf("%+v was not found", want)
			continue
		}
		findings = slices.Delete(findings, at, at+1)
	}
	if len(findings) > 0 {
		t.Errorf("and these: %+v", findings)
	}
}
