package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/task"
)

// controls are physical figures taken right before a turn: what the machine does without any broker.
type controls struct {
	SyncMillis float64 `json:"append_4k_fdatasync_p50_ms"`
	DiskMB     float64 `json:"append_1m_fdatasync_mb_per_second"`
	CopyMB     float64 `json:"memcpy_mb_per_second"`
	CRCMB      float64 `json:"crc32c_mb_per_second"`
	LoopMB     float64 `json:"loopback_tcp_mb_per_second"`
}

// What the controls move.
const (
	controlAppends = 400 // of 4 KiB
	controlBytes   = 64 << 20
	pieceBytes     = 1 << 20 // a batch, about
)

// takeControls takes them on dir's disk: about a second.
func takeControls(ctx context.Context, dir string) (c controls, err error) {
	small, err := appendSynced(dir, 4<<10, controlAppends)
	if err != nil {
		return c, err
	}
	c.SyncMillis = small.millis(0.5)
	begin := time.Now()
	if _, err = appendSynced(dir, pieceBytes, controlBytes/pieceBytes); err != nil {
		return c, err
	}
	c.DiskMB = controlBytes / 1e6 / time.Since(begin).Seconds()
	c.CopyMB, c.CRCMB = memoryControls()
	c.LoopMB, err = loopback(ctx, 4*controlBytes)
	return c, err
}

// appendSynced appends count pieces to a new file and syncs after each.
func appendSynced(dir string, bytes, count int) (took *histogram, err error) {
	name := filepath.Join(dir, "control")
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(name)) }()
	piece := pattern(bytes)
	took = new(histogram)
	for range count {
		begin := time.Now()
		if _, err := file.Write(piece); err != nil {
			return took, err
		}
		if err := syscall.Fdatasync(int(file.Fd())); err != nil {
			return took, fmt.Errorf("sync %s: %w", name, err)
		}
		took.add(time.Since(begin))
	}
	return took, nil
}

func pattern(bytes int) []byte {
	piece := make([]byte, bytes)
	for i := range piece {
		piece[i] = byte(i * 31)
	}
	return piece
}

// memoryControls copies memory that no cache holds, and sums what one does.
func memoryControls() (copied, summed float64) {
	from, to := pattern(controlBytes), make([]byte, controlBytes)
	copy(to, from) // maps the pages
	begin := time.Now()
	for range 8 {
		copy(to, from)
	}
	copied = 8 * controlBytes / 1e6 / time.Since(begin).Seconds()
	table := crc32.MakeTable(crc32.Castagnoli)
	begin = time.Now()
	sum := uint32(0)
	for range 8 * controlBytes / pieceBytes {
		sum = crc32.Update(sum, table, from[:pieceBytes])
	}
	summed = 8 * controlBytes / 1e6 / time.Since(begin).Seconds()
	to[0] = byte(sum)
	return copied, summed
}

// loopback sends total bytes over one loopback connection, read into one buffer, and returns MB/s.
func loopback(ctx context.Context, total int64) (speed float64, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, listener.Close()) }()
	group := task.NewGroup(ctx)
	group.Go("send", func(ctx context.Context) (err error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		piece := make([]byte, pieceBytes)
		for sent := int64(0); sent < total; sent += pieceBytes {
			if _, err := conn.Write(piece); err != nil {
				return err
			}
		}
		return nil
	})
	conn, err := listener.Accept()
	if err != nil {
		return 0, errors.Join(err, group.Wait())
	}
	begin := time.Now()
	buffer := make([]byte, 256<<10)
	read := int64(0)
	for {
		n, err := conn.Read(buffer)
		read += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, errors.Join(err, conn.Close(), group.Wait())
		}
	}
	speed = float64(read) / 1e6 / time.Since(begin).Seconds()
	return speed, errors.Join(conn.Close(), group.Wait())
}
