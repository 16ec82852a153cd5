// Package replica hosts partitions: for each one on this node a Replica ties the rules (broker/partition), the log
// (broker/commitlog) and the idempotence state (broker/producer) together, and a Set holds them by topic and partition.
//
// It decides nothing about leadership (images of the metadata do), does not check record batches beyond what it stamps
// (broker/kafka does, before it submits), and serves no protocol.
//
// # The owner is a role, not a goroutine
//
// Each replica has an inbox. Whoever puts an event there drains it if nobody does, and leaves otherwise: so one goroutine
// at a time is the owner, which alone appends to the log, moves the high watermark and changes roles, and a partition
// without work costs none (RM2). A submitter serves at most 32 appends and then hands the role to a goroutine of the set's
// task group; the goroutine that flushes and reports durable ends never writes as the owner, and hands over at the first
// append. It is the flusher's, or one that came with SubmitAndSync and is no owner any more by then.
//
// # One append
//
// Submit puts the batches in the inbox. The owner takes what has gathered, up to 32 appends, and for each one in turn:
// compares the leader epoch, asks the producer state, stamps base offset, leader epoch and append time in place. What
// passed is written to the log in one piece. The waiters go into a queue in offset order; nobody holds a goroutine for
// them. When the flusher reports a higher durable end, the owner moves the high watermark, publishes it, and completes
// the waiters below it, in this order: whoever hears of an acknowledged record finds it.
//
// # What readers see
//
// Positions, role and failure are published as one value under a mutex of its own. Reads go to the log directly, below
// the published high watermark, and never wait for the owner. Watchers are signalled with a send that does not block.
//
// # Replication
//
// Set.Serve takes the streams that followers open (downstream), and a link to each leader dials (upstream); Replication has
// what both stand on. Readers put frames into inboxes, owners mark subscriptions ready, writers read logs by cursor: nobody
// waits for anybody, and a window bounds what is under way. Frames are in broker/replica/wire, the rules in
// broker/partition, the protocol is told in docs/REPLICATION.md.
//
//	upstream.go    the follower's sessions: dialled, opened, written
//	receive.go     ... read: frames into inboxes
//	follow.go      the follower's role, in the owner
//	downstream.go  the leader's sessions: taken, read
//	lane.go        subscriptions, their turn and their credit
//	push.go        the writers: data, hand-over, marks
//	lead.go        the leader's role towards followers, in the owner
//	links.go       all sessions of a node; requests that wait for an image
//	alter.go       wishes for other ISRs, gathered
//
// Locks: a session's mu guards its subscriptions and what waits to be sent; links.mu the tables of sessions. They are leaves.
//
// # Failure
//
// A log with bytes it cannot trust takes this replica offline, with the file and position, and no other. A full disk
// refuses appends and nothing else. A failed write or sync is the flusher's to answer: the process ends.
//
//	topics/<topic id, 32 hex>/<partition>/replica.meta
//	  "MRREPLIC" · u16 version 1 · u64 replica id (rid) · u32 CRC32C of everything before; little-endian
package replica
