package tidy

import (
	"fmt"
	"go/ast"
	"testing"
)

const (
	fileLinesMax     = 600
	functionLinesMax = 70
)

// TestFilesAndFunctionsFitTheirBudgets also fails when an exception is no longer needed, so that the list only shrinks.
func TestFilesAndFunctionsFitTheirBudgets(t *testing.T) {
	allowed := exceptions(t)
	used := map[string]bool{}
	breach := func(key, format string, args ...any) {
		used[key] = true
		if !allowed[key] {
			t.Errorf(format, args...)
		}
	}
	for _, room := range rooms(t) {
		for _, file := range room.files {
			if file.lines > fileLinesMax {
				breach("file "+file.name, "%s has %d lines; split it by concern below %d", file.name, file.lines, fileLinesMax)
			}
			for _, decl := range file.ast.Decls {
				function, ok := decl.(*ast.FuncDecl)
				if !ok || function.Body == nil {
					continue
				}
				lines := file.set.Position(function.End()).Line - file.set.Position(function.Pos()).Line + 1
				if lines > functionLinesMax {
					key := fmt.Sprintf("function %s %s", file.name, function.Name.Name)
					breach(key, "%s: %s has %d lines; one screen is %d", file.name, function.Name.Name, lines, functionLinesMax)
				}
			}
		}
	}
	for key := range allowed {
		if !used[key] {
			t.Errorf("exception %q is no longer needed: remove it", key)
		}
	}
}
