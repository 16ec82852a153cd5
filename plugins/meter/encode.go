package meter

// namesBytesMax is the largest name section that is kept, for the traces of traps.
const namesBytesMax = 2 << 20

// encode writes the metered module: yield behind the imports, two counters behind the globals, what the host restores
// and calls under reserved names, the start function as an export, no custom section but the names of functions.
func (w *rewriter) encode(bodies [][]byte) []byte {
	m := w.module
	yieldType := w.addType(functionType{params: []byte{typeI64}, results: []byte{typeI64}})
	out := &writer{b: append([]byte("\x00asm"), 1, 0, 0, 0)}
	out.section(sectionType, func(s *writer) { writeTypes(s, append(m.types[:len(m.types):len(m.types)], w.added...)) })
	out.section(sectionImport, func(s *writer) { m.writeImports(s, yieldType) })
	out.section(sectionFunction, func(s *writer) {
		s.u32(uint32(len(m.functions)))
		for _, t := range m.functions {
			s.u32(t)
		}
	})
	if len(m.tables) > 0 {
		out.section(sectionTable, m.writeTables)
	}
	out.section(sectionMemory, func(s *writer) {
		s.byte(1, 1)
		s.u32(m.memoryMin)
		s.u32(m.memoryMax)
	})
	out.section(sectionGlobal, func(s *writer) { m.writeGlobals(s, w) })
	out.section(sectionExport, func(s *writer) { m.writeExports(s, w) })
	if len(m.elements) > 0 {
		out.section(sectionElement, func(s *writer) { m.writeElements(s, w) })
	}
	if m.dataCount != nil {
		out.section(sectionDataCount, func(s *writer) { s.u32(m.dataItems) })
	}
	out.section(sectionCode, func(s *writer) {
		s.u32(uint32(len(bodies)))
		for _, b := range bodies {
			s.u32(uint32(len(b)))
			s.byte(b...)
		}
	})
	if m.data != nil {
		out.section(sectionData, func(s *writer) { s.byte(m.data...) })
	}
	if names := shiftNames(m.names, w); len(names) > 0 {
		out.section(sectionCustom, func(s *writer) {
			s.name("name")
			s.byte(names...)
		})
	}
	return out.b
}

func writeTypes(s *writer, types []functionType) {
	s.u32(uint32(len(types)))
	for _, t := range types {
		s.byte(0x60)
		s.u32(uint32(len(t.params)))
		s.byte(t.params...)
		s.u32(uint32(len(t.results)))
		s.byte(t.results...)
	}
}

func (m *module) writeImports(s *writer, yieldType uint32) {
	s.u32(uint32(len(m.imports) + 1))
	for _, i := range append(m.imports[:len(m.imports):len(m.imports)], imported{HostModule, YieldFunction, yieldType}) {
		s.name(i.module)
		s.name(i.name)
		s.byte(kindFunction)
		s.u32(i.typeIndex)
	}
}

func (m *module) writeTables(s *writer) {
	s.u32(uint32(len(m.tables)))
	for _, t := range m.tables {
		s.byte(t.elementType, 1)
		s.u32(t.size)
		s.u32(t.size)
	}
}

func (m *module) writeGlobals(s *writer, w *rewriter) {
	s.u32(uint32(len(m.globals) + 2))
	for _, g := range m.globals {
		mutable := byte(0)
		if g.mutable {
			mutable = 1
		}
		s.byte(g.valueType, mutable)
		g.init.write(s, w)
	}
	s.byte(typeI64, 1, opI64Const, 0, opEnd)
	s.byte(typeI32, 1, opI32Const, 0, opEnd)
}

// write writes the initialiser.
func (c *constant) write(s *writer, w *rewriter) {
	if c.function >= 0 {
		s.byte(opRefFunc)
		s.u32(w.shift(uint32(c.function)))
	} else {
		s.byte(c.raw...)
	}
	s.byte(opEnd)
}

func (m *module) writeExports(s *writer, w *rewriter) {
	exports := append([]export(nil), m.exports...)
	restorable := 0
	for i, g := range m.globals {
		if g.mutable {
			exports = append(exports, export{RestorableGlobal(restorable), kindGlobal, uint32(i)})
			restorable++
		}
	}
	exports = append(exports, export{FuelGlobal, kindGlobal, w.fuel}, export{DepthGlobal, kindGlobal, w.depth})
	if m.start >= 0 {
		exports = append(exports, export{StartFunction, kindFunction, uint32(m.start)})
	}
	s.u32(uint32(len(exports)))
	for _, e := range exports {
		index := e.index
		if e.kind == kindFunction {
			index = w.shift(index)
		}
		s.name(e.name)
		s.byte(e.kind)
		s.u32(index)
	}
}

func (m *module) writeElements(s *writer, w *rewriter) {
	s.u32(uint32(len(m.elements)))
	for i := range m.elements {
		e := &m.elements[i]
		s.u32(e.flags)
		if e.flags&1 == 0 {
			if e.flags&2 != 0 {
				s.u32(e.table)
			}
			e.offset.write(s, w)
		}
		if e.flags&3 != 0 {
			s.byte(e.kindByte)
		}
		s.u32(uint32(len(e.functions) + len(e.constants)))
		for _, f := range e.functions {
			s.u32(w.shift(f))
		}
		for j := range e.constants {
			e.constants[j].write(s, w)
		}
	}
}

// shiftNames rewrites the names of functions; whatever is malformed or too large is dropped, since names change nothing.
func shiftNames(names []byte, w *rewriter) []byte {
	if len(names) > namesBytesMax {
		return nil
	}
	r := &reader{b: names}
	for !r.done() {
		id := r.byte()
		part := &reader{b: r.take(r.u32())}
		if r.err != nil || id > 1 {
			return nil
		}
		if id != 1 {
			continue
		}
		var out writer
		n := part.count("names", functionsMax+importsMax)
		out.u32(n)
		for range n {
			index, name := part.u32(), part.name()
			if index >= w.module.functionCount() {
				return nil
			}
			out.u32(w.shift(index))
			out.name(name)
		}
		if part.err != nil {
			return nil
		}
		var section writer
		section.section(1, func(s *writer) { s.byte(out.b...) })
		return section.b
	}
	return nil
}
