package tidy

import (
	"path"
	"strings"
	"testing"
)

// floors is the import table: a package sees the floors below its own, and its own floor not at all unless beside
// says so. Pure packages are marked in pure_test.go.
var floors = map[string]int{
	"broker": 0, "plugins": 0, "plugins/abi": 0,
	"internal/invariant": 0, "internal/mutant": 0, "internal/vfs": 0, "internal/transport": 0, "internal/task": 0,

	"broker/batch": 1, "broker/partition": 1, "broker/metadata": 1, "broker/metadata/metadatapb": 1,
	"broker/adminapi": 1, "broker/adminapi/adminapiconnect": 1,
	"plugins/chain": 1, "plugins/window": 1, "plugins/meter": 1, "plugins/guest": 1, "plugins/guest/go": 1,

	"broker/producer": 2, "broker/replica/wire": 2, "broker/controller": 2, "broker/scram": 2, "broker/reconcile": 2, "broker/group": 2, "plugins/engine": 2,

	"broker/commitlog": 3, "broker/peer": 3, "plugins/tck": 3, "plugins/builtin": 3,

	"broker/quorum": 4, "broker/replica": 4, "broker/coordinator": 4, "broker/delivery": 4,

	"broker/kafka": 5, "broker/admin": 5,

	"broker/node": 6,

	"cmd/millrace": 7, "sdk/sdktest": 7,
}

// beside lists what a package may import on its own floor.
var beside = map[string][]string{
	"plugins/abi":                     {"plugins"},
	"broker/adminapi/adminapiconnect": {"broker/adminapi"},
	"broker/metadata":                 {"broker/metadata/metadatapb"},
	"broker/metadata/metadatapb":      {},
	"internal/transport":              {"internal/task"},
}

// aside lists the packages outside of the floors with all that they may import; "x/..." stands for x and below.
var aside = map[string][]string{
	"sdk": {"broker", "broker/adminapi", "broker/adminapi/adminapiconnect", "plugins", "internal/transport"},
	"raftctl": {"sdk", "broker", "broker/adminapi", "broker/adminapi/adminapiconnect", "plugins/...", "internal/task",
		"internal/vfs", "raftctl/..."},
	"raftctl/inspect": {"broker", "broker/metadata", "broker/metadata/metadatapb", "internal/vfs", "broker/commitlog",
		"broker/batch", "broker/producer"},
	"cmd/raftctl": {"raftctl"},
}

// faces may not import a room of floor 4: they declare the small interfaces that they need.
var faces = map[string]bool{"broker/kafka": true, "broker/admin": true}

// tools may import anything and are imported by nothing.
var tools = []string{"internal/process", "internal/sim", "internal/bench", "internal/chaos", "internal/compat", "internal/tidy"}

func TestPackagesImportOnlyFloorsBelow(t *testing.T) {
	for _, room := range rooms(t) {
		for _, file := range room.files {
			for _, imported := range file.imports() {
				target, ours := strings.CutPrefix(imported, module+"/")
				if !ours {
					continue
				}
				if why := forbidden(room.path, target); why != "" {
					t.Errorf("%s imports %s: %s", file.name, target, why)
				}
			}
		}
	}
}

// forbidden says why from may not import target, or nothing.
func forbidden(from, target string) string {
	if isTool(target) && !isTool(from) {
		return "nothing imports the tools"
	}
	if isTool(from) {
		return ""
	}
	if strings.HasPrefix(from, "plugins") && strings.HasPrefix(target, "broker") {
		return "plugins/* never imports broker/*"
	}
	if from == "examples" || strings.HasPrefix(from, "examples/") {
		return oneOf(target, "sdk", "sdk/sdktest", "plugins/guest/...")
	}
	if allowed, ok := aside[from]; ok {
		return oneOf(target, allowed...)
	}
	own, known := floors[from]
	if !known {
		return "the package has no floor in internal/tidy/imports_test.go"
	}
	if from == "sdk/sdktest" && target == "sdk" {
		return ""
	}
	below, known := floors[target]
	switch {
	case !known:
		return "the imported package has no floor"
	case faces[from] && below == 4:
		return "faces declare the interfaces they need and import no room of floor 4"
	case below < own:
		return ""
	case below == own && oneOf(target, beside[from]...) == "":
		return ""
	}
	return "the import does not run downwards"
}

func oneOf(target string, allowed ...string) string {
	for _, pattern := range allowed {
		prefix, subtree := strings.CutSuffix(pattern, "/...")
		if target == pattern || subtree && (target == prefix || strings.HasPrefix(target, prefix+"/")) {
			return ""
		}
	}
	return "it is not among " + strings.Join(allowed, ", ")
}

func isTool(target string) bool {
	for _, tool := range tools {
		if target == tool || strings.HasPrefix(target, tool+"/") {
			return true
		}
	}
	return false
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, room := range rooms(t) {
		if strings.HasPrefix(room.path, "examples/") && room.files[0].ast.Name.Name == "main" {
			continue // An example's README speaks for it.
		}
		documented, onlyGenerated := false, len(room.files) == 0
		for _, file := range room.files {
			isDoc := path.Base(file.name) == "doc.go" || file.ast.Name.Name == "main"
			documented = documented || isDoc && file.ast.Doc != nil
		}
		if !documented && !onlyGenerated {
			t.Errorf("%s has no doc.go with a package comment", room.path)
		}
	}
}
