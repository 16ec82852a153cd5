package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/task"
)

// control is a physical figure taken beside a scenario: what the machine does with the same bytes and no broker.
type control struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"` // MB/s, ms or ns/record
}

// pieceBytes is the piece in which the disk control writes and syncs: a batch, about.
const pieceBytes = 1 << 20

// diskControl writes and syncs total bytes into a new file, a piece at a time.
func diskControl(dir string, total int64) (control, error) {
	c := control{Name: "write + fdatasync of the same bytes, 1 MiB a time", Unit: "MB/s"}
	took, err := appendSynced(dir, pieceBytes, int(max(total/pieceBytes, 1)))
	if err != nil {
		return c, err
	}
	sum := time.Duration(0)
	for _, d := range took {
		sum += d
	}
	c.Value = float64(len(took)) * pieceBytes / 1e6 / sum.Seconds()
	return c, nil
}

// syncControl is the median of appends of 4 KiB, each synced.
func syncControl(dir string) (control, error) {
	took, err := appendSynced(dir, 4<<10, 400)
	slices.Sort(took)
	return control{Name: "append of 4 KiB + fdatasync, p50", Value: quantile(took, 0.5), Unit: "ms"}, err
}

// appendSynced appends count pieces to a file and syncs after each.
func appendSynced(dir string, bytes, count int) (took []time.Duration, err error) {
	name := filepath.Join(dir, "control")
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(name)) }()
	piece := make([]byte, bytes)
	for i := range piece {
		piece[i] = byte(i * 31)
	}
	for range count {
		begin := time.Now()
		if _, err := file.Write(piece); err != nil {
			return took, err
		}
		if err := syscall.Fdatasync(int(file.Fd())); err != nil {
			return took, fmt.Errorf("sync %s: %w", name, err)
		}
		took = append(took, time.Since(begin))
	}
	return took, nil
}

// loopControl sends total bytes over one loopback connection, read into one buffer.
func loopControl(ctx context.Context, total int64) (c control, err error) {
	c = control{Name: "the same bytes over loopback TCP", Unit: "MB/s"}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return c, err
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
		return c, errors.Join(err, group.Wait())
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
			return c, errors.Join(err, conn.Close(), group.Wait())
		}
	}
	c.Value = float64(read) / 1e6 / time.Since(begin).Seconds()
	return c, errors.Join(conn.Close(), group.Wait())
}
