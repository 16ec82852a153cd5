package raftctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/guest"
)

func (c *cli) pluginNew() *cobra.Command {
	spec := guest.Spec{}
	cmd := &cobra.Command{
		Use:   "new NAME [--kind dedup|filter|map] [--lang go|c]",
		Short: "Write a new plugin project into a folder of that name",
		Args:  exactly("NAME"),
	}
	cmd.Flags().StringVar(&spec.Kind, "kind", "dedup", strings.Join(guest.Kinds(), ", "))
	cmd.Flags().StringVar(&spec.Language, "lang", "go", strings.Join(guest.Languages(), ", "))
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		spec.Name = args[0]
		files, err := guest.Render(spec)
		if err != nil {
			return usageError("plugin new: %w", err)
		}
		if _, err := os.Stat(spec.Name); !errors.Is(err, fs.ErrNotExist) {
			return usageError("plugin new: %s exists already: choose another name, or remove it", spec.Name)
		}
		t := &table{columns: []string{"file"}}
		names := slices.Sorted(maps.Keys(files))
		for _, name := range names {
			path := filepath.Join(spec.Name, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, files[name], 0o644); err != nil {
				return err
			}
			t.add(path)
		}
		if err := c.showValue(map[string]any{"project": spec.Name, "files": names}, t); err != nil {
			return err
		}
		c.say("next: cd %s && raftctl plugin test", spec.Name)
		return nil
	}
	return cmd
}

func (c *cli) pluginBuild() *cobra.Command {
	return &cobra.Command{
		Use:   "build [DIR]",
		Short: "Compile the plugin in a folder to plugin.wasm",
		Args:  atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := projectDir(args)
			if err := c.build(cmd.Context(), dir); err != nil {
				return err
			}
			info, err := os.Stat(filepath.Join(dir, moduleName))
			if err != nil {
				return err
			}
			return c.showValue(map[string]any{"module": info.Name(), "bytes": info.Size()},
				&table{columns: []string{"module", "size"}, rows: [][]any{{filepath.Join(dir, info.Name()), bytesText(info.Size())}}})
		},
	}
}

// manifest reads the manifest of a project.
func readManifest(dir string) (*plugins.Manifest, error) {
	text, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return nil, usageError("%w: run this in a plugin's folder, or name one; `raftctl plugin new NAME` makes one", err)
	}
	manifest, err := plugins.ParseManifest(text)
	if err != nil {
		return nil, usageError("%w", err)
	}
	return manifest, nil
}

// build compiles a project with its language's tools. A missing tool is named with the line that installs it.
func (c *cli) build(ctx context.Context, dir string) error {
	manifest, err := readManifest(dir)
	if err != nil {
		return err
	}
	command, environment, err := compiler(ctx, dir, manifest.Language)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), environment...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	stop := c.progress("compiling, seconds", secondsSince(c))
	err = cmd.Run()
	stop()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, strings.TrimSpace(output.String()))
	}
	return nil
}

func secondsSince(c *cli) func() int {
	started := c.now()
	return func() int { return int(c.now().Sub(started).Seconds()) }
}

// compiler returns the command that makes plugin.wasm, or an error that says what to install.
func compiler(ctx context.Context, dir, language string) (command, environment []string, err error) {
	switch language {
	case "go":
		if _, err := exec.LookPath("go"); err != nil {
			return nil, nil, usageError("compiling this plugin needs Go 1.24 or newer: install it from go.dev/dl, then try again")
		}
		return []string{"go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", moduleName, "."}, []string{"GOOS=wasip1", "GOARCH=wasm"}, nil
	case "c":
		if _, err := exec.LookPath("make"); err != nil {
			return nil, nil, usageError("compiling this plugin needs make: install it, then try again")
		}
		cc := compilerOfC(ctx, dir)
		if cc == "" {
			return nil, nil, usageError("compiling this plugin needs zig: `python3 -m venv .venv && .venv/bin/pip install ziglang==0.17.1` in %s, then try again", dir)
		}
		return []string{"make", "-s", "CC=" + cc}, nil, nil
	}
	return nil, nil, usageError("raftctl compiles go and c, not %q: make plugin.wasm yourself, and give --no-build to test and push", language)
}

// compilerOfC returns a C compiler for WebAssembly as a Makefile names it: zig, or clang with its linker; "" is none.
func compilerOfC(ctx context.Context, dir string) string {
	for _, zig := range [][]string{{".venv/bin/python", "-m", "ziglang"}, {"zig"}, {"python3", "-m", "ziglang"}} {
		probe := exec.CommandContext(ctx, zig[0], append(slices.Clone(zig[1:]), "version")...)
		probe.Dir = dir
		if probe.Run() == nil {
			return strings.Join(zig, " ") + " cc --target=wasm32-freestanding"
		}
	}
	_, clang := exec.LookPath("clang")
	_, linker := exec.LookPath("wasm-ld")
	if clang == nil && linker == nil {
		return "clang --target=wasm32"
	}
	return ""
}
