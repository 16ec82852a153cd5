// Package abi is the memory contract between the host and a guest, version 1: the frame that the host writes into
// guest memory, and the answer that it reads back. It is bytes only: it knows no runtime, no policy and no log, and it
// owns no goroutine. The engine calls it with a slice of guest memory in hand.
//
// Everything is little-endian. The frame starts at an address that is a multiple of eight, and its tables keep that
// alignment; the arena is packed.
//
// # Exports of a guest
//
//	memory                                          at most the declared maximum
//	_initialize                       () -> ()      where the toolchain makes one
//	millrace_abi_version              () -> i32     1
//	millrace_alloc          (i32 size) -> i32       8-byte aligned, never 0
//	millrace_configure  (i32 ptr, i32 len) -> i32   optional; not 0 refuses the configuration
//	millrace_process    (i32 ptr, i32 len) -> i64   address << 32 | length of the answer; 0 is malformed
//
// # Frame
//
// Offsets in the frame count from its first byte.
//
//	 0  "MRF1"            4  u16 ABI version    6  u16 projection (1 key, 2 value, 4 headers)
//	 8  u32 count        12  u32 cursor: the guest writes the index of the record at work; 0xFFFFFFFF = does not report
//	16  i64 base offset
//	24  i64 base timestamp, Unix milliseconds
//	32  u32 offset of the record table
//	36  u32 offset of the arena
//	40  u32 length of the arena
//	44  zero, to 64
//	64  count × record, 40 bytes each:
//	      0  i64 timestamp, less the base     8  i32 offset, less the base    12  u32 flags, 0
//	     16  u32 offset, u32 length of the key
//	     24  u32 offset, u32 length of the value
//	     32  u32 offset, u32 length of the headers
//	    arena
//
// A length of 0xFFFFFFFF is null, and so is every part that the projection leaves out; its offset is 0. Base offset and
// base timestamp are those of the first record of the canonical frame, and stay so when the frame is cut in two.
//
// Headers are one blob: u32 count, then for each u32 length and bytes of the key, u32 length and bytes of the value;
// a value may be null, a key not. No headers is null or a count of 0.
//
// # Answer
//
// Addresses in the answer are absolute in guest memory.
//
//	0  "MRA1"             4  u32 count, the frame's
//	8  count × verdict, 24 bytes each:
//	      0  u8 kind: 0 pass, 1 drop, 2 replace, 3 dead-letter
//	      1  u8 flags: 1 unique by the id given, 2 unique by the key that the guest was given; only with pass and replace
//	      2  u16 0
//	      4  u32 error code, the plugin's own
//	      8  u32 address, u32 length of the id, read with flag 1
//	     16  u32 address, u32 length of the output, read with replace and dead-letter
//
// The output of a replaced record is key, value and headers blob, each a u32 length and its bytes; 0xFFFFFFFF = null,
// 0xFFFFFFFE = as in the input. The output of a dead letter is UTF-8 text for the letter. What a verdict does not use is
// not read. An id has 1 to 1,024 bytes.
package abi
