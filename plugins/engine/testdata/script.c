// A guest that does to each record what the first letter of its key says: the engine's tests are written in these
// letters. Built by build.sh; the module beside it is what the tests run.
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define EXPORT(name) __attribute__((export_name(name)))
#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))

WASI("fd_write") u32 fd_write(u32 fd, const u32 *vectors, u32 count, u32 *written);
WASI("clock_time_get") u32 clock_time_get(u32 id, u64 precision, u64 *time);
WASI("random_get") u32 random_get(void *to, u32 length);
WASI("proc_exit") void proc_exit(u32 code);
WASI("args_sizes_get") u32 args_sizes_get(u32 *count, u32 *bytes);
WASI("path_open") u32 path_open(u32, u32, u32, u32, u32, u64, u64, u32, u32 *);
WASI("fd_read") u32 fd_read(u32, const u32 *, u32, u32 *);
WASI("poll_oneoff") u32 poll_oneoff(const void *, void *, u32, u32 *);

static u64 frame[(1 << 20) / 8];
static u64 answer[1 + 3 * 4096];
static u8 output[2 << 20];
static u64 slots[4096][4]; // one a record, for ids
static u32 history; // counts records over the life of the instance, were it not restored
static u32 quiet;   // configured not to report the record at work
static volatile u32 sink;

EXPORT("millrace_abi_version") u32 version(void) { return 1; }

EXPORT("millrace_alloc") u32 alloc(u32 size) { return size <= sizeof frame ? (u32)frame : 0; }

EXPORT("millrace_configure") u32 configure(const u8 *config, u32 length) {
  for (u32 i = 0; i < length; i++) {
    if (config[i] == 'q') quiet = 1;
    if (config[i] == 'n') return 7; // {"n":...} is refused
    if (config[i] == 't') __builtin_trap();
    if (config[i] == 'w') for (;;) sink++;
  }
  return 0;
}

static void print(const char *text) {
  u32 length = 0, written;
  while (text[length]) length++;
  u32 vector[2] = {(u32)text, length};
  fd_write(2, vector, 1, &written);
}

static __attribute__((noinline)) u32 recurse(u32 n) { return n == 0 ? 1 : recurse(n - 1) + recurse(n - 1 == 0 ? 0 : 1) + sink; }
static __attribute__((noinline)) u32 nest(u32 n) { sink++; return n == 0 ? 0 : nest(n - 1) + 1; }

static u32 number(const u8 *text, u32 length) {
  u32 n = 0;
  for (u32 i = 0; i < length && text[i] >= '0' && text[i] <= '9'; i++) n = n * 10 + (text[i] - '0');
  return n;
}

static void put(u8 *at, u32 v) { for (int i = 0; i < 4; i++) at[i] = v >> 8 * i; }

// verdict is one entry of the answer.
struct verdict { u8 kind, flags; unsigned short zero; u32 code, id, idLength, out, outLength; };

static void replace(struct verdict *v, const u8 *value, u32 length) {
  u8 *p = output;
  put(p, 0xFFFFFFFE), p += 4;
  put(p, length), p += 4;
  for (u32 i = 0; i < length; i++) *p++ = value[i] >= 'a' && value[i] <= 'z' ? value[i] - 32 : value[i];
  put(p, 0xFFFFFFFE), p += 4;
  v->kind = 2, v->out = (u32)output, v->outLength = p - output;
}

static void id(struct verdict *v, const void *at, u32 length) { v->flags = 1, v->id = (u32)at, v->idLength = length; }

static void hostile(struct verdict *v, u8 letter, const u8 *value, u32 length) {
  switch (letter) {
  case 't': print("about to trap\n"); __builtin_trap();
  case 'w': for (;;) sink++;
  case 's': sink = recurse(1 << 30); break;
  case 'N': sink = nest(number(value, length)); break;
  case 'f': for (;;) __builtin_memset(output, sink++, sizeof output);
  case 'F': __builtin_memset(output, 1, sizeof output); break;
  case 'm': while (__builtin_wasm_memory_grow(0, 1) != (u32)-1) {} __builtin_trap();
  case 'g': __builtin_wasm_memory_grow(0, 1); break;
  case 'x': proc_exit(3); break;
  case 'o': v->kind = 2, v->out = 0xFFFFFF00, v->outLength = 64; break;
  case 'b': v->kind = 3, v->out = (u32)output, v->outLength = (1 << 20) + 1; break;
  case 'B': v->kind = 3, v->out = (u32)output, v->outLength = 1 << 20; break;
  case 'e': v->flags = 1; break;
  case 'v': v->kind = 9; break;
  case 'z': for (u32 n = number(value, length); n > 0; n--) sink++; break;
  }
}

static void host(struct verdict *v, u8 letter, u8 *scratch) {
  u32 a = 9, b = 9;
  switch (letter) {
  case 'a': print("hello from the guest\n"); break;
  case 'A': for (int i = 0; i < 2000; i++) print("0123456789012345678901234567890123456789\n"); break;
  case 'c': clock_time_get(0, 0, (u64 *)scratch); id(v, scratch, 8); break;
  case 'n': random_get(scratch, 20); id(v, scratch, 20); break;
  case 'h': put(scratch, history - (scratch - (u8 *)slots) / 32); id(v, scratch, 4); break;
  case 'E':
    scratch[0] = args_sizes_get(&a, &b), scratch[1] = a, scratch[2] = b;
    scratch[3] = path_open(3, 0, 0, 0, 0, 0, 0, 0, &a), scratch[4] = fd_read(0, &a, 1, &b);
    scratch[5] = poll_oneoff(output, output + 1024, 1, &a), scratch[6] = a;
    id(v, scratch, 7);
    break;
  }
}

EXPORT("millrace_process") u64 process(u8 *in, u32 length) {
  u32 *header = (u32 *)in, count = header[2];
  answer[0] = (u64)count << 32 | 0x3141524D;
  struct verdict *v = (struct verdict *)(answer + 1);
  for (u32 i = 0; i < count; i++, v++, history++) {
    if (!quiet) *(volatile u32 *)(header + 3) = i;
    u32 *record = (u32 *)(in + header[8] + 40 * i);
    *v = (struct verdict){0};
    const u8 *key = in + record[4], *value = in + record[6];
    u32 valueLength = record[7] == 0xFFFFFFFF ? 0 : record[7];
    if (record[5] == 0 || record[5] == 0xFFFFFFFF) continue;
    switch (key[0]) {
    case 'd': v->kind = 1; break;
    case 'r': replace(v, value, valueLength); break;
    case 'l': v->kind = 3, v->code = 42, v->out = (u32) "letter text", v->outLength = 11; break;
    case 'k': v->flags = 2; break;
    case 'i': id(v, value, valueLength); break;
    default: hostile(v, key[0], value, valueLength); host(v, key[0], (u8 *)slots[i]);
    }
  }
  return (u64)(u32)answer << 32 | (8 + 24 * count);
}
