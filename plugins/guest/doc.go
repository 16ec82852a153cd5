// Package guest renders new plugin projects: the guest SDK of a language, a manifest with cases, a plugin that already
// does something useful, and its tests. What it renders builds on its own, on a machine that has the language's tool
// chain and nothing of this repository. The guest SDKs themselves are the folders go and c.
//
// Rendering is a pure function from Spec to file contents; whoever calls it (raftctl plugin new) writes the files.
package guest
