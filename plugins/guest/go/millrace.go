// Millrace guest SDK for standard Go, plugin ABI version 1.
//
// A plugin is a function from one record to one verdict, registered from an init function:
//
//	func init() { millrace.Judge(func(r millrace.Record) millrace.Verdict { return millrace.Pass.UniqueByKey() }) }
//	func main() {}
//
// Build it with GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o plugin.wasm .
//
// Before each frame of records the broker restores the plugin's memory to what it was after configuration, so a
// verdict is a function of the record and the configuration: nothing can be kept from one call to the next. Reading a
// record and answering allocate nothing. Slices that a Record returns are valid until the function returns, and must
// not be written to. Print with println: it goes to the plugin's log.

//lint:file-ignore U1000 the exports are called by the broker, through native.go or go:wasmexport

package millrace

import (
	"runtime"
	"unsafe"
)

// Record is the record at hand: a handle of one word.
type Record uint32

// Verdict is what becomes of a record. Pass and Drop are constants; the others are made by functions, and hold for the
// record that is being judged.
type Verdict uint64

// The plain verdicts.
const (
	Pass Verdict = 0 // deliver as it is
	Drop Verdict = 1 // leave out
)

const (
	replaced   Verdict = 2
	deadLetter Verdict = 3
	uniqueID   Verdict = 1 << 8
	uniqueKey  Verdict = 2 << 8
	codeShift          = 32
)

// Header is one header of a record; a nil Value is null.
type Header struct {
	Name  string
	Value []byte
}

// Keep, given to Replace as key or value, leaves that part as it is.
var Keep = keepMark[:]

var keepMark [1]byte

// Judge registers the function that judges records. Call it once, from init.
func Judge(judge func(Record) Verdict) { guest.judge = judge }

// Configure registers the function that is given the binding's configuration: the bytes of a JSON object, `{}` if there
// is none. It is called once, before the first record; an error refuses the configuration, and is printed.
func Configure(configure func(config []byte) error) { guest.configure = configure }

// Reserve makes room for that many bytes of allocations a frame. A plugin whose memory has to grow while it judges is
// started afresh for the next frame, which costs milliseconds. Call it from init if judging allocates.
func Reserve(bytes int) {
	reserved = make([]byte, bytes)
	reserved = nil
	runtime.GC()
}

var reserved []byte

// Key is the record's key; nil is null.
func (r Record) Key() []byte { return r.part(16) }

// Value is the record's value; nil is null.
func (r Record) Value() []byte { return r.part(24) }

// Timestamp is the record's own time, in Unix milliseconds. No other clock may decide a verdict.
func (r Record) Timestamp() int64 { return loadInt64(24) + loadInt64(uint32(r)) }

// Offset is the record's place in its partition.
func (r Record) Offset() int64 { return loadInt64(16) + int64(int32(load(uint32(r)+8))) }

// Headers walks the headers in order: for name, value := range r.Headers().
func (r Record) Headers() func(yield func(name, value []byte) bool) {
	return func(yield func(name, value []byte) bool) {
		blob := r.part(32)
		if len(blob) < 4 {
			return
		}
		at := uint32(4)
		for range *(*uint32)(unsafe.Pointer(unsafe.SliceData(blob))) {
			name, next := blobPart(blob, at)
			value, end := blobPart(blob, next)
			if !yield(name, value) {
				return
			}
			at = end
		}
	}
}

// Header is the value of the last header of that name.
func (r Record) Header(name string) (value []byte, ok bool) {
	for n, v := range r.Headers() {
		if string(n) == name {
			value, ok = v, true
		}
	}
	return value, ok
}

// UniqueByKey delivers the record unless an earlier one within the window had an equal key. The key must be in the
// projection, and have 1 to 1,024 bytes; otherwise the record is dead-lettered.
func (v Verdict) UniqueByKey() Verdict { return v | uniqueKey }

// Unique delivers the record unless an earlier one within the window had an equal id of 1 to 1,024 bytes.
func (v Verdict) Unique(id []byte) Verdict {
	guest.answer(1, guest.keep(id), len(id))
	return v | uniqueID
}

// Replace delivers the record with another key and value; headers stay. Keep leaves a part as it is, nil is null.
func Replace(key, value []byte) Verdict {
	out := guest.take(partBytes(key) + partBytes(value) + 4)
	at := putPart(out, 0, key)
	at = putPart(out, at, value)
	store(out, at, asInput)
	guest.answer(2, unsafe.Pointer(unsafe.SliceData(out)), len(out))
	return replaced
}

// ReplaceAll delivers the record with another key, value and headers.
func ReplaceAll(key, value []byte, headers []Header) Verdict {
	blob := 4
	for _, h := range headers {
		blob += 8 + len(h.Name) + len(h.Value)
	}
	out := guest.take(partBytes(key) + partBytes(value) + 4 + blob)
	at := putPart(out, 0, key)
	at = putPart(out, at, value)
	store(out, at, uint32(blob))
	store(out, at+4, uint32(len(headers)))
	at += 8
	for _, h := range headers {
		store(out, at, uint32(len(h.Name)))
		at += 4 + copy(out[at+4:], h.Name)
		at = putPart(out, at, h.Value)
	}
	guest.answer(2, unsafe.Pointer(unsafe.SliceData(out)), len(out))
	return replaced
}

// DeadLetter sends the record to the binding's dead-letter topic, with a code of the plugin's own and a text for people.
func DeadLetter(code uint32, text string) Verdict {
	out := guest.take(len(text))
	copy(out, text)
	guest.answer(2, unsafe.Pointer(unsafe.SliceData(out)), len(out))
	return deadLetter | Verdict(code)<<codeShift
}

// What follows is the contract with the broker.

const (
	abiVersion  = 1
	frameMagic  = 'M' | 'R'<<8 | 'F'<<16 | '1'<<24
	answerMagic = 'M' | 'R'<<8 | 'A'<<16 | '1'<<24
	null        = 0xFFFFFFFF
	asInput     = 0xFFFFFFFE
	headerBytes = 64
	recordBytes = 40
	entryBytes  = 24

	// A frame holds at most 4,096 records and 256 KiB of them, unless one record alone is larger. Room for that lies
	// in the image, so that memory need not grow.
	recordsUsual = 4096
	frameUsual   = headerBytes + recordsUsual*recordBytes + 256<<10 + 4096
	answerUsual  = 8 + recordsUsual*entryBytes
	outputsUsual = 128 << 10
)

// state is the one guest of this module. Its arrays of words make every address in it a multiple of eight.
type state struct {
	judge     func(Record) Verdict
	configure func(config []byte) error
	frame     unsafe.Pointer // of the frame at work
	frameEnd  uintptr
	entry     *[3]uint64 // of the answer, for the record at work
	input     []uint64   // what millrace_alloc gave out last
	outputs   []byte     // rest of the room for ids and outputs
	kept      [][]byte   // earlier rooms: nothing in an answer may be collected
	config    []byte
}

var (
	guest        state
	frameWords   [frameUsual / 8]uint64
	answerWords  [answerUsual / 8]uint64
	outputsWords [outputsUsual / 8]uint64
)

//go:wasmexport millrace_abi_version
func exportVersion() int32 { return abiVersion }

//go:wasmexport millrace_alloc
func exportAlloc(size int32) int32 { return int32(address(guest.alloc(uint32(size)))) }

//go:wasmexport millrace_configure
func exportConfigure(at, length int32) int32 {
	if !guest.owns(at, length) {
		return 1
	}
	if err := guest.setConfig(guest.bytes()[:length]); err != nil {
		println("millrace: configuration refused:", err.Error())
		return 1
	}
	return 0
}

//go:wasmexport millrace_process
func exportProcess(at, length int32) int64 {
	if !guest.owns(at, length) {
		return 0
	}
	answer := guest.process(uint32(length))
	if answer == nil {
		return 0
	}
	return int64(address(unsafe.Pointer(unsafe.SliceData(answer))))<<32 | int64(len(answer))
}

func (s *state) alloc(size uint32) unsafe.Pointer {
	words := (uint64(size) + 7) / 8
	if words <= uint64(len(frameWords)) {
		s.input = frameWords[:]
	} else {
		s.input = make([]uint64, words)
	}
	return unsafe.Pointer(unsafe.SliceData(s.input))
}

// owns tells whether the range is what millrace_alloc gave out last.
func (s *state) owns(at, length int32) bool {
	return s.input != nil && uint32(at) == address(unsafe.Pointer(unsafe.SliceData(s.input))) && uint64(uint32(length)) <= uint64(len(s.input))*8
}

func (s *state) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s.input))), len(s.input)*8)
}

// refusal is an error without package errors.
type refusal string

func (r refusal) Error() string { return string(r) }

func (s *state) setConfig(config []byte) error {
	s.config = append([]byte(nil), config...)
	switch {
	case s.configure != nil:
		return s.configure(s.config)
	case len(config) != 0 && string(config) != "{}":
		return refusal("this plugin takes none")
	}
	return nil
}

// process judges the frame in input and returns the answer, or nil if the frame makes no sense.
func (s *state) process(length uint32) []byte {
	s.frame = unsafe.Pointer(unsafe.SliceData(s.input))
	s.frameEnd = uintptr(s.frame) + uintptr(length)
	if length < headerBytes || load(0) != frameMagic || load(4)&0xFFFF != abiVersion {
		return nil
	}
	count, table := load(8), load(32)
	if uint64(table)+uint64(count)*recordBytes > uint64(length) || table%8 != 0 {
		return nil
	}
	if s.judge == nil {
		panic("millrace: no plugin: call millrace.Judge from an init function")
	}
	answer := answerWords[:]
	if count > recordsUsual {
		answer = make([]uint64, (8+uint64(count)*entryBytes)/8)
	}
	s.outputs, s.kept = unsafe.Slice((*byte)(unsafe.Pointer(&outputsWords)), outputsUsual), nil
	answer[0] = answerMagic | uint64(count)<<32
	cursor := (*uint32)(unsafe.Add(s.frame, 12))
	for i := range count {
		*cursor = i
		s.entry = (*[3]uint64)(answer[1+3*i:])
		s.entry[0] = uint64(s.judge(Record(table + i*recordBytes)))
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(answer))), 8+count*entryBytes)
}

// answer notes where the id (word 1) or the output (word 2) of the record at work lies.
func (s *state) answer(word int, at unsafe.Pointer, length int) {
	s.entry[word] = uint64(address(at)) | uint64(length)<<32
}

// keep returns a place where the id stays until the broker has read it.
func (s *state) keep(id []byte) unsafe.Pointer {
	p := unsafe.Pointer(unsafe.SliceData(id))
	if uintptr(p) >= uintptr(s.frame) && uintptr(p) < s.frameEnd {
		return p
	}
	room := s.take(len(id))
	copy(room, id)
	return unsafe.Pointer(unsafe.SliceData(room))
}

// take returns room for an id or an output.
func (s *state) take(n int) []byte {
	if n > len(s.outputs) {
		s.kept = append(s.kept, s.outputs)
		s.outputs = make([]byte, max(n, outputsUsual))
	}
	room := s.outputs[:n:n]
	s.outputs = s.outputs[n:]
	return room
}

// address is what the broker knows a place by. Outside of a guest, native.go stands in for the broker's view of memory.
func address(p unsafe.Pointer) uint32 {
	if runtime.GOARCH == "wasm" {
		return uint32(uintptr(p))
	}
	return nativeAddress(p)
}

var nativeAddress func(unsafe.Pointer) uint32

func load(at uint32) uint32 { return *(*uint32)(unsafe.Add(guest.frame, at)) }

func loadInt64(at uint32) int64 { return *(*int64)(unsafe.Add(guest.frame, at)) }

// part is the part whose offset and length lie at the given place of the record's table entry.
func (r Record) part(at uint32) []byte {
	length := load(uint32(r) + at + 4)
	if length == null {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Add(guest.frame, load(uint32(r)+at))), length)
}

// blobPart is the part of a headers blob whose length lies at the given place, and the place behind it.
func blobPart(blob []byte, at uint32) (part []byte, end uint32) {
	length := *(*uint32)(unsafe.Pointer(&blob[at]))
	at += 4
	if length == null {
		return nil, at
	}
	return blob[at : at+length : at+length], at + length
}

func partBytes(part []byte) int {
	if isKeep(part) {
		return 4
	}
	return 4 + len(part)
}

func isKeep(part []byte) bool { return len(part) == 1 && &part[0] == &keepMark[0] }

func putPart(out []byte, at int, part []byte) (end int) {
	switch {
	case isKeep(part):
		store(out, at, asInput)
		return at + 4
	case part == nil:
		store(out, at, null)
		return at + 4
	}
	store(out, at, uint32(len(part)))
	return at + 4 + copy(out[at+4:], part)
}

func store(out []byte, at int, v uint32) { *(*uint32)(unsafe.Pointer(&out[at])) = v }
