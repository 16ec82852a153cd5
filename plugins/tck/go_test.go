package tck

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/engine"
	"github.com/millrace-io/millrace/plugins/guest"
)

// buildGo renders a project outside of this module, with other files in place of its own where given, and builds it.
func buildGo(t *testing.T, s guest.Spec, replace map[string][]byte) (manifest *plugins.Manifest, module []byte) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a plugin")
	}
	files, err := guest.Render(s)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range replace {
		files[name] = content
	}
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", "plugin.wasm", ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if module, err = os.ReadFile(filepath.Join(dir, "plugin.wasm")); err != nil {
		t.Fatal(err)
	}
	if manifest, err = plugins.ParseManifest(files["plugin.yaml"]); err != nil {
		t.Fatal(err)
	}
	return manifest, module
}

func TestAGoPluginAnswersItsCasesAndConforms(t *testing.T) {
	m, module := buildGo(t, guest.Spec{Name: "reshape", Kind: "map", Language: "go"}, nil)
	metered := admit(t, module, m.Limits())
	e := newEngine(t)
	results, err := RunCases(t.Context(), m, Modules(e, m, metered))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if !r.Passed {
			t.Errorf("%s: record %d: %s, want %s", r.Case, r.Record, r.Got, r.Want)
		}
	}
	report, err := Conform(t.Context(), load(t, e, metered, stageConfig(m, nil)), shuffled(1), 1)
	if err != nil {
		t.Fatal(err)
	}
	if report.Faults != 0 || report.FrameFaults != 0 {
		t.Errorf("%+v", report)
	}
	t.Logf("fuel p50 %d, most %d", report.FuelAt(0.5), report.FuelAt(1))
}

// Mutant: an engine that skips the image restore. Every frame must begin alike, so the first record of each frame gets
// one answer, whatever was judged before.
func TestAGoPluginThatRemembersIsMadeToForget(t *testing.T) {
	source, err := os.ReadFile("testdata/maporder/main.go")
	if err != nil {
		t.Fatal(err)
	}
	m, module := buildGo(t, guest.Spec{Name: "maporder", Kind: "map", Language: "go"},
		map[string][]byte{"main.go": source})
	m.Projection = 0
	g := load(t, newEngine(t), admit(t, module, m.Limits()), engine.StageConfig{Limits: m.Limits()})
	records := shuffled(1)
	var want string
	for n := range 12 {
		var answer abi.Answer
		if _, err := g.Judge(t.Context(), part(g, records, n, min(len(records), n+1+n*n)), &answer); err != nil {
			t.Fatal(err)
		}
		if got := string(answer.Verdicts[0].Output.Key); want == "" {
			want = got
		} else if got != want {
			t.Fatalf("frame %d is answered %q, the first %q", n, got, want)
		}
	}
	// Within a frame it does remember, which is what the kit is for.
	if _, err := Conform(t.Context(), g, records, 1); err == nil {
		t.Error("the kit lets a guest pass that counts its calls within a frame")
	}
}
