/* Millrace guest SDK for C, plugin ABI version 1. One file, no libc.
 *
 * A plugin is a function from one record to one verdict:
 *
 *   #include "millrace.h"
 *   int64_t millrace_judge(const mr_record *r) { return mr_unique_by_key(MR_PASS); }
 *   MR_PLUGIN
 *
 * and, if it is configured, MR_PLUGIN_WITH_CONFIG instead, with
 *   int32_t millrace_config(mr_bytes config)   0 = accepted; the bytes are gone afterwards
 *
 * Build: zig cc --target=wasm32-freestanding -O2 -nostdlib -Wl,--no-entry -Wl,--strip-all
 *          -Wl,-z,stack-size=65536 -Wl,--initial-memory=524288 -o plugin.wasm main.c     (or clang --target=wasm32)
 *
 * Before each frame the broker restores memory to what it was after configuration, so a verdict is a function of the
 * record and the configuration. Memory above the data is one frame, then its outputs. Choose the initial memory so
 * that a usual frame fits: 64 bytes, 40 a record and the projected bytes, at most 421 KiB unless one record is larger.
 * The answer is written over the frame's record table as records are done, and takes no room of its own.
 */
#ifndef MILLRACE_H
#define MILLRACE_H

#include <stddef.h>
#include <stdint.h>

#define MR_EXPORT(name) __attribute__((export_name(name), visibility("default")))
#define MR_NULL 0xFFFFFFFFu     /* length of a part that is null */
#define MR_AS_INPUT 0xFFFFFFFEu /* length of an output part that stays as it is */

/* Verdicts. The low byte is the verdict, the next its flags, the high word an error code of the plugin's own. */
#define MR_PASS ((int64_t)0)
#define MR_DROP ((int64_t)1)
#define MR_REPLACE_ ((int64_t)2)
#define MR_DEAD_LETTER_ ((int64_t)3)

typedef struct {
	const uint8_t *at;
	uint32_t length; /* MR_NULL: null */
} mr_bytes;

/* A record as it lies in the frame's table; offsets count from the frame. */
typedef struct {
	int64_t timestamp_delta;
	int32_t offset_delta;
	uint32_t flags;
	uint32_t key, key_length, value, value_length, headers, headers_length;
} mr_record;

typedef struct {
	uint32_t magic;
	uint16_t abi, projection;
	uint32_t count, cursor;
	int64_t base_offset, base_timestamp;
	uint32_t table, arena, arena_length;
	uint32_t zero[5];
} mr_frame;

typedef struct {
	uint64_t verdict;
	uint32_t id, id_length, output, output_length;
} mr_answer;

_Static_assert(sizeof(mr_frame) == 64 && sizeof(mr_record) == 40 && sizeof(mr_answer) == 24, "the ABI's sizes");

extern uint8_t __heap_base; /* the linker's: where memory is free */

static struct {
	mr_frame *frame;
	mr_answer answer; /* to the record at work */
	int64_t base_offset, base_timestamp;
	uint8_t *free; /* room for outputs */
} mr_;

static inline mr_bytes mr_part_(uint32_t at, uint32_t length) {
	mr_bytes b = {(const uint8_t *)mr_.frame + at, length};
	return b;
}

static inline int mr_is_null(mr_bytes b) { return b.length == MR_NULL; }
static inline mr_bytes mr_key(const mr_record *r) { return mr_part_(r->key, r->key_length); }
static inline mr_bytes mr_value(const mr_record *r) { return mr_part_(r->value, r->value_length); }
static inline int64_t mr_timestamp(const mr_record *r) { return mr_.base_timestamp + r->timestamp_delta; }
static inline int64_t mr_offset(const mr_record *r) { return mr_.base_offset + r->offset_delta; }

static inline uint32_t mr_load_(const uint8_t *at) {
	uint32_t v;
	__builtin_memcpy(&v, at, 4);
	return v;
}

static inline int mr_equal(mr_bytes a, const char *text, uint32_t length) {
	if (a.length != length) return 0;
	for (uint32_t i = 0; i < length; i++)
		if (a.at[i] != (uint8_t)text[i]) return 0;
	return 1;
}

/* The value of the last header of that name; null if there is none. */
static inline mr_bytes mr_header(const mr_record *r, const char *name, uint32_t name_length) {
	mr_bytes found = {0, MR_NULL};
	if (r->headers_length == MR_NULL || r->headers_length < 4) return found;
	const uint8_t *p = (const uint8_t *)mr_.frame + r->headers;
	uint32_t count = mr_load_(p);
	p += 4;
	while (count-- > 0) {
		mr_bytes key = {p + 4, mr_load_(p)};
		p += 4 + key.length;
		mr_bytes value = {p + 4, mr_load_(p)};
		p += 4 + (value.length == MR_NULL ? 0 : value.length);
		if (mr_equal(key, name, name_length)) found = value;
	}
	return found;
}

/* Room for an output or an id, until the frame is done; 8-byte aligned. Traps when memory's maximum is reached. */
static inline uint8_t *mr_take(uint32_t n) {
	uint8_t *at = mr_.free;
	uintptr_t end = ((uintptr_t)at + n + 7) & ~(uintptr_t)7;
	uintptr_t have = (uintptr_t)__builtin_wasm_memory_size(0) << 16;
	if (end < (uintptr_t)at) __builtin_trap();
	if (end > have && __builtin_wasm_memory_grow(0, (end - have + 65535) >> 16) == (size_t)-1) __builtin_trap();
	mr_.free = (uint8_t *)end;
	return at;
}

/* Delivered unless an earlier record within the window had an equal key; the key needs 1 to 1,024 bytes. */
static inline int64_t mr_unique_by_key(int64_t verdict) { return verdict | 2 << 8; }

/* Delivered unless an earlier record within the window had an equal id of 1 to 1,024 bytes. The bytes must stay where
 * they are until the frame is done: in the record, or from mr_take. */
static inline int64_t mr_unique(int64_t verdict, mr_bytes id) {
	mr_.answer.id = (uint32_t)(uintptr_t)id.at;
	mr_.answer.id_length = id.length;
	return verdict | 1 << 8;
}

/* Replaces the value; key and headers stay. The value must not lie in the record. */
static inline int64_t mr_replace_value(mr_bytes value) {
	uint32_t body = value.length == MR_NULL ? 0 : value.length;
	uint8_t *out = mr_take(12 + body);
	uint32_t as_input = MR_AS_INPUT;
	__builtin_memcpy(out, &as_input, 4);
	__builtin_memcpy(out + 4, &value.length, 4);
	for (uint32_t i = 0; i < body; i++) out[8 + i] = value.at[i];
	__builtin_memcpy(out + 8 + body, &as_input, 4);
	mr_.answer.output = (uint32_t)(uintptr_t)out;
	mr_.answer.output_length = 12 + body;
	return MR_REPLACE_;
}

static inline int64_t mr_dead_letter(uint32_t code, const char *text) {
	uint32_t n = 0;
	while (text[n]) n++;
	mr_.answer.output = (uint32_t)(uintptr_t)text;
	mr_.answer.output_length = n;
	return MR_DEAD_LETTER_ | (int64_t)code << 32;
}

int64_t millrace_judge(const mr_record *r);
int32_t millrace_config(mr_bytes config);

static inline uint8_t *mr_alloc_(uint32_t n) {
	mr_.free = (uint8_t *)(((uintptr_t)&__heap_base + 7) & ~(uintptr_t)7);
	return mr_take(n);
}

/* Judges a frame. The answer grows over the record table behind the work: entry i ends at 48 + 24 i, before record
 * i + 1 begins at 104 + 40 i; the cursor at 12 stays. */
static inline int64_t mr_process_(uint8_t *at, uint32_t length) {
	mr_frame *f = (mr_frame *)at;
	if (length < 64 || f->magic != 0x3146524Du || f->abi != 1 || f->table < 64 || f->table > length) return 0;
	uint32_t count = f->count;
	if (count > (length - f->table) / 40) return 0;
	const uint8_t *table = at + f->table;
	mr_.frame = f;
	mr_.base_offset = f->base_offset;
	mr_.base_timestamp = f->base_timestamp;
	uint32_t *answer = (uint32_t *)(at + 16);
	for (uint32_t i = 0; i < count; i++) {
		*(volatile uint32_t *)&f->cursor = i;
		mr_.answer.verdict = (uint64_t)millrace_judge((const mr_record *)(table + 40 * i));
		__builtin_memcpy(at + 24 + 24 * i, &mr_.answer, 24);
	}
	answer[0] = 0x3141524Du;
	answer[1] = count;
	return (int64_t)(((uint64_t)(uintptr_t)answer << 32) | (8 + 24 * (uint64_t)count));
}

#define MR_PLUGIN                                                                                                      \
	MR_EXPORT("millrace_abi_version") int32_t mr_export_version(void) { return 1; }                                    \
	MR_EXPORT("millrace_alloc") uint8_t *mr_export_alloc(uint32_t n) { return mr_alloc_(n); }                          \
	MR_EXPORT("millrace_process") int64_t mr_export_process(uint8_t *at, uint32_t n) { return mr_process_(at, n); }

#define MR_PLUGIN_WITH_CONFIG                                                                                          \
	MR_PLUGIN                                                                                                          \
	MR_EXPORT("millrace_configure") int32_t mr_export_configure(const uint8_t *at, uint32_t n) {                       \
		mr_bytes config = {at, n};                                                                                     \
		return millrace_config(config);                                                                                \
	}

#endif
