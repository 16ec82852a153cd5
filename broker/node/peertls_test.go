package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
	"github.com/millrace-io/millrace/internal/transport"
	"github.com/millrace-io/millrace/internal/vfs"
)

// registrar makes certificates for the nodes of a cluster, and puts them in place as an operator does.
type registrar struct {
	*trio
	ca  []byte // PEM, of the authority in use
	by  authority
	now time.Time
}

// newAuthority makes another authority for the cluster.
func (r *registrar) newAuthority() {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	ca := template("another authority", r.now)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	raw, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err == nil {
		ca, err = x509.ParseCertificate(raw)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.ca, r.by = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), authority{ca, key}
}

func (r *registrar) put(i int, name string, content []byte) {
	r.t.Helper()
	file := filepath.Join(r.seats[i].config.Data, "tls", name)
	if err := replaceFile(vfs.OS{}, file, content); err != nil {
		r.t.Fatal(err)
	}
}

// trust gives every node the authorities that it trusts, and returns when all do.
func (r *registrar) trust(authorities []byte) {
	r.t.Helper()
	for i, n := range r.nodes {
		r.put(i, caCertName, authorities)
		r.await("the authorities of a node", func() bool { return bytes.Equal(n.cluster.certificates.fresh().content[2], authorities) })
	}
}

// certify gives node i+1 a new certificate for a key that it has, and returns the serial number.
func (r *registrar) certify(i int, id Identity) string {
	r.t.Helper()
	raw, err := os.ReadFile(filepath.Join(r.seats[i].config.Data, "tls", nodeKeyName))
	if err != nil {
		r.t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		r.t.Fatal(err)
	}
	leaf, err := issue(id, nil, r.now, r.by, key.(*ecdsa.PrivateKey).Public())
	if err != nil {
		r.t.Fatal(err)
	}
	r.put(i, nodeCertName, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}))
	made, err := x509.ParseCertificate(leaf)
	if err != nil {
		r.t.Fatal(err)
	}
	return made.SerialNumber.Text(16)
}

// shown are the serial numbers that node i+1 shows: on the TCP side of its cluster listener, on its QUIC side, and to a server
// that it dials.
func (r *registrar) shown(i int) (tcp, quic, dialling string) {
	r.t.Helper()
	serial := func(state tls.ConnectionState) string { return state.PeerCertificates[0].SerialNumber.Text(16) }
	n, address := r.nodes[i], r.nodes[i].Addresses().Cluster
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpnJoin}})
	if err != nil {
		r.t.Fatal(err)
	}
	tcp = serial(conn.ConnectionState())
	_ = conn.Close()

	// Another node's part, by its own files.
	other := r.nodes[(i+1)%3].cluster.certificates
	seen := make(chan tls.ConnectionState, 16)
	server := peerServer(other)
	inner := server.GetConfigForClient
	server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		config, err := inner(hello)
		config = config.Clone()
		config.VerifyConnection = func(state tls.ConnectionState) error { seen <- state; return nil }
		return config, err
	}
	listen := func(server, client *tls.Config) (peers *transport.Peers, address string) {
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			r.t.Fatal(err)
		}
		p, err := transport.ListenPeers(socket, server, client, transport.Settings{})
		if err != nil {
			r.t.Fatal(err)
		}
		return p, socket.LocalAddr().String()
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), within)
	defer cancel()
	there, at := listen(server, peerClient(other))
	defer func() { _ = there.Close() }()
	in, err := there.Dial(ctx, address)
	if err != nil {
		r.t.Fatal(err)
	}
	quic = serial(in.TLS())
	_ = in.Close("seen")
	here, _ := listen(peerServer(n.cluster.certificates), peerClient(n.cluster.certificates))
	defer func() { _ = here.Close() }()
	out, err := here.Dial(ctx, at)
	if err != nil {
		r.t.Fatal(err)
	}
	dialling = serial(<-seen)
	_ = out.Close("seen")
	return tcp, quic, dialling
}

// shows returns when node i+1 shows a serial number everywhere.
func (r *registrar) shows(i int, serial string) {
	r.t.Helper()
	r.await(fmt.Sprintf("node %d shows %s", i+1, serial), func() bool {
		tcp, quic, dialling := r.shown(i)
		return tcp == serial && quic == serial && dialling == serial
	})
}

// The authority of a running cluster is replaced, and with it all certificates: connections that stand go on, new ones are
// made with what lies in the files, and no node is restarted until all of it is done.
func TestCertificatesOfTheClusterAreReplacedWhileItRuns(t *testing.T) {
	r := &registrar{trio: newTrio(t), now: time.Now()}
	topic := r.replicated("orders", 1)
	r.level(topic)
	client := r.seats[0].client(r.nodes[0])
	producing, stop := context.WithCancel(t.Context())
	defer stop()
	var acked atomic.Int64
	done := make(chan error, 1)
	go func() {
		for producing.Err() == nil {
			if err := client.ProduceSync(t.Context(), record("orders", 0, "v")).FirstErr(); err != nil {
				done <- err
				return
			}
			acked.Add(1)
		}
		done <- nil
	}()
	ended := func() (n int) {
		for _, seat := range r.seats {
			n += strings.Count(seat.log.String(), "peer disconnected") + strings.Count(seat.log.String(), died)
		}
		return n
	}
	before := ended()
	old, err := os.ReadFile(filepath.Join(r.seats[0].config.Data, "tls", caCertName))
	if err != nil {
		t.Fatal(err)
	}
	r.newAuthority()
	r.trust(append(append([]byte{}, r.ca...), old...)) // Both, until nobody shows the old.
	for i, n := range r.nodes {
		r.shows(i, r.certify(i, n.identity))
	}
	r.trust(r.ca)
	if now := ended(); now != before {
		t.Errorf("%d connections ended", now-before)
	}
	r.stop(2)
	r.nodes[2] = r.seats[2].start()
	r.level(topic)
	stop()
	if err := <-done; err != nil {
		t.Errorf("after %d records: %v", acked.Load(), err)
	}
	if acked.Load() == 0 {
		t.Error("nothing was produced meanwhile")
	}
}

// Files that would cut a node off are not used, and said to be; once they are right they are.
func TestCertificatesThatWouldCutANodeOffAreNotUsed(t *testing.T) {
	r := &registrar{trio: newTrio(t), now: time.Now()}
	by, err := r.nodes[0].authority()
	if err != nil {
		t.Fatal(err)
	}
	r.by = by
	id := r.nodes[1].identity
	was, _, _ := r.shown(1)
	transport := &http.Client{}
	t.Cleanup(transport.CloseIdleConnections)
	client := adminapiconnect.NewClusterServiceClient(transport, "http://"+r.nodes[0].Addresses().Admin)
	for _, c := range []struct {
		name, says string
		put        func()
	}{
		{"half a file", "failed to find any PEM data", func() { r.put(1, nodeCertName, []byte("half")) }},
		{"another node's", "is of node 3 of cluster", func() { r.certify(1, Identity{Cluster: id.Cluster, Node: 3}) }},
		{"another cluster's", "is of node 2 of cluster " + broker.ClusterID{}.String(), func() { r.certify(1, Identity{Node: 2}) }},
		{"expired", "has expired", func() { r.now = r.now.AddDate(-11, 0, 0); r.certify(1, id); r.now = time.Now() }},
		{"another authority's", "signed by unknown authority", func() { r.newAuthority(); r.certify(1, id); r.by = by }},
	} {
		c.put()
		r.await(c.name+" is told of", func() bool {
			health, err := client.GetHealth(t.Context(), &adminapi.GetHealthRequest{})
			for _, p := range health.GetProblems() {
				if err == nil && p.Subject == "certificates of node 2" && strings.Contains(p.What, "not renewed: ") && strings.Contains(p.What, c.says) {
					return true
				}
			}
			return false
		})
		if tcp, quic, dialling := r.shown(1); tcp != was || quic != was || dialling != was {
			t.Errorf("%s: %s, %s, %s are shown, were %s", c.name, tcp, quic, dialling, was)
		}
	}
	r.shows(1, r.certify(1, id))
	if told := strings.Count(r.seats[1].log.String(), "certificate not renewed"); told != 5 {
		t.Errorf("5 bad files, and %d lines in the log", told)
	}
}
