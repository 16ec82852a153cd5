// Package millrace is the guest SDK for standard Go: what a plugin is written with. It is two files without
// dependencies, which `raftctl plugin new` copies into a project, so that a plugin builds without this repository:
// millrace.go, the guest itself, and native.go, which runs the same guest inside an ordinary `go test`.
//
// The guest is one goroutine; nothing here is safe for concurrent use. Its bytes are those of ABI version 1 (package
// plugins/abi draws them); the files repeat them on purpose.
package millrace
