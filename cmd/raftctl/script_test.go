package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/millrace-io/millrace/raftctl"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"raftctl": func() { os.Exit(raftctl.Main()) }})
}

// The scripts run raftctl with real brokers: whole clusters, as an operator has them.
func TestScriptsWithBrokers(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the broker and runs three of them")
	}
	millrace := filepath.Join(t.TempDir(), "millrace")
	if out, err := exec.Command("go", "build", "-o", millrace, "../millrace").CombinedOutput(); err != nil {
		t.Fatalf("build the broker: %v\n%s", err, out)
	}
	scripts, err := filepath.Glob(filepath.Join("testdata", "script", "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	// One at a time: each starts a whole cluster, and two that look for free ports side by side find the same ones.
	for _, script := range scripts {
		t.Run(filepath.Base(script), func(t *testing.T) { runScript(t, millrace, script) })
	}
}

func runScript(t *testing.T, millrace, script string) {
	testscript.Run(t, testscript.Params{
		Files: []string{script},
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("PATH", filepath.Dir(millrace)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Defer(func() { // A script that failed leaves no process behind.
				reset := exec.Command("raftctl", "dev", "reset", "--yes")
				reset.Env = env.Vars
				if out, err := reset.CombinedOutput(); err != nil {
					t.Logf("%v\n%s", err, out)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits CODE PROGRAM ARG... runs a program that must end with the exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = strconv.Itoa(exit.ExitCode())
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}
