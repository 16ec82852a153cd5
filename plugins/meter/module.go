package meter

import (
	"encoding/binary"
	"math"
	"slices"
)

// Caps on what a module may hold, each count times the bytes it costs a runtime (W3, W5). They are generous: the Go
// toolchain's largest outputs stay far below.
const (
	typesMax        = 10_000
	typeValuesMax   = 100
	importsMax      = 100
	functionsMax    = 50_000
	tableSizeMax    = 100_000
	globalsMax      = 1_000
	exportsMax      = 1_000
	elementsMax     = 10_000
	elementItemsMax = 200_000
	dataMax         = 100_000
	localsMax       = 4_096
	bodyBytesMax    = 1 << 20
	nestingMax      = 20_000
	brTableMax      = 20_000
	customMax       = 1_000
)

// Value types.
const (
	typeI32       = 0x7F
	typeI64       = 0x7E
	typeF32       = 0x7D
	typeF64       = 0x7C
	typeV128      = 0x7B
	typeFuncref   = 0x70
	typeExternref = 0x6F
	blockEmpty    = 0x40
)

// Sections, by their numbers.
const (
	sectionCustom = iota
	sectionType
	sectionImport
	sectionFunction
	sectionTable
	sectionMemory
	sectionGlobal
	sectionExport
	sectionStart
	sectionElement
	sectionCode
	sectionData
	sectionDataCount
)

// kinds of import and export.
const (
	kindFunction = iota
	kindTable
	kindMemory
	kindGlobal
)

type functionType struct{ params, results []byte }

func (t functionType) equal(u functionType) bool {
	return slices.Equal(t.params, u.params) && slices.Equal(t.results, u.results)
}

func (t functionType) String() string {
	return "(" + typeNames(t.params) + ") -> (" + typeNames(t.results) + ")"
}

func typeNames(types []byte) string {
	out := ""
	for i, t := range types {
		if i > 0 {
			out += " "
		}
		switch t {
		case typeI32:
			out += "i32"
		case typeI64:
			out += "i64"
		case typeF32:
			out += "f32"
		case typeF64:
			out += "f64"
		case typeV128:
			out += "v128"
		default:
			out += "ref"
		}
	}
	return out
}

type imported struct {
	module, name string
	typeIndex    uint32
}

type global struct {
	valueType byte
	mutable   bool
	init      constant
}

// constant is an initialiser: its bytes, without the end, and where they name functions.
type constant struct {
	raw      []byte
	function int64 // index that a ref.func names, or -1
}

type export struct {
	name  string
	kind  byte
	index uint32
}

type table struct {
	elementType byte
	size        uint32
}

// element is a segment: function indices, or constants where the segment is written so.
type element struct {
	flags     uint32
	table     uint32
	offset    constant
	kindByte  byte // of flags 1 to 3, 5 to 7
	functions []uint32
	constants []constant
}

type body struct {
	raw    []byte // declarations of locals and the expression
	offset int    // of raw[0] in the module
}

// module is a parsed module: all that the rewriting touches, and the rest as bytes.
type module struct {
	types     []functionType
	imports   []imported
	functions []uint32 // type indices
	tables    []table
	memoryMin uint32
	memoryMax uint32
	hasMemory bool
	globals   []global
	exports   []export
	start     int64 // function index or -1
	elements  []element
	dataCount []byte // section as it was, nil where missing
	data      []byte
	dataItems uint32
	bodies    []body
	names     []byte // custom section "name", without its own name
}

func (m *module) functionCount() uint32 { return uint32(len(m.imports) + len(m.functions)) }

// typeOf returns the type of the function with an index.
func (m *module) typeOf(function uint32) functionType {
	if int(function) < len(m.imports) {
		return m.types[m.imports[function].typeIndex]
	}
	return m.types[m.functions[int(function)-len(m.imports)]]
}

func (m *module) exported(name string) (export, bool) {
	for _, e := range m.exports {
		if e.name == name {
			return e, true
		}
	}
	return export{}, false
}

// parse reads a module and checks every count and index; what it says of bodies is checked when they are rewritten.
func parse(raw []byte) (*module, error) {
	if len(raw) < 8 || string(raw[:4]) != "\x00asm" {
		return nil, &Refusal{Text: "this is no WebAssembly module"}
	}
	if v := binary.LittleEndian.Uint32(raw[4:]); v != 1 {
		return nil, &Refusal{At: 4, Text: "a component, or a version of the binary format that is not 1; core modules are run"}
	}
	m := &module{start: -1}
	r := &reader{b: raw, at: 8}
	last, customs := 0, 0
	for !r.done() {
		id := r.byte()
		length := r.u32()
		at := r.at
		part := &reader{b: r.take(length), offset: at}
		if r.err != nil {
			return nil, r.err
		}
		if id == sectionCustom {
			if customs++; customs > customMax {
				return nil, &Refusal{At: at, Text: "too many custom sections"}
			}
			m.custom(part)
			continue
		}
		order := sectionOrder(id)
		if order == 0 {
			return nil, &Refusal{At: at, Text: "unknown section"}
		}
		if order <= last {
			return nil, &Refusal{At: at, Text: "a section twice or out of order"}
		}
		last = order
		m.section(id, part)
		if part.err == nil && !part.done() {
			part.fail("%d bytes behind the end of a section", len(part.b)-part.at)
		}
		if part.err != nil {
			return nil, part.err
		}
	}
	if len(m.bodies) != len(m.functions) {
		return nil, &Refusal{Text: "functions and their bodies differ in number"}
	}
	return m, nil
}

// sectionOrder is the place of a section among the others, from 1; 0 is unknown.
func sectionOrder(id byte) int {
	switch {
	case id == sectionDataCount:
		return 2*sectionElement + 1
	case id >= sectionType && id <= sectionData:
		return 2 * int(id)
	}
	return 0
}

func (m *module) custom(r *reader) {
	if r.name() == "name" && r.err == nil {
		m.names = r.b[r.at:]
	}
}

func (m *module) section(id byte, r *reader) {
	switch id {
	case sectionType:
		m.readTypes(r)
	case sectionImport:
		m.readImports(r)
	case sectionFunction:
		for range r.count("functions", functionsMax) {
			m.functions = append(m.functions, m.typeIndex(r))
		}
	case sectionTable:
		m.readTables(r)
	case sectionMemory:
		m.readMemory(r)
	case sectionGlobal:
		m.readGlobals(r)
	case sectionExport:
		m.readExports(r)
	case sectionStart:
		m.start = int64(m.functionIndex(r))
	case sectionElement:
		m.readElements(r)
	case sectionCode:
		m.readBodies(r)
	case sectionData:
		m.readData(r)
	case sectionDataCount:
		m.dataCount = r.b
		m.dataItems = r.u32()
	}
}

func (m *module) typeIndex(r *reader) uint32 {
	i := r.u32()
	if r.err == nil && int(i) >= len(m.types) {
		r.fail("type %d does not exist", i)
		return 0
	}
	return i
}

func (m *module) functionIndex(r *reader) uint32 {
	i := r.u32()
	if r.err == nil && i >= m.functionCount() {
		r.fail("function %d does not exist", i)
		return 0
	}
	return i
}

func valueType(r *reader) byte {
	t := r.byte()
	switch t {
	case typeI32, typeI64, typeF32, typeF64, typeV128, typeFuncref, typeExternref:
	default:
		r.fail("value type %#x is unknown", t)
	}
	return t
}

func referenceType(r *reader) byte {
	t := r.byte()
	if t != typeFuncref && t != typeExternref {
		r.fail("reference type %#x is unknown", t)
	}
	return t
}

func (m *module) readTypes(r *reader) {
	for range r.count("types", typesMax) {
		if form := r.byte(); form != 0x60 {
			r.fail("type form %#x; only functions are known", form)
			return
		}
		var t functionType
		for range r.count("parameters", typeValuesMax) {
			t.params = append(t.params, valueType(r))
		}
		for range r.count("results", typeValuesMax) {
			t.results = append(t.results, valueType(r))
		}
		m.types = append(m.types, t)
	}
}

func (m *module) readImports(r *reader) {
	for range r.count("imports", importsMax) {
		i := imported{module: r.name(), name: r.name()}
		if kind := r.byte(); r.err == nil && kind != kindFunction {
			r.fail("import %q %q is no function; a plugin imports functions of %s only", i.module, i.name, wasiModule)
			return
		}
		i.typeIndex = m.typeIndex(r)
		if r.err == nil && i.module != wasiModule {
			r.fail("import %q from %q; a plugin imports from %s only", i.name, i.module, wasiModule)
			return
		}
		if r.err == nil {
			m.checkWASI(r, i)
			m.imports = append(m.imports, i)
		}
	}
}

func (m *module) checkWASI(r *reader, i imported) {
	want, ok := wasiFunction(i.name)
	if !ok {
		r.fail("import %q is no function of %s", i.name, wasiModule)
		return
	}
	if got := m.types[i.typeIndex]; !got.equal(want) {
		r.fail("import %q has type %s; it is %s", i.name, got, want)
	}
}

// limits reads the limits of a table or a memory; a missing maximum is the largest number.
func limits(r *reader) (low, high uint32) {
	flags := r.byte()
	if flags > 1 {
		r.fail("limits of kind %#x; shared and 64-bit memories are not run", flags)
		return 0, 0
	}
	low, high = r.u32(), math.MaxUint32
	if flags == 1 {
		if high = r.u32(); high < low {
			r.fail("a maximum of %d below the minimum of %d", high, low)
		}
	}
	return low, high
}

func (m *module) readTables(r *reader) {
	for range r.count("tables", 1) {
		t := table{elementType: referenceType(r)}
		t.size, _ = limits(r)
		if t.size > tableSizeMax {
			r.fail("a table of %d elements; %d are allowed", t.size, tableSizeMax)
		}
		m.tables = append(m.tables, t)
	}
}

func (m *module) readMemory(r *reader) {
	if r.count("memories", 1) == 1 {
		m.hasMemory = true
		m.memoryMin, m.memoryMax = limits(r)
	}
}

func (m *module) readGlobals(r *reader) {
	for range r.count("globals", globalsMax) {
		g := global{valueType: valueType(r)}
		mutable := r.byte()
		if mutable > 1 {
			r.fail("mutability %#x is unknown", mutable)
		}
		g.mutable = mutable == 1
		if g.mutable && (g.valueType == typeV128 || g.valueType == typeFuncref || g.valueType == typeExternref) {
			r.fail("a mutable global of type %s cannot be restored", typeNames([]byte{g.valueType}))
		}
		g.init = m.constant(r)
		m.globals = append(m.globals, g)
	}
}

// constant reads an initialiser: one instruction and its end.
func (m *module) constant(r *reader) constant {
	c := constant{function: -1}
	start := r.at
	switch op := r.byte(); op {
	case opI32Const:
		r.signed(32)
	case opI64Const:
		r.signed(64)
	case opF32Const:
		r.take(4)
	case opF64Const:
		r.take(8)
	case opGlobalGet:
		r.fail("an initialiser reads a global; no global is imported")
	case opRefNull:
		referenceType(r)
	case opRefFunc:
		c.function = int64(m.functionIndex(r))
	case opPrefixSIMD:
		if sub := r.u32(); sub != simdConst {
			r.fail("instruction 0xfd %d in an initialiser", sub)
		}
		r.take(16)
	default:
		r.fail("instruction %#x in an initialiser", op)
	}
	if r.err == nil {
		c.raw = r.b[start:r.at]
	}
	if end := r.byte(); r.err == nil && end != opEnd {
		r.fail("an initialiser of more than one instruction")
	}
	return c
}

func (m *module) readExports(r *reader) {
	seen := make(map[string]bool)
	for range r.count("exports", exportsMax) {
		e := export{name: r.name(), kind: r.byte(), index: r.u32()}
		if r.err != nil {
			return
		}
		exists := false
		switch e.kind {
		case kindFunction:
			exists = e.index < m.functionCount()
		case kindTable:
			exists = int(e.index) < len(m.tables)
		case kindMemory:
			exists = e.index == 0 && m.hasMemory
		case kindGlobal:
			exists = int(e.index) < len(m.globals)
		}
		switch {
		case !exists:
			r.fail("export %q names nothing", e.name)
		case seen[e.name]:
			r.fail("export %q twice", e.name)
		case len(e.name) >= len(reservedPrefix) && e.name[:len(reservedPrefix)] == reservedPrefix:
			r.fail("export %q; names that begin with %s are the host's", e.name, reservedPrefix)
		}
		seen[e.name] = true
		m.exports = append(m.exports, e)
	}
}

func (m *module) readElements(r *reader) {
	items := uint32(0)
	for range r.count("element segments", elementsMax) {
		e := element{flags: r.u32()}
		if e.flags > 7 {
			r.fail("element segment of kind %d", e.flags)
			return
		}
		if e.flags&1 == 0 { // active
			if e.flags&2 != 0 {
				e.table = r.u32()
			}
			if int(e.table) >= len(m.tables) {
				r.fail("table %d does not exist", e.table)
				return
			}
			e.offset = m.constant(r)
		}
		if e.flags&3 != 0 {
			if e.kindByte = r.byte(); e.flags < 4 && e.kindByte != 0 {
				r.fail("element kind %#x is unknown", e.kindByte)
			}
		}
		n := r.count("elements", elementItemsMax)
		if items += n; items > elementItemsMax {
			r.fail("more than %d elements", elementItemsMax)
			return
		}
		for range n {
			if e.flags < 4 {
				e.functions = append(e.functions, m.functionIndex(r))
			} else {
				e.constants = append(e.constants, m.constant(r))
			}
			if r.err != nil {
				return
			}
		}
		m.elements = append(m.elements, e)
	}
}

func (m *module) readBodies(r *reader) {
	for range r.count("bodies", functionsMax) {
		size := r.u32()
		if size > bodyBytesMax {
			r.fail("a function of %d bytes; %d are allowed", size, bodyBytesMax)
			return
		}
		at := r.at
		b := body{raw: r.take(size), offset: r.offset + at}
		if r.err != nil {
			return
		}
		m.bodies = append(m.bodies, b)
	}
}

func (m *module) readData(r *reader) {
	m.data = r.b
	n := r.count("data segments", dataMax)
	if m.dataCount != nil && n != m.dataItems {
		r.fail("%d data segments, %d are announced", n, m.dataItems)
	}
	for range n {
		switch kind := r.u32(); kind {
		case 2:
			if index := r.u32(); index != 0 {
				r.fail("memory %d does not exist", index)
			}
			m.constant(r)
		case 0:
			m.constant(r)
		case 1:
		default:
			r.fail("data segment of kind %d", kind)
		}
		r.take(r.u32())
		if r.err != nil {
			return
		}
	}
}
