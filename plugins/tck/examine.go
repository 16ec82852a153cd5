package tck

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/engine"
	"github.com/millrace-io/millrace/plugins/meter"
)

// Examined is a module that was admitted, with what running it showed.
type Examined struct {
	Metered []byte
	Info    meter.Info
	Cases   []CaseResult // all of them, passed or not
	Report  *Report      // of the conformance run
	Golden  []engine.Golden
}

// Passed reports that every case was answered as the manifest says.
func (x *Examined) Passed() bool {
	for _, r := range x.Cases {
		if !r.Passed {
			return false
		}
	}
	return true
}

// Modules returns how an engine brings up a metered module under the manifest's projection and limits.
func Modules(e *engine.Engine, m *plugins.Manifest, metered []byte) Load {
	return func(ctx context.Context, config []byte) (Guest, func(), error) {
		g, err := e.Load(ctx, metered, stageConfig(m, config))
		if err != nil {
			return nil, nil, err
		}
		// Closing frees memory; that it fails says nothing about the plugin.
		return g, func() { _ = g.Close(ctx) }, nil
	}
}

func stageConfig(m *plugins.Manifest, config []byte) engine.StageConfig {
	return engine.StageConfig{Projection: abi.Projection(m.Projection), Config: config, Limits: m.Limits()}
}

// GoldenConfig is the configuration under which the golden frames of a version are judged: that of the manifest's first
// case. It is found again from the stored manifest.
func GoldenConfig(m *plugins.Manifest) []byte {
	if len(m.Cases) == 0 {
		return nil
	}
	return m.Cases[0].Config
}

// Examine admits a module as it was uploaded: it is checked and metered, answers its cases, conforms, and its golden
// frames are judged. An error says why it cannot be taken, or is the host's trouble; cases that are answered otherwise
// are no error here (Passed).
func Examine(ctx context.Context, e *engine.Engine, m *plugins.Manifest, module []byte) (*Examined, error) {
	x := &Examined{}
	var err error
	if x.Metered, x.Info, err = meter.Admit(module, m.Limits()); err != nil {
		return nil, err
	}
	if x.Cases, err = RunCases(ctx, m, Modules(e, m, x.Metered)); err != nil {
		return x, err
	}
	config := GoldenConfig(m)
	g, err := e.Load(ctx, x.Metered, stageConfig(m, config))
	if err != nil {
		return x, fmt.Errorf("configured as in its first case: %w", err)
	}
	defer func() { _ = g.Close(ctx) }() // as in Modules
	for _, f := range GoldenFrames(m, config) {
		if x.Report, err = Conform(ctx, g, f.Records, uint64(len(f.Records))); err != nil {
			return x, fmt.Errorf("the plugin's answers are not a function of the record: %w", err)
		}
		golden, err := g.MakeGolden(ctx, f)
		if err != nil {
			return x, fmt.Errorf("golden frame from offset %d: %w", f.BaseOffset, err)
		}
		x.Golden = append(x.Golden, golden)
	}
	return x, nil
}
