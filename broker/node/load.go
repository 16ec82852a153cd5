package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Flag returns the command-line flag of a key: listeners.client.bind is --listeners-client-bind.
func Flag(key string) string { return strings.ReplaceAll(key, ".", "-") }

// variable returns the environment variable of a key: MILLRACE_LISTENERS_CLIENT_BIND.
func variable(key string) string {
	return "MILLRACE_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// Load reads a configuration: the file (none if empty), then the environment, then flags by key. The error lists every
// problem, each with the line, variable or flag that it comes from.
func Load(file string, lookup func(string) (string, bool), flags map[string]string) (Config, error) {
	c := Defaults()
	var problems []error
	inFile, err := readFile(file)
	if err != nil {
		problems = append(problems, err)
	}
	known := map[string]bool{}
	for _, s := range settings() {
		known[s.key] = true
		value, source, given := "", "", false
		if entry, ok := inFile[s.key]; ok {
			value, source, given = entry.value, fmt.Sprintf("%s:%d: %s", file, entry.line, s.key), true
		}
		if v, ok := lookup(variable(s.key)); ok {
			value, source, given = v, variable(s.key), true
		}
		if v, ok := flags[s.key]; ok {
			value, source, given = v, "--"+Flag(s.key), true
		}
		if !given {
			continue
		}
		if err := s.set(&c, value); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", source, err))
		}
	}
	for key, entry := range inFile {
		if !known[key] {
			problems = append(problems, fmt.Errorf("%s:%d: unknown key %q%s", file, entry.line, key, nearest(key)))
		}
	}
	problems = append(problems, c.validate())
	return c, errors.Join(problems...)
}

// nearest proposes the known key with the same last word, where there is one.
func nearest(key string) string {
	last := key[strings.LastIndexByte(key, '.')+1:]
	for _, s := range settings() {
		if strings.HasSuffix(s.key, "."+last) || s.key == last {
			return fmt.Sprintf("; did you mean %q?", s.key)
		}
	}
	return "; `millrace run --help` lists the keys"
}

type fileEntry struct {
	value string
	line  int
}

// readFile flattens a YAML file: nested and dotted keys are alike.
func readFile(name string) (map[string]fileEntry, error) {
	if name == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("config file %s does not exist", name)
	}
	if err != nil {
		return nil, fmt.Errorf("read config file: %w", err)
	}
	parsed, err := parser.ParseBytes(raw, 0)
	if err != nil {
		return nil, fmt.Errorf("%s is not YAML: %w", name, err)
	}
	entries := map[string]fileEntry{}
	var problems []error
	for _, doc := range parsed.Docs {
		if doc.Body != nil {
			problems = append(problems, flatten(name, "", doc.Body, entries))
		}
	}
	return entries, errors.Join(problems...)
}

func flatten(file, prefix string, node ast.Node, into map[string]fileEntry) error {
	switch n := node.(type) {
	case *ast.MappingNode:
		var problems []error
		for _, value := range n.Values {
			problems = append(problems, flatten(file, prefix, value, into))
		}
		return errors.Join(problems...)
	case *ast.MappingValueNode:
		key := prefix + n.Key.String()
		line := n.Key.GetToken().Position.Line
		switch value := n.Value.(type) {
		case *ast.MappingNode, *ast.MappingValueNode:
			return flatten(file, key+".", value, into)
		case ast.ScalarNode:
			if earlier, twice := into[key]; twice {
				return fmt.Errorf("%s:%d: %s was given before, on line %d", file, line, key, earlier.line)
			}
			into[key] = fileEntry{scalar(value), line}
			return nil
		default:
			return fmt.Errorf("%s:%d: %s takes one value, not a list", file, line, key)
		}
	case *ast.CommentGroupNode, *ast.NullNode:
		return nil
	}
	return fmt.Errorf("%s:%d: expected KEY: VALUE", file, node.GetToken().Position.Line)
}

func scalar(node ast.ScalarNode) string {
	if value := node.GetValue(); value != nil {
		return fmt.Sprint(value)
	}
	return ""
}
