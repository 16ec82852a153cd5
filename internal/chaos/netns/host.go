package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/millrace-io/millrace/internal/task"
)

const mtu = 1500

// Host is a network namespace with one device.
type Host struct {
	Address netip.Addr

	device *os.File
	work   chan func()
}

// newHost makes a namespace, or, of the process itself, only the device.
func newHost(tasks *task.Group, address netip.Addr, own bool) (*Host, error) {
	h := &Host{Address: address, work: make(chan func())}
	if own {
		var err error
		h.device, err = open(address)
		return h, err
	}
	ready := make(chan error, 1)
	tasks.Go("host "+address.String(), func(ctx context.Context) error {
		// The thread is never given back: it ends with this goroutine, and the namespace with the last process in it.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = up("lo", nil)
		}
		if err == nil {
			h.device, err = open(address)
		}
		ready <- err
		for err == nil {
			select {
			case f := <-h.work:
				f()
			case <-ctx.Done():
				return nil
			}
		}
		return nil // told by ready
	})
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("host %s: %w", address, err)
	}
	return h, nil
}

// Do runs f on the host's thread: what it starts lives in the host's namespace.
func (h *Host) Do(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	select {
	case h.work <- func() { done <- f() }:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open makes a TUN device with an address in the calling thread's namespace.
func open(address netip.Addr) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a TUN device: %w", err)
	}
	request, err := unix.NewIfreq("m%d")
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err == nil {
		err = up(request.Name(), address.AsSlice())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a TUN device: %w", err), unix.Close(fd))
	}
	// Only now, so that the runtime's poller sees a device that can be read.
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

// up gives a device of the calling thread's namespace an address in a network of 256 and switches it on.
func up(device string, address []byte) (err error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(socket)) }()
	steps := []struct {
		what    uint
		prepare func(*unix.Ifreq) error
	}{
		{unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(address) }},
		{unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 0}) }},
		{unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(mtu); return nil }},
		{unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }},
	}
	if address == nil {
		steps = steps[len(steps)-1:]
	}
	for _, s := range steps {
		request, err := unix.NewIfreq(device)
		if err == nil {
			err = s.prepare(request)
		}
		if err == nil {
			err = unix.IoctlIfreq(socket, s.what, request)
		}
		if err != nil {
			return fmt.Errorf("set up device %s (%#x): %w", device, s.what, err)
		}
	}
	return nil
}
