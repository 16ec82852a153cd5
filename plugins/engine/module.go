package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/tetratelabs/wazero"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/meter"
)

// Module is a plugin with its configuration, ready to judge. It is safe for concurrent use.
type Module struct {
	engine    *Engine
	compiled  wazero.CompiledModule
	config    StageConfig
	memoryMax uint64 // bytes: the module's own maximum or the limit, the lower
	image     *image

	mu   sync.Mutex
	idle []*instance
}

// startNano is the time while a module is brought up, which is before any frame. It is not 0, since Go's runtime takes a
// clock at zero for a broken machine and ends.
const startNano = 1_000_000

// bringUp runs what a module runs once, and takes its image.
func (m *Module) bringUp(ctx context.Context, configured bool) error {
	if err := m.measure(); err != nil {
		return err
	}
	place, err := m.engine.gate.Enter(ctx)
	if err != nil {
		return err
	}
	defer place.Leave()
	i, err := m.newInstance(ctx)
	if err != nil {
		return &LoadError{Step: "instantiate", Text: err.Error()}
	}
	i.begin(call{Context: ctx, place: place, limits: &m.config.Limits, budget: plugins.StartFuel, clockNano: startNano})
	err = i.start(m.config.Config, configured)
	var fault *plugins.Fault
	if errors.As(err, &fault) {
		err = &LoadError{Step: "start", Text: fault.Error(), Stderr: fault.Stderr}
	}
	if err != nil {
		return errors.Join(err, i.close(ctx))
	}
	m.image = i.snapshot()
	if pager := m.engine.pager; pager != nil {
		if m.image.file, err = pager.store(m.image.memory); err == nil {
			return i.close(ctx) // those that follow have their memory mapped
		}
		m.engine.logger.Warn().Err(err).Msg("the image of a guest is copied whole before each frame")
	}
	m.put(ctx, i)
	return nil
}

// measure finds how large the memory may be.
func (m *Module) measure() error {
	memory := m.compiled.ExportedMemories()[abi.ExportMemory]
	if memory == nil {
		return &LoadError{Step: "load", Text: "the module exports no memory"}
	}
	m.memoryMax = uint64(m.config.Limits.MemoryBytesMax)
	if pages, ok := memory.Max(); ok {
		m.memoryMax = min(m.memoryMax, uint64(pages)*plugins.PageBytes)
	}
	if least := uint64(memory.Min()) * plugins.PageBytes; least > m.memoryMax {
		return &LoadError{Step: "load", Text: fmt.Sprintf("the memory begins with %d bytes; %d are allowed", least, m.memoryMax)}
	}
	return nil
}

// start calls the start function, _initialize, the version and millrace_configure, in this order.
func (i *instance) start(config []byte, configured bool) error {
	for _, name := range [...]string{meter.StartFunction, abi.ExportInitialize} {
		if f := i.module.ExportedFunction(name); f != nil {
			if _, err := i.invoke(f); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	version, err := i.invoke(i.module.ExportedFunction(abi.ExportVersion))
	if err != nil {
		return fmt.Errorf("%s: %w", abi.ExportVersion, err)
	}
	if uint32(version) != abi.Version {
		return &LoadError{Step: abi.ExportVersion, Text: fmt.Sprintf("the module speaks version %d; this program speaks %d", uint32(version), abi.Version)}
	}
	configure := i.module.ExportedFunction(abi.ExportConfigure)
	if configure == nil {
		if configured {
			return &LoadError{Step: abi.ExportConfigure, Text: "the plugin takes no configuration: it does not export this"}
		}
		return nil
	}
	at, err := i.allocate(len(config))
	if err != nil {
		return err
	}
	copy(i.memory.bytes[at:], config)
	code, err := i.invoke(configure, uint64(at), uint64(len(config)))
	if err != nil {
		return fmt.Errorf("%s: %w", abi.ExportConfigure, err)
	}
	if uint32(code) != 0 {
		return &LoadError{Step: abi.ExportConfigure, Text: fmt.Sprintf("the plugin refuses the configuration with code %d", uint32(code)), Stderr: i.call.output}
	}
	return nil
}

// allocate asks the guest for size bytes. What it answers is checked.
func (i *instance) allocate(size int) (uint32, error) {
	result, err := i.invoke(i.alloc, uint64(size))
	if err != nil {
		return 0, err
	}
	at := uint32(result)
	switch {
	case at == 0:
		return 0, i.call.complete(&plugins.Fault{Reason: plugins.ReasonMemory, Record: -1, Text: fmt.Sprintf("%s(%d) returned 0", abi.ExportAlloc, size)})
	case at%8 != 0 || uint64(at)+uint64(size) > uint64(len(i.memory.bytes)):
		return 0, i.call.complete(&plugins.Fault{Reason: plugins.ReasonMalformed, Record: -1, Text: fmt.Sprintf("%s(%d) returned %#x, which is not aligned or not inside the memory", abi.ExportAlloc, size, at)})
	}
	return at, nil
}

// Projection is what the guest is given of each record.
func (m *Module) Projection() abi.Projection { return m.config.Projection }

// Judge gives a frame to a restored instance and fills answer, which is copied out of the guest. It returns the fuel
// that was spent. An error is a *plugins.Fault, or trouble of the broker's, among it the end of ctx.
func (m *Module) Judge(ctx context.Context, frame *abi.Frame, answer *abi.Answer) (fuel uint64, err error) {
	size, err := frame.Size()
	if err != nil {
		return 0, fmt.Errorf("judge a frame: %w", err)
	}
	if frame.Projection != m.config.Projection {
		return 0, fmt.Errorf("judge a frame: projection %#x, the stage has %#x", frame.Projection, m.config.Projection)
	}
	return m.run(ctx, frame, size, answer, frame.Write)
}

// run judges a frame of which write puts the bytes into guest memory.
func (m *Module) run(ctx context.Context, frame *abi.Frame, size int, answer *abi.Answer, write func([]byte)) (uint64, error) {
	place, err := m.engine.gate.Enter(ctx)
	if err != nil {
		return 0, err
	}
	defer place.Leave()
	i, err := m.take(ctx, place)
	if err != nil {
		return 0, err
	}
	m.engine.calls.Add(1)
	i.restore(m.image)
	i.begin(call{
		Context: ctx, place: place, limits: &m.config.Limits, records: len(frame.Records),
		budget:    frameBudget(len(frame.Records), m.config.Limits.RecordFuel),
		clockNano: uint64(frame.BaseTimestamp) * 1_000_000,
	})
	process, err := i.judge(size, write)
	keep := i.reusable(err)
	if err == nil {
		err = i.read(process, frame, answer)
	}
	if m.config.Log != nil && len(i.call.output) > 0 {
		m.config.Log(i.call.output)
	}
	fuel := uint64(max(i.call.consumed, 0))
	i.call.Context, i.call.place = nil, nil
	if keep {
		m.put(ctx, i)
	} else {
		err = errors.Join(err, i.close(ctx))
	}
	return fuel, err
}

// reusable reports whether restoring the instance makes up for how its run ended. It does after a trap or spent fuel: no
// toolchain knows the state that such a guest is in, but nothing of it outlives the image, and making another instance
// costs more than most runs. A guest that called itself too often keeps the stack that it grew.
func (i *instance) reusable(err error) bool {
	var fault *plugins.Fault
	return err == nil || errors.As(err, &fault) && fault.Reason != plugins.ReasonDepth
}

func frameBudget(records int, each uint64) int64 {
	return int64(min(uint64(max(records, 1))*each, math.MaxInt64/2))
}

// judge is the guest's part.
func (i *instance) judge(size int, write func([]byte)) (process uint64, err error) {
	at, err := i.allocate(size)
	if err != nil {
		return 0, err
	}
	write(i.memory.bytes[at : uint64(at)+uint64(size)])
	i.call.frameAt = at
	return i.invoke(i.process, uint64(at), uint64(size))
}

// read copies the answer out and says whose fault a bad one is.
func (i *instance) read(process uint64, frame *abi.Frame, answer *abi.Answer) error {
	limits := abi.Limits{
		OutputBytesMax:      int(i.call.limits.RecordOutputMax),
		FrameOutputBytesMax: int(i.call.limits.FrameOutputMax),
	}
	var bad *abi.Fault
	if err := answer.Read(i.memory.bytes, process, frame, limits); !errors.As(err, &bad) {
		return err
	}
	reason := plugins.ReasonMalformed
	switch bad.Kind {
	case abi.Malformed:
	case abi.OutputLimit:
		reason = plugins.ReasonOutput
	case abi.IDLimit:
		reason = plugins.ReasonID
	}
	return i.call.complete(&plugins.Fault{Reason: reason, Record: bad.Record, Text: bad.Text})
}

// take returns an instance at rest, or a clone of the image. To make one takes up to 2 ms, before which
// others have their turn.
func (m *Module) take(ctx context.Context, place *Place) (*instance, error) {
	m.mu.Lock()
	if n := len(m.idle); n > 0 {
		i := m.idle[n-1]
		m.idle = m.idle[:n-1]
		m.mu.Unlock()
		return i, nil
	}
	m.mu.Unlock()
	if err := place.Yield(ctx); err != nil {
		return nil, err
	}
	return m.newInstance(ctx)
}

// put keeps an instance for the next frame, unless it grew or enough are at rest.
func (m *Module) put(ctx context.Context, i *instance) {
	if !i.grown(m.image) {
		m.mu.Lock()
		if len(m.idle) < m.engine.idleMax {
			m.idle = append(m.idle, i)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
	}
	if err := i.close(ctx); err != nil {
		m.engine.logger.Warn().Err(err).Msg("guest instance not closed")
	}
}

// Close frees the instances and the compiled code.
func (m *Module) Close(ctx context.Context) error {
	m.mu.Lock()
	idle := m.idle
	m.idle = nil
	m.mu.Unlock()
	var problems []error
	for _, i := range idle {
		problems = append(problems, i.close(ctx))
	}
	if m.image != nil && m.image.file != nil {
		problems = append(problems, m.image.file.Close())
	}
	return errors.Join(append(problems, m.compiled.Close(ctx))...)
}
