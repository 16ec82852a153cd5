package meter

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins"
)

// bomb is a small module that is much to compile; count scales it.
type bomb struct {
	name   string
	locals uint32
	border int // a count that is just admitted
	code   func(count int) []byte
}

func many(count int, code ...byte) []byte { return bytes.Repeat(code, count) }

func nested(count int, op byte, inside []byte) []byte {
	return append(append(many(count, op, blockEmpty), inside...), many(count, opEnd)...)
}

// addToAll adds 1 to every one of n locals of type i64.
func addToAll(n uint32) []byte {
	var w writer
	for i := range n {
		w.byte(opLocalGet)
		w.u32(i)
		w.byte(opI64Const, 1, 0x7C, opLocalSet)
		w.u32(i)
	}
	return w.b
}

// bombs took the runtime from five seconds to minutes, and up to gigabytes, before there was a limit.
func bombs() []bomb {
	return []bomb{
		{"loops", 0, 1750, func(n int) []byte { return many(n, opLoop, blockEmpty, opEnd) }},
		{"nested loops", 0, 1750, func(n int) []byte { return nested(n, opLoop, nil) }},
		{"nested blocks", 0, 7000, func(n int) []byte { return nested(n, opBlock, nil) }},
		{"ifs", 0, 7000, func(n int) []byte { return many(n, opI32Const, 0, opIf, blockEmpty, opEnd) }},
		{"locals through loops", 4000, 45, func(n int) []byte { return nested(n, opLoop, addToAll(4000)) }},
		{"branch tables", 0, 320, func(n int) []byte {
			return bytes.Repeat(append(append([]byte{opBlock, blockEmpty, opI32Const, 0, opBrTable, 80}, make([]byte, 81)...), opEnd), n)
		}},
	}
}

func (b bomb) module(count int) []byte {
	locals := []byte{0}
	if b.locals > 0 {
		var w writer
		w.u32(1)
		w.u32(b.locals)
		w.byte(typeI64)
		locals = w.b
	}
	return built{locals: locals, code: b.code(count)}.bytes()
}

func TestWhatTakesTooLongToCompileIsRefused(t *testing.T) {
	for _, b := range bombs() {
		began := time.Now()
		_, _, err := Admit(b.module(2*b.border), plugins.DefaultLimits())
		var refused *Refusal
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "too much to compile") {
			t.Errorf("%s: %v", b.name, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: refused after %s", b.name, took)
		}
	}
}

func TestWhatIsJustAdmittedCompilesInBoundedTime(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for seconds")
	}
	ctx := context.Background()
	runtime := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2))
	t.Cleanup(func() {
		if err := runtime.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	for _, b := range bombs() {
		metered, _ := admit(t, b.module(b.border))
		began := time.Now()
		if _, err := runtime.CompileModule(ctx, metered); err != nil {
			t.Errorf("%s: %v", b.name, err)
		}
		took := time.Since(began)
		t.Logf("%s: %d bytes in %s", b.name, len(metered), took.Round(time.Millisecond))
		if took > 20*time.Second {
			t.Errorf("%s took %s", b.name, took)
		}
	}
}
