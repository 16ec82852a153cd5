// Package tck is the conformance kit: what every guest, every guest SDK and every change of the host must pass. raftctl
// runs it when it tests a plugin, admission when it takes one, and our own tests over the built-ins and the templates.
//
//   - RunCases: the examples of a manifest, each answered as it says.
//   - Conform: an answer is a function of the frame (H22, H23): the same however a frame is cut, whatever was judged
//     before, alone as among others, with the same fuel each time.
//   - GoldenFrames: the frames whose answers and fuel are stored with a plugin version, so that a broker that answers
//     otherwise refuses to run it (H26).
//   - Hostile: modules that break the contract, each with the failure that the host must make of it.
//
// Examine is all of it over a module in an engine: what admission does. The parts see a guest through the interface
// Guest, so that they can be tested on guests that no engine would run. The kit starts no goroutine; a caller may run
// several at once on guests that allow it.
package tck
