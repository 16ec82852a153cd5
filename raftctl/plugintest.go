package raftctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/tck"
)

// testdataName is the folder of a project with NAME.ndjson, NAME.want and, where the plugin is configured, NAME.config.json.
const testdataName = "testdata"

func (c *cli) pluginTest() *cobra.Command {
	var update, noBuild bool
	var seed uint64
	cmd := &cobra.Command{
		Use:   "test [DIR] [--update]",
		Short: "Build a plugin and try it in the broker's engine, without a cluster",
		Long: "Build a plugin and try it in the broker's engine, without a cluster: the cases of plugin.yaml, the records of\n" +
			"testdata/*.ndjson against testdata/*.want, and whether the same record always gets the same answer however\n" +
			"frames are cut and whatever came before.",
		Args: atMost(1),
	}
	cmd.Flags().BoolVar(&update, "update", false, "write what the plugin answers to testdata/*.want")
	cmd.Flags().BoolVar(&noBuild, "no-build", false, "test plugin.wasm as it lies")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "of the random cuts and histories")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.testPlugin(cmd.Context(), projectDir(args), testOptions{update: update, noBuild: noBuild, seed: seed})
	}
	return cmd
}

type testOptions struct {
	update, noBuild bool
	seed            uint64
}

// buildModule builds the project in dir, unless it is to be taken as it lies, and reads manifest and module.
func (c *cli) buildModule(ctx context.Context, dir string, asItLies bool) (*plugins.Manifest, []byte, error) {
	manifest, err := readManifest(dir)
	if err != nil {
		return nil, nil, err
	}
	if !asItLies {
		if err := c.build(ctx, dir); err != nil {
			return nil, nil, err
		}
	}
	module, err := os.ReadFile(filepath.Join(dir, moduleName))
	if err != nil {
		return nil, nil, usageError("%w: `raftctl plugin build` makes it", err)
	}
	return manifest, module, nil
}

func (c *cli) testPlugin(ctx context.Context, dir string, options testOptions) (err error) {
	manifest, module, err := c.buildModule(ctx, dir, options.noBuild)
	if err != nil {
		return err
	}
	stop := c.progress("testing, seconds", secondsSince(c))
	defer stop()
	s, err := c.openSandbox(ctx, manifest, module)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(ctx)) }()
	t := &pluginTester{sandbox: s, dir: dir, options: options, report: testReport{
		Plugin: manifest.Name, Version: manifest.Version, ModuleBytes: len(module), MeteredBytes: len(s.metered),
		RecordFuel: manifest.Limits().RecordFuel, MemoryBytes: s.info.MemoryMin, MemoryBytesMax: s.info.MemoryMax,
	}}
	if err := t.run(ctx); err != nil {
		return err
	}
	stop()
	return c.showTest(&t.report)
}

// testReport is what a run of `plugin test` found.
type testReport struct {
	Plugin         string     `json:"plugin"`
	Version        string     `json:"version"`
	Passed         bool       `json:"passed"`
	Cases          []testCase `json:"cases"`
	Conformance    conformity `json:"conformance"`
	FuelMax        uint64     `json:"fuel_max"` // of a record judged alone
	FuelP99        uint64     `json:"fuel_p99"`
	RecordFuel     uint64     `json:"record_fuel"` // what a record may use
	ModuleBytes    int        `json:"module_bytes"`
	MeteredBytes   int        `json:"metered_bytes"`
	MemoryBytes    uint32     `json:"memory_bytes"` // when the module comes up
	MemoryBytesMax uint32     `json:"memory_bytes_max"`
}

// testCase is a case of the manifest, or a pair of files.
type testCase struct {
	Name    string       `json:"name"`
	Source  string       `json:"source"` // plugin.yaml, or the file with the records
	Passed  bool         `json:"passed"`
	Updated bool         `json:"updated,omitempty"`
	Error   string       `json:"error,omitempty"` // the case could not be run
	Records []testRecord `json:"records"`
	diff    string
}

type testRecord struct {
	Got    string `json:"got"`
	Passed bool   `json:"passed"`
	Fuel   uint64 `json:"fuel"`
	Error  string `json:"error,omitempty"` // the plugin failed here
	Stderr string `json:"stderr,omitempty"`
}

// conformity is what the conformance kit found.
type conformity struct {
	Frames int    `json:"frames"`
	Error  string `json:"error,omitempty"`
}

// pluginTester runs the tests of one project.
type pluginTester struct {
	sandbox *sandbox
	dir     string
	options testOptions
	fuel    []uint64
	report  testReport
}

// testInput is records under a configuration, from a case or a file.
type testInput struct {
	config  []byte
	records []abi.Record
}

func (t *pluginTester) run(ctx context.Context) error {
	var inputs []testInput
	for i := range t.sandbox.manifest.Cases {
		example := &t.sandbox.manifest.Cases[i]
		result, err := t.example(ctx, example)
		if err != nil {
			return err
		}
		inputs = append(inputs, testInput{config: example.Config, records: tck.CaseRecords(example)})
		t.report.Cases = append(t.report.Cases, result)
	}
	names, err := filepath.Glob(filepath.Join(t.dir, testdataName, "*.ndjson"))
	if err != nil {
		return err
	}
	for _, name := range names {
		result, input, err := t.file(ctx, strings.TrimSuffix(name, ".ndjson"))
		if err != nil {
			return err
		}
		inputs = append(inputs, input)
		t.report.Cases = append(t.report.Cases, result)
	}
	if len(t.report.Cases) == 0 {
		return usageError("%s has no cases, and there is no %s: there is nothing to test", manifestName, filepath.Join(t.dir, testdataName, "*.ndjson"))
	}
	if err := t.conform(ctx, inputs); err != nil {
		return err
	}
	t.sum()
	return nil
}

func (t *pluginTester) sum() {
	slices.Sort(t.fuel)
	if n := len(t.fuel); n > 0 {
		t.report.FuelMax, t.report.FuelP99 = t.fuel[n-1], t.fuel[(n*99+99)/100-1]
	}
	t.report.Passed = t.report.Conformance.Error == "" && !slices.ContainsFunc(t.report.Cases, func(c testCase) bool { return !c.Passed })
}

// example runs a case of the manifest.
func (t *pluginTester) example(ctx context.Context, example *plugins.Case) (testCase, error) {
	result := testCase{Name: example.Name, Source: manifestName, Passed: true}
	manifest := *t.sandbox.manifest
	manifest.Cases = []plugins.Case{*example}
	var g *stage
	load := func(ctx context.Context, config []byte) (tck.Guest, func(), error) {
		var err error
		g, err = t.sandbox.stage(ctx, config)
		return g, func() {}, err
	}
	records, err := tck.RunCases(ctx, &manifest, load)
	if ctx.Err() != nil {
		return result, ctx.Err()
	}
	if err != nil {
		result.Passed, result.Error = false, err.Error()
		return result, nil
	}
	var want, got strings.Builder
	for _, r := range records {
		record := testRecord{Got: r.Got, Passed: r.Passed, Fuel: r.Fuel}
		if r.Failure != nil {
			record.Error, record.Stderr = r.Failure.Error(), string(r.Failure.Stderr)
		}
		result.Passed = result.Passed && r.Passed
		result.Records = append(result.Records, record)
		t.fuel = append(t.fuel, r.Fuel)
		fmt.Fprintf(&want, "%d %s\n", r.Record, r.Want)
		fmt.Fprintf(&got, "%d %s\n", r.Record, r.Got)
	}
	result.diff = string(diff.Diff("want", []byte(want.String()), "got", []byte(got.String())))
	return result, nil
}

// file judges the records of a file and holds the answers against the file of what is wanted.
func (t *pluginTester) file(ctx context.Context, stem string) (testCase, testInput, error) {
	result := testCase{Name: filepath.Base(stem), Source: filepath.ToSlash(filepath.Join(testdataName, filepath.Base(stem)+".ndjson")), Passed: true}
	input, err := readInput(stem)
	if err != nil {
		return result, input, err
	}
	g, err := t.sandbox.stage(ctx, input.config)
	if ctx.Err() != nil {
		return result, input, ctx.Err()
	}
	if err != nil {
		result.Passed, result.Error = false, err.Error()
		return result, input, nil
	}
	var got bytes.Buffer
	for i := range input.records {
		j, err := g.judge(ctx, input.records, i)
		if err != nil {
			return result, input, err
		}
		record := testRecord{Got: j.text(), Fuel: j.fuel, Stderr: string(j.printed)}
		if j.fault != nil {
			record.Error = j.fault.Error()
		}
		fmt.Fprintf(&got, "%d %s\n", i, record.Got)
		t.fuel = append(t.fuel, j.fuel)
		result.Records = append(result.Records, record)
	}
	return result, input, t.compare(&result, stem+".want", got.Bytes())
}

// compare holds what was answered against the file of what is wanted, or writes that file.
func (t *pluginTester) compare(result *testCase, name string, got []byte) error {
	want, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if t.options.update && (err != nil || !bytes.Equal(want, got)) {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			return err
		}
		want, err, result.Updated = got, nil, true
	}
	if err != nil {
		result.Passed, result.Error = false, fmt.Sprintf("%s is missing: `raftctl plugin test --update` writes it", filepath.Base(name))
		return nil
	}
	wanted := strings.SplitAfter(string(want), "\n")
	lines := strings.SplitAfter(string(got), "\n")
	for i := range result.Records {
		result.Records[i].Passed = i < len(wanted) && wanted[i] == lines[i]
	}
	result.Passed = bytes.Equal(want, got)
	result.diff = string(diff.Diff("want", want, "got", got))
	return nil
}

// readInput reads the records and the configuration of a pair of files.
func readInput(stem string) (testInput, error) {
	var input testInput
	config, err := os.ReadFile(stem + ".config.json")
	switch {
	case err == nil:
		input.config = bytes.TrimSpace(config)
	case !errors.Is(err, fs.ErrNotExist):
		return input, err
	}
	file, err := os.Open(stem + ".ndjson")
	if err != nil {
		return input, err
	}
	err = eachLine(file, func(number int, text []byte) error {
		if len(bytes.TrimSpace(text)) == 0 {
			return nil
		}
		line, err := parseJSON(text)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", file.Name(), number, err)
		}
		input.records = append(input.records, abiRecord(line, int64(len(input.records))))
		return nil
	})
	return input, errors.Join(err, file.Close())
}

// conform runs the conformance kit over the records of every input, and over odd ones under every configuration that
// an input has.
func (t *pluginTester) conform(ctx context.Context, inputs []testInput) error {
	odd := map[string]bool{}
	for _, input := range inputs {
		g, err := t.sandbox.stage(ctx, input.config)
		if err != nil {
			continue // The case says so.
		}
		runs := [][]abi.Record{input.records}
		if name := string(input.config); !odd[name] {
			odd[name] = true
			runs = append(runs, tck.OddRecords())
		}
		for _, records := range runs {
			report, err := tck.Conform(ctx, g, records, t.options.seed)
			t.report.Conformance.Frames += report.Frames
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				t.report.Conformance.Error = err.Error()
				return nil
			}
		}
	}
	return nil
}
