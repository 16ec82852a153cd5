package kafka

import (
	"net"
	"time"
)

// coalesceBytes is the size of the writes that a stream gets which is not plain TCP: QUIC and TLS pay for each write,
// and are at their best from 64 KiB on.
const coalesceBytes = 64 << 10

// transferDeadline is when a transfer of n bytes that begins now has to be done: a peer that is slower, or does not read
// at all, is let go (X10).
func (s *Server) transferDeadline(n int) time.Time {
	return time.Now().Add(s.Limits.Transfer + time.Duration(n)*time.Second/time.Duration(s.Limits.TransferRate))
}

// writeAll writes pieces in order, total bytes, without joining them where the connection can take a vector.
func (s *Server) writeAll(conn net.Conn, pieces net.Buffers, total int) error {
	if err := conn.SetWriteDeadline(s.transferDeadline(total)); err != nil {
		return err
	}
	tcp, plain := conn.(*net.TCPConn)
	if plain && total > pieceBytes {
		return s.writing.write(tcp, pieces)
	}
	if len(pieces) == 1 {
		_, err := conn.Write(pieces[0])
		return err
	}
	if plain {
		_, err := pieces.WriteTo(tcp)
		return err
	}
	pooled := s.coalescing.Get().(*[]byte)
	defer s.coalescing.Put(pooled)
	buffer := (*pooled)[:0]
	for _, piece := range pieces {
		for len(piece) > 0 {
			if len(buffer) == 0 && len(piece) >= coalesceBytes {
				if _, err := conn.Write(piece); err != nil {
					return err
				}
				break
			}
			n := min(len(piece), coalesceBytes-len(buffer))
			buffer, piece = append(buffer, piece[:n]...), piece[n:]
			if len(buffer) == coalesceBytes {
				if _, err := conn.Write(buffer); err != nil {
					return err
				}
				buffer = buffer[:0]
			}
		}
	}
	if len(buffer) == 0 {
		return nil
	}
	_, err := conn.Write(buffer)
	return err
}
