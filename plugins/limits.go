package plugins

import (
	"errors"
	"fmt"
)

// Sizes of the host's own, which no decision row changes.
const (
	// ModuleBytesMax is the largest module that is admitted, and the largest metered module.
	ModuleBytesMax = 8 << 20
	// StartFuel is what start function, _initialize and millrace_configure share.
	StartFuel = 100_000_000
	// PageBytes is a page of guest memory.
	PageBytes = 64 << 10
	// StderrBytesMax is how much of a guest's output is kept for a failure.
	StderrBytesMax = 16 << 10
	// TextBytesMax is the longest text of a failure or a dead letter; the rest is cut.
	TextBytesMax = 16 << 10
)

// Limits are the bounds that can change a verdict. Every one of them is recorded in the decision row and enters the
// judge key; none is read from live configuration.
type Limits struct {
	FrameRecordsMax  uint32 // records in a canonical frame
	FrameBytesMax    uint32 // projected bytes in a canonical frame
	FrameFailuresMax uint32 // failures that switch a frame to single records
	RecordOutputMax  uint32 // bytes
	FrameOutputMax   uint32 // bytes
	RecordFuel       uint64 // budget of a record; a frame has the sum of its records'
	SliceFuel        uint64 // fuel between two yields, about 100 µs
	CallDepthMax     uint32
	MemoryBytesMax   uint32
	BlockBits        uint8 // log2 of the window's block in offsets
}

// DefaultLimits are those of a binding that does not set its own.
func DefaultLimits() Limits {
	return Limits{
		FrameRecordsMax:  4096,
		FrameBytesMax:    256 << 10,
		FrameFailuresMax: 8,
		RecordOutputMax:  1 << 20,
		FrameOutputMax:   4 << 20,
		RecordFuel:       1_000_000,
		SliceFuel:        100_000,
		CallDepthMax:     10_000,
		MemoryBytesMax:   16 << 20,
		BlockBits:        16,
	}
}

// Bounds of single limits.
const (
	recordFuelMax   = 1_000_000_000
	sliceFuelMin    = 1_000
	sliceFuelMax    = 1_000_000
	callDepthMax    = 10_000
	memoryBytesMax  = 16 << 20
	blockBitsMax    = 16
	frameRecordsMax = 4096
	frameBytesMax   = 256 << 10
	outputMax       = 4 << 20
)

// Check lists everything that is wrong with the limits.
func (l Limits) Check() error {
	between := func(name string, value, low, high uint64) error {
		if value < low || value > high {
			return fmt.Errorf("%s is %d; %d to %d are allowed", name, value, low, high)
		}
		return nil
	}
	var pages error
	if l.MemoryBytesMax%PageBytes != 0 {
		pages = fmt.Errorf("memory is %d bytes; it comes in pages of %d", l.MemoryBytesMax, PageBytes)
	}
	return errors.Join(
		between("frame records", uint64(l.FrameRecordsMax), 1, frameRecordsMax),
		between("frame bytes", uint64(l.FrameBytesMax), 1, frameBytesMax),
		between("frame failures", uint64(l.FrameFailuresMax), 1, frameRecordsMax),
		between("record output bytes", uint64(l.RecordOutputMax), 1, outputMax),
		between("frame output bytes", uint64(l.FrameOutputMax), uint64(l.RecordOutputMax), outputMax),
		between("record fuel", l.RecordFuel, 1, recordFuelMax),
		between("slice fuel", l.SliceFuel, sliceFuelMin, sliceFuelMax),
		between("call depth", uint64(l.CallDepthMax), 1, callDepthMax),
		between("memory bytes", uint64(l.MemoryBytesMax), PageBytes, memoryBytesMax),
		pages,
		between("block bits", uint64(l.BlockBits), 1, blockBitsMax),
	)
}
