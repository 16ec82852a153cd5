package meter

// A module in bytes: the exports that every plugin has, and one function under test, exported as "f".
type built struct {
	params, results []byte
	locals          []byte // declarations as encoded; nil is none
	code            []byte // without the end
	imports         []imported
	importTypes     []functionType
	memory          []byte          // limits as encoded; nil is one page
	extra           map[byte][]byte // further sections by id
	exports         []export        // beside the usual ones
}

func (b built) bytes() []byte {
	types := []functionType{
		{nil, []byte{typeI32}}, {[]byte{typeI32}, []byte{typeI32}}, {[]byte{typeI32, typeI32}, []byte{typeI64}}, {b.params, b.results},
	}
	types = append(types, b.importTypes...)
	out := &writer{b: append([]byte("\x00asm"), 1, 0, 0, 0)}
	out.section(sectionType, func(s *writer) { writeTypes(s, types) })
	out.section(sectionImport, func(s *writer) {
		s.u32(uint32(len(b.imports)))
		for _, i := range b.imports {
			s.name(i.module)
			s.name(i.name)
			s.byte(kindFunction)
			s.u32(i.typeIndex)
		}
	})
	first := uint32(len(b.imports))
	out.section(sectionFunction, func(s *writer) { s.byte(4, 0, 1, 2, 3) })
	b.section(out, sectionTable)
	if b.memory == nil {
		b.memory = []byte{0, 1}
	}
	out.section(sectionMemory, func(s *writer) { s.byte(1); s.byte(b.memory...) })
	b.section(out, sectionGlobal)
	exports := append([]export{
		{"memory", kindMemory, 0}, {"millrace_abi_version", kindFunction, first}, {"millrace_alloc", kindFunction, first + 1},
		{"millrace_process", kindFunction, first + 2}, {"f", kindFunction, first + 3},
	}, b.exports...)
	out.section(sectionExport, func(s *writer) {
		s.u32(uint32(len(exports)))
		for _, e := range exports {
			s.name(e.name)
			s.byte(e.kind)
			s.u32(e.index)
		}
	})
	b.section(out, sectionStart)
	b.section(out, sectionElement)
	b.section(out, sectionDataCount)
	bodies := [][]byte{{0, opI32Const, 1, opEnd}, {0, opI32Const, 8, opEnd}, {0, opI64Const, 0, opEnd}}
	locals := b.locals
	if locals == nil {
		locals = []byte{0}
	}
	bodies = append(bodies, append(append(append([]byte(nil), locals...), b.code...), opEnd))
	out.section(sectionCode, func(s *writer) {
		s.u32(uint32(len(bodies)))
		for _, body := range bodies {
			s.u32(uint32(len(body)))
			s.byte(body...)
		}
	})
	b.section(out, sectionData)
	return out.b
}

func (b built) section(out *writer, id byte) {
	if body, ok := b.extra[id]; ok {
		out.section(id, func(s *writer) { s.byte(body...) })
	}
}
