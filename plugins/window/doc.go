// Package window holds the answer behind unique(id): which earlier record of the same partition carried the same id,
// within a bounded reach, as a function of the log and of recorded decisions alone.
//
// A record is a sighting when it came through every stage of its chain with an id. Offsets fall into blocks of
// 2^BlockBits. From offset o one sees G whole blocks and the part of its own block before it; that is its reach, and
// floor(o) = (⌊o/B⌋ − G)·B its lower bound. Sightings takes sightings in offset order and answers for each with a
// Repeat: how far back the nearest earlier sighting of the id lies, and how far back the nearest one that also has a
// newer timestamp. These two numbers do not depend on any group, origin or `within`, so bindings share them; a Row
// turns them into a verdict for one binding.
//
// Following the second number from sighting to sighting visits ever newer timestamps, each the nearest of its kind.
// So the question "is there an earlier one no older than this", which `within` asks, needs no search.
//
// This is a pure core: no goroutine, channel, lock, clock, random, file or logger. Whoever judges a partition under a
// key owns its Sightings; nothing here is safe for concurrent use, except reading what no one writes any more.
//
// The body of an .ids file, n = end − first offset of the block, little-endian:
//
//	u32 n
//	presence     ⌈n/8⌉ bytes, bit i%8 of byte i/8 = offset first+i is a sighting
//	fingerprints n × 16 bytes, zero where absent
//	timestamps   n × i64, zero where absent
//
// The repeats of a .verdicts file, sorted by offset:
//
//	u32 n
//	n × (u16 offset in block, u32 distance to the nearest, u32 distance to the nearest with a newer timestamp or 0)
package window
