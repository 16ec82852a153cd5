// Package meter admits modules: it checks a plugin's WebAssembly against what plugins are held to, and rewrites it so
// that it charges for what it does. It is a function of bytes. Admission calls it once for a module version; brokers
// run the stored result and never meter again (H26).
//
// # What is refused
//
// Anything but a core module of at most 8 MiB whose counts stay below caps that are checked before anything is
// allocated (W3, W5); imports other than the functions of wasi_snapshot_preview1, by name (W6); missing or mistyped
// exports; threads, floating-point vectors, instructions that change tables or passive segments; mutable globals that
// cannot be restored. Every index into what the rewriting extends is checked here: otherwise a module that names a
// local it does not have could be given the fuel counter.
//
// # What is added
//
//	import   millrace.yield (i64) -> i64     called when the counter is below zero; returns what to go on with
//	global   __millrace_fuel, i64            what may be spent before the next yield
//	global   __millrace_depth, i32           calls that may still nest
//	export   __millrace_g0, g1, ...          the plugin's mutable globals
//	export   __millrace_start                its start function, which no longer runs by itself
//
// A function, before and after (with loops, the counter is kept in a local, written back before calls and at the end):
//
//	(func $f (result i32)        (func $f (result i32) (local $fuel i64)
//	  ...                          fuel -= cost; if fuel < 0 { fuel = yield(fuel) }
//	  loop                         depth -= weight; if depth < 0 { unreachable }
//	    ...                        block (result i32)
//	    return                       ...
//	  end                            loop
//	)                                  fuel -= cost; if fuel < 0 { fuel = yield(fuel) }
//	                                   ...
//	                                   br <the block>
//	                                 end
//	                               end
//	                               depth += weight
//	                             )
//
// NaNs are made canonical in front of the instructions that make their bits visible: float stores, reinterpretations and
// copysign.
//
// # Cost table 1
//
// An instruction costs 1; block, loop, else, end and nop cost nothing; a call of an import and memory.grow cost 1,000;
// bulk memory costs 1 more for each 64 bytes. A stretch is charged where it begins: at a function's entry (at least 1),
// at each loop head, and behind each block to whose end a br_table jumps or in which a stretch began. It covers what
// follows inside its loop up to the next stretch, both arms of an if included, loops inside it apart. The counter is
// looked at on entry, at loop heads and at bulk memory.
//
// A call of a function is 1 deep and 1 more for each 500 locals and instructions of it; functions that call none of the
// module's functions are not counted. So the runtime's own stack never comes near its end first.
package meter
