// Package delivery turns the committed log of a partition into filtered logs: one for each binding of a chain of
// plugins, and a pure function of the log and of the decision rows and origins in the metadata image. Who reads, when
// and from where changes nothing in it.
//
// A track judges a partition under one judge key, in a goroutine of its own, from committed batches cut into canonical
// frames; what it finds (an outcome for every offset, the ids of sightings, the distance from each to the one before
// it, and how to splice each changed batch) lies in blocks and in the files of the key, which all bindings of that key
// share. A channel answers for one binding: it applies the rows, the origin and `within` to what the tracks found, asks
// earlier keys' ids behind a cutover, writes dead letters, and so moves `cleared`, the offset below which every answer
// is known and every letter is durable. A filtered read looks only below cleared, and never judges.
//
//	log ─ batches ─▶ track(key) ─ blocks ─▶ channel(binding) ─ bitmaps, cleared ─▶ Read
//	                    │  files of the key      │ letters, proposals
//
// The Host owns tracks and channels of the partitions that this node leads. Everything that is not a decision is a
// cache: files are used only where the log's own leader epochs agree with theirs (rule H12), and are made again from
// the log. Trouble of the broker's own (a module that is not here, memory, a dead-letter topic that is down) stalls the
// partition of that chain and says why; it never becomes a verdict (H25, G8).
//
// The pure parts do no I/O and know no clock: judgekey.go, plan.go (rows, stretches, answers), block.go (outcome maps),
// codec.go (the files' bytes), frame.go (canonical frames), splice.go (rebuilt batches). The rest is the shell.
//
// # Files of a judge key
//
// Under chains/<judge key, 32 hex>/<topic id, 32 hex>/<partition>/, named by the first offset of their block in 20
// digits: .verdicts, .ids and .splices. All integers are little-endian.
//
//	header   magic[8] version:u16 kind:u16 reserved:u32=0 key[16] block:i64 base:i64 end:i64 epoch:i32 bits:u8 zero[3]
//	body     see codec.go
//	trailer  SHA-256 of everything before it
package delivery
