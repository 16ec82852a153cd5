package meter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins"
)

func read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func admit(t testing.TB, wasm []byte) ([]byte, Info) {
	t.Helper()
	metered, info, err := Admit(wasm, plugins.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return metered, info
}

// machine is a module that runs, metered or as it was given.
type machine struct {
	api.Module
	yields int
}

const sliceOfTests = 500

// start runs a module under a host that refuels by slices without an end.
func start(t testing.TB, wasm []byte) *machine {
	t.Helper()
	ctx := context.Background()
	runtime := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2))
	t.Cleanup(func() {
		if err := runtime.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	m := &machine{}
	i32, i64 := []api.ValueType{api.ValueTypeI32}, []api.ValueType{api.ValueTypeI64}
	host := runtime.NewHostModuleBuilder(HostModule).NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
		m.yields++
		stack[0] += sliceOfTests
	}), i64, i64).Export(YieldFunction)
	if _, err := host.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	wasi := runtime.NewHostModuleBuilder(wasiModule).NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
		stack[0] = 31
	}), nil, i32).Export("sched_yield")
	if _, err := wasi.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	module, err := runtime.Instantiate(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	m.Module = module
	m.refill()
	if f := module.ExportedFunction(StartFunction); f != nil {
		if _, err := f.Call(ctx); err != nil {
			t.Fatal(err)
		}
	}
	m.refill()
	return m
}

func (m *machine) refill() {
	if g, ok := m.ExportedGlobal(FuelGlobal).(api.MutableGlobal); ok {
		g.Set(sliceOfTests)
		m.ExportedGlobal(DepthGlobal).(api.MutableGlobal).Set(10_000)
	}
	m.yields = 0
}

// call returns the result, or the first line of the trap.
func (m *machine) call(t testing.TB, name string, param uint64) string {
	t.Helper()
	result, err := m.ExportedFunction(name).Call(context.Background(), param)
	if err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return line
	}
	return fmt.Sprint(result)
}

// spent is the fuel since the last refill.
func (m *machine) spent() int64 {
	return sliceOfTests*int64(m.yields+1) - int64(m.ExportedGlobal(FuelGlobal).Get())
}

func functions(m *machine, prefix string) []string {
	var names []string
	for name := range m.ExportedFunctionDefinitions() {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestMeteredModuleDoesWhatItDid(t *testing.T) {
	raw := read(t, "control.wasm")
	metered, info := admit(t, raw)
	if !info.HasStart || info.Globals != 3 || !slices.Equal(info.Imports, []string{"sched_yield"}) {
		t.Errorf("info %+v", info)
	}
	before, after := start(t, raw), start(t, metered)
	names := functions(before, "f_")
	if len(names) < 20 {
		t.Fatalf("%d functions", len(names))
	}
	for _, param := range []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21, 22, 31, 100, 255, 1000, 0x7FFF, 0x12345} {
		for _, name := range names {
			after.refill()
			want, got := before.call(t, name, param), after.call(t, name, param)
			if got != want {
				t.Errorf("%s(%d) = %s, as given %s", name, param, got, want)
			}
			depth := after.ExportedGlobal(DepthGlobal).Get()
			if depth != 10_000 && !strings.Contains(got, "wasm error") {
				t.Errorf("%s(%d) leaves the depth at %d", name, param, depth)
			}
		}
	}
	if a, b := memory(before), memory(after); !bytes.Equal(a, b) {
		t.Error("the memories differ")
	}
}

func memory(m *machine) []byte {
	b, _ := m.Memory().Read(0, m.Memory().Size())
	return b
}

func TestMeteringIsAFunctionOfTheBytes(t *testing.T) {
	first, _ := admit(t, read(t, "control.wasm"))
	again, _ := admit(t, read(t, "control.wasm"))
	if !bytes.Equal(first, again) {
		t.Error("two runs differ")
	}
}

func TestNaNsAreCanonicalWhereTheyAreSeen(t *testing.T) {
	metered, _ := admit(t, read(t, "nan.wasm"))
	m := start(t, metered)
	const nan64, nan32 = 0x7FF8000000000000, 0x7FC00000
	for name, want := range map[string]uint64{
		"n_reinterpret64": nan64, "n_store64": nan64, "n_neg64": nan64, "n_copysign64": 0x3FF0000000000000,
		"n_reinterpret32": nan32, "n_store32": nan32, "n_copysign32": 0x3F800000,
	} {
		bits := uint64(0xFFF8000000001234)
		if strings.HasSuffix(name, "32") {
			bits = 0xFFC01234
		}
		if got := m.call(t, name, bits); got != fmt.Sprint([]uint64{want}) {
			t.Errorf("%s(%x) = %s, want %x", name, bits, got, want)
		}
	}
	for name, bits := range map[string]uint64{"n_store64": 0x8000000000000000, "n_reinterpret64": 0xFFF0000000000000, "n_store32": 0xFF800000} {
		if got := m.call(t, name, bits); got != fmt.Sprint([]uint64{bits}) {
			t.Errorf("%s(%x) = %s; what is no NaN stays", name, bits, got)
		}
	}
}

func TestMutableGlobalsAreExported(t *testing.T) {
	metered, info := admit(t, read(t, "control.wasm"))
	m := start(t, metered)
	for i := range info.Globals {
		if _, ok := m.ExportedGlobal(RestorableGlobal(i)).(api.MutableGlobal); !ok {
			t.Errorf("global %d cannot be set", i)
		}
	}
	if m.ExportedGlobal(RestorableGlobal(info.Globals)) != nil {
		t.Error("there are more than the info says")
	}
	if got := m.ExportedGlobal(RestorableGlobal(0)).Get(); got != 6 {
		t.Errorf("the first global is %d: the start function ran %d times, not once", got, got-5)
	}
}

func TestRefusalsSayWhatIsWrong(t *testing.T) {
	var refused *Refusal
	good := read(t, "control.wasm")
	for name, c := range map[string]struct {
		wasm []byte
		text string
	}{
		"empty":     {nil, "no WebAssembly"},
		"text":      {[]byte("(module)"), "no WebAssembly"},
		"component": {append([]byte("\x00asm"), 0x0D, 0, 1, 0), "component"},
		"large":     {make([]byte, plugins.ModuleBytesMax+1), "are allowed"},
		"bare":      {good[:8], `no export of a memory named "memory"; no export millrace_abi_version () -> (i32)`},
		"twice":     {append(append([]byte(nil), good...), 5, 1, 0), "out of order"},
	} {
		if _, _, err := Admit(c.wasm, plugins.DefaultLimits()); !errors.As(err, &refused) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	small := plugins.DefaultLimits()
	small.MemoryBytesMax = 0
	if _, _, err := Admit(good, small); !errors.As(err, &refused) || !strings.Contains(err.Error(), "begins with 1 pages") {
		t.Errorf("memory: %v", err)
	}
}
