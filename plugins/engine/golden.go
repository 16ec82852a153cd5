package engine

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// Golden is a frame, as its bytes, with the digest of what the module answered at admission and the fuel it took.
type Golden struct {
	Frame  []byte
	Answer [32]byte
	Fuel   uint64
}

// MakeGolden judges a frame and returns it as golden.
func (m *Module) MakeGolden(ctx context.Context, frame *abi.Frame) (Golden, error) {
	size, err := frame.Size()
	if err != nil {
		return Golden{}, fmt.Errorf("make a golden frame: %w", err)
	}
	g := Golden{Frame: make([]byte, size)}
	frame.Write(g.Frame)
	g.Answer, g.Fuel, err = m.judgeGolden(ctx, g.Frame)
	return g, err
}

// CheckGolden judges the frames again. A *GoldenError is a machine or a program that answers otherwise than the one that
// admitted the module: it must not judge with it (H26). Any other error is the broker's trouble.
func (m *Module) CheckGolden(ctx context.Context, frames []Golden) error {
	for i, want := range frames {
		digest, fuel, err := m.judgeGolden(ctx, want.Frame)
		if err != nil {
			return fmt.Errorf("golden frame %d: %w", i, err)
		}
		if digest != want.Answer || fuel != want.Fuel {
			return &GoldenError{Frame: i, Fuel: fuel, WantFuel: want.Fuel, SameAnswer: digest == want.Answer}
		}
	}
	return nil
}

// GoldenError is a golden frame that was judged otherwise.
type GoldenError struct {
	Frame          int
	Fuel, WantFuel uint64
	SameAnswer     bool
}

func (e *GoldenError) Error() string {
	if e.SameAnswer {
		return fmt.Sprintf("golden frame %d took %d fuel, at admission %d", e.Frame, e.Fuel, e.WantFuel)
	}
	return fmt.Sprintf("golden frame %d was answered otherwise than at admission (fuel %d, then %d)", e.Frame, e.Fuel, e.WantFuel)
}

func (m *Module) judgeGolden(ctx context.Context, raw []byte) (digest [32]byte, fuel uint64, err error) {
	frame, err := abi.ParseFrame(raw)
	if err != nil {
		return digest, 0, err
	}
	if frame.Projection != m.config.Projection {
		return digest, 0, fmt.Errorf("projection %#x, the stage has %#x", frame.Projection, m.config.Projection)
	}
	var answer abi.Answer
	fuel, err = m.run(ctx, frame, len(raw), &answer, func(b []byte) { copy(b, raw) })
	var fault *plugins.Fault
	if err != nil && !errors.As(err, &fault) {
		return digest, 0, err
	}
	return digestOf(&answer, fault), fuel, nil
}

// digestOf is the SHA-256 of an answer: per record kind, flags, code, id, and the parts of the output; or of a fault.
// Every field of bytes has its length in front, 0xFFFFFFFF for null.
func digestOf(answer *abi.Answer, fault *plugins.Fault) (digest [32]byte) {
	d := digester{sha256.New()}
	if fault != nil {
		d.number(uint32(fault.Reason))
		d.number(uint32(int32(fault.Record)))
	} else {
		d.number(0)
		for i := range answer.Verdicts {
			v := &answer.Verdicts[i]
			d.number(uint32(v.Kind) | uint32(v.Unique)<<8)
			d.number(v.Code)
			d.bytes(v.ID)
			if v.Output != nil {
				d.bytes(v.Output.Key)
				d.bytes(v.Output.Value)
				d.bytes(v.Output.Headers)
				d.bytes([]byte(v.Output.Text))
			}
		}
	}
	d.Sum(digest[:0])
	return digest
}

type digester struct{ hash.Hash }

func (d digester) number(v uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	d.Write(b[:])
}

func (d digester) bytes(b []byte) {
	if b == nil {
		d.number(0xFFFFFFFF)
		return
	}
	d.number(uint32(len(b)))
	d.Write(b)
}
