package raftctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// table is what a command shows a person. Columns marked wide appear only with -o wide.
type table struct {
	columns []string // a leading '+' marks a wide column
	rows    [][]any
}

func (t *table) add(cells ...any) { t.rows = append(t.rows, cells) }

func (t *table) print(w io.Writer, wide bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	line := func(cell func(i int) string) {
		var cells []string
		for i, column := range t.columns {
			if strings.HasPrefix(column, "+") && !wide {
				continue
			}
			cells = append(cells, cell(i))
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	line(func(i int) string { return strings.ToUpper(strings.TrimPrefix(t.columns[i], "+")) })
	for _, row := range t.rows {
		line(func(i int) string { return cellText(row[i]) })
	}
	return tw.Flush()
}

func cellText(cell any) string {
	switch v := cell.(type) {
	case string:
		if v == "" {
			return "-"
		}
		return printable(v)
	case []string:
		if len(v) == 0 {
			return "-"
		}
		return printable(strings.Join(v, ","))
	case []int32:
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(v), " ", ","), "[]")
	case bool:
		if v {
			return "yes"
		}
		return "no"
	}
	return fmt.Sprint(cell)
}

// printable quotes what would break a table, or what a terminal would obey: group and client ids are others' to choose.
func printable(text string) string {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r != ' ' && !strconv.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// The forms of output.
const (
	formTable  = "table"
	formWide   = "wide"
	formJSON   = "json"
	formYAML   = "yaml"
	formNDJSON = "ndjson"
)

func checkForm(form string) error {
	switch form {
	case formTable, formWide, formJSON, formYAML, formNDJSON:
		return nil
	}
	return usageError("-o %s: choose table, wide, json, yaml or ndjson", form)
}

// forPrograms reports whether the output is for a program: then standard output holds nothing but what was asked for.
func (c *cli) forPrograms() bool {
	return c.form == formJSON || c.form == formYAML || c.form == formNDJSON
}

// formAskedFor returns the form that a command line asks for, whatever else in it is not understood.
func formAskedFor(args []string) string {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	form := flags.StringP("output", "o", formTable, "")
	if err := flags.Parse(args); err != nil {
		return formTable
	}
	return *form
}

// show prints a message of the admin API, as tables or in a form for programs.
func (c *cli) show(message proto.Message, tables ...*table) error {
	if !c.forPrograms() {
		return c.printTables(tables)
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(message)
	if err != nil {
		return err
	}
	return c.structured(c.out, raw)
}

// showValue is show for values that are not messages of the admin API.
func (c *cli) showValue(value any, tables ...*table) error {
	if !c.forPrograms() {
		return c.printTables(tables)
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return c.structured(c.out, raw)
}

func (c *cli) printTables(tables []*table) error {
	for i, t := range tables {
		if i > 0 {
			fmt.Fprintln(c.out)
		}
		if err := t.print(c.out, c.form == formWide); err != nil {
			return err
		}
	}
	return nil
}

// item prints one value of a stream of them: a line of NDJSON, an indented JSON value, or a document of YAML.
func (c *cli) item(w io.Writer, value any) error {
	var raw bytes.Buffer
	encoder := json.NewEncoder(&raw)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	switch c.form {
	case formJSON:
		return c.structured(w, raw.Bytes())
	case formYAML:
		if _, err := io.WriteString(w, "---\n"); err != nil {
			return err
		}
		return c.structured(w, raw.Bytes())
	}
	_, err := w.Write(raw.Bytes()) // As it is: the order of fields is that of the Go types.
	return err
}

// structured prints JSON in the chosen form. The detour through a value makes the spacing stable.
func (c *cli) structured(w io.Writer, raw []byte) error {
	var value any
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return err
	}
	if c.form == formYAML {
		text, err := yaml.JSONToYAML(raw)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	if c.form == formJSON {
		encoder.SetIndent("", "  ")
	}
	return encoder.Encode(value)
}

// say prints a line for a person; programs that asked for JSON do not get it.
func (c *cli) say(format string, args ...any) {
	if !c.forPrograms() {
		fmt.Fprintf(c.out, format+"\n", args...)
	}
}

// bytesText prints a size for a person.
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, suffix := float64(n)/unit, "KMGTP"
	for value >= unit && len(suffix) > 1 {
		value, suffix = value/unit, suffix[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, suffix[0])
}
