package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// installWithin bounds bringing one system here.
const installWithin = 10 * time.Minute

// workshop is where brokers are built and installed, once, below bin/bench of the repository, and where they run.
type workshop struct {
	root string // of the repository
	runs string // data and logs of this run
}

func newWorkshop(ctx context.Context, runs string) (workshop, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/millrace-io/millrace").Output()
	if err != nil {
		return workshop{}, fmt.Errorf("find the repository: run this inside of it: %w", err)
	}
	w := workshop{root: strings.TrimSpace(string(out)), runs: runs}
	return w, os.MkdirAll(w.bin(), 0o755)
}

func (w workshop) bin(names ...string) string {
	return filepath.Join(append([]string{w.root, "bin", "bench"}, names...)...)
}

// log is the file of a system's output.
func (w workshop) log(name string) string { return filepath.Join(w.runs, name+".log") }

// data is the directory of a system's data.
func (w workshop) data(name string) string { return filepath.Join(w.runs, name) }

// command runs a tool in dir; what is missing is said with what it is for.
func (w workshop) command(ctx context.Context, dir, what, name string, arguments ...string) error {
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("%s needs %s, which is not on PATH", what, name)
	}
	ctx, cancel := context.WithTimeout(ctx, installWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %s: %w\n%s", what, strings.Join(cmd.Args, " "), err, out[max(0, len(out)-2000):])
	}
	return nil
}

// build compiles a package in dir.
func (w workshop) build(ctx context.Context, dir, output, pkg string) error {
	return w.command(ctx, dir, "building "+filepath.Base(output), "go", "build", "-buildvcs=false", "-o", output, pkg)
}
