package netns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestMain runs the tests in a sandbox where there can be one.
func TestMain(m *testing.M) {
	if Why() != nil {
		os.Exit(m.Run())
	}
	if Inside() {
		if err := Settle(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if err := Enter(context.Background(), os.Args[1:]...); err != nil {
		code := 1
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		}
		os.Exit(code)
	}
}

// talk is an echo on a host and a socket on another that asks it.
type talk struct {
	t    *testing.T
	ask  net.Conn
	echo net.PacketConn
}

func newTalk(t *testing.T, r *Router) *talk {
	t.Helper()
	k := &talk{t: t}
	there := r.Hosts[1].Address.String() + ":9"
	err := r.Hosts[1].Do(t.Context(), func() (err error) { k.echo, err = net.ListenPacket("udp4", there); return err })
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Hosts[0].Do(t.Context(), func() (err error) { k.ask, err = net.Dial("udp4", there); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(k.ask.Close(), k.echo.Close()) })
	return k
}

// heard sends so many packets one way and returns how many arrived within a moment of silence.
func (k *talk) heard(packets, size int) (arrived int, last time.Duration) {
	k.t.Helper()
	began := time.Now()
	for range packets {
		if _, err := k.ask.Write(make([]byte, size)); err != nil {
			k.t.Fatal(err)
		}
	}
	buffer := make([]byte, 2000)
	for {
		if err := k.echo.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			k.t.Fatal(err)
		}
		if _, _, err := k.echo.ReadFrom(buffer); err != nil {
			return arrived, last
		}
		arrived, last = arrived+1, time.Since(began)
	}
}

func TestLinksDoWhatTheySay(t *testing.T) {
	if why := Why(); why != nil {
		t.Skip("no sandbox here:", why)
	}
	r, err := NewRouter(t.Context(), 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	k := newTalk(t, r)
	a, b := r.Hosts[0], r.Hosts[1]
	for _, c := range []struct {
		name            string
		link            Link
		least, most     int
		atLeast, atMost time.Duration
	}{
		{"open", Link{}, 20, 20, 0, 200 * time.Millisecond},
		{"cut", Link{Cut: true}, 0, 0, 0, 0},
		{"half is lost", Link{Loss: 0.5}, 1, 19, 0, 200 * time.Millisecond},
		{"everything twice", Link{Double: 1}, 40, 40, 0, 200 * time.Millisecond},
		{"damage is found by checksums", Link{Damage: 1}, 0, 4, 0, 200 * time.Millisecond},
		{"late", Link{Delay: 150 * time.Millisecond}, 20, 20, 150 * time.Millisecond, 400 * time.Millisecond},
		{"slow", Link{RateBytes: 20 * 1028 * 5}, 20, 20, 190 * time.Millisecond, 500 * time.Millisecond},
		{"too long", Link{SizeMax: 1000}, 0, 0, 0, 0},
		{"the other direction is cut", Link{}, 20, 20, 0, 200 * time.Millisecond},
	} {
		r.Heal()
		r.Set(a, b, c.link)
		r.Set(b, a, Link{Cut: true})
		arrived, last := k.heard(20, 1000)
		if arrived < c.least || arrived > c.most || last < c.atLeast || arrived > 0 && last > c.atMost+time.Second {
			t.Errorf("%s: %d of 20 arrived, the last after %s", c.name, arrived, last)
		}
	}
}

func TestASlowLinkDropsWhatWaitsTooLong(t *testing.T) {
	w := wire{Link: Link{RateBytes: 1000}}
	random, now := rand.New(rand.NewPCG(1, 1)), time.Now()
	passed := 0
	for range 20 {
		passed += w.take(now, 100, random).copies
	}
	if passed != 5 {
		t.Errorf("%d packets of 100 ms each were taken, want those that begin within %s", passed, queueTime)
	}
}
