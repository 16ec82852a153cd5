// Package coordinator hosts classic and consumer groups on the partitions of __consumer_offsets. A group belongs to the partition
// that its name hashes to, as in Kafka; the node that leads the partition coordinates the group. The protocol itself is
// package group's; this package gives it time, a log and waiting callers.
//
// A tenure is this node's coordination of one partition in one leader epoch. It begins by replaying the whole
// partition, refusing with COORDINATOR_LOAD_IN_PROGRESS meanwhile, and ends when the node resigns or when the log gives
// an answer after which memory and log might differ; then everything in memory is dropped, whoever waits is told
// NOT_COORDINATOR, and, if the node still leads, the next tenure replays again. Nothing is ever mended in place.
//
//	caller ── lock ── group core ── effects ─┬─ answers ──► callers' channels (after unlocking)
//	                                         └─ writes ──► queue ──► writer: one batch ──► Log.Append
//	                                                                            committed in this epoch
//	callers' channels ◄── answers ── group core ── lock ◄──────────────────────────────┘
//
// Every promise that a reply makes is committed first, in the tenure's own leader epoch; what is read from memory is
// answered only if the log says, after the reading, that this node still leads in that epoch, and nobody can have replaced it
// without its knowledge: it holds a lease of the controller's, or a mark that it wrote since was committed (confirm.go). While one batch is being
// written, the writes that arrive form the next one, so a busy partition pays one round of replication for many
// commits.
//
// Owners: a tenure's mutex guards its groups and queue; one goroutine a tenure loads and writes; one goroutine a host
// keeps time for all groups and removes expired offsets. The formats are Kafka's own (OffsetCommitKey 1 and
// OffsetCommitValue 3, or 4 where the topic's id is known; GroupMetadataKey 2 and GroupMetadataValue 3; for consumer
// groups the records that docs/FORMATS.md lists).
//
// Faces call the Host. It is safe for concurrent use. It starts no connection and knows no wire format of requests.
package coordinator
