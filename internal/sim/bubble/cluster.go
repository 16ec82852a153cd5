package bubble

import (
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
	"github.com/millrace-io/millrace/broker/node"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/transport"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Ports of every host.
const (
	clientPort  = 9092
	clusterPort = 9093
	adminPort   = 9094
)

const dataDir = "/data"

// machine is a host with its disk, on which processes run one after another.
type machine struct {
	id     broker.NodeID
	addr   netip.Addr
	config node.Config
	log    journal
	disk   *vfs.Mem // replaced by a loss of power, when no process runs
	lies   *vfs.Mem // not nil: what a loss of power leaves, whatever was synced since
	life   *life    // the newest process; nil before the first
}

// life is one process. Its fields above the line are set before anybody else sees it.
type life struct {
	process *vfs.Process
	ctx     context.Context // ends when the process is killed
	cancel  context.CancelFunc
	leave   chan struct{} // closed: the process is to stop in good order
	serving chan struct{} // closed when it serves
	done    chan struct{} // closed when nothing of it runs any more

	err    error // why it ended; set before done is closed
	served bool  // likewise
}

// journal keeps what the processes of a machine logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string { j.mu.Lock(); defer j.mu.Unlock(); return j.text.String() }

// cluster is the machines and what connects them.
type cluster struct {
	network  *network
	machines []*machine
	began    time.Time
	tasks    *task.Group
}

func (c *cluster) host(m *machine) host { return host{c.network, m.addr} }

func (m *machine) at(port uint16) string { return netip.AddrPortFrom(m.addr, port).String() }

// web is the address of a machine's admin face.
func (m *machine) web() string { return "http://" + m.at(adminPort) }

func newMachine(id broker.NodeID) *machine {
	m := &machine{id: id, addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(id)}), disk: vfs.NewMem(), config: node.Defaults()}
	m.config.Data, m.config.NodeID, m.config.InsecureAdmin = dataDir, id, true
	m.config.Client.Bind, m.config.Cluster.Bind, m.config.Admin.Bind = m.at(clientPort), m.at(clusterPort), m.at(adminPort)
	m.config.GroupConsumer.Session.Min, m.config.GroupConsumer.Session.Default = 6*time.Second, 6*time.Second
	m.config.GroupConsumer.Heartbeat.Min, m.config.GroupConsumer.Heartbeat.Default = time.Second, time.Second
	return m
}

func (c *cluster) seams(m *machine, process *vfs.Process) node.Seams {
	return node.Seams{FS: process, Net: c.host(m), Now: time.Now, Random: cryptorand.Reader}
}

// start starts a process on a machine where none runs. It does not wait.
func (c *cluster) start(ctx context.Context, m *machine) *life {
	l := &life{process: m.disk.Process(), leave: make(chan struct{}), serving: make(chan struct{}), done: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.life = l
	logger := zerolog.New(&m.log).Hook(zerolog.HookFunc(func(e *zerolog.Event, _ zerolog.Level, _ string) {
		e.Stringer("at", time.Since(c.began))
	}))
	c.tasks.Go("process", func(context.Context) error {
		defer close(l.done)
		defer l.cancel()
		running, err := node.Start(l.ctx, m.config, c.seams(m, l.process), logger)
		if err != nil {
			l.err = fmt.Errorf("start: %w", err)
			return nil
		}
		l.served = true
		close(l.serving)
		select {
		case <-running.Failed():
		case <-l.leave:
		case <-l.ctx.Done():
		}
		l.err = running.Stop()
		return nil
	})
	return l
}

// losePower leaves of the disk what was synced, and some of the rest.
func (m *machine) losePower(random *rand.Rand) {
	m.disk = m.disk.CrashClone(random)
	if m.lies != nil {
		m.disk = m.lies.CrashClone(nil)
	}
}

// await returns when a process serves, or why it ended instead.
func (l *life) await() error {
	select {
	case <-l.serving:
		return nil
	case <-l.done:
		return fmt.Errorf("the process ended: %w", l.err)
	}
}

// kill ends a process as kill -9 does: nothing more leaves it, and nothing more reaches its disk. Its goroutines end in
// their own time.
func (c *cluster) kill(m *machine) {
	c.network.cutOff(m.addr)
	_ = m.life.process.Kill() // giving locks back cannot fail here
	m.life.cancel()
}

// stop ends every process in good order and returns what went wrong. One that still starts would wait for a quorum that
// ends meanwhile.
func (c *cluster) stop() error {
	var problems []error
	for _, m := range c.machines {
		if m.life == nil {
			continue
		}
		close(m.life.leave)
		select {
		case <-m.life.serving:
		default:
			m.life.cancel()
		}
	}
	for _, m := range c.machines {
		if m.life == nil {
			continue
		}
		<-m.life.done
		if m.life.err != nil {
			problems = append(problems, fmt.Errorf("node %d: %w", m.id, m.life.err))
		}
	}
	return errors.Join(problems...)
}

// found makes a cluster of voters on its machines.
func (c *cluster) found(ctx context.Context) error {
	first := c.machines[0]
	if _, err := node.Format(first.disk, node.FormatSpec{Data: dataDir, Node: first.id, Hosts: []string{first.addr.String()}, Now: time.Now()}); err != nil {
		return err
	}
	if err := c.start(ctx, first).await(); err != nil {
		return err
	}
	carrier, done := c.web()
	defer done()
	web := adminapiconnect.NewClusterServiceClient(carrier, first.web())
	for _, m := range c.machines[1:] {
		invited, err := web.InviteNode(ctx, &adminapi.InviteNodeRequest{Node: int32(m.id)})
		if err != nil {
			return fmt.Errorf("invite node %d: %w", m.id, err)
		}
		spec := node.JoinSpec{Data: dataDir, Node: m.id, Cluster: invited.Address, Token: invited.Token, Hosts: []string{m.addr.String()}}
		if _, err := node.Join(ctx, c.seams(m, m.disk.Process()), spec); err != nil {
			return fmt.Errorf("node %d: %w", m.id, err)
		}
		m.config.Seeds = []string{invited.Address}
		if err := c.start(ctx, m).await(); err != nil {
			return fmt.Errorf("node %d: %w", m.id, err)
		}
	}
	return c.promote(ctx, web)
}

// web is what asks the admin faces of machines, and what ends it.
func (c *cluster) web() (*http.Client, func()) {
	outside := host{c.network, netip.AddrFrom4([4]byte{10, 0, 2, 1})}
	carrier := &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return outside.Dial(ctx, address) }}
	return &http.Client{Transport: carrier}, carrier.CloseIdleConnections
}

// promote makes every member a voter. A learner has to be near the end of the metadata log first.
func (c *cluster) promote(ctx context.Context, web adminapiconnect.ClusterServiceClient) error {
	for {
		quorum, err := web.GetQuorum(ctx, &adminapi.GetQuorumRequest{})
		if err != nil {
			return fmt.Errorf("look at the quorum: %w", err)
		}
		var learners []uint64
		for _, member := range quorum.Members {
			if !member.Voter {
				learners = append(learners, member.RaftId)
			}
		}
		if len(learners) == 0 && !quorum.Joint {
			return nil
		}
		_, err = web.AlterMembers(ctx, &adminapi.AlterMembersRequest{Promote: learners})
		if err == nil {
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// client returns a Kafka client that speaks QUIC from a host of its own, and what ends it.
func (c *cluster) client(host netip.Addr, options ...kgo.Opt) (*kgo.Client, func(), error) {
	authority, err := c.authority()
	if err != nil {
		return nil, nil, err
	}
	config := &tls.Config{RootCAs: authority, MinVersion: tls.VersionTLS13, NextProtos: []string{transport.ALPNKafka}}
	socket := c.network.listenPackets(netip.AddrPortFrom(host, 1000))
	dialer := transport.DialQUIC(socket, config, transport.Settings{IdleTimeout: 3 * time.Second, KeepAlive: time.Second}, nil)
	var seeds []string
	for _, m := range c.machines {
		seeds = append(seeds, m.at(clientPort))
	}
	own := []kgo.Opt{kgo.SeedBrokers(seeds...), kgo.Dialer(dialer.DialContext)}
	client, err := kgo.NewClient(append(own, options...)...)
	if err != nil {
		return nil, nil, errors.Join(err, dialer.Close())
	}
	return client, func() { client.Close(); _ = dialer.Close() }, nil // a socket's Close has nothing to say
}

// authority reads who signed the nodes' certificates.
func (c *cluster) authority() (*x509.CertPool, error) {
	pem, err := readFile(c.machines[0].disk, dataDir+"/tls/ca.crt")
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate")
	}
	return pool, nil
}
