package node

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/internal/vfs"
)

// certificates is the TLS side of a listener. Its files are looked at again by the first handshake after a while, so that
// a renewed certificate is in use without a restart; files that do not fit together leave the old ones in force. It is
// safe for concurrent use.
type certificates struct {
	files  vfs.FS
	names  [3]string // certificate, key, authorities of clients
	alpn   []string
	auth   tls.ClientAuthType
	now    func() time.Time
	logger zerolog.Logger

	current atomic.Pointer[loadedTLS]
	look    atomic.Int64 // Unix milliseconds of the next look at the files
}

// loadedTLS is a configuration with the bytes that it was made from.
type loadedTLS struct {
	content [3][]byte
	config  *tls.Config
}

// certificatesLook is how long a look at the files is good for.
const certificatesLook = time.Second

// listenerTLS makes a listener's configuration.
func (n *Node) listenerTLS(auth tls.ClientAuthType, alpn ...string) (*tls.Config, error) {
	or := func(configured, otherwise string) string {
		if configured != "" {
			return configured
		}
		return n.tlsFile(otherwise)
	}
	c := &certificates{
		files: n.seams.FS, alpn: alpn, auth: auth, now: n.seams.Now, logger: n.component("tls"),
		names: [3]string{or(n.config.CertificateFile, nodeCertName), or(n.config.KeyFile, nodeKeyName), or(n.config.CAFile, caCertName)},
	}
	first, err := c.load(nil)
	if err != nil {
		return nil, err
	}
	c.current.Store(first)
	c.look.Store(c.now().Add(certificatesLook).UnixMilli())
	outer := first.config.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.fresh(), nil }
	return outer, nil
}

// load reads the files, and makes a configuration unless they are those of old.
func (c *certificates) load(old *loadedTLS) (*loadedTLS, error) {
	next := &loadedTLS{}
	for i, name := range c.names {
		if i == 2 && c.auth == tls.NoClientCert {
			break // nobody is asked for a certificate
		}
		var err error
		if next.content[i], err = readSmall(c.files, name); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	if old != nil && bytes.Equal(old.content[0], next.content[0]) && bytes.Equal(old.content[1], next.content[1]) &&
		bytes.Equal(old.content[2], next.content[2]) {
		return old, nil
	}
	pair, err := tls.X509KeyPair(next.content[0], next.content[1])
	if err != nil {
		return nil, fmt.Errorf("load %s and %s: %w", c.names[0], c.names[1], err)
	}
	next.config = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: c.alpn, Certificates: []tls.Certificate{pair}, ClientAuth: c.auth,
		// A resumed session would not show that its client's authority is not trusted any more.
		SessionTicketsDisabled: c.auth != tls.NoClientCert,
	}
	if c.auth != tls.NoClientCert {
		next.config.ClientCAs = x509.NewCertPool()
		if !next.config.ClientCAs.AppendCertsFromPEM(next.content[2]) {
			return nil, fmt.Errorf("%s: %w", c.names[2], errNoPEM)
		}
	}
	return next, nil
}

// fresh returns the configuration for a handshake. Of many at once, one looks at the files.
func (c *certificates) fresh() *tls.Config {
	now := c.now()
	due := c.look.Load()
	if now.UnixMilli() < due || !c.look.CompareAndSwap(due, now.Add(certificatesLook).UnixMilli()) {
		return c.current.Load().config
	}
	old := c.current.Load()
	next, err := c.load(old)
	switch {
	case err != nil:
		c.logger.Warn().Err(err).Msg("certificate not renewed: the files do not fit together; the one before stays in use")
		return old.config
	case next != old:
		c.current.Store(next)
		c.logger.Info().Str("file", c.names[0]).Msg("certificate renewed")
	}
	return next.config
}

// derive makes a secret for one purpose from the node's key.
func derive(purpose string, key []byte) []byte {
	sum := sha256.Sum256(append([]byte(purpose), key...))
	return sum[:]
}
