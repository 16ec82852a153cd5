// Package batch reads, checks and builds record batches of Kafka's format version 2, the one format that Millrace has on
// the wire, on disk and in replication. A View is the bytes of one batch with methods that read fields in place; nothing
// here copies or re-encodes a batch except Builder, which makes new ones. The package knows bytes only: it holds no
// state, starts no goroutine, and is called by every room that touches records.
//
//	 0  8  base offset              stamped by the leader, outside the CRC
//	 8  4  length                   of what follows, so the batch has 12 + length bytes
//	12  4  partition leader epoch   stamped by the leader, outside the CRC
//	16  1  magic                    2
//	17  4  CRC32C                   of everything from the attributes on
//	21  2  attributes               bits 0-2 codec, 3 log append time, 4 transactional, 5 control
//	23  4  last offset delta
//	27  8  base timestamp
//	35  8  max timestamp
//	43  8  producer id              -1 = none
//	51  2  producer epoch
//	53  4  base sequence
//	57  4  record count
//	61     records, compressed as one block if the codec says so
//
// A record is: varint length, i8 attributes, varlong timestamp delta, varint offset delta, varint key length (-1 = null),
// key, varint value length (-1 = null), value, varint header count, and per header the same pair. The 21 bytes before the
// attributes are not covered by the CRC: who stores batches must cover base offset, length and leader epoch otherwise.
package batch
