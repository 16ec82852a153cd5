package tck

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/engine"
	"github.com/millrace-io/millrace/plugins/meter"
)

func newEngine(t testing.TB) *engine.Engine {
	t.Helper()
	e, err := engine.New(t.Context(), engine.Config{Gate: engine.NewGate(2), Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	return e
}

func admit(t testing.TB, module []byte, l plugins.Limits) []byte {
	t.Helper()
	metered, _, err := meter.Admit(module, l)
	if err != nil {
		t.Fatal(err)
	}
	return metered
}

func load(t testing.TB, e *engine.Engine, metered []byte, c engine.StageConfig) *engine.Module {
	t.Helper()
	m, err := e.Load(t.Context(), metered, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

func TestTheHostMakesAFailureOfEveryBrokenPromise(t *testing.T) {
	e := newEngine(t)
	for _, c := range Hostile() {
		t.Run(c.Name, func(t *testing.T) {
			f := HostileFrame(c.Records)
			g := load(t, e, admit(t, c.Module, HostileLimits()), engine.StageConfig{Projection: f.Projection, Limits: HostileLimits()})
			var fuel [2]uint64
			for i := range fuel {
				var answer abi.Answer
				var fault *plugins.Fault
				_, err := g.Judge(t.Context(), f, &answer)
				if !errors.As(err, &fault) {
					t.Fatalf("no fault: %v", err)
				}
				if fault.Reason != c.Want || fault.Record != c.Record {
					t.Fatalf("%s at record %d (%s), want %s at %d", fault.Reason, fault.Record, fault.Text, c.Want, c.Record)
				}
				fuel[i] = fault.Fuel
			}
			if fuel[0] != fuel[1] {
				t.Errorf("took %d fuel, then %d", fuel[0], fuel[1])
			}
		})
	}
}

// builtins are read, not imported: they stand on the same floor.
func builtin(t testing.TB, name string) (*plugins.Manifest, []byte) {
	t.Helper()
	source, err := os.ReadFile("../builtin/src/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := plugins.ParseManifest(source)
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile("../builtin/" + name + ".wasm")
	if err != nil {
		t.Fatal(err)
	}
	return m, admit(t, module, m.Limits())
}

var builtinConfigs = map[string][]byte{
	"dedup-key": nil, "dedup-json": []byte(`{"field":"id"}`), "filter-json": []byte(`{"field":"id","in":[1,"1"]}`),
	"dedup-header": []byte(`{"header":"id"}`), "redact": []byte(`{"fields":["id","a"],"headers":["h"],"method":"blank"}`),
}

func TestBuiltinsAnswerTheirCases(t *testing.T) {
	e := newEngine(t)
	for name := range builtinConfigs {
		m, metered := builtin(t, name)
		results, err := RunCases(t.Context(), m, Modules(e, m, metered))
		if err != nil || len(results) == 0 {
			t.Fatalf("%s: %d results, %v", name, len(results), err)
		}
		for _, r := range results {
			if !r.Passed {
				t.Errorf("%s: %s: record %d: %s, want %s", name, r.Case, r.Record, r.Got, r.Want)
			}
		}
	}
}

func TestBuiltinsConform(t *testing.T) {
	e := newEngine(t)
	for name, config := range builtinConfigs {
		m, metered := builtin(t, name)
		g := load(t, e, metered, stageConfig(m, config))
		for seed := range uint64(3) {
			report, err := Conform(t.Context(), g, shuffled(seed), seed)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if report.FrameFaults != 0 || report.Faults != 0 || report.Frames < 100 {
				t.Errorf("%s: %+v", name, report)
			}
			if seed == 0 {
				t.Logf("%s: fuel p50 %d, most %d", name, report.FuelAt(0.5), report.FuelAt(1))
			}
		}
	}
}

// shuffled are odd records, repeated in another order, at rising offsets.
func shuffled(seed uint64) []abi.Record {
	rng := rand.New(rand.NewPCG(seed, 3))
	odd := OddRecords()
	var records []abi.Record
	for i := range 60 {
		r := odd[rng.IntN(len(odd))]
		r.Offset = 50 + int64(i)
		records = append(records, r)
	}
	return records
}

func TestGoldenFramesAreReproduced(t *testing.T) {
	e := newEngine(t)
	m, metered := builtin(t, "dedup-json")
	config := m.Cases[0].Config
	g := load(t, e, metered, stageConfig(m, config))
	frames := GoldenFrames(m, config)
	if len(frames) != 3 { // both cases have this configuration
		t.Fatalf("%d frames", len(frames))
	}
	var golden []engine.Golden
	for _, f := range frames {
		made, err := g.MakeGolden(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		golden = append(golden, made)
	}
	if err := load(t, newEngine(t), metered, stageConfig(m, config)).CheckGolden(t.Context(), golden); err != nil {
		t.Error(err)
	}
	other := load(t, e, metered, stageConfig(m, []byte(`{"field":"order"}`)))
	if err := other.CheckGolden(t.Context(), golden); err == nil {
		t.Error("a guest that answers otherwise reproduces the golden frames")
	}
}

func TestExamineSaysWhatAModuleIsWorth(t *testing.T) {
	e := newEngine(t)
	m, _ := builtin(t, "filter-json")
	module, err := os.ReadFile("../builtin/filter-json.wasm")
	if err != nil {
		t.Fatal(err)
	}
	x, err := Examine(t.Context(), e, m, module)
	if err != nil || !x.Passed() || len(x.Cases) != 11 || len(x.Golden) != 2 || x.Report.Records == 0 {
		t.Fatalf("%+v, %v", x, err)
	}
	again := load(t, e, x.Metered, stageConfig(m, GoldenConfig(m)))
	if err := again.CheckGolden(t.Context(), x.Golden); err != nil {
		t.Error(err)
	}
	m.Cases[0].Records[0].Want = "drop"
	if x, err := Examine(t.Context(), e, m, module); err != nil || x.Passed() {
		t.Errorf("a case that is answered otherwise: %v", err)
	}
	m.Cases[0].Config = []byte(`{"field":""}`)
	if _, err := Examine(t.Context(), e, m, module); err == nil || !strings.Contains(err.Error(), m.Cases[0].Name) {
		t.Errorf("a configuration that is refused: %v", err)
	}
	if _, err := Examine(t.Context(), e, m, module[:40]); err == nil {
		t.Error("half a module is taken")
	}
}

// impure is a guest that the kit must catch.
type impure struct {
	calls int
	judge func(calls int, f *abi.Frame, i int) (abi.Verdict, uint64, *plugins.Fault)
}

func (g *impure) Projection() abi.Projection { return abi.ProjectKey }

func (g *impure) Judge(_ context.Context, f *abi.Frame, answer *abi.Answer) (uint64, error) {
	g.calls++
	answer.Verdicts = answer.Verdicts[:0]
	var fuel uint64
	for i := range f.Records {
		v, used, fault := g.judge(g.calls, f, i)
		fuel += used
		if fault != nil {
			fault.Record = i
			return fuel, fault
		}
		answer.Verdicts = append(answer.Verdicts, v)
	}
	return fuel, nil
}

func TestTheKitCatchesGuestsThatAreNoFunctionOfTheRecord(t *testing.T) {
	id := func(s string) abi.Verdict { return abi.Verdict{Unique: abi.UniqueByID, ID: []byte(s)} }
	for name, c := range map[string]struct {
		judge func(calls int, f *abi.Frame, i int) (abi.Verdict, uint64, *plugins.Fault)
		text  string
	}{
		"counts its calls": {func(n int, _ *abi.Frame, _ int) (abi.Verdict, uint64, *plugins.Fault) {
			return abi.Verdict{Code: uint32(n / 100)}, 1, nil
		}, "otherwise than alone"},
		"looks at the frame": {func(_ int, f *abi.Frame, i int) (abi.Verdict, uint64, *plugins.Fault) {
			return id(fmt.Sprint(min(i, 1))), 1, nil
		}, "otherwise than alone"},
		"has another output each time": {func(n int, _ *abi.Frame, _ int) (abi.Verdict, uint64, *plugins.Fault) {
			return abi.Verdict{Kind: abi.Replace, Output: &abi.Output{Value: fmt.Append(nil, n)}}, 1, nil
		}, "otherwise than alone"},
		"confuses null and empty": {func(_ int, f *abi.Frame, i int) (abi.Verdict, uint64, *plugins.Fault) {
			out := &abi.Output{}
			if len(f.Records) > 1 {
				out.Key = []byte{}
			}
			return abi.Verdict{Kind: abi.Replace, Output: out}, 1, nil
		}, "otherwise than alone"},
		"burns more each time": {func(n int, _ *abi.Frame, _ int) (abi.Verdict, uint64, *plugins.Fault) {
			return abi.Verdict{}, uint64(n), nil
		}, "fuel"},
		"fails now and then": {func(n int, _ *abi.Frame, _ int) (abi.Verdict, uint64, *plugins.Fault) {
			if n%37 == 0 {
				return abi.Verdict{}, 1, &plugins.Fault{Reason: plugins.ReasonTrap}
			}
			return abi.Verdict{}, 1, nil
		}, "fail"},
		"fails only alone": {func(_ int, f *abi.Frame, _ int) (abi.Verdict, uint64, *plugins.Fault) {
			if len(f.Records) == 1 {
				return abi.Verdict{}, 1, &plugins.Fault{Reason: plugins.ReasonTrap}
			}
			return abi.Verdict{}, 1, nil
		}, "fails alone"},
	} {
		_, err := Conform(t.Context(), &impure{judge: c.judge}, shuffled(1), 1)
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("a guest that %s: %v", name, err)
		}
	}
	pure := &impure{judge: func(_ int, f *abi.Frame, i int) (abi.Verdict, uint64, *plugins.Fault) {
		if f.Records[i].Key == nil {
			return abi.Verdict{}, 3, &plugins.Fault{Reason: plugins.ReasonTrap}
		}
		return id(string(f.Records[i].Key)), 2, nil
	}}
	report, err := Conform(t.Context(), pure, shuffled(1), 1)
	if err != nil || report.Faults == 0 || report.FrameFaults != 0 || report.FuelAt(1) != 3 || !slices.IsSorted(report.RecordFuel) {
		t.Errorf("a pure guest: %+v, %v", report, err)
	}
	broken := errors.New("no memory")
	if _, err := Conform(t.Context(), refusing{broken}, shuffled(1), 1); !errors.Is(err, broken) {
		t.Errorf("the host's trouble: %v", err)
	}
}

type refusing struct{ err error }

func (refusing) Projection() abi.Projection { return 0 }
func (r refusing) Judge(context.Context, *abi.Frame, *abi.Answer) (uint64, error) {
	return 0, r.err
}
