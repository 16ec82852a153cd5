/* One JSON field, found in one pass without recursion or copies.
 *
 * A path is names joined by dots; a backslash takes the meaning from the character behind it, so a\.b is one name. A
 * name of digits also picks an element of an array. Where an object has a name twice, the last one counts, at every
 * level of the path. Text is compared after its escapes are undone (a surrogate that has no partner stays one), numbers
 * as written. What json.org's grammar refuses, and nesting over MJ_DEPTH_MAX, is malformed.
 */
#ifndef MILLRACE_JSON_H
#define MILLRACE_JSON_H

#include "millrace.h"

#define MJ_NAMES_MAX 16
#define MJ_PATH_BYTES_MAX 512
#define MJ_DEPTH_MAX 1024

typedef struct {
	uint32_t count;
	uint16_t start[MJ_NAMES_MAX + 1]; /* name i is text[start[i] .. start[i + 1]) */
	uint32_t index[MJ_NAMES_MAX];     /* of an array's element, or MR_NULL if the name is no index */
	uint8_t text[MJ_PATH_BYTES_MAX];
} mj_path;

typedef enum { MJ_NONE, MJ_STRING, MJ_NUMBER, MJ_WORD, MJ_OBJECT, MJ_ARRAY } mj_kind;

/* A value as it lies in the text; of a string what is between the quotes. */
typedef struct {
	mj_kind kind; /* MJ_NONE: there is no such field */
	uint8_t escaped;
	const uint8_t *at, *end;
} mj_value;

typedef struct {
	const uint8_t *p, *end;
} mj_cursor;

static inline void mj_space(mj_cursor *c) {
	if (c->p < c->end && *c->p > ' ') return;
	while (c->p < c->end && (*c->p == ' ' || *c->p == '\n' || *c->p == '\r' || *c->p == '\t')) c->p++;
}

static inline int mj_hex(uint8_t c) {
	if (c >= '0' && c <= '9') return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline int mj_hex4(const uint8_t *p, const uint8_t *end, uint32_t *out) {
	if (end - p < 4) return 0;
	uint32_t v = 0;
	for (int i = 0; i < 4; i++) {
		int digit = mj_hex(p[i]);
		if (digit < 0) return 0;
		v = v << 4 | (uint32_t)digit;
	}
	*out = v;
	return 1;
}

#define MJ_BYTES(b) (0x0101010101010101ull * (b))

/* Skips what needs no look in a string: eight bytes at a time, of which none is a quote, a backslash or a control. The
 * tests say yes in the high bit of a byte; above the lowest yes they may err, below it they do not. */
static inline const uint8_t *mj_plain(const uint8_t *p, const uint8_t *end) {
	for (; end - p >= 8; p += 8) {
		uint64_t x;
		__builtin_memcpy(&x, p, 8);
		uint64_t quote = x ^ MJ_BYTES('"'), escape = x ^ MJ_BYTES('\\');
		uint64_t found = ((quote - MJ_BYTES(1)) & ~quote) | ((escape - MJ_BYTES(1)) & ~escape) | ((x - MJ_BYTES(0x20)) & ~x);
		found &= MJ_BYTES(0x80);
		if (found) return p + (__builtin_ctzll(found) >> 3);
	}
	return p;
}

/* Reads a string whose opening quote is behind the cursor; leaves the cursor behind the closing one. */
static int mj_string(mj_cursor *c, mj_value *out) {
	const uint8_t *p = c->p, *end = c->end;
	out->kind = MJ_STRING;
	out->escaped = 0;
	out->at = p;
	for (p = mj_plain(p, end); p < end; p++) {
		if (*p == '"') {
			out->end = p;
			c->p = p + 1;
			return 1;
		}
		if (*p < 0x20) return 0;
		if (*p != '\\') continue;
		out->escaped = 1;
		if (++p == end) return 0;
		switch (*p) {
		case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't': break;
		case 'u': {
			uint32_t unit;
			if (!mj_hex4(p + 1, end, &unit)) return 0;
			p += 4;
			break;
		}
		default: return 0;
		}
	}
	return 0;
}

static int mj_digits(mj_cursor *c) {
	const uint8_t *start = c->p;
	while (c->p < c->end && *c->p >= '0' && *c->p <= '9') c->p++;
	return c->p > start;
}

static int mj_number(mj_cursor *c, mj_value *out) {
	out->kind = MJ_NUMBER;
	out->escaped = 0;
	out->at = c->p;
	if (*c->p == '-') c->p++;
	if (c->p < c->end && *c->p == '0') c->p++;
	else if (!mj_digits(c)) return 0;
	if (c->p < c->end && *c->p == '.') {
		c->p++;
		if (!mj_digits(c)) return 0;
	}
	if (c->p < c->end && (*c->p | 0x20) == 'e') {
		c->p++;
		if (c->p < c->end && (*c->p == '+' || *c->p == '-')) c->p++;
		if (!mj_digits(c)) return 0;
	}
	out->end = c->p;
	return 1;
}

static int mj_word(mj_cursor *c, const char *word, uint32_t length, mj_value *out) {
	if ((uint32_t)(c->end - c->p) < length) return 0;
	mr_bytes b = {c->p, length};
	if (!mr_equal(b, word, length)) return 0;
	out->kind = MJ_WORD;
	out->escaped = 0;
	out->at = c->p;
	c->p += length;
	out->end = c->p;
	return 1;
}

/* Reads a value that holds no other. */
static int mj_scalar(mj_cursor *c, mj_value *out) {
	if (c->p == c->end) return 0;
	switch (*c->p) {
	case '"': c->p++; return mj_string(c, out);
	case 't': return mj_word(c, "true", 4, out);
	case 'f': return mj_word(c, "false", 5, out);
	case 'n': return mj_word(c, "null", 4, out);
	case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
		return mj_number(c, out);
	}
	return 0;
}

static uint32_t mj_utf8(uint32_t code, uint8_t *out) {
	if (code < 0x80) {
		out[0] = (uint8_t)code;
		return 1;
	}
	if (code < 0x800) {
		out[0] = (uint8_t)(0xC0 | code >> 6);
		out[1] = (uint8_t)(0x80 | (code & 0x3F));
		return 2;
	}
	if (code < 0x10000) {
		out[0] = (uint8_t)(0xE0 | code >> 12);
		out[1] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
		out[2] = (uint8_t)(0x80 | (code & 0x3F));
		return 3;
	}
	out[0] = (uint8_t)(0xF0 | code >> 18);
	out[1] = (uint8_t)(0x80 | (code >> 12 & 0x3F));
	out[2] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
	out[3] = (uint8_t)(0x80 | (code & 0x3F));
	return 4;
}

/* Undoes one character or escape at *p of a string that was read before; returns its bytes. */
static uint32_t mj_next(const uint8_t **p, const uint8_t *end, uint8_t out[4]) {
	const uint8_t *at = *p;
	out[0] = *at;
	if (*at != '\\') {
		*p = at + 1;
		return 1;
	}
	*p = at + 2;
	switch (at[1]) {
	case 'b': out[0] = '\b'; return 1;
	case 'f': out[0] = '\f'; return 1;
	case 'n': out[0] = '\n'; return 1;
	case 'r': out[0] = '\r'; return 1;
	case 't': out[0] = '\t'; return 1;
	case 'u': break;
	default: out[0] = at[1]; return 1;
	}
	uint32_t unit = 0, low = 0;
	mj_hex4(at + 2, end, &unit);
	*p = at + 6;
	if (unit >= 0xD800 && unit < 0xDC00 && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u' && mj_hex4(*p + 2, end, &low) &&
	    low >= 0xDC00 && low < 0xE000) {
		*p += 6;
		unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
	}
	return mj_utf8(unit, out);
}

/* Compares a string's text with bytes that have no escapes. */
static int mj_is_text(const mj_value *s, const uint8_t *text, uint32_t length) {
	const uint8_t *p = s->at;
	uint32_t done = 0;
	uint8_t piece[4];
	if (!s->escaped) {
		mr_bytes plain = {s->at, (uint32_t)(s->end - s->at)};
		return mr_equal(plain, (const char *)text, length);
	}
	while (p < s->end) {
		uint32_t n = mj_next(&p, s->end, piece);
		if (n > length - done) return 0;
		for (uint32_t i = 0; i < n; i++)
			if (piece[i] != text[done + i]) return 0;
		done += n;
	}
	return done == length;
}

/* Compares two values that hold no others: text by text, everything else as written. */
static inline int mj_same(const mj_value *a, const mj_value *b) {
	if (a->kind != b->kind) return 0;
	const uint8_t *p = a->at, *q = b->at;
	if (a->kind != MJ_STRING || (!a->escaped && !b->escaped)) {
		mr_bytes text = {p, (uint32_t)(a->end - p)};
		return mr_equal(text, (const char *)q, (uint32_t)(b->end - q));
	}
	while (p < a->end && q < b->end) {
		/* A character of four bytes may stand as one escape here and as plain bytes there. */
		uint8_t left[8], right[8]; /* the last piece may pass four */
		uint32_t m = mj_next(&p, a->end, left), n = mj_next(&q, b->end, right);
		while (m < n && p < a->end) {
			uint32_t more = mj_next(&p, a->end, left + m);
			if (m + more > n) return 0;
			m += more;
		}
		while (n < m && q < b->end) {
			uint32_t more = mj_next(&q, b->end, right + n);
			if (n + more > m) return 0;
			n += more;
		}
		if (m != n) return 0;
		for (uint32_t i = 0; i < m; i++)
			if (left[i] != right[i]) return 0;
	}
	return p == a->end && q == b->end;
}

/* The text of a string, its escapes undone in place of a copy from mr_take; of everything else the bytes as written. */
static inline mr_bytes mj_text(const mj_value *v) {
	mr_bytes out = {v->at, (uint32_t)(v->end - v->at)};
	if (v->kind != MJ_STRING || !v->escaped) return out;
	uint8_t *to = mr_take(out.length + 4), *p = to;
	for (const uint8_t *from = v->at; from < v->end;) p += mj_next(&from, v->end, p);
	out.at = to;
	out.length = (uint32_t)(p - to);
	return out;
}

/* Reads a path; 0 if it is empty, too long, has too many names or an empty one. */
static int mj_parse_path(mr_bytes s, mj_path *path) {
	uint32_t n = 0;
	path->count = 0;
	path->start[0] = 0;
	for (uint32_t i = 0; i <= s.length; i++) {
		if (i < s.length && s.at[i] != '.') {
			if (s.at[i] == '\\' && ++i == s.length) return 0;
			if (n == MJ_PATH_BYTES_MAX) return 0;
			path->text[n++] = s.at[i];
			continue;
		}
		uint32_t start = path->start[path->count], index = 0;
		if (path->count == MJ_NAMES_MAX || n == start) return 0;
		if (n - start > 9 || (path->text[start] == '0' && n - start > 1)) index = MR_NULL;
		for (uint32_t k = start; k < n && index != MR_NULL; k++) {
			uint8_t digit = path->text[k];
			index = digit >= '0' && digit <= '9' ? index * 10 + (digit - '0') : MR_NULL;
		}
		path->index[path->count++] = index;
		path->start[path->count] = (uint16_t)n;
	}
	return 1;
}

/* Where a scan stands. Containers are numbered by depth from 1; one is on the path if the names down to it are the
 * path's first ones. Those on the path nest in each other, so `live`, the depth of the innermost, says it all. */
typedef struct {
	mj_cursor c;
	const mj_path *path;
	mj_value *found;
	uint32_t depth, live, target; /* target: depth at which the field's own container closes, 0 if it is none */
	uint32_t element[MJ_NAMES_MAX + 1];
	uint8_t arrays[MJ_DEPTH_MAX / 8]; /* bit per depth: the container is an array */
} mj_scan;

static inline int mj_in_array(const mj_scan *s) { return s->arrays[(s->depth - 1) >> 3] >> ((s->depth - 1) & 7) & 1; }

/* Opens the container at the cursor. */
static int mj_open(mj_scan *s, int hit) {
	if (s->depth == MJ_DEPTH_MAX) return 0;
	int array = *s->c.p++ == '[';
	if (hit && s->live < s->path->count) {
		s->live++;
		s->element[s->live] = 0;
	} else if (hit) {
		s->target = s->depth + 1;
		s->found->kind = array ? MJ_ARRAY : MJ_OBJECT;
		s->found->escaped = 0;
		s->found->at = s->c.p - 1;
	}
	uint8_t bit = (uint8_t)(1 << (s->depth & 7));
	if (array) s->arrays[s->depth >> 3] |= bit;
	else s->arrays[s->depth >> 3] &= (uint8_t)~bit;
	s->depth++;
	return 1;
}

static void mj_close(mj_scan *s) {
	s->c.p++;
	if (s->depth == s->target) {
		s->found->end = s->c.p;
		s->target = 0;
	}
	if (s->depth == s->live) s->live--;
	s->depth--;
}

/* Goes to the next value of the container at work: reads its name, or counts the element. Tells in hit whether the
 * value is the path's next step; whatever the path found below an equal step before counts no longer. */
static int mj_step(mj_scan *s, int *hit) {
	int on_path = s->depth == s->live;
	*hit = 0;
	if (mj_in_array(s)) {
		if (on_path) *hit = s->element[s->live]++ == s->path->index[s->live - 1];
	} else {
		mj_value name;
		mj_space(&s->c);
		if (s->c.p == s->c.end || *s->c.p++ != '"' || !mj_string(&s->c, &name)) return 0;
		mj_space(&s->c);
		if (s->c.p == s->c.end || *s->c.p++ != ':') return 0;
		if (on_path) {
			const uint16_t *start = &s->path->start[s->live - 1];
			*hit = mj_is_text(&name, s->path->text + start[0], (uint32_t)(start[1] - start[0]));
		}
	}
	if (*hit) s->found->kind = MJ_NONE;
	return 1;
}

/* Finds the field. 0: the text is not one JSON value. */
static int mj_find(mr_bytes json, const mj_path *path, mj_value *found) {
	static mj_scan s; /* too large for the stack; every field is set before it is read */
	s.c.p = json.at;
	s.c.end = json.at + json.length;
	s.path = path;
	s.found = found;
	s.depth = s.live = s.target = 0;
	found->kind = MJ_NONE;
	int hit = 1; /* the root is where the path begins */
	for (;;) {
		mj_space(&s.c);
		if (s.c.p == s.c.end) return 0;
		if (*s.c.p == '{' || *s.c.p == '[') {
			if (!mj_open(&s, hit)) return 0;
			mj_space(&s.c);
			if (s.c.p == s.c.end) return 0;
			if (*s.c.p != (mj_in_array(&s) ? ']' : '}')) {
				if (!mj_step(&s, &hit)) return 0;
				continue;
			}
			mj_close(&s);
		} else {
			mj_value v;
			if (!mj_scalar(&s.c, &v)) return 0;
			if (hit && s.depth > 0 && s.live == path->count) *found = v;
		}
		/* Behind a value: close what ends here, then go to the next one. */
		for (;;) {
			mj_space(&s.c);
			if (s.depth == 0) return s.c.p == s.c.end;
			if (s.c.p == s.c.end) return 0;
			if (*s.c.p == ',') break;
			if (*s.c.p != (mj_in_array(&s) ? ']' : '}')) return 0;
			mj_close(&s);
		}
		s.c.p++;
		if (!mj_step(&s, &hit)) return 0;
	}
}

#endif
