package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/builtin"
)

// judgeCalls is how many batches the control judges in a turn, of which the fastest half counts.
const judgeCalls = 2000

// rawJudging calls the built-in dedup on one batch with wazero alone: no metering, no image restored, no window. What
// it measures is writing the frame into guest memory and the guest's own work, in nanoseconds a record.
func rawJudging(ctx context.Context, size int) (nanos float64, err error) {
	plugin, err := builtin.Open("dedup-key")
	if err != nil {
		return 0, err
	}
	runtime := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	defer func() { err = errors.Join(err, runtime.Close(ctx)) }()
	module, err := runtime.InstantiateWithConfig(ctx, plugin.Module, wazero.NewModuleConfig().WithStartFunctions("_initialize"))
	if err != nil {
		return 0, fmt.Errorf("instantiate the built-in dedup: %w", err)
	}
	frame := batchOf(size)
	bytes, err := frame.Size()
	if err != nil {
		return 0, err
	}
	alloc, process := module.ExportedFunction(abi.ExportAlloc), module.ExportedFunction(abi.ExportProcess)
	at, err := alloc.Call(ctx, uint64(bytes))
	if err != nil {
		return 0, fmt.Errorf("ask the guest for room: %w", err)
	}
	stack := make([]uint64, 2)
	took := make([]time.Duration, judgeCalls)
	for i := range took {
		begin := time.Now()
		room, ok := module.Memory().Read(uint32(at[0]), uint32(bytes))
		if !ok {
			return 0, errors.New("the guest gave room outside its memory")
		}
		frame.Write(room)
		stack[0], stack[1] = at[0], uint64(bytes)
		if err := process.CallWithStack(ctx, stack); err != nil {
			return 0, fmt.Errorf("call the guest: %w", err)
		}
		took[i] = time.Since(begin)
	}
	slices.Sort(took)
	return float64(took[len(took)/4].Nanoseconds()) / float64(len(frame.Records)), nil
}

// batchBytes is what kgo puts into a batch at most, by default.
const batchBytes = 1_000_000

// batchOf is a frame of as many records as come in one of kgo's batches, and at most as many as one frame takes.
func batchOf(size int) *abi.Frame {
	f := &abi.Frame{Projection: abi.ProjectKey}
	records := newRecords(size)
	for i := range min(batchBytes/size, 4096) {
		f.Records = append(f.Records, abi.Record{Offset: int64(i), Key: records.next().Key})
	}
	return f
}
