package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/meter"
)

// instance is one guest. It belongs to the goroutine that took it from the pool.
type instance struct {
	module  api.Module
	memory  *guestMemory
	alloc   api.Function // looked up once: ExportedFunction allocates
	process api.Function
	fuel    api.MutableGlobal
	depth   api.MutableGlobal
	globals []api.MutableGlobal // those of the plugin
	call    call
	stack   [2]uint64
}

// image is what an instance is restored to before every frame.
type image struct {
	memory  []byte
	file    *os.File // the same bytes, of which instances map pages; nil if they are copied whole
	globals []uint64
}

// newInstance instantiates the module. No code of the guest runs: its start function is an export like others.
func (m *Module) newInstance(ctx context.Context) (*instance, error) {
	memory := m.newMemory()
	ctx = experimental.WithMemoryAllocator(ctx, memory)
	module, err := m.engine.runtime.InstantiateModule(ctx, m.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		memory.release()
		return nil, fmt.Errorf("instantiate a module: %w", err)
	}
	i := &instance{module: module, memory: memory}
	i.alloc = module.ExportedFunction(abi.ExportAlloc)
	i.process = module.ExportedFunction(abi.ExportProcess)
	i.fuel, _ = module.ExportedGlobal(meter.FuelGlobal).(api.MutableGlobal)
	i.depth, _ = module.ExportedGlobal(meter.DepthGlobal).(api.MutableGlobal)
	if i.alloc == nil || i.process == nil || i.fuel == nil || i.depth == nil {
		return nil, errors.Join(errors.New("the module is not metered"), i.close(ctx))
	}
	for n := 0; ; n++ {
		g, ok := module.ExportedGlobal(meter.RestorableGlobal(n)).(api.MutableGlobal)
		if !ok {
			break
		}
		i.globals = append(i.globals, g)
	}
	return i, nil
}

// newMemory is the memory of an instance that is to be restored to the image, once there is one.
func (m *Module) newMemory() *guestMemory {
	memory := &guestMemory{limit: m.memoryMax}
	if m.image == nil {
		return memory
	}
	if m.image.file != nil {
		mapped, err := m.engine.pager.mapImage(m.image.file, m.image.memory, m.memoryMax)
		if err == nil {
			memory.mapped = mapped
			return memory
		}
		m.engine.logger.Warn().Err(err).Msg("the memory of a guest instance is not mapped; its image is copied whole")
	}
	memory.bytes = make([]byte, 0, len(m.image.memory))
	return memory
}

// close ends the instance, which is not running.
func (i *instance) close(ctx context.Context) error {
	err := i.module.Close(ctx)
	i.memory.release()
	return err
}

// snapshot copies what a frame can change.
func (i *instance) snapshot() *image {
	m := &image{memory: append([]byte(nil), i.memory.bytes...)}
	for _, g := range i.globals {
		m.globals = append(m.globals, g.Get())
	}
	return m
}

// restore makes the instance equal to the image. It is the whole of what makes an answer a function of the frame (H23).
func (i *instance) restore(m *image) {
	if missing := len(m.memory) - len(i.memory.bytes); missing > 0 {
		i.module.Memory().Grow(uint32(missing / plugins.PageBytes))
	}
	i.memory.restore(m.memory)
	for n, g := range i.globals {
		g.Set(m.globals[n])
	}
}

// grown reports whether the instance has more memory than its image. It is not used again: no restore gives pages back.
func (i *instance) grown(m *image) bool { return len(i.memory.bytes) != len(m.memory) }

// begin starts a run: fuel and depth are as at the start of every run.
func (i *instance) begin(c call) {
	log := i.call.output[:0]
	i.call = c
	i.call.output = log
	i.call.instance = i
	i.memory.refused = false
	i.fuel.Set(uint64(i.call.firstSlice()))
	i.depth.Set(uint64(uint32(c.limits.CallDepthMax)))
}

// invoke calls a function of the guest. An error is a *plugins.Fault or the broker's.
func (i *instance) invoke(f api.Function, params ...uint64) (uint64, error) {
	copy(i.stack[:], params)
	err := f.CallWithStack(&i.call, i.stack[:])
	i.call.settle(int64(i.fuel.Get()))
	if err != nil {
		return 0, i.explain(err)
	}
	return i.stack[0], nil
}

// guestMemory is the linear memory of one instance: a slice that is as large as it must be, and grows up to a limit.
type guestMemory struct {
	bytes   []byte
	mapped  *mapping // where bytes lie; nil: on the heap
	laid    bool     // the image lies in mapped, and only frames have written there since
	limit   uint64
	refused bool // growth was refused since the run began
}

// restore makes the memory equal to the image, whose size it has.
func (m *guestMemory) restore(image []byte) {
	if m.mapped != nil {
		restore := m.mapped.restore
		if !m.laid { // instantiating wrote data segments: they are no pages that a frame writes
			restore = m.mapped.lay
		}
		if err := restore(); err == nil {
			m.laid = true
			return
		}
	}
	copy(m.bytes, image)
}

// Allocate is the seam of wazero; there is one memory a module.
func (m *guestMemory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate grows the memory; nil tells the guest -1.
func (m *guestMemory) Reallocate(size uint64) []byte {
	switch {
	case size > m.limit:
		m.refused = true
		return nil
	case m.mapped != nil:
		m.bytes = m.mapped.reserved[:size]
		return m.bytes
	case size > uint64(cap(m.bytes)):
		larger := make([]byte, size, min(max(size, 2*uint64(cap(m.bytes))), m.limit))
		copy(larger, m.bytes)
		m.bytes = larger
	}
	m.bytes = m.bytes[:size]
	return m.bytes
}

// Free leaves the bytes: a view of them may still be held. Whoever closes an instance that is not running releases them.
func (m *guestMemory) Free() {}

func (m *guestMemory) release() {
	if m.mapped != nil {
		m.mapped.unmap()
		m.bytes, m.mapped = nil, nil
	}
}
