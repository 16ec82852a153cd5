package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// call is one run of a guest: the calls over one frame, or those that bring a module up. It is the context of the calls,
// by which host functions find it.
type call struct {
	context.Context

	instance *instance
	place    *Place
	limits   *plugins.Limits
	budget   int64 // fuel of the run
	granted  int64 // fuel handed out so far
	consumed int64

	frameAt   uint32 // address of the frame once it is written, 0 before
	records   int
	cursor    int   // the record seen at work at the last slice, -1 before one is seen
	cursorAt  int64 // fuel when it was first seen
	clockNano uint64
	random    splitMix
	output    []byte // the end of what the guest printed
	ending    *ending
}

// ending is why the host ended a guest from inside a host function. It is thrown, since nothing else ends compiled code.
type ending struct {
	fault *plugins.Fault
	err   error // the broker's
}

func (e *ending) Error() string { return "the host ended the guest" }

func (c *call) firstSlice() int64 {
	c.granted = min(int64(c.limits.SliceFuel), c.budget)
	c.cursor = -1
	return c.granted
}

// settle takes over the counter of a guest that came back.
func (c *call) settle(counter int64) {
	if c.ending == nil {
		c.consumed = c.granted - counter
	}
}

// yield is called by the guest with its counter below zero, and returns what it may go on with. Whether it may is a
// function of fuel and of what the guest wrote into the frame; only the broker's own context can end it otherwise.
func (c *call) yield(counter int64) int64 {
	c.consumed = c.granted - counter
	if c.consumed > c.budget {
		c.end(&ending{fault: &plugins.Fault{Reason: plugins.ReasonFuel, Record: -1, Text: "the budget of the frame is spent"}})
	}
	c.checkRecord()
	if err := c.place.Yield(c.Context); err != nil {
		c.end(&ending{err: err})
	}
	slice := min(int64(c.limits.SliceFuel), c.budget-c.consumed)
	c.granted = c.consumed + slice
	return slice
}

// checkRecord ends the guest when the record that it reports was at work for longer than its own budget.
func (c *call) checkRecord() {
	at, ok := c.recordAtWork()
	if !ok {
		return
	}
	if at != c.cursor {
		c.cursor, c.cursorAt = at, c.consumed
		return
	}
	if uint64(c.consumed-c.cursorAt) >= c.limits.RecordFuel {
		c.end(&ending{fault: &plugins.Fault{Reason: plugins.ReasonFuel, Record: at, Text: "the budget of the record is spent"}})
	}
}

// recordAtWork reads the cursor in the frame.
func (c *call) recordAtWork() (int, bool) {
	memory := c.instance.memory.bytes
	if c.frameAt == 0 || uint64(c.frameAt)+abi.HeaderBytes > uint64(len(memory)) {
		return 0, false
	}
	return abi.Cursor(memory[c.frameAt:], c.records)
}

func (c *call) end(e *ending) {
	c.ending = e
	panic(e)
}

// printed keeps the end of what the guest printed.
func (c *call) printed(b []byte) {
	if len(b) >= plugins.StderrBytesMax {
		c.output = append(c.output[:0], b[len(b)-plugins.StderrBytesMax:]...)
		return
	}
	if over := len(c.output) + len(b) - plugins.StderrBytesMax; over > 0 {
		c.output = append(c.output[:0], c.output[over:]...)
	}
	c.output = append(c.output, b...)
}

// traps are the runtime's errors for which a record is at fault. Its stack's own end is not among them: that is a size
// of the machine's frames, and the depth counter ends a guest long before.
var traps = [...]string{
	"unreachable", "out of bounds memory access", "integer divide by zero", "integer overflow",
	"invalid conversion to integer", "invalid table access", "indirect call type mismatch",
}

// explain sorts an error of a call into a fault or the broker's trouble.
func (i *instance) explain(err error) error {
	c := &i.call
	var ended *ending
	if errors.As(err, &ended) {
		if ended.fault == nil {
			return ended.err
		}
		return c.complete(ended.fault)
	}
	text, trace, _ := strings.Cut(err.Error(), "\n")
	name, isTrap := strings.CutPrefix(text, "wasm error: ")
	if isTrap {
		for _, trap := range traps {
			if name == trap {
				return c.complete(i.trapped(trap, trace))
			}
		}
	}
	return fmt.Errorf("run a guest: %w", err)
}

// trapped says what a trap was.
func (i *instance) trapped(trap, trace string) *plugins.Fault {
	f := &plugins.Fault{Reason: plugins.ReasonTrap, Record: -1, Text: trap}
	switch {
	case int32(uint32(i.depth.Get())) < 0:
		f.Reason, f.Text = plugins.ReasonDepth, fmt.Sprintf("calls nest deeper than %d", i.call.limits.CallDepthMax)
	case i.memory.refused || uint64(len(i.memory.bytes)) == i.memory.limit:
		f.Reason, f.Text = plugins.ReasonMemory, fmt.Sprintf("%s, with the memory at its maximum of %d bytes", trap, i.memory.limit)
	}
	f.Stderr = []byte(trace)
	return f
}

// complete adds to a fault what the run knows. Stderr holds what the guest printed, then the runtime's trace.
func (c *call) complete(f *plugins.Fault) *plugins.Fault {
	f.Fuel = uint64(max(c.consumed, 0))
	if f.Record < 0 && f.Reason != plugins.ReasonFuel {
		if at, ok := c.recordAtWork(); ok {
			f.Record = at
		}
	}
	trace := f.Stderr
	f.Stderr = append([]byte(nil), c.output...)
	if len(trace) > 0 && len(f.Stderr)+len(trace) < plugins.StderrBytesMax {
		f.Stderr = append(f.Stderr, '\n')
		f.Stderr = append(f.Stderr, trace...)
	}
	return f
}
