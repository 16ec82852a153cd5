package meter

// rewriter is the second pass over the functions of a module.
type rewriter struct {
	module *module
	fuel   uint32            // index of the fuel counter among the globals
	depth  uint32            // index of the depth counter
	yield  uint32            // index of the imported yield
	work   uint64            // of compiling what was rewritten
	added  []functionType    // behind the module's own
	blocks map[string]uint32 // their places, by results
}

// shift is where a function of the module is found once yield stands behind the imports.
func (w *rewriter) shift(function uint32) uint32 {
	if int(function) >= len(w.module.imports) {
		return function + 1
	}
	return function
}

// blockType returns the type of a block that takes nothing and leaves results; more than one needs a type of its own.
func (w *rewriter) blockType(results []byte) int64 {
	switch len(results) {
	case 0:
		return blockEmpty - 0x80
	case 1:
		return int64(results[0]) - 0x80
	}
	if at, ok := w.blocks[string(results)]; ok {
		return int64(at)
	}
	at := w.addType(functionType{results: results})
	w.blocks[string(results)] = at
	return int64(at)
}

// addType appends a type; what the module says of types is checked against its own.
func (w *rewriter) addType(t functionType) uint32 {
	w.added = append(w.added, t)
	return uint32(len(w.module.types) + len(w.added) - 1)
}

// function is the rewriting of one function.
type function struct {
	*rewriter
	analysis
	out     writer
	stretch int // the next one to be charged
	// The locals that are added. In a function with loops the fuel counter is kept in one (faster by the store at
	// each turn), and is written back before calls and at the end.
	fuelLocal, sizeLocal, f32Local, f64Local uint32
	wrapped                                  bool
}

// rewrite returns the metered body of a function.
func (w *rewriter) rewrite(b body, typ functionType) ([]byte, *Refusal) {
	r := &reader{b: b.raw, offset: b.offset}
	d := &decoder{module: w.module, locals: uint32(len(typ.params))}
	declared := readLocals(r, d)
	code := r.at
	a := analyse(r, d)
	if r.err == nil && !r.done() {
		r.fail("%d bytes behind the end of a function", len(r.b)-r.at)
	}
	w.work += a.work()
	if a.work() > functionWorkMax || w.work > moduleWorkMax {
		r.fail("too much to compile: %d branches and %d locals in one function, %d units of work in the module so far", a.branches, a.localCount, w.work)
	}
	if r.err != nil {
		return nil, r.err
	}
	f := &function{rewriter: w, analysis: a, wrapped: a.hasLoops || a.hasCalls}
	f.locals(declared)
	f.prologue(typ)
	r.at = code
	f.body(r, d)
	if f.wrapped {
		f.epilogue()
	}
	f.out.byte(opEnd)
	return f.out.b, r.err
}

type localGroup struct {
	count     uint32
	valueType byte
}

func readLocals(r *reader, d *decoder) []localGroup {
	var groups []localGroup
	total := uint64(d.locals)
	for range r.count("groups of locals", localsMax) {
		g := localGroup{count: r.u32(), valueType: valueType(r)}
		if total += uint64(g.count); total > localsMax {
			r.fail("a function of %d locals; %d are allowed", total, localsMax)
			break
		}
		groups = append(groups, g)
	}
	d.locals = uint32(total)
	return groups
}

// locals writes the declarations, with those added that the function needs.
func (f *function) locals(declared []localGroup) {
	next := f.localCount
	add := func(needed bool, valueType byte, to *uint32) {
		if needed {
			declared = append(declared, localGroup{1, valueType})
			*to = next
			next++
		}
	}
	add(f.hasLoops, typeI64, &f.fuelLocal)
	add(f.hasBulk, typeI32, &f.sizeLocal)
	add(f.needsF32, typeF32, &f.f32Local)
	add(f.needsF64, typeF64, &f.f64Local)
	f.out.u32(uint32(len(declared)))
	for _, g := range declared {
		f.out.u32(g.count)
		f.out.byte(g.valueType)
	}
}

func (f *function) prologue(typ functionType) {
	if f.hasLoops {
		f.get(opGlobalGet, f.rewriter.fuel)
		f.get(opLocalSet, f.fuelLocal)
	}
	f.charge(true)
	if f.hasCalls {
		f.changeDepth(opI32Sub)
		f.get(opGlobalGet, f.rewriter.depth)
		f.constant32(0)
		f.out.byte(opI32LtS, opIf, blockEmpty, opUnreachable, opEnd)
	}
	if f.wrapped {
		f.out.byte(opBlock)
		f.out.signed(f.blockType(typ.results))
	}
}

func (f *function) epilogue() {
	f.flush()
	if f.hasCalls {
		f.changeDepth(opI32Add)
	}
}

func (f *function) changeDepth(op byte) {
	f.get(opGlobalGet, f.rewriter.depth)
	f.constant32(int64(f.analysis.depth))
	f.out.byte(op)
	f.get(opGlobalSet, f.rewriter.depth)
}

// body copies the instructions, with what is injected between them. The function's own end closes the block that wraps
// it, or is left to the caller.
func (f *function) body(r *reader, d *decoder) {
	flow := newFlow()
	for r.err == nil {
		i := d.next(r, flow.nesting())
		nesting := flow.nesting()
		begun, done := flow.step(r, &i)
		if done {
			if f.wrapped {
				f.out.byte(opEnd)
			}
			return
		}
		f.instruction(&i, nesting)
		if begun != nothing {
			f.charge(begun == loopHead)
		}
	}
}

func (f *function) instruction(i *instruction, nesting int) {
	switch i.op {
	case opReturn:
		if f.wrapped {
			f.get(opBr, uint32(nesting))
			return
		}
	case opCall:
		f.call(i)
		return
	case opCallIndirect:
		f.flush()
		f.out.byte(i.raw...)
		f.reload()
		return
	case opRefFunc:
		f.get(opRefFunc, f.shift(i.index))
		return
	case opF32Store, opI32Reinterp, opF32Copysign:
		f.canonical32()
	case opF64Store, opI64Reinterp, opF64Copysign:
		f.canonical64()
	case opPrefixMisc:
		if i.sub >= miscMemoryInit && i.sub <= miscMemoryFill {
			f.chargeBulk()
		}
	}
	f.out.byte(i.raw...)
}

func (f *function) call(i *instruction) {
	if int(i.index) < len(f.module.imports) {
		f.get(opCall, i.index)
		return
	}
	f.flush()
	f.get(opCall, f.shift(i.index))
	f.reload()
}

// flush writes the fuel counter back where it is kept in a local, reload reads it again.
func (f *function) flush() {
	if f.hasLoops {
		f.get(opLocalGet, f.fuelLocal)
		f.get(opGlobalSet, f.rewriter.fuel)
	}
}

func (f *function) reload() {
	if f.hasLoops {
		f.get(opGlobalGet, f.rewriter.fuel)
		f.get(opLocalSet, f.fuelLocal)
	}
}

// charge takes the cost of the next stretch off the counter and, at entries and loop heads, looks whether it is spent.
func (f *function) charge(check bool) {
	cost := f.costs[f.stretch]
	f.stretch++
	if cost > 0 {
		f.getFuel()
		f.out.byte(opI64Const)
		f.out.signed(int64(cost))
		f.out.byte(opI64Sub)
		f.setFuel()
	}
	if check {
		f.check()
	}
}

// chargeBulk charges for the bytes that a bulk instruction is about to touch; their number is on top of the stack.
func (f *function) chargeBulk() {
	f.get(opLocalTee, f.sizeLocal)
	f.getFuel()
	f.get(opLocalGet, f.sizeLocal)
	f.constant32(bulkByteShift)
	f.out.byte(opI32ShrU, opI64ExtendU, opI64Sub)
	f.setFuel()
	f.check()
}

// check calls yield when the counter is below zero: the host answers with what to go on with, or ends the guest.
func (f *function) check() {
	f.getFuel()
	f.out.byte(opI64Const, 0, opI64LtS, opIf, blockEmpty)
	f.getFuel()
	f.get(opCall, f.yield)
	f.setFuel()
	f.out.byte(opEnd)
}

func (f *function) getFuel() {
	if f.hasLoops {
		f.get(opLocalGet, f.fuelLocal)
	} else {
		f.get(opGlobalGet, f.rewriter.fuel)
	}
}

func (f *function) setFuel() {
	if f.hasLoops {
		f.get(opLocalSet, f.fuelLocal)
	} else {
		f.get(opGlobalSet, f.rewriter.fuel)
	}
}

// canonical32 makes a NaN on top of the stack the canonical one: v == v ? v : nan.
func (f *function) canonical32() {
	f.get(opLocalTee, f.f32Local)
	f.out.byte(opF32Const, 0x00, 0x00, 0xC0, 0x7F)
	f.get(opLocalGet, f.f32Local)
	f.get(opLocalGet, f.f32Local)
	f.out.byte(opF32Eq, opSelect)
}

func (f *function) canonical64() {
	f.get(opLocalTee, f.f64Local)
	f.out.byte(opF64Const, 0, 0, 0, 0, 0, 0, 0xF8, 0x7F)
	f.get(opLocalGet, f.f64Local)
	f.get(opLocalGet, f.f64Local)
	f.out.byte(opF64Eq, opSelect)
}

// get writes an instruction of one index.
func (f *function) get(op byte, index uint32) {
	f.out.byte(op)
	f.out.u32(index)
}

func (f *function) constant32(v int64) {
	f.out.byte(opI32Const)
	f.out.signed(v)
}
