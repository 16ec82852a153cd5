package builtin

import (
	"fmt"
	"testing"

	"github.com/millrace-io/millrace/plugins/abi"
)

// The scanner without metering.
func BenchmarkScan(b *testing.B) {
	g := newGuest(b, "dedup-json")
	g.configure(`{"field":"id"}`)
	f := abi.Frame{Projection: abi.ProjectValue}
	bytes := 0
	for i := range 500 {
		value := fmt.Sprintf(`{"name":"an event of some kind","id":"%016d","state":"done","amount":12.50}`, i)
		f.Records = append(f.Records, abi.Record{Offset: int64(i), Value: []byte(value)})
		bytes += len(value)
	}
	size, _ := f.Size()
	b.SetBytes(int64(bytes))
	for b.Loop() {
		at := g.call(abi.ExportAlloc, uint64(size))
		room, _ := g.module.Memory().Read(uint32(at), uint32(size))
		f.Write(room)
		g.call(abi.ExportProcess, at, uint64(size))
	}
}
