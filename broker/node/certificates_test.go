package node

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
	"github.com/millrace-io/millrace/internal/vfs"
)

// A node tells, thirty days before, of each certificate that expires and what to do; the cluster is healthy until one has.
func TestHealthTellsOfCertificatesThatExpire(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		left    time.Duration
		healthy bool
		says    string // nothing: no problem
	}{
		{31 * day, true, ""},
		{25*day + day/2, true, "expires in 2"},
		{-day, false, "has expired"},
	} {
		s := newSeat(t, vfs.OS{}, t.TempDir())
		made := time.Now().Add(c.left).AddDate(-10, 0, 0)
		if _, err := Format(s.fs, FormatSpec{Data: s.config.Data, Node: 1, Now: made}); err != nil {
			t.Fatal(err)
		}
		n := s.start()
		client := &http.Client{}
		health, err := adminapiconnect.NewClusterServiceClient(client, "http://"+n.Addresses().Admin).GetHealth(t.Context(), &adminapi.GetHealthRequest{})
		client.CloseIdleConnections()
		s.stop(n)
		if err != nil {
			t.Fatal(err)
		}
		if health.Healthy != c.healthy {
			t.Errorf("%v left: healthy is %t; %v", c.left, health.Healthy, health.Problems)
		}
		for _, file := range []string{nodeCertName, caCertName} {
			told := slices.ContainsFunc(health.Problems, func(p *adminapi.Problem) bool {
				return p.Subject == "node 1" && strings.Contains(p.What, "tls/"+file+" "+c.says) && strings.Contains(p.Action, "restart")
			})
			if told != (c.says != "") {
				t.Errorf("%v left: of %s: %v", c.left, file, health.Problems)
			}
		}
	}
}

// Files are looked at every second, for as long as they are bad.
func TestACertificateThatHasExpiredIsToldOfOnce(t *testing.T) {
	var log journal
	now := time.Now()
	n := &Node{config: Config{Data: "/data"}, identity: Identity{Cluster: broker.ClusterID{1}, Node: 1}, logger: zerolog.New(&log)}
	n.seams.FS, n.seams.Now = vfs.NewMem(), func() time.Time { return now }
	put := func(made time.Time) {
		t.Helper()
		if err := makeCertificates(n.seams.FS, "/data", n.identity, nil, made); err != nil {
			t.Fatal(err)
		}
	}
	put(now)
	c, err := n.peerCertificates()
	if err != nil {
		t.Fatal(err)
	}
	put(now.AddDate(-11, 0, 0))
	for range 5 {
		now = now.Add(2 * certificatesLook)
		c.fresh()
	}
	if told := strings.Count(log.String(), "certificate not renewed"); told != 1 || !strings.Contains(c.notUsed(), "has expired") {
		t.Errorf("told %d times in five looks: %s", told, log.String())
	}
}
