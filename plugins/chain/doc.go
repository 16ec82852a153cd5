// Package chain judges one canonical frame through the stages of a chain: order of stages, what a failure costs, and
// what becomes of each record. It is a pure core: it has no goroutine, clock or file, and a stage is an interface, so
// that every rule here can be tested without a guest. The caller owns a Chain; it is not safe for concurrent use.
//
// # What a frame is
//
// The unit of judging is the canonical frame: one stored batch, cut by FrameEnd in record order, whatever was fetched
// (H22). A stage sees the survivors of the stage before, as that stage left them, not cut again, under the base offset
// and base timestamp of the canonical frame's first record.
//
// # What a failure costs
//
// A stage that fails over a frame names the record at work, if the guest reported one. That record is judged alone, on
// a restored instance:
//
//	it fails again       it is at fault; what lay before it and what lies behind it are judged as two frames
//	it does not          every remaining record is judged alone, and those answers stand
//	no record is named   the same: this is a frame whose summed budget is spent, or a guest that does not report
//	failures at limit    the same: 8 records at fault in one frame (H28)
//
// A frame of one record is that record alone, so it is not judged twice. An error that is no *plugins.Fault is the
// broker's trouble: judging ends, nothing becomes a verdict (H25).
//
// # Ids
//
// A stage may say `unique`. The id is carried to the end and counts only if the record came through every stage (H20,
// H21); a second stage that gives an id to the same record is at fault for it. What a policy passed has the id it had.
package chain
