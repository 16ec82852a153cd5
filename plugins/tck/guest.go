package tck

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// Guest is a configured plugin that judges frames: an *engine.Module.
type Guest interface {
	// Projection is what the guest is given of each record.
	Projection() abi.Projection
	// Judge fills answer and returns the fuel that was spent. A *plugins.Fault in the error is the record's; any other
	// error is the host's own trouble.
	Judge(ctx context.Context, frame *abi.Frame, answer *abi.Answer) (fuel uint64, err error)
}

// judgement is what came of a frame, in a form that is equal when it means the same.
type judgement struct {
	fault    *plugins.Fault
	verdicts []digest // one a record; empty after a fault
	fuel     uint64
}

type digest [sha256.Size]byte

// judge gives a frame to the guest. The error is the host's trouble.
func judge(ctx context.Context, g Guest, f *abi.Frame, answer *abi.Answer) (judgement, error) {
	var j judgement
	var err error
	j.fuel, err = g.Judge(ctx, f, answer)
	if errors.As(err, &j.fault) {
		return j, nil
	}
	if err != nil {
		return j, fmt.Errorf("judge %d records from offset %d: %w", len(f.Records), f.BaseOffset, err)
	}
	for _, v := range answer.Verdicts {
		j.verdicts = append(j.verdicts, digestOf(v))
	}
	return j, nil
}

// digestOf covers all of a verdict that a consumer, a letter or the window can see.
func digestOf(v abi.Verdict) digest {
	h := sha256.New()
	part := func(b []byte) {
		length := uint64(len(b))
		if b == nil {
			length = 1 << 63
		}
		h.Write(binary.LittleEndian.AppendUint64(nil, length))
		h.Write(b)
	}
	part([]byte{byte(v.Kind), byte(v.Unique)})
	part(binary.LittleEndian.AppendUint32(nil, v.Code))
	part(v.ID)
	if v.Output != nil {
		part(v.Output.Key)
		part(v.Output.Value)
		part(v.Output.Headers)
		part([]byte(v.Output.Text))
	}
	return digest(h.Sum(nil))
}
