package tidy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/millrace-io/millrace"

// room is one package folder of the repository.
type room struct {
	path  string // below the module, such as "broker/batch"
	files []*source
}

// source is one Go file that is neither a test nor generated.
type source struct {
	name  string
	lines int
	ast   *ast.File
	set   *token.FileSet
}

func (s *source) imports() []string {
	var paths []string
	for _, spec := range s.ast.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

// rooms parses every package of the repository, tests and generated files left out.
func rooms(t *testing.T) []*room {
	t.Helper()
	byPath := map[string]*room{}
	var order []*room
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if skipDir(rel, entry.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		file, err := parseSource(name, rel)
		if err != nil || file == nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		if byPath[dir] == nil {
			byPath[dir] = &room{path: dir}
			order = append(order, byPath[dir])
		}
		byPath[dir].files = append(byPath[dir].files, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(order) < 5 {
		t.Fatalf("only %d packages found below %s: the walk is wrong", len(order), root)
	}
	return order
}

// skipDir leaves out hidden folders, test data, build output, and folders with a module of their own.
func skipDir(rel, name string) bool {
	if rel == "." {
		return false
	}
	if strings.HasPrefix(name, ".") || name == "testdata" || rel == "bin" || name == "node_modules" {
		return true
	}
	_, err := os.Stat(filepath.Join("..", "..", rel, "go.mod"))
	return err == nil
}

// parseSource returns nil for a generated file.
func parseSource(name, rel string) (*source, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, rel, text, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	if ast.IsGenerated(file) {
		return nil, nil
	}
	return &source{name: filepath.ToSlash(rel), lines: strings.Count(string(text), "\n"), ast: file, set: set}, nil
}

// exceptions reads the list of rule breaches that stand for now: "rule subject" a line.
func exceptions(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "exceptions.txt"))
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			list[line] = true
		}
	}
	return list
}
