package transport

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// joined is a source of datagrams as a kernel with UDP_GRO hands them over.
type joined struct {
	datagrams []datagram
	calls     int
}

type datagram struct {
	bytes []byte
	size  int // of its packets; 0: it is one
}

func (j *joined) ReadBatch(ms []ipv4.Message, _ int) (int, error) {
	if len(j.datagrams) == 0 {
		return 0, io.EOF
	}
	j.calls++
	n := min(len(ms), len(j.datagrams))
	for i, d := range j.datagrams[:n] {
		ms[i].N = copy(ms[i].Buffers[0], d.bytes)
		ms[i].NN = 0
		if d.size > 0 {
			ms[i].NN = copy(ms[i].OOB, groMessage(d.size))
		}
		ms[i].Addr = &net.UDPAddr{Port: 1000 + len(d.bytes)%7}
	}
	j.datagrams = j.datagrams[n:]
	return n, nil
}

// groMessage is the control message that tells the size of a joined datagram's packets.
func groMessage(size int) []byte {
	b := make([]byte, unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_GRO
	h.SetLen(unix.CmsgLen(4))
	binary.NativeEndian.PutUint32(b[unix.CmsgSpace(0):], uint32(size))
	return b
}

// Whatever the kernel joins, and however many messages are asked for, each packet comes out once, in order, with its
// sender.
func TestJoinedDatagramsComeApartAsTheyWereSent(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for round := range 200 {
		source := &joined{}
		var want []string
		for range random.IntN(12) {
			d := datagram{bytes: make([]byte, random.IntN(9000)), size: random.IntN(3) * (1 + random.IntN(1400))}
			for i := range d.bytes {
				d.bytes[i] = byte(random.Uint32())
			}
			source.datagrams = append(source.datagrams, d)
			for rest := d.bytes; ; {
				n := len(rest)
				if d.size > 0 {
					n = min(n, d.size)
				}
				want = append(want, fmt.Sprint(1000+len(d.bytes)%7, rest[:n]))
				if rest = rest[n:]; len(rest) == 0 {
					break
				}
			}
		}
		s := newOffloadSocket(nil, source)
		var got []string
		for {
			ms := make([]ipv4.Message, 1+random.IntN(8))
			for i := range ms {
				ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 9000)}, make([]byte, controlBytes)
			}
			n, err := s.ReadBatch(ms, 0)
			if err != nil {
				break
			}
			for _, m := range ms[:n] {
				got = append(got, fmt.Sprint(m.Addr.(*net.UDPAddr).Port, m.Buffers[0][:m.N]))
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("round %d: %d packets came out of %d", round, len(got), len(want))
		}
	}
}

func TestAPacketLargerThanItsRoomIsCutOff(t *testing.T) {
	s := newOffloadSocket(nil, &joined{datagrams: []datagram{{bytes: bytes.Repeat([]byte{1}, 3000), size: 2000}}})
	ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 1452)}}, {Buffers: [][]byte{make([]byte, 1452)}}}
	if n, err := s.ReadBatch(ms, 0); n != 2 || err != nil || ms[0].N != 1452 || ms[1].N != 1000 {
		t.Fatalf("%d packets, %v, of %d and %d bytes", n, err, ms[0].N, ms[1].N)
	}
}

// What a stream carries arrives whole over sockets with receive offload, and the kernel does join packets: else the
// test says so, since then nothing was tried.
func TestStreamArrivesWholeOverReceiveOffload(t *testing.T) {
	listener, ca := listenQUIC(t)
	sum := sha256.New()
	const total = 32 << 20
	done := make(chan [sha256.Size]byte, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		got := sha256.New()
		if _, err := io.CopyN(got, conn, total); err != nil {
			t.Error(err)
		}
		done <- [sha256.Size]byte(got.Sum(nil))
	}()
	conn, err := newDialer(t, ca, nil).DialContext(t.Context(), "", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{3})
	if _, err := io.CopyBuffer(io.MultiWriter(conn, sum), io.LimitReader(random, total), make([]byte, 256<<10)); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got != [sha256.Size]byte(sum.Sum(nil)) {
		t.Fatal("other bytes arrived than were sent")
	}
	socket, ok := listener.transport.Conn.(*offloadSocket)
	if !ok {
		t.Skip("this kernel has no receive offload")
	}
	if socket.joins.Load() == 0 {
		t.Skip("the kernel joined no packets")
	}
	t.Logf("%d datagrams of more than one packet", socket.joins.Load())
}
