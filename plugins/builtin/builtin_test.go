package builtin

import (
	"encoding/hex"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/meter"
)

func open(t testing.TB, name string) *Plugin {
	t.Helper()
	p, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDigestsAreThoseOfTheModules(t *testing.T) {
	sums, err := os.ReadFile("SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(sums), "\n"); got != len(Names()) {
		t.Errorf("%d digests, %d plugins", got, len(Names()))
	}
	for _, name := range Names() {
		p := open(t, name)
		if line := hex.EncodeToString(p.SHA256[:]) + " " + name + ".wasm\n"; !strings.Contains(strings.ReplaceAll(string(sums), "  ", " "), line) {
			t.Errorf("%s: SHA256SUMS has no %s", name, line)
		}
	}
}

func TestModulesAreWhatTheirSourcesBuild(t *testing.T) {
	if os.Getenv("MILLRACE_BUILD_BUILTINS") == "" {
		t.Skip("needs a compiler from PyPI: set MILLRACE_BUILD_BUILTINS=1, or run build.sh check")
	}
	if out, err := exec.Command("./build.sh", "check").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestEveryBuiltinIsAdmittedUnderItsOwnName(t *testing.T) {
	for _, name := range Names() {
		p := open(t, name)
		if p.Manifest.Name != name || p.Manifest.Language != "c" || len(p.Manifest.Cases) == 0 {
			t.Errorf("%s: manifest %+v", name, p.Manifest)
		}
		_, info, err := meter.Admit(p.Module, p.Manifest.Limits())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(info.Imports) != 0 || info.HasConfigure != (p.Manifest.ConfigSchema != nil) {
			t.Errorf("%s: %+v", name, info)
		}
		room := uint32(7)
		if name == "redact" { // what comes out of a frame is as large as what goes in
			room = 14
		}
		if info.MemoryMin > room*plugins.PageBytes {
			t.Errorf("%s: %d bytes of memory to restore before each frame", name, info.MemoryMin)
		}
	}
	if _, err := Open("dedup"); err == nil || !strings.Contains(err.Error(), "dedup-key") {
		t.Errorf("an unknown name: %v", err)
	}
}
