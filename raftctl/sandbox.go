package raftctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/engine"
	"github.com/millrace-io/millrace/plugins/meter"
)

// sandbox is the broker's own engine with one plugin, admitted as the broker would. One goroutine uses it.
type sandbox struct {
	manifest *plugins.Manifest
	metered  []byte
	info     meter.Info
	engine   *engine.Engine
	loaded   map[string]*stage // by configuration; compiling is what takes time
}

// stage is the plugin under one configuration. It is what the conformance kit tests.
type stage struct {
	*engine.Module
	printed []byte // over the last frame
}

// compiledFilesMax is how many files of compiled code, some 10 MB each, are kept; then all go, and are made again as they are needed.
const compiledFilesMax = 16

// compiledFolder returns where compiled code is kept between runs: compiling a Go plugin takes most of a second. Where no
// folder can be had it is kept in memory only.
func (c *cli) compiledFolder() string {
	cache, err := c.homeFolder("XDG_CACHE_HOME", ".cache")
	if err != nil {
		return ""
	}
	dir := filepath.Join(cache, "millrace", "compiled")
	if kept, err := filepath.Glob(filepath.Join(dir, "*", "*")); err == nil && len(kept) > compiledFilesMax {
		if err := os.RemoveAll(dir); err != nil {
			return ""
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return ""
	}
	return dir
}

func (c *cli) openSandbox(ctx context.Context, manifest *plugins.Manifest, module []byte) (*sandbox, error) {
	metered, info, err := meter.Admit(module, manifest.Limits())
	if err != nil {
		return nil, err
	}
	e, err := engine.New(ctx, engine.Config{CacheDir: c.compiledFolder(), Gate: engine.NewGate(0), Logger: zerolog.Nop()})
	if err != nil {
		return nil, err
	}
	return &sandbox{manifest: manifest, metered: metered, info: info, engine: e, loaded: map[string]*stage{}}, nil
}

func (s *sandbox) Close(ctx context.Context) error {
	var problems []error
	for _, g := range s.loaded {
		problems = append(problems, g.Module.Close(ctx))
	}
	return errors.Join(append(problems, s.engine.Close(ctx))...)
}

// stage brings the plugin up under a configuration; nil is none.
func (s *sandbox) stage(ctx context.Context, config []byte) (*stage, error) {
	name := fmt.Sprintf("%t %s", config != nil, config)
	if g := s.loaded[name]; g != nil {
		return g, nil
	}
	if config != nil {
		if err := s.manifest.CheckConfig(config); err != nil {
			return nil, fmt.Errorf("configuration %s: %w", config, err)
		}
	}
	g := &stage{}
	var err error
	g.Module, err = s.engine.Load(ctx, s.metered, engine.StageConfig{
		Projection: abi.Projection(s.manifest.Projection), Config: config, Limits: s.manifest.Limits(),
		Log: func(output []byte) { g.printed = append(g.printed, output...) },
	})
	if err != nil {
		return nil, err
	}
	s.loaded[name] = g
	return g, nil
}

// judged is what the plugin made of one record.
type judged struct {
	verdict abi.Verdict
	fault   *plugins.Fault // the plugin failed at the record; then there is no verdict
	fuel    uint64
	printed []byte
}

// judge gives record i of a frame to the plugin, alone under the frame's header, as a broker does that was resumed there.
// What it answers must not depend on that, and the conformance kit sees to it.
func (g *stage) judge(ctx context.Context, records []abi.Record, i int) (judged, error) {
	frame := &abi.Frame{
		BaseOffset: records[0].Offset, BaseTimestamp: records[0].Timestamp, Projection: g.Projection(), Records: records[i : i+1],
	}
	answer := new(abi.Answer) // The verdict points into it.
	g.printed = nil
	var j judged
	var err error
	if j.fuel, err = g.Judge(ctx, frame, answer); err != nil && !errors.As(err, &j.fault) {
		return j, err
	}
	if j.fault == nil {
		j.verdict = answer.Verdicts[0]
	}
	j.printed = g.printed
	return j, nil
}

// text describes a judgement as a line of a .want file does.
func (j *judged) text() string {
	if j.fault != nil {
		return "failed: " + j.fault.Reason.String()
	}
	s := j.verdict.Kind.String()
	if j.verdict.Unique != abi.NotUnique {
		s += fmt.Sprintf(" unique by %q", j.verdict.ID)
	}
	switch j.verdict.Kind {
	case abi.Replace:
		s += fmt.Sprintf(" %s=%s", j.verdict.Output.Key, j.verdict.Output.Value)
	case abi.DeadLetter:
		s += ": "
		if j.verdict.Output != nil {
			s += j.verdict.Output.Text
		}
	case abi.Pass, abi.Drop:
	}
	return s
}

// abiRecord is a record from outside as a plugin is given it.
func abiRecord(line *jsonRecord, offset int64) abi.Record {
	r := abi.Record{Offset: offset, Key: orNil(line.Key), Value: orNil(line.Value)}
	if line.Timestamp != nil {
		r.Timestamp = *line.Timestamp
	}
	if len(line.Headers) > 0 {
		var headers []abi.Header
		for _, h := range line.Headers {
			headers = append(headers, abi.Header{Key: []byte(h.Key), Value: orNil(h.Value)})
		}
		r.Headers = abi.AppendHeaders(nil, headers)
	}
	return r
}
