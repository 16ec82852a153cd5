package sdk

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// adminReachWithin bounds the search for an admin listener that answers, for each.
const adminReachWithin = time.Second

// adminCarrier sends the requests of the admin API to the first of several listeners that answers, and stays with it until
// a request to it ends without an answer. Nothing is sent twice: it looks before it sends. It is safe for concurrent use.
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
	if err != nil {
		a.mu.Lock()
		a.current = nil
		a.mu.Unlock()
	}
	return resp, err
}

// pick returns the listener to ask: where none answers the first, whose error is as good as any.
func (a *adminCarrier) pick(ctx context.Context) *url.URL {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, admin := range a.admins {
		if a.current != nil || ctx.Err() != nil {
			break
		}
		if a.answers(ctx, admin) {
			a.current = admin
		}
	}
	if a.current == nil {
		return a.admins[0]
	}
	return a.current
}

// answers asks whether the process lives. That it takes a connection would not tell: of a process that hangs the kernel
// does so too.
func (a *adminCarrier) answers(ctx context.Context, admin *url.URL) bool {
	ctx, cancel := context.WithTimeout(ctx, adminReachWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin.Scheme+"://"+admin.Host+"/livez", nil)
	if err != nil {
		return false
	}
	resp, err := a.next.RoundTrip(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // Whatever the answer is, there is one.
	return true
}

// CloseIdleConnections lets http.Client reach the transport below.
func (a *adminCarrier) CloseIdleConnections() {
	if below, ok := a.next.(interface{ CloseIdleConnections() }); ok {
		below.CloseIdleConnections()
	}
}
