package guest

import (
	"context"
	"fmt"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// compiled is a module in a plain runtime; what metering and restoring add is the conformance kit's to test.
type compiled struct {
	runtime wazero.Runtime
	module  wazero.CompiledModule
}

func compile(t testing.TB, wasm []byte) compiled {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	t.Cleanup(func() { _ = r.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	m, err := r.CompileModule(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	return compiled{runtime: r, module: m}
}

type instance struct {
	t      testing.TB
	module api.Module
}

func (c compiled) start(t testing.TB) *instance {
	t.Helper()
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize")
	m, err := c.runtime.InstantiateModule(context.Background(), c.module, config)
	if err != nil {
		t.Fatal(err)
	}
	return &instance{t: t, module: m}
}

func (g *instance) call(name string, args ...uint64) uint64 {
	g.t.Helper()
	out, err := g.module.ExportedFunction(name).Call(context.Background(), args...)
	if err != nil {
		g.t.Fatalf("%s: %v", name, err)
	}
	return out[0]
}

func (g *instance) configure(config []byte) {
	g.t.Helper()
	at := g.call(abi.ExportAlloc, uint64(len(config)))
	g.module.Memory().Write(uint32(at), config)
	if code := g.call(abi.ExportConfigure, at, uint64(len(config))); code != 0 {
		g.t.Fatalf("configuration %s is refused with %d", config, code)
	}
}

func (g *instance) judge(f *abi.Frame) []abi.Verdict {
	g.t.Helper()
	size, err := f.Size()
	if err != nil {
		g.t.Fatal(err)
	}
	at := g.call(abi.ExportAlloc, uint64(size))
	b, ok := g.module.Memory().Read(uint32(at), uint32(size))
	if !ok || at == 0 || at%8 != 0 {
		g.t.Fatalf("room for the frame at %d", at)
	}
	f.Write(b)
	process := g.call(abi.ExportProcess, at, uint64(size))
	memory, _ := g.module.Memory().Read(0, g.module.Memory().Size())
	if record, ok := abi.Cursor(memory[at:], len(f.Records)); !ok || record != len(f.Records)-1 {
		g.t.Errorf("cursor %d, %v", record, ok)
	}
	var a abi.Answer
	if err := a.Read(memory, process, f, abi.Limits{OutputBytesMax: 1 << 20, FrameOutputBytesMax: 4 << 20}); err != nil {
		g.t.Fatal(err)
	}
	return a.Verdicts
}

func optional(s *string) []byte {
	if s == nil {
		return nil
	}
	return []byte(*s)
}

// runCases judges the cases of a manifest in a plain runtime.
func runCases(t *testing.T, manifest []byte, module compiled) {
	t.Helper()
	m, err := plugins.ParseManifest(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range m.Cases {
		g := module.start(t)
		if m.Language == "go" {
			config := []byte("{}")
			if c.Config != nil {
				config = c.Config
			}
			g.configure(config)
		}
		f := &abi.Frame{Projection: abi.Projection(m.Projection), BaseOffset: 1000, BaseTimestamp: 5}
		for i, r := range c.Records {
			var headers []abi.Header
			for _, h := range r.Headers {
				headers = append(headers, abi.Header{Key: []byte(h.Key), Value: optional(h.Value)})
			}
			record := abi.Record{Offset: 1000 + int64(i), Key: optional(r.Key), Value: optional(r.Value)}
			if headers != nil {
				record.Headers = abi.AppendHeaders(nil, headers)
			}
			f.Records = append(f.Records, record)
		}
		for i, v := range g.judge(f) {
			want := c.Records[i]
			if v.Kind.String() != want.Want || string(v.ID) != string(optional(want.ID)) {
				t.Errorf("%s: record %d: %s %q", c.Name, i, v.Kind, v.ID)
			}
			if text, ok := want.Output["value"]; ok && (v.Output == nil || string(v.Output.Value) != text) {
				t.Errorf("%s: record %d: output %+v, want %s", c.Name, i, v.Output, text)
			}
		}
	}
}

// A frame of 4,096 records with replaced values and ids made up must not be answered from what the collector freed.
func runLarge(t *testing.T, module compiled) {
	g := module.start(t)
	g.configure([]byte("{}"))
	for range 3 {
		f := &abi.Frame{Projection: abi.ProjectValue}
		for i := range 4096 {
			f.Records = append(f.Records, abi.Record{Offset: int64(i), Value: fmt.Appendf(nil, `{"id":%d,"cents":%d}`, i, 100*i)})
		}
		for i, v := range g.judge(f) {
			if want := fmt.Sprintf(`{"id":"%d","amount":%d}`, i, i); v.Kind != abi.Replace || string(v.Output.Value) != want {
				t.Fatalf("record %d: %s %+v, want %s", i, v.Kind, v.Output, want)
			}
		}
	}
	t.Logf("memory %d KiB", g.module.Memory().Size()>>10)
}
