package sdk

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
	"github.com/millrace-io/millrace/internal/transport"
)

// Version is what the SDK says of itself to brokers.
const Version = "0.1.0"

// Transport is how records travel between client and broker. Both are served on the same port number.
type Transport uint8

// The transports.
const (
	QUIC Transport = iota // always encrypted; the default
	TCP
	TLS // TCP with TLS, where the brokers' listeners have it
)

func (t Transport) String() string {
	switch t {
	case TCP:
		return "tcp"
	case TLS:
		return "tls"
	default:
		return "quic"
	}
}

// options is what New was told.
type options struct {
	brokers   []string
	admins    []*url.URL
	transport Transport
	tls       *tls.Config
	// certificates are presented beside those of tls.
	certificates []tls.Certificate
	credentials  credentials
	kafka        []kgo.Opt
	http         *http.Client
	problems     []error
}

// Option tells New one thing.
type Option func(*options)

// WithBrokers names the brokers to ask first, each HOST:PORT of a client listener. At least one is needed to produce or
// consume.
func WithBrokers(addresses ...string) Option {
	return func(o *options) { o.brokers = append(o.brokers, addresses...) }
}

// WithAdmin names admin listeners, each HOST:PORT or a URL; any node answers for the cluster, and the first that is
// ready is asked. One is needed for plugins, bindings, views and topics.
func WithAdmin(addresses ...string) Option {
	return func(o *options) {
		for _, address := range addresses {
			if address == "" {
				continue
			}
			if !strings.Contains(address, "://") {
				address = "http://" + address
			}
			admin, err := url.Parse(strings.TrimSuffix(address, "/"))
			if err != nil || admin.Host == "" {
				o.problems = append(o.problems, fmt.Errorf("admin listener %q is neither HOST:PORT nor a URL", address))
				continue
			}
			if admin.Port() == "" {
				admin.Host = net.JoinHostPort(admin.Hostname(), map[string]string{"http": "80", "https": "443"}[admin.Scheme])
			}
			o.admins = append(o.admins, admin)
		}
	}
}

// WithTransport chooses QUIC, TCP, or TCP with TLS.
func WithTransport(t Transport) Option { return func(o *options) { o.transport = t } }

// WithCAFile trusts the certificate authorities in a PEM file, such as tls/ca.crt of a data directory. QUIC and TLS need it
// unless the brokers' certificates come from an authority that the system trusts.
func WithCAFile(name string) Option {
	return func(o *options) {
		pool, err := authorities(name)
		if err != nil {
			o.problems = append(o.problems, err)
			return
		}
		o.tls = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
}

// WithTLS uses a configuration of the caller's for QUIC, TLS and an admin listener with https.
func WithTLS(config *tls.Config) Option { return func(o *options) { o.tls = config.Clone() } }

// WithKafka passes options to every Kafka client that the SDK makes; they come after its own.
func WithKafka(opts ...kgo.Opt) Option {
	return func(o *options) { o.kafka = append(o.kafka, opts...) }
}

// WithHTTPClient replaces the HTTP client of the admin API.
func WithHTTPClient(client *http.Client) Option { return func(o *options) { o.http = client } }

// Client is a connection to one cluster. It is safe for concurrent use. Close it when done.
type Client struct {
	options  options
	producer *kgo.Client
	dialer   *transport.QUICDialer // of the producer; nil over TCP
	ownHTTP  bool                  // the HTTP client is not the caller's
}

// New returns a client. It does not wait for a broker: the first call that needs one does.
func New(opts ...Option) (*Client, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if len(o.brokers) == 0 && len(o.admins) == 0 {
		o.problems = append(o.problems, errors.New("name a broker with WithBrokers or an admin listener with WithAdmin"))
	}
	if err := errors.Join(o.problems...); err != nil {
		return nil, fmt.Errorf("millrace client: %w", err)
	}
	ownHTTP := o.http == nil
	if ownHTTP {
		o.http = o.httpClient()
	}
	if len(o.admins) > 1 {
		carried := *o.http
		carried.Transport = &adminCarrier{next: cmp.Or(carried.Transport, http.DefaultTransport), admins: o.admins}
		o.http = &carried
	}
	c := &Client{options: o, ownHTTP: ownHTTP}
	if len(o.brokers) == 0 {
		return c, nil
	}
	producer, dialer, err := c.kafka(nil)
	if err != nil {
		return nil, err
	}
	c.producer, c.dialer = producer, dialer
	return c, nil
}

// Close flushes nothing and ends every connection of c; consumers are closed by their own Close. Closing again does
// nothing.
func (c *Client) Close() error {
	if c.ownHTTP && c.options.http.Transport != nil {
		c.options.http.CloseIdleConnections()
	}
	if c.producer == nil {
		return nil
	}
	c.producer.Close()
	if c.dialer != nil {
		return c.dialer.Close()
	}
	return nil
}

// Kafka returns the franz-go client that c produces with; nil if no brokers were named.
func (c *Client) Kafka() *kgo.Client { return c.producer }

// kafka makes a franz-go client. preamble, if any, opens each of its QUIC streams.
func (c *Client) kafka(preamble *adminapi.Preamble, opts ...kgo.Opt) (*kgo.Client, *transport.QUICDialer, error) {
	if len(c.options.brokers) == 0 {
		return nil, nil, errors.New("millrace client: no brokers were named: use WithBrokers")
	}
	own := []kgo.Opt{
		kgo.SeedBrokers(c.options.brokers...),
		kgo.SoftwareNameAndVersion("millrace-go", Version),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MetadataMinAge(metadataMinAge),
	}
	own = append(own, c.options.authentication()...)
	if c.options.transport == TLS {
		own = append(own, kgo.DialTLSConfig(c.options.tlsConfig()))
	}
	var dialer *transport.QUICDialer
	if c.options.transport == QUIC {
		var err error
		if dialer, err = c.dialQUIC(preamble); err != nil {
			return nil, nil, err
		}
		own = append(own, kgo.Dialer(dialer.DialContext))
	} else if preamble.GetGroup() != "" {
		own = append(own, kgo.Rack("group="+preamble.GetGroup()))
	}
	client, err := kgo.NewClient(append(append(own, opts...), c.options.kafka...)...)
	if err != nil {
		if dialer != nil {
			err = errors.Join(err, dialer.Close())
		}
		return nil, nil, fmt.Errorf("millrace client: %w", err)
	}
	return client, dialer, nil
}

func (c *Client) dialQUIC(preamble *adminapi.Preamble) (*transport.QUICDialer, error) {
	config := c.options.tlsConfig()
	config.NextProtos = []string{transport.ALPNKafka}
	var opening []byte
	if preamble != nil {
		message, err := proto.Marshal(preamble)
		if err != nil {
			return nil, err
		}
		if opening, err = transport.AppendPreamble(nil, message); err != nil {
			return nil, fmt.Errorf("millrace client: %w", err)
		}
	}
	socket, err := transport.ListenUDP(context.Background(), ":0", zerolog.Nop())
	if err != nil {
		return nil, fmt.Errorf("millrace client: %w", err)
	}
	settings := transport.Settings{IdleTimeout: idleTimeout, HandshakeTimeout: idleTimeout, KeepAlive: keepAlive, Lifelines: transport.System{}}
	return transport.DialQUIC(socket, config, settings, opening), nil
}

const (
	// QUIC does not notice when the peer's process dies, hangs or is cut off: these bound how long that stays hidden where no
	// lifeline tells. A broker that is back at the same address disowns the old connection at the next probe.
	idleTimeout = 3 * time.Second
	keepAlive   = time.Second
	// metadataMinAge is how soon after the last answer a client asks again who leads. A partition has its next leader a few
	// hundred milliseconds after a crash; the Kafka client's own five seconds would hide it.
	metadataMinAge = 100 * time.Millisecond
)

var _ net.Conn = (*transport.Stream)(nil)

// adminURL is the base of the admin API's requests; adminCarrier sends them elsewhere where it does not answer.
func (o *options) adminURL() string {
	if len(o.admins) == 0 {
		return ""
	}
	return o.admins[0].String()
}

// The admin API, one client a noun. They are the generated Connect clients: every call takes a context and returns a
// *connect.Error whose code says what kind of failure it was.

// Cluster returns the cluster service.
func (c *Client) Cluster() adminapiconnect.ClusterServiceClient {
	return adminapiconnect.NewClusterServiceClient(c.options.http, c.options.adminURL())
}

// Topics returns the topic service.
func (c *Client) Topics() adminapiconnect.TopicServiceClient {
	return adminapiconnect.NewTopicServiceClient(c.options.http, c.options.adminURL())
}

// Groups returns the group service.
func (c *Client) Groups() adminapiconnect.GroupServiceClient {
	return adminapiconnect.NewGroupServiceClient(c.options.http, c.options.adminURL())
}

// Plugins returns the plugin service; PushPlugin is the shorter way to upload.
func (c *Client) Plugins() adminapiconnect.PluginServiceClient {
	return adminapiconnect.NewPluginServiceClient(c.options.http, c.options.adminURL())
}

// Bindings returns the binding service; Bind is the shorter way to bind.
func (c *Client) Bindings() adminapiconnect.BindingServiceClient {
	return adminapiconnect.NewBindingServiceClient(c.options.http, c.options.adminURL())
}

// Views returns the view service.
func (c *Client) Views() adminapiconnect.ViewServiceClient {
	return adminapiconnect.NewViewServiceClient(c.options.http, c.options.adminURL())
}

// Debug returns the debug service.
func (c *Client) Debug() adminapiconnect.DebugServiceClient {
	return adminapiconnect.NewDebugServiceClient(c.options.http, c.options.adminURL())
}
