package tck

// This file writes small WebAssembly modules by hand: hostile ones cannot come from a compiler that means well.

// Opcodes that the modules need.
const (
	opUnreachable = 0x00
	opLoop        = 0x03
	opEnd         = 0x0B
	opBr          = 0x0C
	opBrIf        = 0x0D
	opCall        = 0x10
	opLocalGet    = 0x20
	opStore32     = 0x36
	opMemoryGrow  = 0x40
	opI32Const    = 0x41
	opI64Const    = 0x42
	opUnequal32   = 0x47
	opPrefix      = 0xFC
	memoryFill    = 0x0B
	typeI32       = 0x7F
	typeI64       = 0x7E
	typeFunction  = 0x60
	typeNothing   = 0x40
)

// wasm is a plugin module in parts. Function 0 is millrace_abi_version, 1 millrace_alloc, 2 millrace_process; a body is
// instructions without the end.
type wasm struct {
	pages   uint32
	version []byte // default: 1
	alloc   []byte // default: 4,096
	process []byte
	data    []segment
}

type segment struct {
	at    uint32
	bytes []byte
}

func (w wasm) encode() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, items ...[]byte) {
		body := unsigned(nil, uint64(len(items)))
		for _, item := range items {
			body = append(body, item...)
		}
		out = append(unsigned(append(out, id), uint64(len(body))), body...)
	}
	export := func(name string, kind, index byte) []byte {
		return append(append(unsigned(nil, uint64(len(name))), name...), kind, index)
	}
	code := func(body []byte) []byte {
		whole := append(append([]byte{0}, body...), opEnd) // no locals
		return append(unsigned(nil, uint64(len(whole))), whole...)
	}
	if w.version == nil {
		w.version = i32(1)
	}
	if w.alloc == nil {
		w.alloc = i32(frameAt)
	}
	section(1, []byte{typeFunction, 0, 1, typeI32}, []byte{typeFunction, 1, typeI32, 1, typeI32}, []byte{typeFunction, 2, typeI32, typeI32, 1, typeI64})
	section(3, []byte{0}, []byte{1}, []byte{2})
	section(5, append([]byte{0}, unsigned(nil, uint64(max(w.pages, 2)))...))
	section(7, export("memory", 2, 0), export("millrace_abi_version", 0, 0), export("millrace_alloc", 0, 1), export("millrace_process", 0, 2))
	section(10, code(w.version), code(w.alloc), code(w.process))
	var data [][]byte
	for _, s := range w.data {
		item := append(append([]byte{0}, i32(int64(s.at))...), opEnd)
		data = append(data, append(unsigned(item, uint64(len(s.bytes))), s.bytes...))
	}
	section(11, data...)
	return out
}

func i32(v int64) []byte { return signed([]byte{opI32Const}, int64(int32(v))) }

func i64(v uint64) []byte { return signed([]byte{opI64Const}, int64(v)) }

// code joins instructions.
func code(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func unsigned(dst []byte, v uint64) []byte {
	for v >= 0x80 {
		dst, v = append(dst, byte(v)|0x80), v>>7
	}
	return append(dst, byte(v))
}

func signed(dst []byte, v int64) []byte {
	for {
		b := byte(v & 0x7F)
		v >>= 7
		if v == 0 && b&0x40 == 0 || v == -1 && b&0x40 != 0 {
			return append(dst, b)
		}
		dst = append(dst, b|0x80)
	}
}
