package tidy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// named matches what looks like a path of the repository inside backquotes.
var named = regexp.MustCompile("`((?:broker|plugins|sdk|raftctl|cmd|examples|internal|docs)/[A-Za-z0-9_./-]+)`")

// TestDocumentsNameFilesThatExist keeps the prose from drifting away from the tree.
func TestDocumentsNameFilesThatExist(t *testing.T) {
	documents, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	documents = append(documents, filepath.Join("..", "..", "README.md"))
	checked := 0
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, match := range named.FindAllStringSubmatch(string(text), -1) {
			checked++
			target := strings.TrimSuffix(match[1], "/")
			if _, err := os.Stat(filepath.Join("..", "..", filepath.FromSlash(target))); err != nil {
				t.Errorf("%s names %s, which does not exist", filepath.Base(document), match[1])
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d names found in %d documents: the pattern is wrong", checked, len(documents))
	}
}

// TestTopLevelHoldsOnlyTheRooms keeps the front door tidy.
func TestTopLevelHoldsOnlyTheRooms(t *testing.T) {
	allowed := map[string]bool{
		"broker": true, "raftctl": true, "plugins": true, "sdk": true, "examples": true, "cmd": true, "docs": true,
		"internal": true, "go.mod": true, "go.sum": true, "README.md": true, "Makefile": true, "bin": true,
	}
	entries, err := os.ReadDir(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !allowed[entry.Name()] && !strings.HasPrefix(entry.Name(), ".") {
			t.Errorf("%s does not belong at the top level", entry.Name())
		}
	}
}
