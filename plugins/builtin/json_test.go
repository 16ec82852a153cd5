package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/millrace-io/millrace/plugins/abi"
)

// guest runs a module as it was compiled; what metering and restoring add is the conformance kit's to test.
type guest struct {
	t      testing.TB
	module api.Module
}

func newGuest(t testing.TB, name string) *guest {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	t.Cleanup(func() { _ = r.Close(ctx) })
	m, err := r.Instantiate(ctx, open(t, name).Module)
	if err != nil {
		t.Fatal(err)
	}
	return &guest{t: t, module: m}
}

func (g *guest) call(name string, args ...uint64) uint64 {
	g.t.Helper()
	out, err := g.module.ExportedFunction(name).Call(context.Background(), args...)
	if err != nil {
		g.t.Fatalf("%s: %v", name, err)
	}
	return out[0]
}

func (g *guest) configure(config string) uint32 {
	g.t.Helper()
	at := g.call(abi.ExportAlloc, uint64(len(config)))
	if !g.module.Memory().WriteString(uint32(at), config) {
		g.t.Fatal("no memory for the configuration")
	}
	return uint32(g.call(abi.ExportConfigure, at, uint64(len(config))))
}

func (g *guest) judge(projection abi.Projection, records ...abi.Record) []abi.Verdict {
	g.t.Helper()
	f := abi.Frame{Projection: projection, Records: records}
	size, err := f.Size()
	if err != nil {
		g.t.Fatal(err)
	}
	at := g.call(abi.ExportAlloc, uint64(size))
	b, ok := g.module.Memory().Read(uint32(at), uint32(size))
	if !ok {
		g.t.Fatal("the guest gave no room for the frame")
	}
	f.Write(b)
	process := g.call(abi.ExportProcess, at, uint64(size))
	memory, _ := g.module.Memory().Read(0, g.module.Memory().Size())
	var a abi.Answer
	if err := a.Read(memory, process, &f, abi.Limits{OutputBytesMax: 1 << 20, FrameOutputBytesMax: 4 << 20}); err != nil {
		g.t.Fatal(err)
	}
	return a.Verdicts
}

func values(texts ...string) []abi.Record {
	records := make([]abi.Record, len(texts))
	for i, text := range texts {
		records[i] = abi.Record{Offset: int64(i), Value: []byte(text)}
	}
	return records
}

// ids judges the texts with dedup-json and tells what came out: an id, -1 for no field, -2 for no JSON.
func ids(g *guest, texts ...string) []string {
	out := make([]string, len(texts))
	for i, v := range g.judge(abi.ProjectValue, values(texts...)...) {
		switch {
		case v.Kind != abi.Pass:
			g.t.Errorf("%q: %s", texts[i], v.Kind)
		case v.Unique == abi.UniqueByID:
			out[i] = string(v.ID)
		default:
			out[i] = fmt.Sprintf("-%d", v.Code)
		}
	}
	return out
}

func TestAFieldIsFoundByItsPath(t *testing.T) {
	deep := strings.Repeat("[", 1023) + `{"id":1}` + strings.Repeat("]", 1023)
	for _, c := range []struct{ path, text, id string }{
		{"id", `{"id":"x"}`, "x"},
		{"id", ` { "a" : [ { "id" : 1 } ] , "id" : 2 } `, "2"},
		{"a.b", `{"a":{"b":"x","c":1},"b":"y"}`, "x"},
		{"a.b", `{"b":"y","a":{"a":{"b":1},"b":true}}`, "true"},
		{"a.b", `{"a":[{"b":1}]}`, "-1"},
		{"a.1.b", `{"a":[{"b":1},{"b":2},{"b":3}]}`, "2"},
		{"a.1", `{"a":{"1":"name"}}`, "name"},
		{"a.01", `{"a":[0,1]}`, "-1"},
		{"a.2", `{"a":[0,1]}`, "-1"},
		{"1", `[5,6]`, "6"},
		{`a\.b`, `{"a":{"b":1},"a.b":2}`, "2"},
		{`a\\b`, `{"a\\b":2}`, "2"},
		{"id", `{"id":1,"id":2}`, "2"},
		{"a.b", `{"a":{"b":1},"a":{"b":2}}`, "2"},
		{"a.b", `{"a":{"b":1},"a":{"c":2}}`, "-1"},
		{"a.b", `{"a":{"b":1},"a":5}`, "-1"},
		{"a.b", `{"a":{"b":1,"b":{"b":3}}}`, `{"b":3}`},
		{"a.b", `{"a":{"b":{"b":3},"b":1}}`, "1"},
		{"id", `{"\u0069d":7}`, "7"},
		{"é", `{"\u00e9":"\u00E9"}`, "é"},
		{"id", `{"id":"\ud83d\ude00"}`, "😀"},
		{"😀", `{"\ud83d\ude00":1}`, "1"},
		{"id", `{"id":"a\"\\\/\b\f\n\r\tz"}`, "a\"\\/\b\f\n\r\tz"},
		{"id", `{"id":1.50}`, "1.50"}, {"id", `{"id":-0}`, "-0"}, {"id", `{"id":1e+05}`, "1e+05"},
		{"id", `{"id":12345678901234567890123}`, "12345678901234567890123"},
		{"id", `{"id":{"x": 1}}`, `{"x": 1}`}, {"id", `{"id":[1, 2]}`, `[1, 2]`},
		{"id", `{"id":null}`, "-1"}, {"id", `{"id":""}`, "-1"}, {"id", `{}`, "-1"}, {"id", `[]`, "-1"}, {"id", `7`, "-1"}, {"id", `"id"`, "-1"},
		{"1", deep, "-1"}, {"id", "[" + deep + "]", "-2"},
		{"id", ``, "-2"}, {"id", ` `, "-2"}, {"id", `{"id":1`, "-2"}, {"id", `{"id":1}x`, "-2"}, {"id", `{"id":1,}`, "-2"},
		{"id", `{id:1}`, "-2"}, {"id", `{"id":01}`, "-2"}, {"id", `{"id":1.}`, "-2"}, {"id", `{"id":.5}`, "-2"}, {"id", `{"id":+1}`, "-2"},
		{"id", `{"id":1e}`, "-2"}, {"id", `{"id":"\x41"}`, "-2"}, {"id", `{"id":"\u12g4"}`, "-2"}, {"id", `{"id":"a`, "-2"}, {"id", "{\"id\":\"a\nb\"}", "-2"},
		{"id", `{"id":tru}`, "-2"}, {"id", `{"id":1]`, "-2"}, {"id", `[1}`, "-2"}, {"id", `{"id" 1}`, "-2"}, {"id", `{"a":1 "id":2}`, "-2"},
		{"id", `{"id":"\ud83d"}`, "\xed\xa0\xbd"}, {"id", `{"id":"\u12`, "-2"}, {"id", `{"id":"\`, "-2"},
	} {
		g := newGuest(t, "dedup-json")
		config, _ := json.Marshal(map[string]string{"field": c.path})
		if code := g.configure(string(config)); code != 0 {
			t.Fatalf("%s: refused with %d", config, code)
		}
		if got := ids(g, c.text)[0]; got != c.id {
			t.Errorf("%s of %.60s: %q, want %q", c.path, c.text, got, c.id)
		}
	}
}

func TestPathsThatMakeNoSenseAreRefused(t *testing.T) {
	g := newGuest(t, "dedup-json")
	for _, config := range []string{
		`{}`, `{"field":7}`, `{"field":""}`, `{"field":"a..b"}`, `{"field":".a"}`, `{"field":"a."}`, `{"field":"a\\"}`, `{"field":"`,
		`{"field":"` + strings.Repeat("a.", 16) + `a"}`, `{"field":"` + strings.Repeat("a", 513) + `"}`,
	} {
		if g.configure(config) == 0 {
			t.Errorf("%.60s is taken", config)
		}
	}
}

// The scanner against encoding/json, over texts that are mostly JSON.
func TestFieldsAreThoseThatEncodingJSONFinds(t *testing.T) {
	g := newGuest(t, "dedup-json")
	if g.configure(`{"field":"a.b"}`) != 0 {
		t.Fatal("refused")
	}
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 7))
		texts := make([]string, 100)
		for i := range texts {
			texts[i] = randomJSON(rng, 0)
			for range rng.IntN(2) * rng.IntN(3) {
				texts[i] = damage(rng, texts[i])
			}
		}
		for i, got := range ids(g, texts...) {
			if want := idByEncodingJSON(texts[i]); got != want {
				t.Fatalf("seed %d: a.b of %s: %q, want %q", seed, texts[i], got, want)
			}
		}
	}
}

func idByEncodingJSON(text string) string {
	if !json.Valid([]byte(text)) {
		return "-2"
	}
	raw := json.RawMessage(text)
	for _, name := range []string{"a", "b"} {
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) != nil {
			return "-1"
		}
		raw = object[name]
	}
	var s string
	switch {
	case raw == nil || string(raw) == "null":
		return "-1"
	case raw[0] != '"':
		return string(raw)
	case json.Unmarshal(raw, &s) != nil || s == "":
		return "-1"
	}
	return s
}

func randomJSON(rng *rand.Rand, depth int) string {
	n := rng.IntN(8)
	if depth > 4 {
		n = rng.IntN(5)
	}
	names := []string{`"a"`, `"b"`, `"\u0061"`, `"\u0062"`, `"ab"`, `""`, `"a\\"`}
	space := []string{"", "", "", " ", "\n\t"}[rng.IntN(5)]
	switch {
	case n == 0:
		return []string{"0", "-1", "2.50", "1e9", "1E-2", "true", "false", "null"}[rng.IntN(8)]
	case n < 3:
		return []string{`""`, `"x"`, `"\n\u00e9"`, `"\ud83d\ude00z"`, `"é"`, `"\""`}[rng.IntN(6)]
	case n == 3:
		var parts []string
		for range rng.IntN(3) {
			parts = append(parts, randomJSON(rng, depth+1))
		}
		return "[" + space + strings.Join(parts, ","+space) + "]"
	}
	var parts []string
	for range rng.IntN(4) {
		parts = append(parts, names[min(rng.IntN(len(names)), rng.IntN(len(names)))]+space+":"+randomJSON(rng, depth+1))
	}
	return "{" + strings.Join(parts, space+",") + space + "}"
}

func damage(rng *rand.Rand, text string) string {
	b, i := []byte(text), rng.IntN(len(text))
	switch rng.IntN(3) {
	case 0:
		b = append(b[:i], b[i+1:]...)
	case 1:
		b[i] = `{}[]",:\0a`[rng.IntN(10)]
	default:
		b = append(b[:i], append([]byte{`{}[]",:\0a `[rng.IntN(11)]}, b[i:]...)...)
	}
	if len(b) == 0 {
		return " "
	}
	return string(b)
}

func TestFilterMatchesAsConfigured(t *testing.T) {
	for _, c := range []struct{ config, pass, drop string }{
		{`{"field":"l","equals":"error"}`, `{"l":"error"} {"l":"\u0065rror"} x`, `{"l":"debug"} {"l":"error2"} {} {"l":["error"]}`},
		{`{"field":"l","equals":7}`, `{"l":7}`, `{"l":"7"} {"l":7.0} {"l":70}`},
		{`{"field":"l","equals":"\u00e9x"}`, `{"l":"éx"} {"l":"\u00e9x"} {"l":"\u00e9\u0078"}`, `{"l":"é"} {"l":"\u00e9y"} {"l":"éxx"}`},
		{`{"field":"l","equals":null}`, `{"l":null}`, `{} {"l":"null"}`},
		{`{"field":"l","in":[200, "ok" ,true],"then":"drop"}`, `{"l":500} {"l":"200"} {} y {"l":false}`, `{"l":200} {"l":"ok"} {"l":true}`},
		{`{"field":"l","exists":true}`, `{"l":null} {"l":[]}`, `{"k":1} 7`},
		{`{"field":"l","exists":false}`, `{"k":1}`, `{"l":1}`},
		{`{"field":"l","exists":true,"then":"pass"}`, `{"l":1}`, `{"k":1}`},
	} {
		g := newGuest(t, "filter-json")
		if code := g.configure(c.config); code != 0 {
			t.Fatalf("%s: refused with %d", c.config, code)
		}
		for kind, texts := range map[abi.Kind]string{abi.Pass: c.pass, abi.Drop: c.drop} {
			texts := strings.Split(texts, " ")
			for i, v := range g.judge(abi.ProjectValue, values(texts...)...) {
				if v.Kind != kind || v.Unique != abi.NotUnique {
					t.Errorf("%s: %s: %s, want %s", c.config, texts[i], v.Kind, kind)
				}
			}
		}
		if v := g.judge(abi.ProjectValue, abi.Record{}); v[0].Kind != abi.Pass || v[0].Code != 2 {
			t.Errorf("%s: a null value: %+v", c.config, v[0])
		}
	}
}

func TestFilterRefusesAConfigurationThatDecidesNothing(t *testing.T) {
	for _, config := range []string{
		`{}`, `{"field":"a"}`, `{"field":"a","equals":1,"exists":true}`, `{"field":"a","equals":{}}`, `{"field":"a","in":[]}`,
		`{"field":"a","in":"x"}`, `{"field":"a","in":[1,[2]]}`, `{"field":"a","exists":1}`, `{"field":"a","exists":null}`,
		`{"field":"a","equals":1,"then":"keep"}`, `{"field":"a","equals":1,"then":1}`, `{"field":1,"equals":1}`, `{"field":"","equals":1}`,
		`{"field":"a","in":[` + strings.Repeat("1,", 256) + `1]}`, `{"field":"a","equals":"` + strings.Repeat("x", 8192) + `"}`,
	} {
		if newGuest(t, "filter-json").configure(config) == 0 {
			t.Errorf("%.60s is taken", config)
		}
	}
}

func TestTheLargestFrameNeedsNoMoreMemory(t *testing.T) {
	const records = 4096
	for name, c := range map[string]struct {
		projection abi.Projection
		part       int
	}{"dedup-key": {abi.ProjectKey, 19}, "dedup-json": {abi.ProjectValue, 64}, "filter-json": {abi.ProjectValue, 64}} {
		g := newGuest(t, name)
		switch name {
		case "dedup-json":
			g.configure(`{"field":"a"}`)
		case "filter-json":
			g.configure(`{"field":"a","exists":true}`)
		}
		frame := make([]abi.Record, records)
		for i := range frame {
			frame[i].Offset = int64(i)
			frame[i].Key = bytes.Repeat([]byte("k"), c.part)
			frame[i].Value = []byte(fmt.Sprintf(`{"a":"%0*d"}`, c.part-8, i))
		}
		before := g.module.Memory().Size()
		for i, v := range g.judge(c.projection, frame...) {
			if name != "filter-json" && v.Unique == abi.NotUnique {
				t.Fatalf("%s: record %d: %+v", name, i, v)
			}
		}
		if after := g.module.Memory().Size(); after != before {
			t.Errorf("%s grew from %d to %d bytes", name, before, after)
		}
		large := abi.Record{Key: make([]byte, 1<<20), Value: []byte(`{"a":"` + strings.Repeat("x", 1<<20) + `"}`)}
		if name == "dedup-json" {
			large.Value = []byte(`{"b":"` + strings.Repeat("x", 1<<20) + `"}`)
		}
		if name != "dedup-key" {
			g.judge(c.projection, large)
		}
	}
}

func TestAKeyIsWhatARecordIsUniqueBy(t *testing.T) {
	g := newGuest(t, "dedup-key")
	got := g.judge(abi.ProjectKey, abi.Record{Key: []byte("k")}, abi.Record{}, abi.Record{Key: []byte{}})
	if got[0].Unique != abi.UniqueByKey || string(got[0].ID) != "k" {
		t.Errorf("%+v", got[0])
	}
	for _, v := range got[1:] {
		if v.Kind != abi.Pass || v.Unique != abi.NotUnique || v.Code != 1 {
			t.Errorf("without a key: %+v", v)
		}
	}
}
