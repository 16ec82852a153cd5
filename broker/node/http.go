package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace-io/millrace/broker/admin"
	"github.com/millrace-io/millrace/broker/kafka"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/transport"
)

// listeners are a node's bound sockets. Binding comes early, so that a taken port is said before anything is opened and
// the registration can carry the real ports; serving comes last.
type listeners struct {
	addresses Addresses
	client    net.Listener // TCP
	clientUDP net.PacketConn
	cluster   net.Listener
	clusterU  net.PacketConn
	adminTCP  net.Listener
	server    *http.Server
	admin     adminFace
	quic      *transport.QUICListener
}

func (n *Node) bind(ctx context.Context) (*listeners, error) {
	l := &listeners{}
	var err error
	if l.client, l.clientUDP, err = n.seams.Net.Bind(ctx, n.config.Client.Bind, n.component("client")); err != nil {
		return nil, bindError("listeners.client.bind", err)
	}
	if l.cluster, l.clusterU, err = n.seams.Net.Bind(ctx, n.config.Cluster.Bind, n.component("cluster")); err != nil {
		return nil, errors.Join(bindError("listeners.cluster.bind", err), l.close())
	}
	if l.adminTCP, err = n.seams.Net.Listen(ctx, n.config.Admin.Bind); err != nil {
		return nil, errors.Join(bindError("listeners.admin.bind", err), l.close())
	}
	l.addresses = Addresses{Client: l.client.Addr().String(), Cluster: l.cluster.Addr().String(), Admin: l.adminTCP.Addr().String()}
	return l, nil
}

func bindError(key string, err error) error {
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return fmt.Errorf("%s: %w: no interface of this host has it, name another address", key, err)
	}
	return fmt.Errorf("%s: %w: stop what holds the port, or name another address", key, err)
}

func (l *listeners) close() error {
	var closers []io.Closer
	if l.quic != nil {
		closers = append(closers, l.quic) // Before its socket, so that clients are told.
	}
	if l.server != nil {
		closers = append(closers, l.server)
	}
	for _, tcp := range []net.Listener{l.client, l.cluster, l.adminTCP} {
		if tcp != nil {
			closers = append(closers, tcp)
		}
	}
	for _, udp := range []net.PacketConn{l.clientUDP, l.clusterU} {
		if udp != nil {
			closers = append(closers, udp)
		}
	}
	var problems []error
	for _, c := range closers {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// endpoints are what the registration says that others dial.
func (l *listeners) endpoints(c Config) []metadata.Endpoint {
	var all []metadata.Endpoint
	for _, e := range []struct{ name, advertise, bound string }{
		{"client", c.Client.Advertise, l.addresses.Client}, {"cluster", c.Cluster.Advertise, l.addresses.Cluster}, {"admin", c.Admin.Advertise, l.addresses.Admin},
	} {
		host, port := splitAddress(e.bound)
		if e.advertise != "" {
			advertisedHost, advertisedPort := splitAddress(e.advertise)
			host = advertisedHost
			if advertisedPort != 0 {
				port = advertisedPort
			}
		}
		all = append(all, metadata.Endpoint{Listener: e.name, Host: host, Port: port})
	}
	return all
}

func splitAddress(address string) (host string, port int32) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0
	}
	number, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return host, 0
	}
	return host, int32(number)
}

// serve opens the faces.
func (n *Node) serve(ctx context.Context) error {
	if err := n.serveKafka(ctx); err != nil {
		return err
	}
	mux := http.NewServeMux()
	server := admin.New(admin.Config{
		Node: n.identity.Node, Version: Version, Metadata: adminMetadata{n}, Nodes: n.cluster,
		Groups: n.cluster.groups(), Chains: adminChains{n}, Plugins: n.plugins, Quorum: adminQuorum{n.cluster}, Followers: n.cluster,
		NodeConfigs: n.nodeConfigs(), Machine: n.machine, Logger: n.component("admin"), NowMs: func() int64 { return n.seams.Now().UnixMilli() },
	})
	server.Register(mux)
	n.registerState()
	if n.config.DebugProfiles {
		handleProfiles(mux)
	}
	sasl, err := n.sasl()
	if err != nil {
		return err
	}
	n.bound.admin.open(n.guardAdmin(mux, sasl.DecoySecret))
	return nil
}

// adminFace is what the admin listener serves. Probes and metrics are there from when it is bound, since a start lasts for as
// long as most of the other nodes are away, and whoever kills what answers no probe would keep a cluster from starting. The
// rest comes with the rooms that it is about.
type adminFace struct {
	probes http.Handler
	rest   atomic.Pointer[http.Handler]
}

func (f *adminFace) open(rest http.Handler) { f.rest.Store(&rest) }

// ServeHTTP implements http.Handler.
func (f *adminFace) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest := f.rest.Load()
	switch _, open := adminNeed(r.URL.Path); {
	case open:
		f.probes.ServeHTTP(w, r)
	case rest != nil:
		(*rest).ServeHTTP(w, r)
	default:
		refuseAdmin(w, http.StatusServiceUnavailable, "unavailable", "the node is starting; where it has to hear most of the controllers first, start those as well")
	}
}

// probes answers what takes no permission, and no room above the ground.
func (n *Node) probes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", n.handleLive)
	mux.HandleFunc("GET /readyz", n.handleReady)
	return mux
}

// serveAdmin serves HTTP/1.1 and HTTP/2, with TLS or without.
func (n *Node) serveAdmin() error {
	n.bound.admin.probes = n.probes()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	n.bound.server = &http.Server{Handler: &n.bound.admin, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	serve := n.bound.server.Serve
	if n.config.AdminTLS {
		protocols.SetHTTP2(true)
		config, err := n.listenerTLS(n.config.AdminAuth, "h2", "http/1.1")
		if err != nil {
			return fmt.Errorf("tls of the admin listener: %w", err)
		}
		n.bound.server.TLSConfig = config
		serve = func(l net.Listener) error { return n.bound.server.ServeTLS(l, "", "") }
	} else {
		protocols.SetUnencryptedHTTP2(true)
	}
	n.rooms.Go("admin listener", func(context.Context) error {
		err := serve(n.bound.adminTCP)
		if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	})
	return nil
}

// serveKafka serves clients on TCP and, with the node's certificate, on QUIC.
func (n *Node) serveKafka(ctx context.Context) error {
	sasl, err := n.sasl()
	if err != nil {
		return err
	}
	n.kafka, err = kafka.New(context.WithoutCancel(ctx), kafka.Config{
		Node: n.identity.Node, Metadata: n.quorum, Partitions: partitions{n.set}, Groups: clientGroups{n.groups},
		Controller: clientController{n.executor}, Chains: clientChains{n.chains}, Gate: n.plugins.enterGate, Metrics: n.metrics,
		Logger: n.component("kafka"), AutoCreateTopics: n.config.AutoCreateTopics, ReadNearby: n.config.ReadNearby, BrokerConfigs: n.brokerConfigs(), LogDir: n.logDir, Quorum: n.quorumState,
		Sasl: sasl, Authorizer: n.authorizer(),
		Limits: kafka.Limits{
			FrameBytesMax: n.config.FrameBytesMax, RequestBytesMax: n.config.RequestBytesMax, Connections: n.config.ConnectionsMax, Idle: n.config.ConnectionIdle,
			PipelineDepth: n.config.PipelineRequestsMax,
		},
	})
	if err != nil {
		return err
	}
	config, err := n.listenerTLS(n.config.ClientAuth, transport.ALPNKafka)
	if err != nil {
		return fmt.Errorf("tls of the client listener: %w", err)
	}
	key, err := readSmall(n.seams.FS, n.tlsFile(nodeKeyName))
	if err != nil {
		return fmt.Errorf("read the node's key: %w", err)
	}
	tcp := n.bound.client
	if n.config.ClientTLS {
		own, err := n.listenerTLS(n.config.ClientAuth)
		if err != nil {
			return fmt.Errorf("tls of the client listener: %w", err)
		}
		tcp = tls.NewListener(tcp, own)
	}
	// A reset key that outlives the process tells clients of a crash as soon as they send: QUIC hides it otherwise.
	settings := transport.Settings{ResetKey: [32]byte(derive("millrace stateless reset ", key))}
	streams, err := transport.ListenQUIC(context.WithoutCancel(ctx), n.bound.clientUDP, config, settings)
	if err != nil {
		return err
	}
	host, port := "", int32(0)
	for _, e := range n.bound.endpoints(n.config) {
		if e.Listener == "client" {
			host, port = e.Host, e.Port
		}
	}
	for _, listener := range []net.Listener{tcp, streams} {
		l := kafka.Listener{Listener: listener, Name: "client", AdvertisedHost: host, AdvertisedPort: port, RequireAuthentication: len(sasl.Mechanisms) > 0}
		n.rooms.Go("client listener", func(ctx context.Context) error {
			err := n.kafka.Serve(l)
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return nil
			}
			return err
		})
	}
	n.bound.quic = streams
	return nil
}

// handleProfiles serves what `go tool pprof` asks for. The names that net/http/pprof.Index knows need no line here.
func handleProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

func (n *Node) handleLive(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-n.failed:
		http.Error(w, "the node is ending; its log says why", http.StatusServiceUnavailable)
	default:
		fmt.Fprintln(w, "alive")
	}
}

func (n *Node) handleReady(w http.ResponseWriter, _ *http.Request) {
	if !n.isReady() {
		http.Error(w, "not ready: starting or stopping", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}
