package meter

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// Names that a metered module imports and exports beside the plugin's own.
const (
	// HostModule and YieldFunction name the import that a guest calls when its counter is below zero: (i64) -> i64,
	// the counter to the counter.
	HostModule    = "millrace"
	YieldFunction = "yield"

	reservedPrefix = "__millrace_"
	// FuelGlobal is the fuel counter, an i64. The host sets it before a call, and reads it after one that returned.
	FuelGlobal = reservedPrefix + "fuel"
	// DepthGlobal is the depth counter, an i32: what calls may still nest. Below zero after a trap: it was spent.
	DepthGlobal = reservedPrefix + "depth"
	// StartFunction is the module's start function, which the host calls so that it runs metered.
	StartFunction = reservedPrefix + "start"
)

// RestorableGlobal is the name under which the i-th mutable global of a plugin is exported, from 0 without gaps.
func RestorableGlobal(i int) string { return reservedPrefix + "g" + strconv.Itoa(i) }

// MeteredBytesMax bounds the code of a metered module: what metering may make of the largest module.
const MeteredBytesMax = 2 * plugins.ModuleBytesMax

// Info is what admission learns about a module.
type Info struct {
	CostTable     uint32
	HasInitialize bool
	HasConfigure  bool
	HasStart      bool
	Imports       []string // functions of wasi_snapshot_preview1
	Functions     int
	Globals       int // mutable ones, which are restored before every frame
	MemoryMin     uint32
	MemoryMax     uint32 // bytes, as clamped to the limit
}

// Admit checks a module against everything that plugins are held to and returns it metered. The result is a function
// of the module, of MemoryBytesMax and of this package's cost table. Every error is a *Refusal that says what is wrong
// in terms of the module; what is left to say about a module that is not valid, the runtime says when it compiles it.
// Admit takes time and memory in proportion to the module, whatever is in it. It is safe for concurrent use.
func Admit(wasm []byte, l plugins.Limits) ([]byte, Info, error) {
	if len(wasm) > plugins.ModuleBytesMax {
		return nil, Info{}, &Refusal{Text: fmt.Sprintf("%d bytes; %d are allowed", len(wasm), plugins.ModuleBytesMax)}
	}
	m, err := parse(wasm)
	if err != nil {
		return nil, Info{}, err
	}
	if err := m.checkExports(); err != nil {
		return nil, Info{}, err
	}
	if err := m.clampMemory(l.MemoryBytesMax / plugins.PageBytes); err != nil {
		return nil, Info{}, err
	}
	w := &rewriter{
		module: m, fuel: uint32(len(m.globals)), depth: uint32(len(m.globals) + 1), yield: uint32(len(m.imports)),
		blocks: make(map[string]uint32),
	}
	bodies, size := make([][]byte, len(m.bodies)), 0
	for i, b := range m.bodies {
		metered, refusal := w.rewrite(b, m.types[m.functions[i]])
		if refusal != nil {
			refusal.Text = m.functionName(uint32(len(m.imports)+i)) + refusal.Text
			return nil, Info{}, refusal
		}
		if size += len(metered); size > MeteredBytesMax {
			return nil, Info{}, &Refusal{Text: fmt.Sprintf("metering makes more than %d bytes of it", MeteredBytesMax)}
		}
		bodies[i] = metered
	}
	return w.encode(bodies), m.info(), nil
}

func (m *module) info() Info {
	info := Info{
		CostTable: CostTable, HasStart: m.start >= 0, Functions: len(m.functions),
		MemoryMin: m.memoryMin * plugins.PageBytes, MemoryMax: m.memoryMax * plugins.PageBytes,
	}
	_, info.HasInitialize = m.exported(abi.ExportInitialize)
	_, info.HasConfigure = m.exported(abi.ExportConfigure)
	for _, i := range m.imports {
		info.Imports = append(info.Imports, i.name)
	}
	for _, g := range m.globals {
		if g.mutable {
			info.Globals++
		}
	}
	return info
}

// requiredExports are the exports of a plugin with their types.
var requiredExports = [...]struct {
	name     string
	typ      functionType
	optional bool
}{
	{name: abi.ExportVersion, typ: functionType{nil, []byte{typeI32}}},
	{name: abi.ExportAlloc, typ: functionType{[]byte{typeI32}, []byte{typeI32}}},
	{name: abi.ExportProcess, typ: functionType{[]byte{typeI32, typeI32}, []byte{typeI64}}},
	{name: abi.ExportInitialize, typ: functionType{}, optional: true},
	{name: abi.ExportConfigure, typ: functionType{[]byte{typeI32, typeI32}, []byte{typeI32}}, optional: true},
}

func (m *module) checkExports() error {
	var problems []string
	if e, ok := m.exported(abi.ExportMemory); !ok || e.kind != kindMemory {
		problems = append(problems, "no export of a memory named "+strconv.Quote(abi.ExportMemory))
	}
	for _, want := range requiredExports {
		e, ok := m.exported(want.name)
		switch {
		case !ok && want.optional:
		case !ok:
			problems = append(problems, fmt.Sprintf("no export %s %s", want.name, want.typ))
		case e.kind != kindFunction:
			problems = append(problems, fmt.Sprintf("export %s is no function", want.name))
		case !m.typeOf(e.index).equal(want.typ):
			problems = append(problems, fmt.Sprintf("export %s has type %s; it is %s", want.name, m.typeOf(e.index), want.typ))
		}
	}
	if _, ok := m.exported("_start"); ok && len(problems) > 0 {
		problems = append(problems, "this is a command: build a reactor (Go: -buildmode=c-shared, C: -mexec-model=reactor)")
	}
	if m.start >= 0 && !m.typeOf(uint32(m.start)).equal(functionType{}) {
		problems = append(problems, "the start function takes or returns something")
	}
	if len(problems) > 0 {
		return &Refusal{Text: strings.Join(problems, "; ")}
	}
	return nil
}

// clampMemory makes the limit the module's own maximum.
func (m *module) clampMemory(pages uint32) error {
	if m.memoryMin > pages {
		return &Refusal{Text: fmt.Sprintf("the memory begins with %d pages of 64 KiB; %d are allowed", m.memoryMin, pages)}
	}
	m.memoryMax = min(m.memoryMax, pages)
	return nil
}

// functionName puts the index, and the name if there is one, in front of a refusal.
func (m *module) functionName(index uint32) string {
	for _, e := range m.exports {
		if e.kind == kindFunction && e.index == index {
			return fmt.Sprintf("function %d (%s): ", index, e.name)
		}
	}
	return fmt.Sprintf("function %d: ", index)
}
