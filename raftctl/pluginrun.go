package raftctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// jsonVerdict is a verdict as a line of JSON.
type jsonVerdict struct {
	Record  int         `json:"record"` // counted from 0
	Verdict string      `json:"verdict"`
	ID      *jsonBytes  `json:"id,omitempty"` // unique by it
	ByKey   bool        `json:"id_is_key,omitempty"`
	Output  *jsonRecord `json:"output,omitempty"` // of replace
	Text    string      `json:"text,omitempty"`   // of dead-letter
	Code    uint32      `json:"code,omitempty"`
	Fuel    uint64      `json:"fuel"`
	Error   *jsonFault  `json:"error,omitempty"` // with the verdict "failed"
	Stderr  string      `json:"stderr,omitempty"`
}

type jsonFault struct {
	Reason string `json:"reason"`
	Text   string `json:"text"`
}

func (j *judged) json(record int) jsonVerdict {
	line := jsonVerdict{Record: record, Fuel: j.fuel, Stderr: string(j.printed)}
	if j.fault != nil {
		line.Verdict, line.Error = "failed", &jsonFault{Reason: j.fault.Reason.String(), Text: j.fault.Text}
		return line
	}
	v := &j.verdict
	line.Verdict, line.Code = v.Kind.String(), v.Code
	if v.Unique != abi.NotUnique {
		line.ID, line.ByKey = orNull(v.ID), v.Unique == abi.UniqueByKey
	}
	if v.Output == nil {
		return line
	}
	if v.Kind == abi.DeadLetter {
		line.Text = v.Output.Text
		return line
	}
	line.Output = &jsonRecord{Key: orNull(v.Output.Key), Value: orNull(v.Output.Value)}
	for h, err := range abi.Headers(v.Output.Headers) {
		if err != nil {
			break // Read checked them already.
		}
		line.Output.Headers = append(line.Output.Headers, jsonHeader{Key: jsonBytes(h.Key), Value: orNull(h.Value)})
	}
	return line
}

func (c *cli) pluginRun() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "run MODULE.wasm|DIR [--config JSON|@FILE]",
		Short: "Judge records from standard input in the broker's engine, without a cluster",
		Long: "Judge records from standard input, a line of JSON each as `consume -o ndjson` prints them, and print a line of JSON\n" +
			"for each verdict. A folder is built first. A module without plugin.yaml beside it is given every part of the\n" +
			"records and the default limits. The exit code is 1 if the plugin failed at a record.",
		Args: exactly("MODULE.wasm|DIR"),
	}
	cmd.Flags().StringVar(&config, "config", "", "the plugin's configuration: JSON, or @FILE")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		manifest, module, err := c.moduleAt(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		given, err := configBytes(config)
		if err != nil {
			return err
		}
		return c.runPlugin(cmd.Context(), manifest, module, given)
	}
	return cmd
}

// configBytes reads the value of --config; nil is none.
func configBytes(value string) ([]byte, error) {
	name, isFile := strings.CutPrefix(value, "@")
	switch {
	case value == "":
		return nil, nil
	case !isFile:
		return []byte(value), nil
	}
	config, err := os.ReadFile(name)
	if err != nil {
		return nil, usageError("--config: %w", err)
	}
	return config, nil
}

// moduleAt reads a module with its manifest; a project is built first.
func (c *cli) moduleAt(ctx context.Context, name string) (*plugins.Manifest, []byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, nil, usageError("plugin run: %w", err)
	}
	if info.IsDir() {
		return c.buildModule(ctx, name, false)
	}
	module, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, usageError("plugin run: %w", err)
	}
	dir := filepath.Dir(name)
	if _, err := os.Stat(filepath.Join(dir, manifestName)); errors.Is(err, fs.ErrNotExist) {
		every := plugins.ProjectKey | plugins.ProjectValue | plugins.ProjectHeaders
		return &plugins.Manifest{Name: filepath.Base(name), ABI: abi.Version, Projection: every, ConfigSchema: []byte("{}")}, module, nil
	}
	manifest, err := readManifest(dir)
	return manifest, module, err
}

func (c *cli) runPlugin(ctx context.Context, manifest *plugins.Manifest, module, config []byte) (err error) {
	s, err := c.openSandbox(ctx, manifest, module)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(ctx)) }()
	g, err := s.stage(ctx, config)
	if err != nil {
		return err
	}
	failed, total := 0, 0
	err = c.lines(func(number int, text []byte) error {
		if len(bytes.TrimSpace(text)) == 0 {
			return nil
		}
		line, err := parseJSON(text)
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		offset := int64(total)
		if line.Offset != nil {
			offset = *line.Offset
		}
		j, err := g.judge(ctx, []abi.Record{abiRecord(line, offset)}, 0)
		if err != nil {
			return err
		}
		if j.fault != nil {
			failed++
		}
		total++
		return c.item(c.out, j.json(total-1))
	})
	if err == nil && failed > 0 {
		return fmt.Errorf("the plugin failed at %d of %s", failed, plural(total, "record"))
	}
	return err
}
