// Package invariant crashes the process when a promise that the code makes to itself is broken. It is for states that
// no input, disk or peer can cause: those are errors. Nothing recovers from it.
package invariant
