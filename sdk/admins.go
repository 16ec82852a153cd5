package sdk

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// adminReachWithin bounds the search for an admin listener that answers, for each.
const adminReachWithin = 2 * time.Second

// adminCarrier sends the requests of the admin API to the first of several listeners that takes a connection, and stays with
// it until it takes none. Nothing is sent twice: it looks before it sends. It is safe for concurrent use.
type adminCarrier struct {
	next   http.RoundTripper
	admins []*url.URL

	mu      sync.Mutex
	current *url.URL // guarded by mu; nil: to be looked for
}

// RoundTrip implements http.RoundTripper.
func (a *adminCarrier) RoundTrip(req *http.Request) (*http.Response, error) {
	admin := a.pick(req.Context())
	sent := req.Clone(req.Context())
	sent.URL.Scheme, sent.URL.Host, sent.Host = admin.Scheme, admin.Host, admin.Host
	resp, err := a.next.RoundTrip(sent)
	var broken *net.OpError
	if errors.As(err, &broken) && broken.Op == "dial" {
		a.mu.Lock()
		a.current = nil
		a.mu.Unlock()
	}
	return resp, err
}

// pick returns the listener to ask: where none takes a connection the first, whose error is as good as any.
func (a *adminCarrier) pick(ctx context.Context) *url.URL {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, admin := range a.admins {
		if a.current != nil || ctx.Err() != nil {
			break
		}
		dialer := net.Dialer{Timeout: adminReachWithin}
		if conn, err := dialer.DialContext(ctx, "tcp", admin.Host); err == nil {
			_ = conn.Close() // It only shows that somebody is there.
			a.current = admin
		}
	}
	if a.current == nil {
		return a.admins[0]
	}
	return a.current
}

// CloseIdleConnections lets http.Client reach the transport below.
func (a *adminCarrier) CloseIdleConnections() {
	if below, ok := a.next.(interface{ CloseIdleConnections() }); ok {
		below.CloseIdleConnections()
	}
}
