package kafka

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/internal/transport"
)

// loopbackTLS returns configurations of a server and of a client that trusts it.
func loopbackTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{transport.ALPNKafka}}
	return server, &tls.Config{RootCAs: roots, NextProtos: []string{transport.ALPNKafka}}
}

// serveQUIC serves f over QUIC and returns its address and an option that dials it, each stream opened by preamble.
func (f *face) serveQUIC(preamble *adminapi.Preamble) (string, kgo.Opt) {
	f.t.Helper()
	serverTLS, clientTLS := loopbackTLS(f.t)
	sockets := [2]*net.UDPConn{}
	for i := range sockets {
		socket, err := transport.ListenUDP(f.t.Context(), "127.0.0.1:0", zerolog.Nop())
		if err != nil {
			f.t.Fatal(err)
		}
		sockets[i] = socket
	}
	listener, err := transport.ListenQUIC(context.Background(), sockets[0], serverTLS, transport.Settings{})
	if err != nil {
		f.t.Fatal(err)
	}
	address := f.serve(listener)
	var opening []byte
	if preamble != nil {
		message, err := proto.Marshal(preamble)
		if err != nil {
			f.t.Fatal(err)
		}
		if opening, err = transport.AppendPreamble(nil, message); err != nil {
			f.t.Fatal(err)
		}
	}
	dialer := transport.DialQUIC(sockets[1], clientTLS, transport.Settings{}, opening)
	f.t.Cleanup(func() { dialer.Close() })
	return address, kgo.Dialer(dialer.DialContext)
}

// serveTLS serves f over TLS on TCP.
func (f *face) serveTLS() (string, kgo.Opt) {
	f.t.Helper()
	serverTLS, clientTLS := loopbackTLS(f.t)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.serve(listener), kgo.DialTLSConfig(clientTLS)
}

func produceValues(t *testing.T, client *kgo.Client, topic string, values ...string) {
	t.Helper()
	for _, v := range values {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatalf("produce %q: %v", v, err)
		}
	}
}

// consumeValues polls until it has n records and returns their values.
func consumeValues(t *testing.T, client *kgo.Client, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var values []string
	for len(values) < n {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("timed out with %d of %d records: %q", len(values), n, values)
		}
		fetches.EachError(func(topic string, p int32, err error) { t.Fatalf("fetch %s-%d: %v", topic, p, err) })
		fetches.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

func TestRecordsComeBackOverEveryTransport(t *testing.T) {
	for _, transport := range []string{"tcp", "tls", "quic"} {
		t.Run(transport, func(t *testing.T) {
			f := newFace(t, nil)
			f.addTopic("orders", 1)
			var address string
			opts := []kgo.Opt{kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}
			switch transport {
			case "tcp":
				address = f.serveTCP()
			case "tls":
				a, opt := f.serveTLS()
				address, opts = a, append(opts, opt)
			case "quic":
				a, opt := f.serveQUIC(nil)
				address, opts = a, append(opts, opt)
			}
			client := f.client(address, opts...)
			big := strings.Repeat("x", 300<<10) // passes the pooled frame and the coalescing buffer
			produceValues(t, client, "orders", "one", big, "three")
			got := consumeValues(t, client, 3)
			if got[0] != "one" || got[1] != big || got[2] != "three" {
				t.Fatalf("consumed %d, %d and %d bytes in another order or form", len(got[0]), len(got[1]), len(got[2]))
			}
		})
	}
}

func TestEveryCodecIsAccepted(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 1)
	address := f.serveTCP()
	consumer := f.client(address, kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for name, codec := range map[string]kgo.CompressionCodec{
		"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		value := strings.Repeat(name, 1000)
		produceValues(t, f.client(address, kgo.ProducerBatchCompression(codec)), "orders", value)
		if got := consumeValues(t, consumer, 1); got[0] != value {
			t.Errorf("%s: consumed %d bytes, want %d", name, len(got[0]), len(value))
		}
	}
}

func TestManyRecordsKeepTheirOrder(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 1)
	client := f.client(f.serveTCP(), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.ProducerBatchMaxBytes(4<<10))
	const n = 5000
	for i := range n {
		client.Produce(t.Context(), &kgo.Record{Topic: "orders", Value: fmt.Appendf(nil, "%06d", i)}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, v := range consumeValues(t, client, n) {
		if want := fmt.Sprintf("%06d", i); v != want {
			t.Fatalf("record %d is %s", i, v)
		}
	}
}

func TestGroupConsumerCommitsAndResumes(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 2)
	address := f.serveTCP()
	produceValues(t, f.client(address), "orders", "a", "b", "c")
	for _, static := range []bool{false, true} {
		group := fmt.Sprintf("group-%v", static)
		opts := []kgo.Opt{kgo.ConsumerGroup(group), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}
		if static {
			opts = append(opts, kgo.InstanceID("instance"))
		}
		client := f.client(address, opts...)
		consumeValues(t, client, 3)
		if err := client.CommitUncommittedOffsets(t.Context()); err != nil {
			t.Fatalf("commit: %v", err)
		}
		if client.Close(); static != (f.groups.members[group].InstanceID == "instance") {
			t.Errorf("static %v: the coordinator saw instance %q", static, f.groups.members[group].InstanceID)
		}
		var total broker.Offset
		for _, o := range f.groups.offsets[group] {
			total += o.Offset
		}
		if total != 3 {
			t.Errorf("static %v: committed %+v, want three records in all", static, f.groups.offsets[group])
		}
	}
}
