package sdk

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
)

// Any node answers for the cluster: the first admin listener that is alive is asked, and another when it is gone.
func TestAnotherAdminListenerIsAskedWhenOneIsGone(t *testing.T) {
	var asked [2]atomic.Int32
	var servers [2]*httptest.Server
	for i := range servers {
		mux := http.NewServeMux()
		path, handler := adminapiconnect.NewClusterServiceHandler(adminapiconnect.UnimplementedClusterServiceHandler{})
		mux.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked[i].Add(1)
			handler.ServeHTTP(w, r)
		}))
		servers[i] = httptest.NewServer(mux)
		t.Cleanup(servers[i].Close)
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := nobody.Addr().String()
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	client, err := New(WithAdmin(gone, servers[0].URL, servers[1].Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	ask := func() connect.Code {
		_, err := client.Cluster().GetCluster(t.Context(), &adminapi.GetClusterRequest{})
		return connect.CodeOf(err)
	}
	for range 2 {
		if code := ask(); code != connect.CodeUnimplemented {
			t.Fatalf("answered %v", code)
		}
	}
	if first, second := asked[0].Load(), asked[1].Load(); first != 2 || second != 0 {
		t.Errorf("the first listener was asked %d times, the second %d times", first, second)
	}
	servers[0].CloseClientConnections()
	servers[0].Close()
	ask() // It may meet the end of the first.
	if code := ask(); code != connect.CodeUnimplemented || asked[1].Load() == 0 {
		t.Errorf("after the first was gone: %v, the second was asked %d times", code, asked[1].Load())
	}
	if _, err := New(WithAdmin("http://")); err == nil {
		t.Error("a URL without a host was taken")
	}
}

// Of a process that hangs the kernel still takes connections: raftctl with a profile of three nodes was blind when the first
// of them had been paused.
func TestAnAdminListenerThatHangsIsPassedOver(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0") // Nobody accepts.
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hung.Close() }()
	alive := http.NewServeMux()
	alive.Handle(adminapiconnect.NewClusterServiceHandler(adminapiconnect.UnimplementedClusterServiceHandler{}))
	server := httptest.NewServer(alive)
	defer server.Close()
	client, err := New(WithAdmin(hung.Addr().String(), server.URL))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := client.Cluster().GetCluster(ctx, &adminapi.GetClusterRequest{}); connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Fatalf("with the first of two hung: %v", err)
	}
}

// answerReady is a node that is ready, and knows no calls.
func answerReady(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/readyz" {
		w.WriteHeader(http.StatusNotFound)
	}
}

// A node that starts may do so for as long as others are away: where one is ready, that one is asked. Where none is, what the
// starting one says is the best answer there is.
func TestANodeThatStartsIsAskedLast(t *testing.T) {
	starting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"code":"unavailable","message":"the node is starting"}`))
	}))
	defer starting.Close()
	ready := httptest.NewServer(http.HandlerFunc(answerReady))
	defer ready.Close()
	for _, tc := range []struct {
		admins []string
		want   connect.Code
	}{
		{[]string{starting.URL, ready.URL}, connect.CodeUnimplemented},
		{[]string{starting.URL, "127.0.0.1:1"}, connect.CodeUnavailable},
		{[]string{"127.0.0.1:1", starting.URL}, connect.CodeUnavailable},
	} {
		client, err := New(WithAdmin(tc.admins...))
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Cluster().GetCluster(t.Context(), &adminapi.GetClusterRequest{})
		if connect.CodeOf(err) != tc.want || tc.want == connect.CodeUnavailable && !strings.Contains(err.Error(), "the node is starting") {
			t.Errorf("of %v: %v", tc.admins, err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A listener that hangs only after it was chosen costs the request that it has, not those behind it.
func TestAnAdminListenerThatBeginsToHangIsLeft(t *testing.T) {
	hangs, ended := atomic.Bool{}, make(chan struct{})
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hangs.Load() {
			<-ended
		}
		answerReady(w, r)
	}))
	defer first.Close()
	defer close(ended)
	var asked atomic.Int32
	second := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		answerReady(w, r)
	}))
	defer second.Close()
	client, err := New(WithAdmin(first.URL, second.URL))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	ask := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		_, err := client.Cluster().GetCluster(ctx, &adminapi.GetClusterRequest{})
		return err
	}
	if err := ask(30 * time.Second); connect.CodeOf(err) != connect.CodeUnimplemented || asked.Load() != 0 {
		t.Fatalf("with both alive: %v, the second was asked %d times", err, asked.Load())
	}
	hangs.Store(true)
	if err := ask(50 * time.Millisecond); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
		t.Fatalf("of a listener that hangs: %v", err)
	}
	if err := ask(30 * time.Second); connect.CodeOf(err) != connect.CodeUnimplemented || asked.Load() == 0 {
		t.Errorf("after the first hung: %v, the second was asked %d times", err, asked.Load())
	}
}

// Nothing answers a handshake with a process that hangs: whoever has other brokers to ask goes on to them as soon as it would
// give up a connection that fell silent.
func TestABrokerThatHangsIsGivenUpInTheHandshake(t *testing.T) {
	t.Parallel()
	hung, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hung.Close() }()
	client, err := New(WithBrokers(hung.LocalAddr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	began := time.Now()
	if conn, err := client.dialer.DialContext(t.Context(), "udp", hung.LocalAddr().String()); err == nil {
		_ = conn.Close()
		t.Fatal("connected with nobody")
	}
	if took := time.Since(began); took > idleTimeout+time.Second {
		t.Errorf("gave up after %v, not %v", took, idleTimeout)
	}
}
