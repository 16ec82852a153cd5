package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inside marks the environment of a program that runs in the sandbox.
const inside = "MILLRACE_CHAOS_SANDBOX"

// endWithin is how long a sandbox that was interrupted may take to end in order before it is killed.
const endWithin = 20 * time.Second

// Inside reports whether this process is the first of a sandbox.
func Inside() bool { return os.Getenv(inside) != "" && os.Getpid() == 1 }

// Why returns what keeps this machine from having a sandbox, or nil.
func Why() error {
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no TUN devices: %w", err)
	}
	probe := exec.Command("true") // not this program: its own start may ask Why
	probe.SysProcAttr = attributes()
	if err := probe.Start(); err != nil {
		return errors.Join(fmt.Errorf("no namespaces: %w", err), tun.Close())
	}
	_ = probe.Wait() // that it could be started is all there is to know
	return tun.Close()
}

func attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Getuid() != 0 {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return a
}

// Enter runs this program again in a sandbox, with arguments, and waits for it. Interrupts are passed on; when
// ctx ends the sandbox is interrupted.
func Enter(ctx context.Context, arguments ...string) error {
	// The kernel sends Pdeathsig when the thread that started the child ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", arguments...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = attributes()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = endWithin
	return cmd.Run()
}

// Settle makes the sandbox ready: mounts stay private, /proc shows its own processes, the loopback is up.
func Settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return up("lo", nil)
}

// Volume mounts a file system in memory of its own, of so many bytes.
func Volume(dir string, bytes int64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		return fmt.Errorf("mount a volume at %s: %w", dir, err)
	}
	return nil
}
