// Package wire is the bytes of replication between brokers: the frames that a leader and a follower exchange on the two
// streams of a session (Q2). It appends frames to memory and reads them from a stream; it holds no state of a session, and
// knows nothing of what a frame means.
//
//	u32 length · u8 type · body         length counts the type and the body; little-endian
//
// Numbers in bodies are uvarints, identities 16 bytes. Leader epochs are written plus one, so that none is 0. A length is
// judged by its type before a byte of the body is taken: 64 KiB, and 64 MiB with some bytes for DATA. A body that is longer
// or shorter than its fields is refused, and so is a number that its field cannot hold. A list has a count that the bytes
// behind it could hold. Whoever sends anything else is cut off: a frame is whole, or the session is over.
package wire
