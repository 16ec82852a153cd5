package tidy

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// pure lists the cores: values that take an event and the time and return effects.
var pure = map[string]bool{
	"broker/partition": true, "broker/producer": true, "broker/metadata": true, "broker/controller": true,
	"broker/reconcile": true, "broker/group": true, "plugins/chain": true, "plugins/window": true,
}

// impure names what a core may not import, and why.
var impure = map[string]string{
	"os": "files", "net": "sockets", "net/http": "sockets", "sync": "locks", "sync/atomic": "shared state",
	"math/rand": "random", "math/rand/v2": "random", "crypto/rand": "random", "log": "logging", "log/slog": "logging",
	"github.com/rs/zerolog": "logging", "context": "cancellation", "os/signal": "signals", "runtime": "the scheduler",
}

// clocks are the functions of package time that read or wait for one.
var clocks = map[string]bool{
	"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true, "Tick": true,
	"NewTimer": true, "NewTicker": true,
}

func TestCoresArePure(t *testing.T) {
	seen := 0
	for _, room := range rooms(t) {
		if !pure[room.path] {
			continue
		}
		seen++
		for _, file := range room.files {
			for _, path := range file.imports() {
				if why, bad := impure[path]; bad {
					t.Errorf("%s imports %s (%s): a core takes these as arguments", file.name, path, why)
				}
				if strings.HasPrefix(path, module+"/internal/vfs") || strings.HasPrefix(path, module+"/internal/task") {
					t.Errorf("%s imports %s: a core has no files and no goroutines", file.name, path)
				}
			}
			checkPure(t, file)
		}
	}
	if seen == 0 {
		t.Error("no core was found: the list is out of date")
	}
}

func checkPure(t *testing.T, file *source) {
	ast.Inspect(file.ast, func(node ast.Node) bool {
		what := ""
		switch n := node.(type) {
		case *ast.GoStmt:
			what = "starts a goroutine"
		case *ast.ChanType:
			what = "uses a channel"
		case *ast.SelectStmt:
			what = "selects"
		case *ast.SendStmt:
			what = "sends on a channel"
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok && pkg.Name == "time" && clocks[n.Sel.Name] {
				what = "reads the clock"
			}
		}
		if what != "" {
			t.Errorf("%s: a core %s", file.set.Position(node.Pos()), what)
		}
		return true
	})
}

// TestNoPackageStartsByItself leaves out plugins: a guest has no main to set it up, only its start function.
func TestNoPackageStartsByItself(t *testing.T) {
	for _, room := range rooms(t) {
		for _, file := range room.files {
			if slices.Contains(file.imports(), module+"/plugins/guest/go") {
				continue
			}
			for _, decl := range file.ast.Decls {
				if d, ok := decl.(*ast.FuncDecl); ok && d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%s: init runs unasked: pass what it sets up as an argument", file.set.Position(d.Pos()))
				}
			}
		}
	}
}

// junk are package names that say nothing about what is inside.
var junk = []string{"util", "utils", "common", "helper", "helpers", "base", "types", "manager", "service", "impl", "misc"}

func TestPackageNamesSayWhatIsInside(t *testing.T) {
	for _, room := range rooms(t) {
		for _, name := range junk {
			if room.files[0].ast.Name.Name == name {
				t.Errorf("%s: %q says nothing about what is inside", room.path, name)
			}
		}
	}
}
