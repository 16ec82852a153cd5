package meter

import (
	"strings"
	"testing"
)

// spentBy admits a module of one function (i32) -> (i32) and returns what a call costs.
func spentBy(t *testing.T, locals, code []byte, param uint64) int64 {
	t.Helper()
	metered, _ := admit(t, built{params: []byte{typeI32}, results: []byte{typeI32}, locals: locals, code: code}.bytes())
	m := start(t, metered)
	if got := m.call(t, "f", param); strings.Contains(got, "error") {
		t.Fatal(got)
	}
	return m.spent()
}

// These numbers are the cost table: a change in one is a new table, for new module versions only.
func TestCostTableIsFrozen(t *testing.T) {
	get, next := []byte{opLocalGet, 0}, []byte{opLocalGet, 0, opI32Const, 1, opI32Sub, opLocalTee, 0}
	join := func(parts ...[]byte) []byte {
		var all []byte
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	loop := join([]byte{opLoop, blockEmpty}, next, []byte{opBrIf, 0, opEnd}, get)
	fill := join([]byte{opI32Const, 0, opI32Const, 0}, get, []byte{opPrefixMisc, miscMemoryFill, 0}, get)
	ifElse := join(get, []byte{opIf, typeI32, opI32Const, 1, opElse, opI32Const, 2, opNop, opEnd})
	table := join([]byte{opBlock, blockEmpty, opBlock, blockEmpty}, get, []byte{opBrTable, 1, 0, 1, opEnd}, // 2 before the arms
		[]byte{opI32Const, 7, 0x1A, opI32Const, 7, 0x1A, opEnd}, get) // arm 0: 4, behind: 1
	nested := join([]byte{opLoop, blockEmpty, opLoop, blockEmpty}, next, []byte{opBrIf, 0, opEnd}, get, []byte{opBrIf, 0, opEnd}, get)
	for _, c := range []struct {
		name  string
		code  []byte
		param uint64
		want  int64
	}{
		{"entry", get, 0, 1},
		{"loop of 1", loop, 1, 1 + 5},
		{"loop of 10", loop, 10, 1 + 10*5},
		{"both arms of an if", ifElse, 0, 4},
		{"inner loop apart", nested, 3, 1 + 2 + 3*5},
		{"br_table to its arm", table, 0, 2 + 4 + 1},
		{"br_table past its arm", table, 1, 2 + 1},
		{"fill of 63 bytes", fill, 63, 5},
		{"fill of 640 bytes", fill, 640, 5 + 10},
		{"memory.grow", []byte{opI32Const, 0, opMemoryGrow, 0}, 0, 1001},
	} {
		if got := spentBy(t, nil, c.code, c.param); got != c.want {
			t.Errorf("%s costs %d, want %d", c.name, got, c.want)
		}
	}
}

func TestFuelDoesNotDependOnSlices(t *testing.T) {
	metered, _ := admit(t, read(t, "control.wasm"))
	for _, name := range []string{"f_fib", "f_sum", "f_switch", "f_bulk_loop", "f_pair"} {
		m := start(t, metered)
		m.call(t, name, 31)
		bySlices := m.spent()
		m = start(t, metered)
		m.ExportedGlobal(FuelGlobal).(interface{ Set(uint64) }).Set(1 << 40)
		m.call(t, name, 31)
		atOnce := 1<<40 - int64(m.ExportedGlobal(FuelGlobal).Get())
		if bySlices != atOnce || atOnce == 0 {
			t.Errorf("%s: %d by slices, %d at once", name, bySlices, atOnce)
		}
	}
}

func TestLoopsAndRecursionMeetTheHost(t *testing.T) {
	metered, _ := admit(t, read(t, "control.wasm"))
	m := start(t, metered)
	if m.call(t, "f_sum", 100_000); m.yields < 1000 {
		t.Errorf("a long loop yielded %d times", m.yields)
	}
	code := []byte{opLocalGet, 0, opCall, 3} // f calls itself
	metered, _ = admit(t, built{params: []byte{typeI32}, results: []byte{typeI32}, code: code}.bytes())
	m = start(t, metered)
	if got := m.call(t, "f", 1); got != "wasm error: unreachable" {
		t.Errorf("endless recursion: %s", got)
	}
	if depth := int32(m.ExportedGlobal(DepthGlobal).Get()); depth != -1 {
		t.Errorf("the depth is %d", depth)
	}
	if m.yields == 0 {
		t.Error("calls are not charged")
	}
}
