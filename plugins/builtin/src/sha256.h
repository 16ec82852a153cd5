/* HMAC-SHA-256 (FIPS 180-4, RFC 2104), fed byte by byte. The two states behind the key's blocks are made once. */
#ifndef MILLRACE_SHA256_H
#define MILLRACE_SHA256_H

#include "millrace.h"

typedef struct {
	uint32_t state[8];
} ms_state;

typedef struct {
	ms_state inner, outer; /* behind the block of the key */
} ms_key;

typedef struct {
	ms_state s;
	uint64_t length; /* bytes so far, the key's block among them */
	uint8_t block[64];
} ms_hash;

static const uint32_t ms_round[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
	0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
	0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
	0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
	0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
	0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static const ms_state ms_start = {{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};

static inline uint32_t ms_turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void ms_compress(ms_state *s, const uint8_t *block) {
	static uint32_t w[64]; /* too large for the stack */
	for (int i = 0; i < 16; i++) w[i] = __builtin_bswap32(mr_load_(block + 4 * i));
	for (int i = 16; i < 64; i++) {
		uint32_t a = ms_turn(w[i - 15], 7) ^ ms_turn(w[i - 15], 18) ^ w[i - 15] >> 3;
		uint32_t b = ms_turn(w[i - 2], 17) ^ ms_turn(w[i - 2], 19) ^ w[i - 2] >> 10;
		w[i] = w[i - 16] + a + w[i - 7] + b;
	}
	uint32_t a = s->state[0], b = s->state[1], c = s->state[2], d = s->state[3];
	uint32_t e = s->state[4], f = s->state[5], g = s->state[6], h = s->state[7];
	for (int i = 0; i < 64; i++) {
		uint32_t t1 = h + (ms_turn(e, 6) ^ ms_turn(e, 11) ^ ms_turn(e, 25)) + ((e & f) ^ (~e & g)) + ms_round[i] + w[i];
		uint32_t t2 = (ms_turn(a, 2) ^ ms_turn(a, 13) ^ ms_turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
		h = g, g = f, f = e, e = d + t1;
		d = c, c = b, b = a, a = t1 + t2;
	}
	s->state[0] += a, s->state[1] += b, s->state[2] += c, s->state[3] += d;
	s->state[4] += e, s->state[5] += f, s->state[6] += g, s->state[7] += h;
}

static inline void ms_byte(ms_hash *h, uint8_t b) {
	h->block[h->length++ & 63] = b;
	if ((h->length & 63) == 0) ms_compress(&h->s, h->block);
}

static void ms_end(ms_hash *h, uint8_t out[32]) {
	uint64_t bits = h->length << 3;
	ms_byte(h, 0x80);
	while ((h->length & 63) != 56) ms_byte(h, 0);
	for (int i = 56; i >= 0; i -= 8) ms_byte(h, (uint8_t)(bits >> i));
	for (int i = 0; i < 32; i++) out[i] = (uint8_t)(h->s.state[i >> 2] >> (24 - 8 * (i & 3)));
}

/* Takes a key of at most 64 bytes. */
static void ms_set_key(ms_key *k, mr_bytes key) {
	uint8_t block[64];
	for (uint32_t i = 0; i < 64; i++) block[i] = (uint8_t)((i < key.length ? key.at[i] : 0) ^ 0x36);
	k->inner = k->outer = ms_start;
	ms_compress(&k->inner, block);
	for (uint32_t i = 0; i < 64; i++) block[i] ^= 0x36 ^ 0x5c;
	ms_compress(&k->outer, block);
}

static void ms_begin(ms_hash *h, const ms_key *k) {
	h->s = k->inner;
	h->length = 64;
}

/* Leaves the HMAC in out. */
static void ms_finish(ms_hash *h, const ms_key *k, uint8_t out[32]) {
	ms_end(h, out);
	h->s = k->outer;
	h->length = 64;
	for (int i = 0; i < 32; i++) ms_byte(h, out[i]);
	ms_end(h, out);
}

#endif
