package abi

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

const (
	answerMagic       = "MRA1"
	answerHeaderBytes = 8
	// VerdictBytes is the size of one verdict in an answer.
	VerdictBytes = 24
	// IDBytesMax is the longest id that `unique` takes.
	IDBytesMax = 1024
)

// Kind is what a guest decided about a record.
type Kind uint8

// The kinds of verdict.
const (
	Pass Kind = iota
	Drop
	Replace
	DeadLetter
)

func (k Kind) String() string {
	switch k {
	case Pass:
		return "pass"
	case Drop:
		return "drop"
	case Replace:
		return "replace"
	case DeadLetter:
		return "dead-letter"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Unique says where the id of a record comes from.
type Unique uint8

// The flags of a verdict.
const (
	NotUnique Unique = iota
	UniqueByID
	UniqueByKey
)

// Verdict is one record's answer. Slices belong to the Answer or, where a part is as in the input, to the frame.
type Verdict struct {
	Kind   Kind
	Unique Unique
	Code   uint32  // the plugin's own error code
	ID     []byte  // 1 to 1,024 bytes if Unique is not NotUnique: the id given, or the key that the guest was given
	Output *Output // of Replace and DeadLetter, else nil
}

// Output is what a verdict carries beside its kind.
type Output struct {
	Key, Value, Headers []byte // of Replace; nil is null; parts left as in the input are the frame's
	Text                string // of DeadLetter; valid UTF-8
}

// Limits on what an answer may carry, in bytes.
type Limits struct {
	OutputBytesMax      int // a record
	FrameOutputBytesMax int // all records of a frame
}

// FaultKind sorts what is wrong with an answer.
type FaultKind uint8

// The faults of an answer. All of them are the record's.
const (
	Malformed FaultKind = iota + 1
	OutputLimit
	IDLimit
)

// Fault is an answer that breaks the contract.
type Fault struct {
	Kind   FaultKind
	Record int // index in the frame, or -1 where the answer as a whole is at fault
	Text   string
}

func (f *Fault) Error() string {
	if f.Record < 0 {
		return f.Text
	}
	return fmt.Sprintf("record %d: %s", f.Record, f.Text)
}

// Answer is what a guest said about a frame, copied out of its memory. It is reused by calling Read again, which ends
// the life of what the last call gave out. The zero value is ready.
type Answer struct {
	Verdicts []Verdict

	arena   []byte
	outputs []Output
}

// Read copies the answer for frame that process returned (address << 32 | length) out of guest memory, and checks every
// bound on the way. It returns nil or a *Fault, and never keeps a slice of memory.
func (a *Answer) Read(memory []byte, process uint64, frame *Frame, limits Limits) error {
	a.Verdicts, a.arena, a.outputs = a.Verdicts[:0], a.arena[:0], a.outputs[:0]
	count := len(frame.Records)
	if process == 0 {
		return whole("process returned 0")
	}
	raw, ok := span(memory, uint32(process>>32), uint32(process))
	if !ok {
		return whole("the answer (address %d, %d bytes) leaves the memory", uint32(process>>32), uint32(process))
	}
	if len(raw) < answerHeaderBytes || string(raw[:4]) != answerMagic {
		return whole("the answer does not begin with %s", answerMagic)
	}
	if got := binary.LittleEndian.Uint32(raw[4:]); uint64(got) != uint64(count) {
		return whole("the answer has %d verdicts, the frame %d records", got, count)
	}
	if len(raw) != answerHeaderBytes+count*VerdictBytes {
		return whole("the answer has %d bytes, %d verdicts need %d", len(raw), count, answerHeaderBytes+count*VerdictBytes)
	}
	r := reader{answer: a, memory: memory, limits: limits, projection: frame.Projection}
	a.Verdicts = slices.Grow(a.Verdicts, count)[:count]
	keyed := frame.Projection&ProjectKey != 0
	for i := range frame.Records {
		at := answerHeaderBytes + i*VerdictBytes
		entry, record := raw[at:at+VerdictBytes], &frame.Records[i]
		// Most verdicts are these, and a million in a second are read.
		if keyed && binary.LittleEndian.Uint64(entry) == passUniqueByKey && uint(len(record.Key)-1) < IDBytesMax {
			a.Verdicts[i] = Verdict{Unique: UniqueByKey, ID: record.Key}
			continue
		}
		if err := r.verdict(&a.Verdicts[i], entry, record); err != nil {
			err.Record = i
			a.Verdicts = a.Verdicts[:i]
			return err
		}
	}
	r.attach()
	return nil
}

// passUniqueByKey is the first word of a verdict that passes a record with its key for an id.
const passUniqueByKey = uint64(Pass) | uint64(UniqueByKey)<<8

func whole(format string, args ...any) *Fault {
	return &Fault{Kind: Malformed, Record: -1, Text: fmt.Sprintf(format, args...)}
}

func fault(kind FaultKind, format string, args ...any) *Fault {
	return &Fault{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// span is memory[address:address+length], if that is inside.
func span(memory []byte, address, length uint32) ([]byte, bool) {
	end := uint64(address) + uint64(length)
	if end > uint64(len(memory)) {
		return nil, false
	}
	return memory[address:end:end], true
}

// reader is the state of one Read.
type reader struct {
	answer      *Answer
	memory      []byte
	limits      Limits
	projection  Projection
	outputBytes int
}

func (r *reader) verdict(to *Verdict, entry []byte, record *Record) *Fault {
	le := binary.LittleEndian
	v := Verdict{Kind: Kind(entry[0]), Unique: Unique(entry[1]), Code: le.Uint32(entry[4:])}
	if v.Kind > DeadLetter {
		return fault(Malformed, "verdict %d is unknown", entry[0])
	}
	if v.Unique > UniqueByKey {
		return fault(Malformed, "flags %d are unknown", entry[1])
	}
	if le.Uint16(entry[2:]) != 0 {
		return fault(Malformed, "reserved bytes are not zero")
	}
	if v.Unique != NotUnique {
		if v.Kind == Drop || v.Kind == DeadLetter {
			return fault(Malformed, "%s carries a unique id", v.Kind)
		}
		id, err := r.id(v.Unique, entry[8:16], record)
		if err != nil {
			return err
		}
		v.ID = id
	}
	if v.Kind == Replace || v.Kind == DeadLetter {
		if err := r.output(v.Kind, entry[16:24], record); err != nil {
			return err
		}
	}
	*to = v
	return nil
}

func (r *reader) id(unique Unique, where []byte, record *Record) ([]byte, *Fault) {
	id := record.Key
	if unique == UniqueByKey {
		if r.projection&ProjectKey == 0 {
			return nil, fault(IDLimit, "unique by the key, which the projection leaves out")
		}
	} else {
		address, length := binary.LittleEndian.Uint32(where), binary.LittleEndian.Uint32(where[4:])
		raw, ok := span(r.memory, address, length)
		if !ok {
			return nil, fault(Malformed, "the id (address %d, %d bytes) leaves the memory", address, length)
		}
		id = raw
	}
	if len(id) == 0 || len(id) > IDBytesMax {
		return nil, fault(IDLimit, "an id of %d bytes; 1 to %d are allowed", len(id), IDBytesMax)
	}
	if unique == UniqueByID {
		id = r.keep(id)
	}
	return id, nil
}

func (r *reader) output(kind Kind, where []byte, record *Record) *Fault {
	address, length := binary.LittleEndian.Uint32(where), binary.LittleEndian.Uint32(where[4:])
	raw, ok := span(r.memory, address, length)
	if !ok {
		return fault(Malformed, "the output (address %d, %d bytes) leaves the memory", address, length)
	}
	if len(raw) > r.limits.OutputBytesMax {
		return fault(OutputLimit, "an output of %d bytes; %d are allowed", len(raw), r.limits.OutputBytesMax)
	}
	if r.outputBytes += len(raw); r.outputBytes > r.limits.FrameOutputBytesMax {
		return fault(OutputLimit, "the outputs of the frame pass %d bytes", r.limits.FrameOutputBytesMax)
	}
	r.answer.outputs = append(r.answer.outputs, Output{})
	out := &r.answer.outputs[len(r.answer.outputs)-1]
	if kind == Replace {
		return r.replacement(out, raw, record)
	}
	out.Text = strings.ToValidUTF8(string(raw), "\uFFFD")
	return nil
}

func (r *reader) replacement(out *Output, raw []byte, record *Record) *Fault {
	parts := [3]struct {
		name  string
		input []byte
		to    *[]byte
	}{{"key", record.Key, &out.Key}, {"value", record.Value, &out.Value}, {"headers", record.Headers, &out.Headers}}
	for _, part := range parts {
		if len(raw) < 4 {
			return fault(Malformed, "the output ends before the length of the %s", part.name)
		}
		length := binary.LittleEndian.Uint32(raw)
		raw = raw[4:]
		switch {
		case length == nullLength:
			continue
		case length == asInput:
			*part.to = part.input
			continue
		case uint64(length) > uint64(len(raw)):
			return fault(Malformed, "the %s has %d bytes, the output %d more", part.name, length, len(raw))
		}
		*part.to = r.keep(raw[:length])
		raw = raw[length:]
		if part.to == &out.Headers {
			if err := CheckHeaders(out.Headers); err != nil {
				return fault(Malformed, "%s", err)
			}
		}
	}
	if len(raw) != 0 {
		return fault(Malformed, "the output has %d bytes behind its headers", len(raw))
	}
	return nil
}

// keep copies b out of guest memory; the copy is never nil.
func (r *reader) keep(b []byte) []byte {
	a := r.answer
	start := len(a.arena)
	a.arena = append(a.arena, b...)
	if a.arena == nil {
		return []byte{}
	}
	return a.arena[start:len(a.arena):len(a.arena)]
}

// attach gives each verdict its output, once the slice of outputs no longer moves.
func (r *reader) attach() {
	next := 0
	for i := range r.answer.Verdicts {
		if v := &r.answer.Verdicts[i]; v.Kind == Replace || v.Kind == DeadLetter {
			v.Output = &r.answer.outputs[next]
			next++
		}
	}
}
