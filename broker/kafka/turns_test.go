package kafka

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"
)

// tcpPair is a connection over loopback, the writing side first.
func tcpPair(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	reader, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	writer, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = writer.Close(), reader.Close() })
	return writer.(*net.TCPConn), reader.(*net.TCPConn)
}

// longResponse is total bytes in pieces of any size, empty ones among them.
func longResponse(total int) (pieces net.Buffers, whole []byte) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	whole = make([]byte, total)
	for i := range whole {
		whole[i] = byte(rng.Uint32())
	}
	for rest := whole; len(rest) > 0; {
		n := min(rng.IntN(1<<rng.IntN(20)), len(rest))
		pieces, rest = append(pieces, rest[:n]), rest[n:]
	}
	return pieces, whole
}

func TestALongResponseArrivesWholeInTurns(t *testing.T) {
	writer, reader := tcpPair(t)
	boundUnsent(writer)
	pieces, whole := longResponse(24 << 20)
	failed := make(chan error, 1)
	go func() { failed <- errors.Join(newTurns().write(writer, pieces), writer.CloseWrite()) }()
	got, err := io.ReadAll(reader)
	if err := errors.Join(err, <-failed); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, whole) {
		t.Errorf("%d bytes came of %d, or others", len(got), len(whole))
	}
}

// With one turn for all, a reader is served while others take nothing, and those are let go when their time is up.
func TestAReaderThatTakesNothingHoldsNoTurn(t *testing.T) {
	one := make(turns, 1)
	const deaf = 8
	ended := make(chan error, deaf)
	for range deaf {
		writer, _ := tcpPair(t)
		boundUnsent(writer)
		if err := writer.SetWriteDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		pieces, _ := longResponse(16 << 20)
		go func() { ended <- one.write(writer, pieces) }()
	}
	writer, reader := tcpPair(t)
	pieces, whole := longResponse(16 << 20)
	served := make(chan error, 1)
	go func() { served <- one.write(writer, pieces) }()
	if _, err := io.CopyN(io.Discard, reader, int64(len(whole))); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	for range deaf {
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a response that nobody reads ended with %v", err)
		}
	}
}

// What the kernel takes for a peer that reads nothing is bounded, and so is what it costs to copy it.
func TestTheKernelTakesLittleForAReaderThatTakesNothing(t *testing.T) {
	taken := func(bound bool) (bytes int) {
		writer, _ := tcpPair(t)
		if bound {
			boundUnsent(writer)
		}
		for piece := make([]byte, 64<<10); bytes < 32<<20; {
			if err := writer.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := writer.Write(piece)
			bytes += n
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return bytes
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Fatal("the kernel takes whatever comes")
		return 0
	}
	unbound, bound := taken(false), taken(true)
	t.Logf("%d bytes, without a bound %d", bound, unbound)
	if bound > 4*unsentBytesMax || bound >= unbound {
		t.Errorf("the kernel took %d bytes, without a bound %d", bound, unbound)
	}
}
