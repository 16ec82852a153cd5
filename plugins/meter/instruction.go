package meter

// Instructions that the rewriting knows by name.
const (
	opUnreachable  = 0x00
	opNop          = 0x01
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0B
	opBr           = 0x0C
	opBrIf         = 0x0D
	opBrTable      = 0x0E
	opReturn       = 0x0F
	opCall         = 0x10
	opCallIndirect = 0x11
	opSelect       = 0x1B
	opSelectTyped  = 0x1C
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opTableSet     = 0x26
	opFirstLoad    = 0x28
	opF32Store     = 0x38
	opF64Store     = 0x39
	opLastStore    = 0x3E
	opMemorySize   = 0x3F
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opFirstNumeric = 0x45
	opI32LtS       = 0x48
	opI64LtS       = 0x53
	opF32Eq        = 0x5B
	opF64Eq        = 0x61
	opI32Add       = 0x6A
	opI32Sub       = 0x6B
	opI32ShrU      = 0x76
	opI64Sub       = 0x7D
	opF32Copysign  = 0x98
	opF64Copysign  = 0xA6
	opI64ExtendU   = 0xAD
	opI32Reinterp  = 0xBC
	opI64Reinterp  = 0xBD
	opLastNumeric  = 0xC4 // i64.extend32_s
	opRefNull      = 0xD0
	opRefIsNull    = 0xD1
	opRefFunc      = 0xD2
	opPrefixMisc   = 0xFC
	opPrefixSIMD   = 0xFD
	opPrefixThread = 0xFE
)

// Instructions behind opPrefixMisc.
const (
	miscLastTruncSat = 7
	miscMemoryInit   = 8
	miscDataDrop     = 9
	miscMemoryCopy   = 10
	miscMemoryFill   = 11
	miscTableInit    = 12
	miscElemDrop     = 13
	miscTableCopy    = 14
	miscTableGrow    = 15
	miscTableSize    = 16
	miscTableFill    = 17
)

// instruction is one decoded instruction. The operands that the rewriting asks for are decoded; raw has all bytes.
type instruction struct {
	op      byte
	sub     uint32 // behind a prefix
	index   uint32 // label, function, type, local or global
	targets []uint32
	raw     []byte
}

// decoder reads instructions of one function and checks every index that the rewriting could make valid by adding to
// what it counts: labels, locals, globals, functions and types.
type decoder struct {
	module  *module
	locals  uint32 // parameters included
	targets []uint32
}

func (d *decoder) next(r *reader, nesting int) instruction {
	start := r.at
	i := instruction{op: r.byte()}
	switch {
	case i.op >= opFirstNumeric && i.op <= opLastNumeric:
	case i.op >= opFirstLoad && i.op <= opLastStore:
		memoryOperand(r)
	default:
		d.operands(r, &i, nesting)
	}
	if r.err == nil {
		i.raw = r.b[start:r.at]
	}
	return i
}

func (d *decoder) operands(r *reader, i *instruction, nesting int) {
	switch i.op {
	case opUnreachable, opNop, opElse, opEnd, opReturn, 0x1A, opSelect, opRefIsNull:
	case opBlock, opLoop, opIf:
		d.blockType(r)
	case opBr, opBrIf:
		i.index = label(r, nesting)
	case opBrTable:
		d.targets = d.targets[:0]
		for range r.count("branch targets", brTableMax) {
			d.targets = append(d.targets, label(r, nesting))
		}
		d.targets = append(d.targets, label(r, nesting))
		i.targets = d.targets
	case opCall, opRefFunc:
		i.index = d.module.functionIndex(r)
	case opCallIndirect:
		i.index = d.module.typeIndex(r)
		d.table(r)
	case opSelectTyped:
		if n := r.u32(); n != 1 {
			r.fail("select of %d types", n)
		}
		valueType(r)
	case opLocalGet, opLocalSet, opLocalTee:
		if i.index = r.u32(); r.err == nil && i.index >= d.locals {
			r.fail("local %d does not exist", i.index)
		}
	case opGlobalGet, opGlobalSet:
		if i.index = r.u32(); r.err == nil && int(i.index) >= len(d.module.globals) {
			r.fail("global %d does not exist", i.index)
		}
	case opTableGet:
		d.table(r)
	case opTableSet:
		r.fail("table.set; %s", refusedTables)
	case opMemorySize, opMemoryGrow:
		memoryIndex(r)
	case opI32Const:
		r.signed(32)
	case opI64Const:
		r.signed(64)
	case opF32Const:
		r.take(4)
	case opF64Const:
		r.take(8)
	case opRefNull:
		referenceType(r)
	case opPrefixMisc:
		i.sub = r.u32()
		d.misc(r, i.sub)
	case opPrefixSIMD:
		i.sub = r.u32()
		simd(r, i.sub)
	case opPrefixThread:
		r.fail("an atomic instruction; plugins have no threads")
	default:
		r.fail("instruction %#x is unknown", i.op)
	}
}

const refusedTables = "a plugin may not change tables or passive segments, which the host does not restore"

func (d *decoder) misc(r *reader, sub uint32) {
	switch {
	case sub <= miscLastTruncSat:
	case sub == miscMemoryInit:
		r.u32()
		memoryIndex(r)
	case sub == miscMemoryCopy:
		memoryIndex(r)
		memoryIndex(r)
	case sub == miscMemoryFill:
		memoryIndex(r)
	case sub == miscTableSize:
		d.table(r)
	case sub <= miscTableFill:
		names := [...]string{
			miscDataDrop: "data.drop", miscTableInit: "table.init", miscElemDrop: "elem.drop",
			miscTableCopy: "table.copy", miscTableGrow: "table.grow", miscTableFill: "table.fill",
		}
		r.fail("%s; %s", names[sub], refusedTables)
	default:
		r.fail("instruction 0xfc %d is unknown", sub)
	}
}

func (d *decoder) table(r *reader) {
	if i := r.u32(); r.err == nil && int(i) >= len(d.module.tables) {
		r.fail("table %d does not exist", i)
	}
}

func memoryIndex(r *reader) {
	if i := r.byte(); i != 0 {
		r.fail("memory %d does not exist", i)
	}
}

func memoryOperand(r *reader) {
	if align := r.u32(); align > 4 {
		r.fail("an alignment of 2^%d", align)
	}
	r.u32()
}

func label(r *reader, nesting int) uint32 {
	l := r.u32()
	if r.err == nil && int64(l) > int64(nesting) {
		r.fail("label %d does not exist", l)
		return 0
	}
	return l
}

// blockType passes over the type of a block.
func (d *decoder) blockType(r *reader) {
	if r.at < len(r.b) {
		switch r.b[r.at] {
		case blockEmpty, typeI32, typeI64, typeF32, typeF64, typeV128, typeFuncref, typeExternref:
			r.at++
			return
		}
	}
	if t := r.signed(33); r.err == nil && (t < 0 || t >= int64(len(d.module.types))) {
		r.fail("block type %d does not exist", t)
	}
}

const simdConst = 12

// simd passes over a vector instruction. Those that read or make floats are refused: the bits of a NaN in a lane cannot
// be made canonical at the price of one instruction.
func simd(r *reader, sub uint32) {
	switch {
	case sub <= 11, sub == 92, sub == 93: // loads and the store
		memoryOperand(r)
	case sub == simdConst, sub == 13: // const, shuffle
		r.take(16)
	case sub >= 84 && sub <= 91: // loads and stores of one lane
		memoryOperand(r)
		r.byte()
	case sub >= 21 && sub <= 30: // lanes of integers
		r.byte()
	case isFloatSIMD(sub):
		r.fail("a floating-point vector instruction (0xfd %d); the bits of its NaNs differ between machines", sub)
	case sub > 255:
		r.fail("instruction 0xfd %d is unknown", sub)
	}
}

func isFloatSIMD(sub uint32) bool {
	switch {
	case sub == 19, sub == 20: // splats
	case sub >= 31 && sub <= 34: // lanes
	case sub >= 65 && sub <= 76: // comparisons
	case sub == 94, sub == 95: // demote, promote
	case sub >= 103 && sub <= 106, sub == 116, sub == 117, sub == 122, sub == 148: // rounding
	case sub >= 224 && sub <= 255 && sub != 238: // arithmetic and conversion
	default:
		return false
	}
	return true
}
