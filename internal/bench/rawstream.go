package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/transport"
)

const (
	rawBytes = 1 << 30
	rawPiece = 64 << 10 // as replication writes
)

// rawStream sends a gigabyte over one QUIC stream of the product's transport, receive offload included, from this process to
// itself, which is faster than between two, and returns how long that took.
func rawStream(ctx context.Context) (took time.Duration, err error) {
	certificate, roots, err := loopbackCertificate()
	if err != nil {
		return 0, err
	}
	server, err := transport.ListenUDP(ctx, "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		return 0, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{transport.ALPNReplication}}
	listener, err := transport.ListenQUIC(ctx, server, config, transport.Settings{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, listener.Close()) }()
	socket, err := transport.ListenUDP(ctx, "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		return 0, err
	}
	dialer := transport.DialQUIC(socket, &tls.Config{RootCAs: roots, NextProtos: config.NextProtos}, transport.Settings{}, nil)
	defer func() { err = errors.Join(err, dialer.Close()) }()
	group := task.NewGroup(ctx)
	group.Go("send", func(ctx context.Context) error { return sendRaw(ctx, dialer, listener.Addr().String()) })
	conn, err := listener.Accept()
	if err != nil {
		return 0, errors.Join(err, group.Wait())
	}
	began := time.Now()
	_, err = io.CopyN(io.Discard, conn, rawBytes)
	took = time.Since(began)
	if err == nil {
		_, err = conn.Write([]byte{1}) // the sender may go
	}
	if err != nil {
		group.Stop()
	}
	return took, errors.Join(err, group.Wait())
}

func sendRaw(ctx context.Context, dialer *transport.QUICDialer, address string) error {
	conn, err := dialer.DialContext(ctx, "udp", address)
	if err != nil {
		return err
	}
	piece := pattern(rawPiece)
	for sent := 0; sent < rawBytes; sent += rawPiece {
		if _, err := conn.Write(piece); err != nil {
			return err
		}
	}
	_, err = conn.Read(make([]byte, 1))
	return err // the dialer closes the connection
}

// loopbackCertificate makes a certificate for 127.0.0.1, and roots that trust it.
func loopbackCertificate() (certificate tls.Certificate, roots *x509.CertPool, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return certificate, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return certificate, nil, err
	}
	roots = x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, roots, nil
}
