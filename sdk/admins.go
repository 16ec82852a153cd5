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

// adminCarrier sends the requests of the admin API to the first of several listeners whose node is ready, and stays with it
// until a request to it ends without an answer. Nothing is sent twice: it looks before it sends. It is safe for concurrent use.
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
	if err != nil || resp.StatusCode == http.StatusServiceUnavailable { // It is gone, or starts again.
		a.mu.Lock()
		a.current = nil
		a.mu.Unlock()
	}
	return resp, err
}

// pick returns the listener to ask: where none is ready one that answers, and where none answers the first, whose error is as
// good as any.
func (a *adminCarrier) pick(ctx context.Context) *url.URL {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current != nil {
		return a.current
	}
	var alive *url.URL
	for _, admin := range a.admins {
		answers, ready := a.probe(ctx, admin)
		if ready {
			a.current = admin
			return admin
		}
		if answers && alive == nil {
			alive = admin
		}
	}
	if alive != nil {
		return alive
	}
	return a.admins[0]
}

// probe asks whether the node is ready. That it takes a connection would not even tell whether it lives: of a process that
// hangs the kernel does so too.
func (a *adminCarrier) probe(ctx context.Context, admin *url.URL) (answers, ready bool) {
	ctx, cancel := context.WithTimeout(ctx, adminReachWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin.Scheme+"://"+admin.Host+"/readyz", nil)
	if err != nil {
		return false, false
	}
	resp, err := a.next.RoundTrip(req)
	if err != nil {
		return false, false
	}
	_ = resp.Body.Close() // Its status says all.
	return true, resp.StatusCode == http.StatusOK
}

// CloseIdleConnections lets http.Client reach the transport below.
func (a *adminCarrier) CloseIdleConnections() {
	if below, ok := a.next.(interface{ CloseIdleConnections() }); ok {
		below.CloseIdleConnections()
	}
}
