package kafka

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// pipes is a listener inside a bubble: dial makes a pipe and hands one end to Accept.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.accepted:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(t *testing.T) *rawConn {
	client, server := net.Pipe()
	p.accepted <- server
	t.Cleanup(func() { client.Close() })
	return &rawConn{Conn: client, t: t, reader: bufio.NewReader(client)}
}

// inBubble runs a test against a server whose clock is the bubble's.
func inBubble(t *testing.T, test func(t *testing.T, f *face, dial func() *rawConn)) {
	inBubbleWith(t, nil, test)
}

func inBubbleWith(t *testing.T, change func(*Config), test func(t *testing.T, f *face, dial func() *rawConn)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFace(t, change)
		listener := &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})}
		done := make(chan error, 1)
		go func() {
			done <- f.server.Serve(Listener{Listener: listener, Name: "client", AdvertisedHost: "bubble", AdvertisedPort: 1})
		}()
		test(t, f, func() *rawConn { return listener.dial(t) })
		if err := f.server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestT7FetchParksForExactlyMaxWait(t *testing.T) {
	inBubble(t, func(t *testing.T, f *face, dial func() *rawConn) {
		id := f.addTopic("orders", 1)
		c := dial()
		for _, tc := range []struct {
			millis int32
			want   time.Duration
		}{{0, 0}, {500, 500 * time.Millisecond}, {-1, 0}, {0x7fffffff, 5 * time.Minute}} {
			req := fetchRequest(12, "orders", id, 0)
			req.MaxWaitMillis = tc.millis
			start := time.Now()
			ask[*kmsg.FetchResponse](c, req)
			if took := time.Since(start); took != tc.want {
				t.Errorf("max wait %d ms: parked for %s, want %s", tc.millis, took, tc.want)
			}
		}
		if reads := f.log("orders", 0).reads; reads > 20 {
			t.Errorf("%d reads for four fetches: parking polls", reads)
		}
	})
}

func TestT7WakesWithTheRecordAndNotBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, f *face, dial func() *rawConn) {
		id := f.addTopic("orders", 2)
		consumer, producer := dial(), dial()
		req := fetchRequest(12, "orders", id, 0, 0)
		req.MaxWaitMillis = 60_000
		start := time.Now()
		correlation := consumer.send(req)
		time.Sleep(7 * time.Second)
		one := produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, "a"))
		one.Topics[0].Partitions[0].Partition = 1
		ask[*kmsg.ProduceResponse](producer, one)
		resp := consumer.receive(req, correlation).(*kmsg.FetchResponse)
		if took := time.Since(start); took != 7*time.Second || len(resp.Topics[0].Partitions[1].RecordBatches) == 0 {
			t.Errorf("answered after %s with %+v", took, resp.Topics[0].Partitions[1])
		}
	})
}

func TestProduceWaitsForItsTimeoutAndNoLonger(t *testing.T) {
	inBubble(t, func(t *testing.T, f *face, dial func() *rawConn) {
		id := f.addTopic("orders", 1)
		f.log("orders", 0).hold = true
		c := dial()
		for _, tc := range []struct {
			millis int32
			want   time.Duration
		}{{1500, 1500 * time.Millisecond}, {-1, 0}, {0x7fffffff, 5 * time.Minute}} {
			req := produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, "a"))
			req.TimeoutMillis = tc.millis
			start := time.Now()
			resp := ask[*kmsg.ProduceResponse](c, req)
			took, code := time.Since(start), broker.Code(resp.Topics[0].Partitions[0].ErrorCode)
			if took != tc.want || code != broker.RequestTimedOut {
				t.Errorf("timeout %d ms: code %d after %s, want REQUEST_TIMED_OUT after %s", tc.millis, code, took, tc.want)
			}
		}
	})
}

func TestX10EveryKindOfSilenceHasItsLimit(t *testing.T) {
	inBubble(t, func(t *testing.T, f *face, dial func() *rawConn) {
		limits := f.server.Limits
		var drips sync.WaitGroup
		defer drips.Wait()
		for name, tc := range map[string]struct {
			open func(c *rawConn)
			want time.Duration
		}{
			"nothing at all":      {func(*rawConn) {}, limits.Handshake},
			"after a request":     {func(c *rawConn) { ask[*kmsg.ApiVersionsResponse](c, kmsg.NewPtrApiVersionsRequest()) }, limits.Idle},
			"within a size":       {func(c *rawConn) { c.raw([]byte{0, 0}) }, limits.Handshake},
			"within a frame":      {func(c *rawConn) { c.raw([]byte{0, 0, 0x40, 0, 0, 3}) }, limits.Transfer + time.Second/4},
			"within a preamble":   {func(c *rawConn) { c.raw([]byte("MRS1\x10\x00abc")) }, limits.Handshake},
			"a byte now and then": {func(c *rawConn) { drips.Go(func() { drip(c) }) }, limits.Handshake},
		} {
			c := dial()
			start := time.Now()
			tc.open(c)
			if _, err := c.reader.ReadByte(); !errors.Is(err, io.EOF) {
				t.Fatalf("%s: %v, want the connection closed", name, err)
			}
			if took := time.Since(start); took != tc.want {
				t.Errorf("%s: closed after %s, want %s", name, took, tc.want)
			}
			c.Close()
		}
	})
}

// drip writes until nobody is there.
func drip(c *rawConn) {
	for {
		if _, err := c.Write([]byte{0}); err != nil {
			return
		}
		time.Sleep(12 * time.Second)
	}
}

func TestX10WriteThatNobodyReadsHasALimit(t *testing.T) {
	inBubble(t, func(t *testing.T, f *face, dial func() *rawConn) {
		c := dial()
		start := time.Now()
		c.send(kmsg.NewPtrMetadataRequest()) // and never reads the answer
		synctest.Wait()
		time.Sleep(f.server.Limits.Transfer + time.Second)
		synctest.Wait()
		if _, err := c.Write([]byte{0}); err == nil {
			t.Errorf("the connection is open %s after an answer that nobody took", time.Since(start))
		}
	})
}

// A connection that a stopping server does not serve stays as it is until the server goes: clients take one that ends without
// an answer for a mistake in their configuration, and give up what they have.
func TestAStoppingServerEndsNoConnectionThatItDoesNotServe(t *testing.T) {
	inBubble(t, func(t *testing.T, f *face, dial func() *rawConn) {
		if err := f.server.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		late := dial()
		if err := late.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := late.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the connection was ended: %v", err)
		}
	})
}
