package tck

import (
	"encoding/binary"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// HostileCase is a module that admission takes and that breaks the contract when it judges.
type HostileCase struct {
	Name    string
	Module  []byte // not metered
	Records int    // to judge, from HostileFrame
	Want    plugins.Reason
	// Record is whom the host must blame, -1 where the answer as a whole is at fault and the guest reports no record.
	Record int
}

// HostileFrame is a frame of n records for a hostile module, all parts projected.
func HostileFrame(n int) *abi.Frame {
	f := &abi.Frame{BaseOffset: 100, BaseTimestamp: caseTimestamp, Projection: abi.ProjectKey | abi.ProjectValue | abi.ProjectHeaders}
	for i := range n {
		f.Records = append(f.Records, abi.Record{Offset: 100 + int64(i), Timestamp: caseTimestamp, Key: []byte("key"), Value: []byte("value")})
	}
	return f
}

// Where the modules keep things.
const (
	answerAt = 1024
	outputAt = 2048
	frameAt  = 4096
	cursorAt = frameAt + 12
	dataEnd  = 2 << 16 // two pages
	null     = 0xFFFFFFFF
	asInput  = 0xFFFFFFFE
)

// entry is one verdict of an answer.
type entry struct {
	kind, flags byte
	reserved    uint16
	id, idLen   uint32
	out, outLen uint32
}

func answerBytes(magic string, count int, entries ...entry) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32([]byte(magic), uint32(count))
	for _, e := range entries {
		b = le.AppendUint16(append(b, e.kind, e.flags), e.reserved)
		b = le.AppendUint32(b, 0)
		for _, v := range [...]uint32{e.id, e.idLen, e.out, e.outLen} {
			b = le.AppendUint32(b, v)
		}
	}
	return b
}

func words(w ...uint32) []byte {
	var b []byte
	for _, v := range w {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// answering is a module that gives a fixed answer.
func answering(answer []byte, more ...segment) wasm {
	return wasm{
		process: i64(answerAt<<32 | uint64(len(answer))),
		data:    append([]segment{{answerAt, answer}}, more...),
	}
}

// Hostile lists the modules. Judging each twice must take the same fuel.
func Hostile() []HostileCase {
	var cases []HostileCase
	add := func(name string, w wasm, records int, want plugins.Reason, blamed int) {
		cases = append(cases, HostileCase{Name: name, Module: w.encode(), Records: records, Want: want, Record: blamed})
	}
	for _, c := range hostileAnswers() {
		add(c.name, answering(answerBytes("MRA1", 1, c.entry), c.more...), 1, c.want, 0)
	}
	const whole = -1
	one := answerBytes("MRA1", 1, entry{})
	malformed := plugins.ReasonMalformed
	add("an answer of zero", wasm{process: i64(0)}, 1, malformed, whole)
	add("an answer beyond memory", wasm{process: i64(dataEnd<<32 - 1<<32 | 32)}, 1, malformed, whole)
	add("an answer at the end of the address space", wasm{process: i64(0xFFFFFFF0<<32 | 0xFFFFFFFF)}, 1, malformed, whole)
	add("an answer of another magic", answering(answerBytes("MRA2", 1, entry{})), 1, malformed, whole)
	add("an answer that is too short", wasm{process: i64(answerAt<<32 | 7), data: []segment{{answerAt, one}}}, 1, malformed, whole)
	add("an answer cut in a verdict", wasm{process: i64(answerAt<<32 | 31), data: []segment{{answerAt, one}}}, 1, malformed, whole)
	add("an answer with bytes behind it", wasm{process: i64(answerAt<<32 | 33), data: []segment{{answerAt, one}}}, 1, malformed, whole)
	add("an answer for fewer records", answering(one), 2, malformed, whole)
	add("an answer for more records", answering(answerBytes("MRA1", 2, entry{}, entry{})), 1, malformed, whole)
	add("an answer for four thousand million records", answering(answerBytes("MRA1", null, entry{})), 1, malformed, whole)
	add("a bad verdict behind a good one", answering(answerBytes("MRA1", 2, entry{}, entry{kind: 9})), 2, malformed, 1)
	add("no room for the frame", wasm{alloc: i32(0), process: i64(0)}, 1, plugins.ReasonMemory, whole)
	add("a frame that is not aligned", wasm{alloc: i32(frameAt + 4), process: i64(0)}, 1, malformed, whole)
	add("a frame beyond memory", wasm{alloc: i32(dataEnd - 8), process: i64(0)}, 1, malformed, whole)
	add("a frame at a negative address", wasm{alloc: i32(-8), process: i64(0)}, 1, malformed, whole)
	return append(cases, hostileDeeds()...)
}

// hostileAnswers are single verdicts that break the contract.
func hostileAnswers() []struct {
	name  string
	entry entry
	more  []segment
	want  plugins.Reason
} {
	type row = struct {
		name  string
		entry entry
		more  []segment
		want  plugins.Reason
	}
	at := func(b []byte) []segment { return []segment{{outputAt, b}} }
	replace := func(length int) entry { return entry{kind: 2, out: outputAt, outLen: uint32(length)} }
	badHeaders := words(null, null, 8, 1, 50) // one header, whose key is longer than the blob
	nullName := words(null, null, 12, 1, null, null)
	return []row{
		{"an unknown verdict", entry{kind: 4}, nil, plugins.ReasonMalformed},
		{"an unknown flag", entry{flags: 4}, nil, plugins.ReasonMalformed},
		{"unique twice", entry{flags: 3, id: outputAt, idLen: 1}, nil, plugins.ReasonMalformed},
		{"reserved bytes", entry{reserved: 1}, nil, plugins.ReasonMalformed},
		{"a dropped record that is unique", entry{kind: 1, flags: 2}, nil, plugins.ReasonMalformed},
		{"an empty id", entry{flags: 1, id: outputAt}, nil, plugins.ReasonID},
		{"an id of 1,025 bytes", entry{flags: 1, id: outputAt, idLen: 1025}, nil, plugins.ReasonID},
		{"an id beyond memory", entry{flags: 1, id: dataEnd - 1, idLen: 2}, nil, plugins.ReasonMalformed},
		{"an id whose end wraps", entry{flags: 1, id: 0xFFFFFFFF, idLen: 2}, nil, plugins.ReasonMalformed},
		{"an output beyond memory", entry{kind: 2, out: dataEnd, outLen: 12}, nil, plugins.ReasonMalformed},
		{"a text beyond memory", entry{kind: 3, out: 0xFFFFFFF0, outLen: 0xFFFFFFF0}, nil, plugins.ReasonMalformed},
		{"an output that is empty", replace(0), nil, plugins.ReasonMalformed},
		{"an output without headers", replace(8), at(words(asInput, asInput)), plugins.ReasonMalformed},
		{"an output with bytes behind it", replace(16), at(words(asInput, asInput, asInput, 0)), plugins.ReasonMalformed},
		{"a key longer than its output", replace(12), at(words(9, asInput, asInput)), plugins.ReasonMalformed},
		{"a value longer than memory", replace(12), at(words(asInput, 0xFFFFFFF0, asInput)), plugins.ReasonMalformed},
		{"headers longer than their blob", replace(20), at(badHeaders), plugins.ReasonMalformed},
		{"a header with a null name", replace(24), at(nullName), plugins.ReasonMalformed},
		{"an output over the limit", entry{kind: 3, out: 0, outLen: 65_537}, nil, plugins.ReasonOutput},
	}
}

// HostileLimits are what hostile modules run under: small enough that a test is quick.
func HostileLimits() plugins.Limits {
	l := plugins.DefaultLimits()
	l.RecordOutputMax, l.FrameOutputMax = 64<<10, 64<<10
	l.MemoryBytesMax = 1 << 20
	return l
}

// hostileDeeds do something else than answer badly.
func hostileDeeds() []HostileCase {
	report := func(record int64) []byte {
		return append(code(i32(cursorAt), i32(record)), opStore32, 2, 0)
	}
	forever := []byte{opLoop, typeNothing, opBr, 0, opEnd}
	itself := append(code([]byte{opLocalGet, 0, opLocalGet, 1}), opCall, 2)
	fill := append(code([]byte{opLoop, typeNothing}, i32(0), i32(7), i32(dataEnd)), opPrefix, memoryFill, 0, opBr, 0, opEnd)
	grow := code([]byte{opLoop, typeNothing}, i32(1), []byte{opMemoryGrow, 0}, i32(-1), []byte{opUnequal32, opBrIf, 0, opEnd, opUnreachable})
	letter := entry{kind: 3, out: 0, outLen: 30_000}
	outputs := answerBytes("MRA1", 3, letter, letter, letter)
	rows := []struct {
		name    string
		module  wasm
		records int
		want    plugins.Reason
		record  int
	}{
		{"a trap", wasm{process: []byte{opUnreachable}}, 1, plugins.ReasonTrap, -1},
		{"a trap that says where", wasm{process: append(report(1), opUnreachable)}, 2, plugins.ReasonTrap, 1},
		{"a cursor beyond the frame", wasm{process: append(report(2), opUnreachable)}, 2, plugins.ReasonTrap, -1},
		{"a load beyond memory", wasm{process: append(code(i32(-4), i32(0)), opStore32, 2, 0, opUnreachable)}, 1, plugins.ReasonTrap, -1},
		{"an endless loop", wasm{process: append(code(forever), opUnreachable)}, 1, plugins.ReasonFuel, -1},
		{"an endless loop over a record", wasm{process: append(code(report(1), forever), opUnreachable)}, 3, plugins.ReasonFuel, 1},
		{"an endless loop of fills", wasm{process: append(code(fill), opUnreachable)}, 1, plugins.ReasonFuel, -1},
		{"an endless recursion", wasm{process: itself}, 1, plugins.ReasonDepth, -1},
		{"an endless loop while making room", wasm{alloc: append(code(forever), opUnreachable), process: i64(0)}, 1, plugins.ReasonFuel, -1},
		{"more memory than declared", wasm{process: grow}, 1, plugins.ReasonMemory, -1},
		{"outputs that pass the frame's limit together", answering(outputs), 3, plugins.ReasonOutput, 2},
	}
	cases := make([]HostileCase, len(rows))
	for i, r := range rows {
		cases[i] = HostileCase{Name: r.name, Module: r.module.encode(), Records: r.records, Want: r.want, Record: r.record}
	}
	return cases
}
