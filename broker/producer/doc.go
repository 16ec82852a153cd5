// Package producer keeps what a partition knows about its idempotent producers: for each producer id the producer epoch
// and the last five batches. From it follow the three answers to a batch: append it; it is a duplicate, and this is where
// the original lies; or it is refused, because its epoch is fenced or its sequence leaves a gap. The rules are Kafka's
// (KIP-98, KIP-360; ProducerAppendInfo and ProducerStateEntry), and a table test holds them.
//
// The state is a fold over the log: State.Apply takes each batch once, in offset order. It is saved beside a segment as
// <base offset>.producers, holding the fold of everything below that offset, and made again by loading the newest
// snapshot at or below the wanted end and folding the batches behind it; truncation does the same. What is not in the
// log is the time of the last append, by which producers expire; the caller passes it in.
//
// The package is a pure core: no goroutine, lock, clock, file or logger. A State belongs to the owner of its partition.
// It never decides about transactions: batches with the transactional or control bit are refused above. Their state
// (coordinator epoch, first offset of the open transaction) will be fields of an entry, and a second snapshot version.
//
// A snapshot, little-endian:
//
//	 0  "MRPRODCR"          magic
//	 8  u16                 version, 1
//	10  u32                 number of producers
//	14  i64                 end: every batch below it is folded in
//	22  producers by id:
//	      i64 id · i16 epoch · i64 last seen, Unix ms · u8 batches (0–5), oldest first:
//	        i32 last sequence · i32 records - 1 · i64 last offset · i64 largest timestamp, Unix ms
//	 n  u32                 CRC32C of everything before
package producer
