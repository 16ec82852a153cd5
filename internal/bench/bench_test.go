package main

import (
	"os"
	"testing"
	"time"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/engine"
)

func TestMedianIsTheMiddleAndTheMeanOfTwo(t *testing.T) {
	if got := spreadOf([]float64{3, 1, 2}); got != (spread{Median: 2, Min: 1, Max: 3}) {
		t.Errorf("three values: %+v", got)
	}
	if got := spreadOf([]float64{4, 1, 2, 3}); got != (spread{Median: 2.5, Min: 1, Max: 4}) {
		t.Errorf("four values: %+v", got)
	}
}

func TestQuantileOfOneAndOfMany(t *testing.T) {
	var sorted []time.Duration
	for i := range 100 {
		sorted = append(sorted, time.Duration(i)*time.Millisecond)
	}
	if p50, p99 := quantile(sorted, 0.5), quantile(sorted, 0.99); p50 != 50 || p99 != 99 {
		t.Errorf("p50 %v, p99 %v", p50, p99)
	}
	if got := quantile(sorted[:1], 0.99); got != 0 {
		t.Errorf("p99 of one: %v", got)
	}
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	at := func(round, records int) *measure { return &measure{Round: round, Records: records, Seconds: 1} }
	got := ratioOf([]*measure{at(0, 90), at(1, 9)}, []*measure{at(0, 100), at(1, 10)})
	if got != (spread{Median: 0.9, Min: 0.9, Max: 0.9}) {
		t.Errorf("%+v", got)
	}
}

func TestCPUAndMemoryOfThisProcessAreRead(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	after := before
	for begin := time.Now(); after == before && time.Since(begin) < 10*time.Second; { // until a tick of work was done
		if after, err = cpuOf(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if after <= before {
		t.Errorf("CPU time %v, then %v after ten seconds of work", before, after)
	}
	if mb, err := residentMB(os.Getpid()); err != nil || mb < 1 {
		t.Errorf("%v MB: %v", mb, err)
	}
}

func TestHostileGuestsEndAtOneFuel(t *testing.T) {
	e, err := engine.New(t.Context(), engine.Config{Gate: engine.NewGate(0)})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []plugins.Reason{plugins.ReasonFuel, plugins.ReasonDepth, plugins.ReasonFuel} {
		g := hostileGuestList()[i]
		out, err := g.run(t.Context(), e, 0)
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
			continue
		}
		if out.reason != want.String() || out.fuel[0] == 0 || out.fuel[0] != out.fuel[1] {
			t.Errorf("%s: ended by %s, want %s, at %v", g.name, out.reason, want, out.fuel)
		}
	}
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestJudgeControlCallsTheGuest(t *testing.T) {
	if c, err := judgeControl(t.Context(), 100); err != nil || c.Value <= 0 {
		t.Errorf("%+v: %v", c, err)
	}
}

func TestAControlThatMovedIsDoubted(t *testing.T) {
	with := func(v float64) *measure {
		return &measure{Scenario: "produce-1p", Records: 1, Seconds: 1, Control: &control{Value: v}}
	}
	if r := rowOf([]*measure{with(100), with(120)}); r.Doubtful {
		t.Error("a fifth is within bounds")
	}
	if r := rowOf([]*measure{with(100), with(130)}); !r.Doubtful {
		t.Error("a third is not")
	}
}
