package main

import (
	"errors"
	"testing"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/engine"
	"github.com/millrace-io/millrace/plugins/meter"
)

// TestTheBurningGuestStaysJustWithinItsBudget: with half of it it would be one that never returns.
func TestTheBurningGuestStaysJustWithinItsBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a Go guest")
	}
	home, err := newWorkshop(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	code, err := buildGuest(t.Context(), home)
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(t.Context(), engine.Config{Gate: engine.NewGate(0)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	budget := plugins.DefaultLimits().RecordFuel
	for _, c := range []struct {
		key    string
		fuel   uint64
		reason plugins.Reason // 0: none
	}{
		{"B0", budget, 0}, {"B0", budget / 2, plugins.ReasonFuel}, {"N0", budget, plugins.ReasonFuel},
		{"P0", budget, plugins.ReasonTrap}, {"h0", budget, 0},
	} {
		limits := plugins.DefaultLimits()
		limits.RecordFuel = c.fuel
		metered, _, err := meter.Admit(code, limits)
		if err != nil {
			t.Fatal(err)
		}
		m, err := e.Load(t.Context(), metered, engine.StageConfig{Projection: abi.ProjectKey, Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		frame := &abi.Frame{Projection: abi.ProjectKey, Records: []abi.Record{{Key: []byte(c.key)}}}
		_, err = m.Judge(t.Context(), frame, new(abi.Answer))
		var fault *plugins.Fault
		if failed := errors.As(err, &fault); failed != (c.reason != 0) || failed && fault.Reason != c.reason || !failed && err != nil {
			t.Errorf("%s with a budget of %d: %v", c.key, c.fuel, err)
		}
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
