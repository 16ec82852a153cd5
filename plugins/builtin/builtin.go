package builtin

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/plugins"
)

//go:embed *.wasm src/*.yaml
var files embed.FS

// names are those of the plugins, sorted.
var names = [...]string{"dedup-header", "dedup-json", "dedup-key", "filter-json", "redact"}

// Plugin is one built-in.
type Plugin struct {
	Manifest       *plugins.Manifest
	ManifestSource []byte // plugin.yaml
	Module         []byte // as compiled, not metered
	SHA256         [sha256.Size]byte
}

// Names lists the built-ins, sorted.
func Names() []string { return slices.Clone(names[:]) }

// Open returns a built-in by name. Its slices are the caller's own.
func Open(name string) (*Plugin, error) {
	if !slices.Contains(names[:], name) {
		return nil, fmt.Errorf("no built-in plugin %q; there are %s", name, strings.Join(names[:], ", "))
	}
	source, err := files.ReadFile("src/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("built-in plugin %s: %w", name, err)
	}
	module, err := files.ReadFile(name + ".wasm")
	if err != nil {
		return nil, fmt.Errorf("built-in plugin %s: %w", name, err)
	}
	manifest, err := plugins.ParseManifest(source)
	if err != nil {
		return nil, fmt.Errorf("built-in plugin %s: %w", name, err)
	}
	return &Plugin{Manifest: manifest, ManifestSource: source, Module: module, SHA256: sha256.Sum256(module)}, nil
}
