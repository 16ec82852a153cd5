package guest

import (
	"bytes"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func render(t *testing.T, s Spec) map[string][]byte {
	t.Helper()
	files, err := Render(s)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestEveryProjectHasWhatItNeeds(t *testing.T) {
	needs := map[string][]string{
		"go": {"plugin.yaml", "main.go", "main_test.go", "cases_test.go", "go.mod", "README.md", ".gitignore", "millrace/millrace.go", "millrace/native.go"},
		"c":  {"plugin.yaml", "main.c", "millrace.h", "Makefile", "README.md", ".gitignore"},
	}
	for _, language := range Languages() {
		for _, kind := range Kinds() {
			files := render(t, Spec{Name: "drop-dupes", Kind: kind, Language: language})
			for _, name := range needs[language] {
				if len(files[name]) == 0 {
					t.Errorf("%s %s has no %s", language, kind, name)
				}
			}
			for name, content := range files {
				if bytes.Contains(content, []byte("{{.")) || bytes.Contains(content, []byte("<no value>")) {
					t.Errorf("%s %s: %s is not rendered", language, kind, name)
				}
				if strings.HasSuffix(name, ".go") {
					if tidy, err := format.Source(content); err != nil || !bytes.Equal(tidy, content) {
						t.Errorf("%s %s: %s is not formatted: %v", language, kind, name, err)
					}
				}
			}
			if !bytes.Contains(files["plugin.yaml"], []byte("name: drop-dupes\n")) {
				t.Errorf("%s %s: the manifest has another name", language, kind)
			}
		}
	}
}

func TestRenderRefusesWhatItDoesNotKnow(t *testing.T) {
	good := Spec{Name: "a", Kind: "map", Language: "go"}
	for _, bad := range []Spec{
		{}, {Name: "A", Kind: good.Kind, Language: good.Language}, {Name: "-a", Kind: good.Kind, Language: good.Language},
		{Name: "../a", Kind: good.Kind, Language: good.Language}, {Name: strings.Repeat("a", 64), Kind: good.Kind, Language: good.Language},
		{Name: "a", Kind: "reduce", Language: "go"}, {Name: "a", Kind: "map", Language: "cobol"},
	} {
		if _, err := Render(bad); err == nil {
			t.Errorf("%+v is rendered", bad)
		}
	}
	render(t, good)
}

// project writes a rendered project to a folder outside of this module.
func project(t *testing.T, s Spec) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range render(t, s) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func goTool(t *testing.T, dir string, env []string, args ...string) {
	t.Helper()
	c := exec.Command("go", args...)
	c.Dir = dir
	// No module may be sought: the project has none but its own.
	c.Env = append(append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off"), env...)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// The C projects need a compiler from PyPI, which plugins/builtin/build.sh installs.
func TestACProjectAnswersItsCases(t *testing.T) {
	compiler, err := filepath.Abs("../../bin/zig/bin/python")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(compiler); err != nil {
		t.Skip("no C compiler for WebAssembly: run plugins/builtin/build.sh once")
	}
	for _, kind := range Kinds() {
		t.Run(kind, func(t *testing.T) {
			s := Spec{Name: "first-" + kind, Kind: kind, Language: "c"}
			dir := project(t, s)
			c := exec.Command("make", "CC="+compiler+" -m ziglang cc --target=wasm32-freestanding")
			c.Dir = dir
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("make: %v\n%s", err, out)
			}
			module, err := os.ReadFile(filepath.Join(dir, "plugin.wasm"))
			if err != nil {
				t.Fatal(err)
			}
			runCases(t, render(t, s)["plugin.yaml"], compile(t, module))
		})
	}
}

func TestAGoProjectBuildsAndPassesItsTestsAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("builds three plugins")
	}
	for _, kind := range Kinds() {
		t.Run(kind, func(t *testing.T) {
			dir := project(t, Spec{Name: "first-" + kind, Kind: kind, Language: "go"})
			goTool(t, dir, nil, "vet", "./...")
			goTool(t, dir, nil, "test", "./...")
			goTool(t, dir, []string{"GOOS=wasip1", "GOARCH=wasm"}, "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", "plugin.wasm", ".")
			module, err := os.ReadFile(filepath.Join(dir, "plugin.wasm"))
			if err != nil {
				t.Fatal(err)
			}
			for _, export := range []string{"memory", "_initialize", "millrace_abi_version", "millrace_alloc", "millrace_configure", "millrace_process"} {
				if !bytes.Contains(module, []byte(export)) {
					t.Errorf("no export %s", export)
				}
			}
			ready := compile(t, module)
			runCases(t, render(t, Spec{Name: "first-" + kind, Kind: kind, Language: "go"})["plugin.yaml"], ready)
			if kind == "map" {
				runLarge(t, ready)
			}
			t.Logf("module %d bytes, memory %d KiB", len(module), ready.start(t).module.Memory().Size()>>10)
		})
	}
}
