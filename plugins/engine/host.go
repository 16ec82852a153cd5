package engine

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/meter"
)

// Error numbers of WASI.
const (
	errnoSuccess = 0
	errnoBadf    = 8
	errnoFault   = 21
	errnoInval   = 28
	errnoNosys   = 52
)

// Bounds on what one host call does: it costs the guest 1,000 fuel, whatever it asks for.
const (
	randomBytesMax   = 64 << 10
	printBytesMax    = 64 << 10
	vectorsMax       = 1024
	subscriptionsMax = 1024
)

// hostFunction answers one function of WASI. params are its arguments in order.
type hostFunction func(c *call, memory guestView, params []uint64) uint32

// answered are the functions that do something. Every other one answers EBADF where its name begins with fd_, else
// ENOSYS.
var answered = map[string]hostFunction{
	"args_get":          succeed,
	"args_sizes_get":    noStrings,
	"environ_get":       succeed,
	"environ_sizes_get": noStrings,
	"clock_res_get":     clockResolution,
	"clock_time_get":    clockTime,
	"random_get":        randomGet,
	"fd_write":          write,
	"poll_oneoff":       poll,
	"proc_exit":         exit,
}

// addHost makes the two modules that guests import from.
func (e *Engine) addHost(ctx context.Context) error {
	i64 := []api.ValueType{api.ValueTypeI64}
	_, err := e.runtime.NewHostModuleBuilder(meter.HostModule).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(yield), i64, i64).Export(meter.YieldFunction).Instantiate(ctx)
	if err != nil {
		return fmt.Errorf("make the host's module: %w", err)
	}
	wasi := e.runtime.NewHostModuleBuilder("wasi_snapshot_preview1")
	for _, f := range meter.WASIFunctions() {
		wasi.NewFunctionBuilder().
			WithGoFunction(api.GoFunc(wasiFunction(f)), valueTypes(f.Params), valueTypes(f.Results)).Export(f.Name)
	}
	if _, err := wasi.Instantiate(ctx); err != nil {
		return fmt.Errorf("make the module of WASI: %w", err)
	}
	return nil
}

func valueTypes(letters string) []api.ValueType {
	types := make([]api.ValueType, 0, len(letters))
	for _, l := range letters {
		if l == 'l' {
			types = append(types, api.ValueTypeI64)
		} else {
			types = append(types, api.ValueTypeI32)
		}
	}
	return types
}

func yield(ctx context.Context, stack []uint64) {
	stack[0] = uint64(ctx.(*call).yield(int64(stack[0])))
}

func wasiFunction(f meter.WASIFunction) func(context.Context, []uint64) {
	do := answered[f.Name]
	if do == nil {
		errno := uint32(errnoNosys)
		if f.Name[:3] == "fd_" {
			errno = errnoBadf
		}
		do = func(*call, guestView, []uint64) uint32 { return errno }
	}
	params := len(f.Params)
	return func(ctx context.Context, stack []uint64) {
		c := ctx.(*call)
		errno := do(c, guestView(c.instance.memory.bytes), stack[:params])
		if len(f.Results) > 0 {
			stack[0] = uint64(errno)
		}
	}
}

// guestView is guest memory during a host call.
type guestView []byte

// span returns length bytes at address, or false.
func (m guestView) span(address, length uint64) ([]byte, bool) {
	address, length = address&0xFFFFFFFF, length&0xFFFFFFFF
	if address+length > uint64(len(m)) {
		return nil, false
	}
	return m[address : address+length], true
}

func (m guestView) put32(address uint64, v uint32) bool {
	b, ok := m.span(address, 4)
	if ok {
		binary.LittleEndian.PutUint32(b, v)
	}
	return ok
}

func (m guestView) put64(address uint64, v uint64) bool {
	b, ok := m.span(address, 8)
	if ok {
		binary.LittleEndian.PutUint64(b, v)
	}
	return ok
}

func answer(ok bool) uint32 {
	if !ok {
		return errnoFault
	}
	return errnoSuccess
}

func succeed(*call, guestView, []uint64) uint32 { return errnoSuccess }

// noStrings tells that there are no arguments, or no environment.
func noStrings(_ *call, m guestView, p []uint64) uint32 {
	return answer(m.put32(p[0], 0) && m.put32(p[1], 0))
}

func clockResolution(_ *call, m guestView, p []uint64) uint32 { return answer(m.put64(p[1], 1)) }

// clockTime is the base timestamp of the frame, whichever clock is asked for; it stands still during a frame (H24).
func clockTime(c *call, m guestView, p []uint64) uint32 { return answer(m.put64(p[2], c.clockNano)) }

func randomGet(c *call, m guestView, p []uint64) uint32 {
	if uint32(p[1]) > randomBytesMax {
		return errnoInval
	}
	b, ok := m.span(p[0], p[1])
	if ok {
		c.random.fill(b)
	}
	return answer(ok)
}

// splitMix is the SplitMix64 generator, little-endian. It begins from 0 before every frame, so that a guest's random
// bytes are the same for the same frame; part of what an answer depends on, and never to be changed.
type splitMix uint64

func (s *splitMix) fill(b []byte) {
	var word [8]byte
	for len(b) > 0 {
		*s += 0x9E3779B97F4A7C15
		z := uint64(*s)
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		binary.LittleEndian.PutUint64(word[:], z^z>>31)
		b = b[copy(b, word[:]):]
	}
}

// write takes what is printed to 1 and 2 into the run's output, at most printBytesMax a call.
func write(c *call, m guestView, p []uint64) uint32 {
	if fd := uint32(p[0]); fd != 1 && fd != 2 {
		return errnoBadf
	}
	count := uint32(p[2])
	if count > vectorsMax {
		return errnoInval
	}
	vectors, ok := m.span(p[1], uint64(count)*8)
	if !ok {
		return errnoFault
	}
	written := 0
	for ; len(vectors) > 0 && written < printBytesMax; vectors = vectors[8:] {
		address, length := binary.LittleEndian.Uint32(vectors), binary.LittleEndian.Uint32(vectors[4:])
		b, ok := m.span(uint64(address), uint64(length))
		if !ok {
			return errnoFault
		}
		b = b[:min(len(b), printBytesMax-written)]
		c.printed(b)
		written += len(b)
	}
	return answer(m.put32(p[3], uint32(written)))
}

// poll says at once that everything asked for has happened: under a clock that stands still nothing else ever would. A
// guest that sleeps in a loop ends by fuel.
func poll(_ *call, m guestView, p []uint64) uint32 {
	const subscriptionBytes, eventBytes = 48, 32
	count := uint64(uint32(p[2]))
	if count == 0 || count > subscriptionsMax {
		return errnoInval
	}
	in, okIn := m.span(p[0], count*subscriptionBytes)
	out, okOut := m.span(p[1], count*eventBytes)
	if !okIn || !okOut {
		return errnoFault
	}
	for i := range int(count) {
		subscription, event := in[i*subscriptionBytes:], out[i*eventBytes:(i+1)*eventBytes]
		userData, kind := binary.LittleEndian.Uint64(subscription), subscription[8]
		clear(event)
		binary.LittleEndian.PutUint64(event, userData)
		event[10] = kind
	}
	return answer(m.put32(p[3], uint32(count)))
}

func exit(c *call, _ guestView, p []uint64) uint32 {
	c.end(&ending{fault: &plugins.Fault{
		Reason: plugins.ReasonTrap, Record: -1, Text: fmt.Sprintf("proc_exit(%d)", int32(uint32(p[0]))),
	}})
	return errnoSuccess
}
