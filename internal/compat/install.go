package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace-io/millrace/internal/process"
)

// installTimeout bounds one installation.
const installTimeout = 5 * time.Minute

// skipped says why something was not run. It is an error so that it cannot get lost on the way to the report.
type skipped string

func (s skipped) Error() string { return string(s) }

// workshop is where clients are installed, once: below bin/compat of the repository, or where it is said.
type workshop struct {
	root string // of the repository
	home string
}

func newWorkshop(ctx context.Context, home string) (workshop, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return workshop{}, fmt.Errorf("find the repository: %w", err)
	}
	w := workshop{root: strings.TrimSpace(string(out)), home: home}
	if w.home == "" {
		w.home = filepath.Join(w.root, "bin", "compat")
	}
	return w, os.MkdirAll(w.bin(), 0o755)
}

// commit names what the broker is built from, with a plus sign where there is more than is committed.
func (w workshop) commit(ctx context.Context) string {
	git := func(arguments ...string) string {
		cmd := exec.CommandContext(ctx, "git", arguments...)
		cmd.Dir = w.root
		out, err := cmd.Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	name := git("rev-parse", "--short=10", "HEAD")
	if git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs") != "" {
		name += "+"
	}
	return name
}

func (w workshop) bin(names ...string) string {
	return filepath.Join(append([]string{w.home}, names...)...)
}

func (w workshop) source(names ...string) string {
	return filepath.Join(append([]string{w.root, "internal", "compat", "clients"}, names...)...)
}

// installer brings a client here and returns the command of its driver.
type installer func(ctx context.Context, w workshop) ([]string, error)

// debian installs kcat with apt, which needs root.
func debian(ctx context.Context, w workshop) ([]string, error) {
	command := []string{"bash", w.source("kcat", "driver.sh")}
	if _, err := exec.LookPath("kcat"); err == nil {
		return command, nil
	}
	if os.Geteuid() != 0 {
		return nil, skipped("kcat is not installed, and apt-get needs root")
	}
	return command, shell(ctx, w.root, "apt-get", "install", "-y", "-q", "kcat")
}

// python installs packages from PyPI into a virtual environment of their own.
func python(name, program string, packages ...string) installer {
	return func(ctx context.Context, w workshop) ([]string, error) {
		home := w.bin(name)
		interpreter := filepath.Join(home, "bin", "python")
		command := []string{interpreter, "-B", w.source("python", program)}
		return command, process.Once(home, strings.Join(packages, " "), func() error {
			if err := shell(ctx, w.root, "python3", "-m", "venv", "--clear", home); err != nil {
				return err
			}
			return shell(ctx, w.root, interpreter, append([]string{"-m", "pip", "install", "-q", "--disable-pip-version-check"}, packages...)...)
		})
	}
}

// npm installs packages into a folder and copies the driver beside them, where node looks for them.
func npm(name, program string, packages ...string) installer {
	return func(ctx context.Context, w workshop) ([]string, error) {
		home := w.bin(name)
		target := filepath.Join(home, filepath.Base(program))
		err := process.Once(home, strings.Join(packages, " "), func() error {
			return shell(ctx, w.root, "npm", append([]string{"install", "--silent", "--no-audit", "--no-fund", "--prefix", home}, packages...)...)
		})
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(w.source(program))
		if err != nil {
			return nil, err
		}
		return []string{"node", target}, os.WriteFile(target, text, 0o644)
	}
}

// golang builds a command of the module clients/go, whose go.mod pins the clients.
func golang(name string) installer {
	return func(ctx context.Context, w workshop) ([]string, error) {
		target := w.bin(name + "-driver")
		return []string{target}, shell(ctx, w.source("go"), "go", "build", "-buildvcs=false", "-o", target, "./"+name)
	}
}

// shell runs a command; a tool that is missing or fails is a reason to skip.
func shell(ctx context.Context, dir, name string, arguments ...string) error {
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return skipped(fmt.Sprintf("%s %s: %v: %s", name, arguments[0], err, lines[len(lines)-1]))
	}
	return nil
}
