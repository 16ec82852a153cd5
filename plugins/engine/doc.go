// Package engine runs plugins: it compiles metered modules with wazero, keeps instances, restores them to their image
// before every frame, gives them a WASI that tells nothing about the machine, and ends them by fuel. It does not read
// logs, does not know bindings, and decides no verdict: it says what a guest answered to a frame, or which of two kinds
// of trouble there was.
//
//   - *plugins.Fault: the record's. Trap, fuel, memory maximum, call depth, output or id limit, malformed answer.
//     Everything about it is a function of the module, the configuration, the limits and the frame.
//   - any other error: the broker's. It is retried or alarmed about, and never becomes a verdict (H25).
//
// # One frame
//
//	Judge ── gate: a place among at most GOMAXPROCS-1 ── instance from the pool, or a clone of the image
//	  restore memory and mutable globals ── fuel counter set to the first slice, depth to its limit
//	  millrace_alloc(size) ── the frame is written in place ── millrace_process(ptr, size)
//	    counter below zero → yield: the record's own budget by its cursor, other threads, the gate's turn, the next slice
//	  answer read and copied out ── instance back to the pool; dropped if it grew or nested too deep
//
// An instance's memory is a private mapping of its image, where the kernel tells which pages were written (pages.go); a
// restore copies those pages. Elsewhere, and where anything about it fails, a restore copies the whole image.
//
// # Ownership
//
// An Engine, a Module and a Gate are safe for concurrent use. An instance belongs to the goroutine that judges with it.
// The package starts no goroutine. A Module must not be used after its Close, nor closed while it judges; an Engine is
// closed after its modules.
package engine
