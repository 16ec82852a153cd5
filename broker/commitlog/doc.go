// Package commitlog stores one partition's log, and the metadata log, which is one more of the same (zero topic id, one
// entry a batch, raft term as leader epoch, raft index as offset). A Log is a directory of segments that hold record
// batches exactly as they travel; a Flusher, one a node, makes what the logs wrote durable in groups and keeps the
// journal of what is. The package decides nothing about replication: who may append, what is committed, and where to cut
// is its caller's to say. It never truncates a byte that it once reported durable because it cannot read it, never
// serves a byte that fails its checks, and never retries a failed write or sync.
//
//	<base, 20 digits>.log        batches, no header
//	<base, 20 digits>.index      sparse offset index, written when the segment closes; its last entry is the segment's end
//	<base, 20 digits>.timeindex  largest timestamp so far, likewise
//	<base, 20 digits>.producers  producer state at base, the owner's bytes (broker/producer has the format)
//	epochs                       where each leader epoch of the closed segments starts
//	cleaned                      how far the log was compacted, and when (compacted topics)
//
// Every file but .log and .producers is: 8 bytes of magic, u16 version, contents, u32 CRC32C of all before; little-endian. All of them are
// replaced by write, sync, rename, sync of the directory.
//
// # Who calls what
//
// Append, RollAged, Truncate, Reset, AdvanceStart, SetSegmentBytes, Close and Remove are called by the partition's owner, one at a time. Everything
// else is safe for concurrent use with them. OnDurable is called by the goroutine that flushes.
//
// # Locks
//
// Log.mu guards what readers and the flusher see; no file is touched under it. Two more serialise file operations and
// nothing else: Log.files (closing, cutting, replacing and removing segments) and journal.mu (the journal's file). The
// order is Log.files, journal.mu, Log.mu; Flusher.mu is a leaf. A compaction holds Log.cleaning before all of them.
//
// # Why a reader sees no foreign bytes
//
// The CRC of a batch leaves its first 21 bytes open. Whoever reads from disk demands that base offsets follow one another
// without a gap, that the leader epoch is the one that the epoch list has for that offset, and that the CRC fits: any
// flipped bit breaks one of the three. Index entries carry the CRC of those 21 bytes besides, for the scrubber.
package commitlog
