package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// Disk is a block device in memory with a file system of its own, mounted at a directory, whose power can be cut: then it
// holds what had been written to the device, which of the file system is what was synced and what the kernel happened to have
// written of the rest.
//
// The device is a loop over a memory file. A seal against writes, which takes hold at one moment, is the loss of power: from
// then on every write to the device is an error, and the file is what the device held.
type Disk struct {
	dir   string
	bytes int64
	file  *os.File // what the device holds
}

// WhyNoDisks returns what keeps this machine from having them, or nil.
func WhyNoDisks() error {
	if os.Getuid() != 0 {
		return errors.New("it takes root to mount a device")
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no loop devices: %w", err)
	}
	_, err = exec.LookPath("mkfs.ext4")
	return errors.Join(err, control.Close())
}

// NewDisk makes a disk of so many bytes and mounts it at dir. It ends with the sandbox.
func NewDisk(ctx context.Context, dir string, bytes int64) (*Disk, error) {
	d := &Disk{dir: dir, bytes: bytes}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if d.file, err = memory(bytes); err != nil {
		return nil, err
	}
	format := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "/proc/self/fd/3")
	format.ExtraFiles = []*os.File{d.file}
	if out, err := format.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("format the disk of %s: %w\n%s", dir, err, out), d.file.Close())
	}
	if err := d.mount(); err != nil {
		return nil, errors.Join(err, d.file.Close())
	}
	return d, os.Remove(dir + "/lost+found") // a data directory must be empty
}

// CutPower ends all writing to the device. What is written meanwhile fails or is lost.
func (d *Disk) CutPower() error {
	if _, err := unix.FcntlInt(d.file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
		return fmt.Errorf("cut the power of the disk of %s: %w", d.dir, err)
	}
	return nil
}

// RestorePower mounts what the device held when its power was cut. Nobody may have a file of it open.
func (d *Disk) RestorePower() error {
	after, err := memory(d.bytes)
	if err != nil {
		return err
	}
	if err := errors.Join(copyData(after, d.file), unix.Unmount(d.dir, 0), d.file.Close()); err != nil {
		return errors.Join(fmt.Errorf("give the disk of %s power again: %w", d.dir, err), after.Close())
	}
	d.file = after
	return d.mount()
}

func (d *Disk) mount() (err error) {
	device, err := attach(d.file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.Close()) }() // the mount keeps it
	if err := unix.Mount(device.Name(), d.dir, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", device.Name(), d.dir, err)
	}
	return nil
}

// memory is a file in memory that can be sealed.
func memory(bytes int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("disk", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("a file in memory: %w", err)
	}
	file := os.NewFile(uintptr(fd), "disk")
	if err := file.Truncate(bytes); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// attachAttempts bounds how often another program takes the free loop device first.
const attachAttempts = 20

// attach makes a loop device of a file, which goes when nobody uses it any more.
func attach(file *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }()
	for attempt := 1; ; attempt++ {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("a loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_FD, int(file.Fd()))
		if err == nil {
			err = unix.IoctlLoopSetStatus64(int(device.Fd()), &unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR})
		}
		if err == nil {
			return device, nil
		}
		err = errors.Join(fmt.Errorf("attach %s: %w", device.Name(), err), device.Close())
		if !errors.Is(err, unix.EBUSY) || attempt == attachAttempts {
			return nil, err
		}
	}
}

// copyData copies what a file holds and leaves its holes.
func copyData(to, from *os.File) error {
	for at := int64(0); ; {
		begin, err := from.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // nothing but holes
		}
		if err != nil {
			return err
		}
		end, err := from.Seek(begin, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		block := make([]byte, end-begin)
		if _, err := from.ReadAt(block, begin); err != nil {
			return err
		}
		if _, err := to.WriteAt(block, begin); err != nil {
			return err
		}
		at = end
	}
}
