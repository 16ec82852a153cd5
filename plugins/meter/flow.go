package meter

// The cost of instructions, table 1. What only shapes the code (block, loop, else, end, nop) is free.
const (
	// CostTable is the number of the table by which this package charges.
	CostTable     = 1
	costHostCall  = 1_000 // a call of an import, and memory.grow
	bulkByteShift = 6     // bulk memory: 1 for each 64 bytes, beside the instruction's own 1
	depthSlots    = 500   // a call is 1 deep, and 1 more for each so many locals and instructions of the function
)

func cost(i *instruction, imports int) uint64 {
	switch i.op {
	case opBlock, opLoop, opElse, opEnd, opNop:
		return 0
	case opMemoryGrow:
		return costHostCall
	case opCall:
		if int(i.index) < imports {
			return costHostCall
		}
	}
	return 1
}

// frame is an open block, loop or if; the outermost is the function.
type frame struct {
	op      byte
	entry   int  // the stretch that was charged before it began
	marked  bool // a br_table jumps behind it
	touched bool // its first arm ended in another stretch
}

// flow follows the structure of a function and says where a new stretch begins. A stretch is what is charged at once:
// it begins at the function's entry, at each loop head, and behind each block to whose end a br_table jumps or in which
// a stretch began; it takes in all that follows it inside its loop up to the next, both arms of an if included, and
// loops inside it apart. So what runs was charged before, and a switch, or the one big loop over a br_table that Go's
// compiler makes of a function, pays for the arms that it takes.
type flow struct {
	frames  []frame
	current int // the stretch that instructions count for
	count   int
}

// begins says what begins after an instruction.
type begins uint8

const (
	nothing begins = iota
	loopHead
	arm
)

func newFlow() *flow { return &flow{frames: []frame{{op: opBlock}}, count: 1} }

// nesting is the number of frames inside the function's own.
func (f *flow) nesting() int { return len(f.frames) - 1 }

// step takes the next instruction. done is true at the function's own end.
func (f *flow) step(r *reader, i *instruction) (b begins, done bool) {
	switch i.op {
	case opBlock, opIf:
		f.push(r, i.op)
	case opLoop:
		f.push(r, i.op)
		f.open()
		return loopHead, false
	case opElse:
		top := &f.frames[len(f.frames)-1]
		if top.op != opIf {
			r.fail("else without if")
		}
		top.op = opElse
		top.touched = f.current != top.entry
		f.current = top.entry
	case opBrTable:
		for _, label := range i.targets {
			f.frames[len(f.frames)-1-int(label)].marked = true
		}
	case opEnd:
		top := f.frames[len(f.frames)-1]
		f.frames = f.frames[:len(f.frames)-1]
		if len(f.frames) == 0 {
			return nothing, true
		}
		if top.op == opLoop {
			f.current = top.entry
			return nothing, false
		}
		if top.marked || top.touched || f.current != top.entry {
			f.open()
			return arm, false
		}
	}
	return nothing, false
}

func (f *flow) push(r *reader, op byte) {
	if len(f.frames) > nestingMax {
		r.fail("blocks nested deeper than %d", nestingMax)
		return
	}
	f.frames = append(f.frames, frame{op: op, entry: f.current})
}

func (f *flow) open() {
	f.current = f.count
	f.count++
}

// analysis is what the first pass over a function learns.
type analysis struct {
	costs      []uint64 // by stretch, in the order in which stretches begin
	hasLoops   bool
	hasCalls   bool // of functions of the module
	hasBulk    bool
	needsF32   bool
	needsF64   bool
	localCount uint32
	depth      uint32
	branches   uint64 // places where the runtime's code parts, about
}

// A compiler's work on a function grows with the square of the places where control parts, and with those places times
// the locals; so a module could be small and take minutes and gigabytes to compile (W5). The largest functions of Go's
// own output come to 1 million, whole modules to 20 million; a module at its limit compiles in seconds.
const (
	functionWorkMax = 50_000_000
	moduleWorkMax   = 200_000_000
	workPerLocal    = 64
)

// work estimates what compiling the function takes.
func (a *analysis) work() uint64 {
	return a.branches * (a.branches + workPerLocal*uint64(a.localCount))
}

// analyse is the first pass: r stands at the first instruction.
func analyse(r *reader, d *decoder) analysis {
	a := analysis{costs: []uint64{0}, localCount: d.locals}
	f := newFlow()
	total := uint64(0)
	for {
		i := d.next(r, f.nesting())
		if r.err != nil {
			return a
		}
		c := cost(&i, len(d.module.imports))
		a.costs[f.current] += c
		total++
		a.note(&i, len(d.module.imports))
		begun, done := f.step(r, &i)
		if done {
			break
		}
		if begun != nothing {
			a.costs = append(a.costs, 0)
		}
	}
	a.costs[0] = max(a.costs[0], 1)
	a.depth = uint32(1 + (total+uint64(d.locals))/depthSlots)
	return a
}

func (a *analysis) note(i *instruction, imports int) {
	switch i.op {
	case opLoop:
		a.hasLoops = true
		a.branches += 4 // with the check at its head
	case opBlock, opIf, opBrIf:
		a.branches++
	case opBrTable:
		a.branches += 1 + uint64(len(i.targets))/4
	case opCall:
		a.hasCalls = a.hasCalls || int(i.index) >= imports
	case opCallIndirect:
		a.hasCalls = true
	case opF32Store, opI32Reinterp, opF32Copysign:
		a.needsF32 = true
	case opF64Store, opI64Reinterp, opF64Copysign:
		a.needsF64 = true
	case opPrefixMisc:
		a.hasBulk = a.hasBulk || i.sub >= miscMemoryInit && i.sub <= miscMemoryFill
	}
}
