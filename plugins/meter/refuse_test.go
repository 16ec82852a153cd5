package meter

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins"
)

func TestWhatAPluginMayNotDoIsRefusedByName(t *testing.T) {
	table := map[byte][]byte{sectionTable: {1, typeFuncref, 0, 1}}
	for name, c := range map[string]struct {
		module built
		text   string
	}{
		"foreign import":  {built{imports: []imported{{"env", "abort", 1}}}, `import "abort" from "env"`},
		"unknown import":  {built{imports: []imported{{wasiModule, "sock_open", 1}}}, `import "sock_open" is no function`},
		"mistyped import": {built{imports: []imported{{wasiModule, "fd_write", 1}}}, `import "fd_write" has type (i32) -> (i32); it is (i32 i32 i32 i32) -> (i32)`},
		"reserved export": {built{exports: []export{{"__millrace_fuel", kindFunction, 0}}}, "are the host's"},
		"atomics":         {built{code: []byte{opPrefixThread, 3, 0}}, "threads"},
		"shared memory":   {built{memory: []byte{3, 1, 1}}, "shared"},
		"memory64":        {built{memory: []byte{4, 1}}, "64-bit"},
		"large memory":    {built{memory: []byte{0, 0x81, 2}}, "begins with 257 pages"},
		"float SIMD":      {built{code: []byte{opPrefixSIMD, 19}}, "floating-point vector"},
		"relaxed SIMD":    {built{code: []byte{opPrefixSIMD, 0x80, 2}}, "unknown"},
		"table.set":       {built{code: []byte{opTableSet, 0}, extra: table}, "table.set"},
		"table.grow":      {built{code: []byte{opPrefixMisc, miscTableGrow, 0}, extra: table}, "table.grow"},
		"elem.drop":       {built{code: []byte{opPrefixMisc, miscElemDrop, 0}}, "elem.drop"},
		"data.drop":       {built{code: []byte{opPrefixMisc, miscDataDrop, 0}}, "data.drop"},
		"tail call":       {built{code: []byte{0x12, 0}}, "instruction 0x12"},
		"exceptions":      {built{code: []byte{0x06, blockEmpty}}, "instruction 0x6"},
		"mutable v128":    {built{extra: map[byte][]byte{sectionGlobal: append([]byte{1, typeV128, 1, opPrefixSIMD, simdConst}, append(make([]byte, 16), opEnd)...)}}, "cannot be restored"},
		"mutable ref":     {built{extra: map[byte][]byte{sectionGlobal: {1, typeFuncref, 1, opRefNull, typeFuncref, opEnd}}}, "cannot be restored"},
		"start type":      {built{extra: map[byte][]byte{sectionStart: {1}}}, "start function"},
		"table size":      {built{extra: map[byte][]byte{sectionTable: {1, typeFuncref, 0, 0xFF, 0xFF, 0xFF, 0x7F}}}, "a table of 268435455 elements"},
		"locals":          {built{locals: []byte{1, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, typeI32}}, "locals"},
		"count":           {built{extra: map[byte][]byte{sectionData: {0xFF, 0xFF, 3}}}, "do not fit"},
		"branch table":    {built{code: []byte{opI32Const, 0, opBrTable, 0xFF, 0xFF, 1, 0}}, "branch targets"},
	} {
		_, _, err := Admit(c.module.bytes(), plugins.DefaultLimits())
		var refused *Refusal
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", name, err, c.text)
		}
	}
	for name, module := range map[string]built{
		"integer SIMD": {code: []byte{opI32Const, 1, opPrefixSIMD, 17, 0x1A}},
		"large table":  {extra: map[byte][]byte{sectionTable: {1, typeFuncref, 0, 0x80, 0x80, 4}}},
		"wasi":         {imports: []imported{{wasiModule, "sched_yield", 0}}},
	} {
		if _, _, err := Admit(module.bytes(), plugins.DefaultLimits()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNoModuleReachesWhatMeteringAdds gives the indices that only exist once a module is metered: without these checks
// a guest could refuel itself.
func TestNoModuleReachesWhatMeteringAdds(t *testing.T) {
	loop := []byte{opLoop, blockEmpty, opEnd}
	for name, c := range map[string]built{
		"fuel local":     {code: append(loop, opI64Const, 0, opLocalSet, 0)},
		"fuel global":    {code: []byte{opI64Const, 0, opGlobalSet, 0}},
		"fuel read":      {code: []byte{opGlobalGet, 0, 0x1A}},
		"yield":          {code: []byte{opI64Const, 0, opCall, 4, 0x1A}},
		"yield's type":   {code: []byte{opI64Const, 0, opI32Const, 0, opCallIndirect, 4, 0, 0x1A}, extra: map[byte][]byte{sectionTable: {1, typeFuncref, 0, 1}}},
		"block of types": {code: []byte{opBlock, 4, opEnd}},
		"wrapping block": {code: append(loop, opBr, 1)},
		"export":         {exports: []export{{"x", kindGlobal, 0}}},
		"ref.func":       {code: []byte{opRefFunc, 4, 0x1A}},
		"start":          {extra: map[byte][]byte{sectionStart: {4}}},
		"element":        {extra: map[byte][]byte{sectionTable: {1, typeFuncref, 0, 1}, sectionElement: {1, 0, opI32Const, 0, opEnd, 1, 4}}},
	} {
		var refused *Refusal
		if _, _, err := Admit(c.bytes(), plugins.DefaultLimits()); !errors.As(err, &refused) || !strings.Contains(err.Error(), "does not exist") && !strings.Contains(err.Error(), "names nothing") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// damaged admits what is left of a damaged module: no panic, no long time, and what is still admitted the runtime takes
// or refuses.
func damaged(t *testing.T, runtime wazero.Runtime, wasm []byte, what string, at int) {
	t.Helper()
	began := time.Now()
	metered, _, err := Admit(wasm, plugins.DefaultLimits())
	if took := time.Since(began); took > 2*time.Second {
		t.Fatalf("%s at %d: %s", what, at, took)
	}
	if err != nil {
		return
	}
	if compiled, err := runtime.CompileModule(context.Background(), metered); err == nil {
		if err := compiled.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamagedModulesAreRefusedOrStillModules(t *testing.T) {
	ctx := context.Background()
	runtime := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2))
	t.Cleanup(func() {
		if err := runtime.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	good := read(t, "control.wasm")
	for n := range good {
		damaged(t, runtime, good[:n], "cut", n)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for at := range good {
		flipped := append([]byte(nil), good...)
		flipped[at] ^= 1 << random.IntN(8)
		damaged(t, runtime, flipped, "flip", at)
		flipped[at] = 0x80 // a number that goes on
		damaged(t, runtime, flipped, "leb", at)
	}
}

func FuzzAdmit(f *testing.F) {
	f.Add(read(f, "control.wasm"))
	f.Add(read(f, "nan.wasm"))
	f.Add(built{}.bytes())
	f.Fuzz(func(t *testing.T, wasm []byte) {
		metered, _, err := Admit(wasm, plugins.DefaultLimits())
		if err != nil {
			return
		}
		if _, err := parse(metered); err == nil {
			t.Fatal("a metered module could be metered again")
		}
	})
}
