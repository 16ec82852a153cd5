package node

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
)

// A node that waits for the others lives: whoever kills what answers no probe would keep the cluster from starting.
func TestANodeThatWaitsForTheOthersAnswersProbes(t *testing.T) {
	c := newTrio(t)
	admin := lastingAddress(t)
	for i := range c.nodes {
		c.stop(i)
	}
	c.seats[0].config.Admin.Bind = admin
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		n, err := c.seats[0].tryStart(ctx)
		if err == nil {
			err = n.Stop()
		}
		ended <- err
	}()
	get := func(path string) (status int, body string) {
		resp, err := http.Get("http://" + admin + path)
		if err != nil {
			return 0, ""
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		return resp.StatusCode, string(raw)
	}
	c.await("the probe", func() bool { status, _ := get("/livez"); return status == http.StatusOK })
	if status, body := get("/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if status, body := get("/metrics"); status != http.StatusOK || !strings.Contains(body, "millrace_ready 0") {
		t.Errorf("/metrics: %d %s", status, body)
	}
	_, err := adminapiconnect.NewClusterServiceClient(http.DefaultClient, "http://"+admin).GetHealth(t.Context(), &adminapi.GetHealthRequest{})
	if connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "the node is starting") {
		t.Errorf("the admin API: %v", err)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("a node began to serve without most of the controllers")
	}
}
