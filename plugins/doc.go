// Package plugins says what a plugin is: its manifest (plugin.yaml), the limits it runs under, the parts of a record it
// may see, what a chain does when it fails, and how a failure is told. It is nouns and checks: it runs nothing, and
// everything else about plugins (abi, meter, engine, chain, window) is a folder below it.
package plugins
