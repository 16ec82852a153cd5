package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/meter"
)

const all = abi.ProjectKey | abi.ProjectValue | abi.ProjectHeaders

func newEngine(t testing.TB) *Engine {
	t.Helper()
	e, err := New(context.Background(), Config{Gate: NewGate(0), Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

func admit(t testing.TB, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	metered, _, err := meter.Admit(raw, plugins.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return metered
}

func load(t testing.TB, e *Engine, metered []byte, c StageConfig) *Module {
	t.Helper()
	if c.Limits == (plugins.Limits{}) {
		c.Limits = plugins.DefaultLimits()
	}
	m, err := e.Load(context.Background(), metered, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

func script(t testing.TB, e *Engine, config string) *Module {
	c := StageConfig{Projection: all}
	if config != "" {
		c.Config = []byte(config)
	}
	return load(t, e, admit(t, "testdata/script.wasm"), c)
}

// frameOf makes a frame of records written "key=value".
func frameOf(records ...string) *abi.Frame {
	f := &abi.Frame{BaseOffset: 100, BaseTimestamp: 1_700_000_000_123, Projection: all}
	for i, r := range records {
		key, value, _ := strings.Cut(r, "=")
		f.Records = append(f.Records, abi.Record{
			Offset: 100 + int64(i), Timestamp: f.BaseTimestamp + int64(i), Key: []byte(key), Value: []byte(value),
		})
	}
	return f
}

func judge(t *testing.T, m *Module, records ...string) (*abi.Answer, uint64) {
	t.Helper()
	var answer abi.Answer
	fuel, err := m.Judge(context.Background(), frameOf(records...), &answer)
	if err != nil {
		t.Fatalf("%q: %v", records, err)
	}
	return &answer, fuel
}

func fault(t *testing.T, m *Module, records ...string) *plugins.Fault {
	t.Helper()
	var answer abi.Answer
	fuel, err := m.Judge(context.Background(), frameOf(records...), &answer)
	var f *plugins.Fault
	if !errors.As(err, &f) {
		t.Fatalf("%q: no fault but %v", records, err)
	}
	if f.Fuel != fuel {
		t.Errorf("%q: the fault tells %d fuel, the call %d", records, f.Fuel, fuel)
	}
	return f
}

func TestGuestAnswersAFrame(t *testing.T) {
	m := script(t, newEngine(t), "")
	answer, fuel := judge(t, m, "p", "d", "r=abc", "l", "k", "i=id-5", "")
	var got []string
	for _, v := range answer.Verdicts {
		s := v.Kind.String()
		if v.ID != nil {
			s += " id " + string(v.ID)
		}
		if v.Output != nil {
			s += " " + string(v.Output.Key) + string(v.Output.Value) + v.Output.Text
		}
		got = append(got, s)
	}
	want := []string{"pass", "drop", "replace rABC", "dead-letter letter text", "pass id k", "pass id id-5", "pass"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("verdicts %q, want %q", got, want)
	}
	if calls := m.engine.Calls(); calls != 1 {
		t.Errorf("one frame was given to a guest, %d were counted", calls)
	}
	if answer.Verdicts[3].Code != 42 || fuel == 0 || fuel > 2000 {
		t.Errorf("code %d, fuel %d", answer.Verdicts[3].Code, fuel)
	}
}

func TestFaultsAreToldApart(t *testing.T) {
	m := script(t, newEngine(t), "")
	for _, c := range []struct {
		letter string
		reason plugins.Reason
		text   string
	}{
		{"t", plugins.ReasonTrap, "unreachable"},
		{"x", plugins.ReasonTrap, "proc_exit(3)"},
		{"w", plugins.ReasonFuel, "budget of the record"},
		{"f", plugins.ReasonFuel, "budget"},
		{"s", plugins.ReasonDepth, "deeper than 10000"},
		{"m", plugins.ReasonMemory, "memory at its maximum of 16777216"},
		{"o", plugins.ReasonMalformed, "leaves the memory"},
		{"v", plugins.ReasonMalformed, "unknown"},
		{"b", plugins.ReasonOutput, "1048576"},
		{"e", plugins.ReasonID, "0 bytes"},
	} {
		f := fault(t, m, "p", c.letter, "p")
		if f.Reason != c.reason || !strings.Contains(f.Text, c.text) {
			t.Errorf("%s: %v, want %v with %q", c.letter, f, c.reason, c.text)
		}
		if f.Record != 1 {
			t.Errorf("%s: record %d is named", c.letter, f.Record)
		}
		again := fault(t, m, "p", c.letter, "p")
		if !reflect.DeepEqual(again, f) {
			t.Errorf("%s: a second time it is %+v, at first %+v", c.letter, again, f)
		}
		if alone := fault(t, m, c.letter); alone.Reason != c.reason {
			t.Errorf("%s alone: %v", c.letter, alone)
		}
		judge(t, m, "p", "r=x") // the module goes on after every fault
	}
}

func TestWhatAGuestPrintedIsInItsFault(t *testing.T) {
	var printed []byte
	m := load(t, newEngine(t), admit(t, "testdata/script.wasm"), StageConfig{
		Projection: all, Log: func(output []byte) { printed = append([]byte(nil), output...) },
	})
	if f := fault(t, m, "t"); !strings.HasPrefix(string(f.Stderr), "about to trap\n") || !strings.Contains(string(f.Stderr), "process") {
		t.Errorf("stderr %q", f.Stderr)
	}
	if judge(t, m, "a", "a"); string(printed) != strings.Repeat("hello from the guest\n", 2) {
		t.Errorf("log %q", printed)
	}
	if fault(t, m, "A"); len(printed) > plugins.StderrBytesMax || len(printed) < plugins.StderrBytesMax/2 {
		t.Errorf("a chatty guest left %d bytes", len(printed))
	}
}

func TestGuestThatReportsNothingIsEndedByTheFramesBudget(t *testing.T) {
	m := script(t, newEngine(t), `"q"`)
	f := fault(t, m, "p", "w", "p")
	if f.Reason != plugins.ReasonFuel || f.Record != -1 || f.Fuel < 3_000_000 || f.Fuel > 3_100_000 {
		t.Errorf("%+v", f)
	}
	reporting := fault(t, script(t, newEngine(t), ""), "p", "w", "p")
	if reporting.Fuel < 1_000_000 || reporting.Fuel > 1_300_000 {
		t.Errorf("a guest that reports its record was ended after %d fuel", reporting.Fuel)
	}
	heavy := fault(t, m, "z=150000", "z=150000", "z=150000") // each fits its budget only as an average
	if heavy.Reason != plugins.ReasonFuel || heavy.Record != -1 {
		t.Errorf("%+v", heavy)
	}
}

func TestInstanceIsRestoredBeforeEveryFrame(t *testing.T) {
	m := script(t, newEngine(t), "")
	first, fuel := judge(t, m, "h", "n", "n", "c")
	if id := first.Verdicts[0].ID; binary.LittleEndian.Uint32(id) != 0 {
		t.Errorf("the guest remembers %x", id)
	}
	if reflect.DeepEqual(first.Verdicts[1].ID, first.Verdicts[2].ID) {
		t.Error("two reads of random bytes are equal")
	}
	if nanos := binary.LittleEndian.Uint64(first.Verdicts[3].ID); nanos != 1_700_000_000_123_000_000 {
		t.Errorf("the clock says %d", nanos)
	}
	fault(t, m, "t")
	judge(t, m, "g", "p") // grows, and is discarded
	judge(t, m, "a", "r=xyz", "p", "p")
	again, fuelAgain := judge(t, m, "h", "n", "n", "c")
	if !reflect.DeepEqual(first, again) || fuel != fuelAgain {
		t.Errorf("the same frame after others: %+v (%d fuel), before %+v (%d fuel)", again, fuelAgain, first, fuel)
	}
}

// Making an instance costs more than most guests that fail: with one for each poison record, a quarter of a core went into
// them, and half of what the collector had to do.
func TestAnInstanceOutlivesAFaultThatRestoringMakesUpFor(t *testing.T) {
	m := script(t, newEngine(t), "")
	first, fuel := judge(t, m, "h", "n", "z=1000", "c")
	for _, c := range []struct {
		letter string
		kept   bool
	}{
		{"t", true}, {"x", true}, {"w", true}, {"f", true}, {"o", true}, {"b", true},
		{"s", false}, // its stack has grown
		{"m", false}, // its memory has
	} {
		before := m.idle[0]
		fault(t, m, "h", c.letter, "p")
		if kept := len(m.idle) == 1 && m.idle[0] == before; kept != c.kept {
			t.Errorf("%s: kept is %v, want %v", c.letter, kept, c.kept)
		}
		again, fuelAgain := judge(t, m, "h", "n", "z=1000", "c")
		if !reflect.DeepEqual(first, again) || fuel != fuelAgain {
			t.Errorf("%s: the same frame behind it: %+v (%d fuel), before %+v (%d fuel)", c.letter, again, fuelAgain, first, fuel)
		}
	}
}

func TestHostTellsAGuestNothing(t *testing.T) {
	m := script(t, newEngine(t), "")
	answer, _ := judge(t, m, "E")
	if got, want := answer.Verdicts[0].ID, []byte{0, 0, 0, errnoNosys, errnoBadf, 0, 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("errnos %v, want %v", got, want)
	}
}

func TestConfigurationIsPartOfTheImageOrRefused(t *testing.T) {
	e := newEngine(t)
	metered := admit(t, "testdata/script.wasm")
	for config, want := range map[string]string{"n": "code 7", "t": "unreachable", "w": "budget"} {
		_, err := e.Load(context.Background(), metered, StageConfig{Projection: all, Config: []byte(config), Limits: plugins.DefaultLimits()})
		var refused *LoadError
		if !errors.As(err, &refused) || !strings.Contains(refused.Error(), want) {
			t.Errorf("%s: %v", config, err)
		}
	}
}

func TestGoldenFramesAreReproduced(t *testing.T) {
	e := newEngine(t)
	m := script(t, e, "")
	var golden []Golden
	for _, records := range [][]string{{"p", "d", "r=abc", "l", "i=x", "n"}, {"p", "t"}, {"w"}} {
		g, err := m.MakeGolden(context.Background(), frameOf(records...))
		if err != nil {
			t.Fatal(err)
		}
		golden = append(golden, g)
	}
	other := script(t, newEngine(t), "")
	if err := other.CheckGolden(context.Background(), golden); err != nil {
		t.Error(err)
	}
	golden[0].Fuel++
	var g *GoldenError
	if err := other.CheckGolden(context.Background(), golden); !errors.As(err, &g) || g.Frame != 0 || !g.SameAnswer {
		t.Errorf("another fuel: %v", err)
	}
	golden[0].Fuel--
	golden[2].Answer[0]++
	if err := other.CheckGolden(context.Background(), golden); !errors.As(err, &g) || g.Frame != 2 || g.SameAnswer {
		t.Errorf("another answer: %v", err)
	}
}

func TestTheBrokersTroubleIsNoFault(t *testing.T) {
	m := script(t, newEngine(t), "")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := m.Judge(ctx, frameOf("w"), new(abi.Answer))
	var f *plugins.Fault
	if !errors.Is(err, context.Canceled) || errors.As(err, &f) {
		t.Errorf("a cancelled call: %v", err)
	}
	if _, err := m.Judge(context.Background(), &abi.Frame{Projection: abi.ProjectKey, Records: frameOf("p").Records}, new(abi.Answer)); err == nil || errors.As(err, &f) {
		t.Errorf("a foreign projection: %v", err)
	}
	// A frame that does not fit the guest is the record's fault: the guest says so itself.
	big := frameOf("p=" + strings.Repeat("x", 2<<20))
	if _, err := m.Judge(context.Background(), big, new(abi.Answer)); !errors.As(err, &f) || f.Reason != plugins.ReasonMemory {
		t.Errorf("a frame that does not fit: %v", err)
	}
}

func TestUnmeteredModuleIsNotRun(t *testing.T) {
	raw, err := os.ReadFile("testdata/script.wasm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newEngine(t).Load(context.Background(), raw, StageConfig{Projection: all, Limits: plugins.DefaultLimits()}); err == nil {
		t.Error("a module without a fuel counter was loaded")
	}
}

func asFault(err error) *plugins.Fault {
	var f *plugins.Fault
	if errors.As(err, &f) {
		return f
	}
	return nil
}

func TestModulesOfTheSameBytesLiveApart(t *testing.T) {
	e := newEngine(t)
	metered := admit(t, "testdata/script.wasm")
	stays := load(t, e, metered, StageConfig{Projection: all})
	goes, err := e.Load(context.Background(), metered, StageConfig{Projection: all, Limits: plugins.DefaultLimits(), Config: []byte("q")})
	if err != nil {
		t.Fatal(err)
	}
	if err := goes.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for range 3 { // new instances too: a trap drops the old one
		fault(t, stays, "t")
		judge(t, stays, "p")
	}
}

func TestManyJudgeAtOnce(t *testing.T) {
	e, err := New(context.Background(), Config{Gate: NewGate(2), CacheDir: t.TempDir(), Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	m := script(t, e, "")
	want, wantFuel := judge(t, m, "h", "n", "z=40000", "i=x")
	ended := make(chan error)
	const judges = 6
	for n := range judges {
		go func() {
			var answer abi.Answer
			for range 8 {
				if n == 0 { // a neighbour that spins must not change what the others get
					m.Judge(context.Background(), frameOf("w"), &answer)
					continue
				}
				fuel, err := m.Judge(context.Background(), frameOf("h", "n", "z=40000", "i=x"), &answer)
				if err != nil || fuel != wantFuel || !reflect.DeepEqual(answer.Verdicts, want.Verdicts) {
					ended <- fmt.Errorf("%+v, %d fuel, %w", answer.Verdicts, fuel, err)
					return
				}
			}
			ended <- nil
		}()
	}
	for range judges {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if len(m.idle) > 2 {
		t.Errorf("%d instances at rest behind a gate of two", len(m.idle))
	}
}

func TestUsageIsThatOfTheInstancesThereAre(t *testing.T) {
	e := newEngine(t)
	m, err := e.Load(t.Context(), admit(t, "testdata/script.wasm"), StageConfig{Projection: all, Limits: plugins.DefaultLimits()})
	if err != nil {
		t.Fatal(err)
	}
	var answer abi.Answer
	if _, err := m.Judge(t.Context(), frameOf("k=v"), &answer); err != nil {
		t.Fatal(err)
	}
	if n, bytes := e.Usage(); n < 1 || bytes < plugins.PageBytes {
		t.Errorf("%d instances with %d bytes while one is at rest", n, bytes)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, bytes := e.Usage(); n != 0 || bytes != 0 {
		t.Errorf("%d instances with %d bytes when the module is closed", n, bytes)
	}
}
