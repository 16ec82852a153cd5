package sdk

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
)

// Any node answers for the cluster: the first admin listener that takes a connection is asked, and another when it is gone.
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
