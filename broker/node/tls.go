package node

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/internal/vfs"
)

// certificates are the files that a listener's TLS is made from. They are looked at again by the first handshake after a
// while, so that a renewed certificate is in use without a restart, and connections that are there go on; files that do
// not fit together leave the old ones in force. It is safe for concurrent use.
type certificates struct {
	certificateFiles
	current atomic.Pointer[loadedTLS]
	look    atomic.Int64 // Unix milliseconds of the next look at the files

	mu      sync.Mutex
	refused string // guarded by mu: why the files as they are now are not used; empty if they are
}

// certificateFiles say where the files are, and what is made of them.
type certificateFiles struct {
	fs     vfs.FS
	names  [3]string // certificate, key, authorities; the last may be empty
	config func(*loadedTLS) *tls.Config
	check  func(*loadedTLS) error // what files must satisfy to be used
	now    func() time.Time
	logger zerolog.Logger
}

// loadedTLS is what the files hold, and the configuration that was made from it.
type loadedTLS struct {
	content     [3][]byte
	pair        tls.Certificate
	authorities *x509.CertPool // nil: no file of them
	config      *tls.Config
}

// certificatesLook is how long a look at the files is good for.
const certificatesLook = time.Second

// newCertificates reads the files for the first time.
func newCertificates(files certificateFiles) (*certificates, error) {
	c := &certificates{certificateFiles: files}
	first, err := c.load(nil)
	if err != nil {
		return nil, err
	}
	if err := c.check(first); isOutOfTime(err) {
		// No reason to stay down: the clock may be wrong, and what needs no other node goes on.
		c.logger.Warn().Err(err).Msg("certificate out of time: other nodes will refuse it")
	} else if err != nil {
		return nil, err
	}
	c.current.Store(first)
	c.look.Store(c.now().Add(certificatesLook).UnixMilli())
	return c, nil
}

// isOutOfTime reports that nothing is wrong with a certificate but the time: it has expired, or is not good yet.
func isOutOfTime(err error) bool {
	var invalid x509.CertificateInvalidError
	return errors.As(err, &invalid) && invalid.Reason == x509.Expired
}

// listenerTLS makes the configuration of the client or the admin listener.
func (n *Node) listenerTLS(auth tls.ClientAuthType, alpn ...string) (*tls.Config, error) {
	or := func(configured, otherwise string) string {
		if configured != "" {
			return configured
		}
		return n.tlsFile(otherwise)
	}
	files := certificateFiles{
		fs: n.seams.FS, now: n.seams.Now, logger: n.component("tls"),
		names: [3]string{or(n.config.CertificateFile, nodeCertName), or(n.config.KeyFile, nodeKeyName)},
		check: func(*loadedTLS) error { return nil },
		config: func(l *loadedTLS) *tls.Config {
			return &tls.Config{
				MinVersion: tls.VersionTLS12, NextProtos: alpn, Certificates: []tls.Certificate{l.pair}, ClientAuth: auth, ClientCAs: l.authorities,
				// A resumed session would not show that its client's authority is not trusted any more.
				SessionTicketsDisabled: auth != tls.NoClientCert,
			}
		},
	}
	if auth != tls.NoClientCert {
		files.names[2] = or(n.config.CAFile, caCertName)
	}
	c, err := newCertificates(files)
	if err != nil {
		return nil, err
	}
	n.listenerFiles = append(n.listenerFiles, c)
	return c.serve(func(l *loadedTLS) *tls.Config { return l.config }), nil
}

// serve makes a server's configuration: each handshake takes what is in force then.
func (c *certificates) serve(as func(*loadedTLS) *tls.Config) *tls.Config {
	outer := as(c.current.Load()).Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return as(c.fresh()), nil }
	return outer
}

// load reads the files, and makes a configuration unless they are those of old.
func (c *certificates) load(old *loadedTLS) (*loadedTLS, error) {
	next := &loadedTLS{}
	for i, name := range c.names {
		if name == "" {
			continue
		}
		var err error
		if next.content[i], err = readSmall(c.fs, name); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	if old != nil && bytes.Equal(old.content[0], next.content[0]) && bytes.Equal(old.content[1], next.content[1]) &&
		bytes.Equal(old.content[2], next.content[2]) {
		return old, nil
	}
	var err error
	if next.pair, err = tls.X509KeyPair(next.content[0], next.content[1]); err != nil {
		return nil, fmt.Errorf("load %s and %s: %w", c.names[0], c.names[1], err)
	}
	if c.names[2] != "" {
		next.authorities = x509.NewCertPool()
		if !next.authorities.AppendCertsFromPEM(next.content[2]) {
			return nil, fmt.Errorf("%s: %w", c.names[2], errNoPEM)
		}
	}
	if old != nil {
		if err := c.check(next); err != nil {
			return nil, err
		}
	}
	next.config = c.config(next)
	return next, nil
}

// fresh returns what holds for a handshake. Of many at once, one looks at the files.
func (c *certificates) fresh() *loadedTLS {
	now := c.now()
	due := c.look.Load()
	if now.UnixMilli() < due || !c.look.CompareAndSwap(due, now.Add(certificatesLook).UnixMilli()) {
		return c.current.Load()
	}
	old := c.current.Load()
	next, err := c.load(old)
	why := ""
	if err != nil {
		next, why = old, err.Error()
	}
	c.mu.Lock()
	told := c.refused == why
	c.refused = why
	c.mu.Unlock()
	switch {
	case err != nil && !told:
		c.logger.Warn().Err(err).Msg("certificate not renewed: the files cannot be used as they are; those before stay in force")
	case next != old:
		c.current.Store(next)
		c.logger.Info().Str("file", c.names[0]).Str("serial", next.pair.Leaf.SerialNumber.Text(16)).Time("expires", next.pair.Leaf.NotAfter).Msg("certificate renewed")
	}
	return next
}

// notUsed says why the files as they are now are not used; empty if they are.
func (c *certificates) notUsed() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// derive makes a secret for one purpose from the node's key.
func derive(purpose string, key []byte) []byte {
	sum := sha256.Sum256(append([]byte(purpose), key...))
	return sum[:]
}
