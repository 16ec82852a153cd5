package plugins

import "fmt"

// Reason sorts the failures for which a record is at fault. Everything else is the broker's own trouble, told as an
// ordinary error, and never becomes a verdict (H25).
type Reason uint8

// The reasons; the numbers are on disk.
const (
	ReasonTrap      Reason = iota + 1 // the guest trapped or called proc_exit
	ReasonFuel                        // the record's budget, or the frame's, is spent
	ReasonMemory                      // the frame did not fit the declared memory maximum
	ReasonDepth                       // calls nested too deep
	ReasonOutput                      // an output over its limit
	ReasonID                          // an id that is empty, too long, or of a key that the guest was not given
	ReasonMalformed                   // an answer that breaks the contract
	ReasonVerdict                     // not a failure: the guest's own verdict was dead-letter
)

// String is the reason as it stands in a letter's header.
func (r Reason) String() string {
	switch r {
	case ReasonTrap:
		return "trap"
	case ReasonFuel:
		return "fuel"
	case ReasonMemory:
		return "memory"
	case ReasonDepth:
		return "call-depth"
	case ReasonOutput:
		return "output-limit"
	case ReasonID:
		return "id-limit"
	case ReasonMalformed:
		return "malformed-answer"
	case ReasonVerdict:
		return "verdict"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Fault is the failure of a guest over a frame, for which a record is at fault if it happens again alone.
type Fault struct {
	Reason Reason
	// Record is the index in the frame of the record at work, or -1 where nothing tells it.
	Record int
	Text   string
	Fuel   uint64 // spent by the call
	Stderr []byte // the end of what the guest printed, at most StderrBytesMax
}

func (f *Fault) Error() string {
	if f.Record < 0 {
		return fmt.Sprintf("%s: %s", f.Reason, f.Text)
	}
	return fmt.Sprintf("%s at record %d: %s", f.Reason, f.Record, f.Text)
}
