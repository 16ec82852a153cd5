// A plugin in plain Go: it drops records whose JSON has "drop":true, and gives the others the id of field "id". It uses
// what Go programs use (maps, allocation, a panic with a value), since that is what must be restored and metered.
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"unsafe"
)

var frame, answer, ids []byte
var seen = map[string]int{}

//go:wasmexport millrace_abi_version
func version() int32 { return 1 }

//go:wasmexport millrace_alloc
func alloc(size int32) int32 {
	if int(size) > len(frame) {
		frame = make([]byte, (size+7)&^7)
	}
	return address(frame)
}

func address(b []byte) int32 { return int32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

//go:wasmexport millrace_process
func process(at, size int32) int64 {
	in := unsafe.Slice((*byte)(unsafe.Pointer(uintptr(at))), size)
	le := binary.LittleEndian
	count := le.Uint32(in[8:])
	ids = make([]byte, 0, 64*count)
	answer = le.AppendUint32(append(answer[:0], "MRA1"...), count)
	for i := range count {
		le.PutUint32(in[12:], i)
		record := in[64+40*i:]
		value := in[le.Uint32(record[24:]):][:le.Uint32(record[28:])]
		var v struct {
			ID    string
			Drop  bool
			Panic string
			Spin  bool
			Deep  int
		}
		if err := json.Unmarshal(value, &v); err != nil {
			answer = append(answer, make([]byte, 24)...)
			continue
		}
		if v.Panic != "" {
			panic(v.Panic)
		}
		for v.Spin {
		}
		seen[v.ID] += deep(v.Deep)
		if v.Drop {
			answer = append(append(answer, 1), make([]byte, 23)...)
			continue
		}
		start := len(ids)
		ids = fmt.Appendf(ids, "%s/%d", v.ID, len(seen))
		answer = append(answer, 0, 1, 0, 0, 0, 0, 0, 0)
		answer = le.AppendUint32(answer, uint32(address(ids)+int32(start)))
		answer = le.AppendUint32(answer, uint32(len(ids)-start))
		answer = append(answer, make([]byte, 8)...)
	}
	return int64(address(answer))<<32 | int64(len(answer))
}

//go:noinline
func deep(n int) int {
	if n == 0 {
		return 1
	}
	return deep(n-1) + 1
}

func main() {}
