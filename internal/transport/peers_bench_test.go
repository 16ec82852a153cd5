package transport

import (
	"crypto/tls"
	"io"
	"testing"

	"github.com/rs/zerolog"
)

// BenchmarkPeers is one stream between two nodes, in writes of 64 KiB. It also tells how many packets of a gigabyte were lost.
func BenchmarkPeers(b *testing.B) {
	certificate, key := writeCertificate(b)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		b.Fatal(err)
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{ALPNReplication}, Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true,
	}
	var peers [2]*Peers
	for i := range peers {
		socket, err := ListenUDP(b.Context(), "127.0.0.1:0", zerolog.Nop())
		if err == nil {
			peers[i], err = ListenPeers(socket, config, config, Settings{WindowsFull: true})
		}
		if err != nil {
			b.Fatal(err)
		}
		defer peers[i].Close()
	}
	// As in replication, who dials is who receives.
	conn, err := peers[0].Dial(b.Context(), peers[1].transport.Conn.LocalAddr().String())
	if err != nil {
		b.Fatal(err)
	}
	receiving, err := conn.Open(b.Context())
	if err == nil {
		_, err = receiving.Write([]byte{1})
	}
	if err != nil {
		b.Fatal(err)
	}
	from, err := peers[1].Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	sending, err := from.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	piece := make([]byte, 64<<10)
	b.SetBytes(int64(len(piece)))
	b.ResetTimer()
	done := make(chan error, 1)
	go func() {
		for range b.N {
			if _, err := sending.Write(piece); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	if _, err := io.CopyN(io.Discard, receiving, int64(b.N)*int64(len(piece))); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	stats := from.conn.ConnectionStats()
	b.ReportMetric(float64(stats.PacketsLost)/(float64(stats.BytesSent)/1e9), "lost/GB")
}
