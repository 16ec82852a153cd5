/* Takes what nobody may see out of records: fields of a JSON value, headers, the key. What a method leaves behind:
 *
 *   remove   a member goes with its name, an element of an array becomes null, a header goes, the key becomes null
 *   blank    a string becomes "", everything else null; a header's value and the key become empty
 *   hash     the first 16 bytes of HMAC-SHA-256 under `secret`, as 32 hex digits, of a string's text and of everything
 *            else as written; null stays null
 *
 * A path is as in json.h, but it finds all that it may mean: every member of a name that an object has twice, and where
 * it meets an array, each of its elements, beside the one that a name of digits picks. A value that holds no JSON is
 * dead-lettered or dropped with code 2, never passed: who wrote it may have put the secret there. So is nesting over
 * MJ_DEPTH_MAX, or over PATH_DEPTH_MAX where a path leads. */
#include "json.h"
#include "sha256.h"

#define NO_JSON 2
#define PATHS_MAX 32
#define HEADERS_MAX 32
#define TEXT_BYTES_MAX 8192
#define SECRET_BYTES_MIN 16
#define SECRET_BYTES_MAX 64
#define PATH_DEPTH_MAX 64
#define HASH_DIGITS 32

typedef enum { REMOVE, BLANK, HASH } rule;

static struct {
	rule method;
	int drop_malformed, key;
	uint32_t paths, headers;
	mj_path path[PATHS_MAX];
	mr_bytes header[HEADERS_MAX]; /* into text */
	ms_key secret;
	uint32_t used;
	uint8_t text[TEXT_BYTES_MAX];
} settings;

static mr_bytes whole; /* the configuration while it is read */

static mj_value member(const char *name, uint32_t length) {
	static mj_path path;
	mj_value value;
	mr_bytes text = {(const uint8_t *)name, length};
	mj_parse_path(text, &path);
	if (!mj_find(whole, &path, &value)) value.kind = MJ_NONE;
	return value;
}

static int is(const mj_value *v, const char *text, uint32_t length) {
	return v->kind == MJ_STRING && mj_is_text(v, (const uint8_t *)text, length);
}

static int add_path(const mj_value *v) {
	return settings.paths < PATHS_MAX && mj_parse_path(mj_text(v), &settings.path[settings.paths++]);
}

static int add_header(const mj_value *v) {
	mr_bytes name = mj_text(v);
	if (settings.headers == HEADERS_MAX || name.length > TEXT_BYTES_MAX - settings.used) return 0;
	mr_bytes *kept = &settings.header[settings.headers++];
	kept->at = settings.text + settings.used;
	kept->length = name.length;
	for (uint32_t i = 0; i < name.length; i++) settings.text[settings.used++] = name.at[i];
	return 1;
}

/* Reads a list of strings, if there is one. */
static int list(mj_value array, int (*add)(const mj_value *)) {
	if (array.kind == MJ_NONE) return 1;
	if (array.kind != MJ_ARRAY) return 0;
	mj_cursor c = {array.at + 1, array.end};
	for (;;) {
		mj_value v;
		mj_space(&c);
		if (*c.p == ']') return 1;
		if (*c.p == ',') c.p++; /* the whole text was found to be JSON before */
		mj_space(&c);
		if (!mj_scalar(&c, &v) || v.kind != MJ_STRING || !add(&v)) return 0;
	}
}

int32_t millrace_config(mr_bytes config) {
	whole = config;
	mj_value key = member("key", 3), method = member("method", 6), secret = member("secret", 6), malformed = member("malformed", 9);
	if (!list(member("fields", 6), add_path)) return 1;
	if (!list(member("headers", 7), add_header)) return 2;
	if (key.kind != MJ_NONE && (key.kind != MJ_WORD || *key.at == 'n')) return 3;
	settings.key = key.kind == MJ_WORD && *key.at == 't';
	if (!settings.key && settings.paths == 0 && settings.headers == 0) return 4;
	if (method.kind == MJ_NONE || is(&method, "remove", 6)) settings.method = REMOVE;
	else if (is(&method, "blank", 5)) settings.method = BLANK;
	else if (is(&method, "hash", 4)) settings.method = HASH;
	else return 5;
	if ((settings.method == HASH) != (secret.kind == MJ_STRING)) return 6;
	if (settings.method == HASH) {
		mr_bytes text = mj_text(&secret);
		if (text.length < SECRET_BYTES_MIN || text.length > SECRET_BYTES_MAX) return 6;
		ms_set_key(&settings.secret, text);
	}
	if (is(&malformed, "drop", 4)) settings.drop_malformed = 1;
	else if (malformed.kind != MJ_NONE && !is(&malformed, "dead-letter", 11)) return 7;
	return 0;
}

/* The record's output: one stretch of memory that grows at its end. Nothing else is taken while it does. */
static struct {
	uint8_t *at, *end;
} out;

static inline uint8_t *room(uint32_t n) {
	if ((uint32_t)(out.end - out.at) < n) out.end = mr_take(n + 256) + ((n + 256 + 7) & ~7u);
	uint8_t *at = out.at;
	out.at += n;
	return at;
}

static inline void put(const void *from, uint32_t n) {
	uint8_t *to = room(n);
	__builtin_memcpy(to, from, n);
}

static inline void put_number(uint32_t n) { put(&n, 4); }

static void put_part(mr_bytes b) {
	put_number(b.length);
	if (!mr_is_null(b)) put(b.at, b.length);
}

static void put_digits(ms_hash *h) {
	uint8_t sum[32], *to = room(HASH_DIGITS);
	ms_finish(h, &settings.secret, sum);
	for (int i = 0; i < HASH_DIGITS; i++) to[i] = (uint8_t) "0123456789abcdef"[sum[i >> 1] >> (i & 1 ? 0 : 4) & 15];
}

/* Puts what is left of the key, or of a header that stays. */
static void put_redacted(mr_bytes b) {
	static ms_hash h;
	if (mr_is_null(b)) return put_number(MR_NULL);
	if (settings.method != HASH) return put_number(settings.method == REMOVE ? MR_NULL : 0);
	ms_begin(&h, &settings.secret);
	for (uint32_t i = 0; i < b.length; i++) ms_byte(&h, b.at[i]);
	put_number(HASH_DIGITS);
	put_digits(&h);
}

/* Puts what is left of a value of JSON that is not removed. */
static void put_value(const mj_value *v) {
	static ms_hash h;
	int null = v->kind == MJ_WORD && *v->at == 'n';
	if (settings.method == HASH && !null) {
		ms_begin(&h, &settings.secret);
		for (const uint8_t *p = v->at; p < v->end;) {
			uint8_t piece[4];
			uint32_t n = 1;
			if (v->kind == MJ_STRING) n = mj_next(&p, v->end, piece);
			else piece[0] = *p++;
			for (uint32_t i = 0; i < n; i++) ms_byte(&h, piece[i]);
		}
		put("\"", 1);
		put_digits(&h);
		return put("\"", 1);
	}
	if (settings.method == BLANK && v->kind == MJ_STRING) return put("\"\"", 2);
	put("null", 4);
}

/* How far a path has come in a container: bit n is set where its first n names led here. */
typedef uint32_t progress;

/* Where a scan stands; depth, live and target are as in json.h. */
static struct {
	mj_cursor c;
	const uint8_t *copied; /* what is before is in the output, or left out of it */
	int changed;
	uint32_t depth, live, target;
	mj_value hidden;        /* the value that goes, while it is read */
	const uint8_t *from[2]; /* where its member begins: with the comma before it, and without */
	progress at[PATH_DEPTH_MAX + 1][PATHS_MAX], next[PATHS_MAX];
	uint32_t element[PATH_DEPTH_MAX + 1];
	uint8_t stayed[PATH_DEPTH_MAX + 1]; /* a member before this one stayed */
	uint8_t arrays[MJ_DEPTH_MAX / 8];
} s;

typedef enum { STRANGE, LEADS, HIDDEN, BROKEN } step;

static inline int in_array(void) { return s.arrays[(s.depth - 1) >> 3] >> ((s.depth - 1) & 7) & 1; }

static inline void copy_to(const uint8_t *p) {
	if (p > s.copied) put(s.copied, (uint32_t)(p - s.copied));
}

/* The value at the cursor's left goes. */
static void hide(void) {
	s.changed = 1;
	if (settings.method == REMOVE && !in_array()) {
		int comma = s.stayed[s.depth]; /* the first that stays has none before it */
		copy_to(s.from[!comma]);
		mj_space(&s.c);
		if (!comma && s.c.p < s.c.end && *s.c.p == ',') {
			s.copied = s.c.p + 1;
			return;
		}
	} else {
		copy_to(s.hidden.kind == MJ_STRING ? s.hidden.at - 1 : s.hidden.at);
		put_value(&s.hidden);
	}
	s.copied = s.c.p;
}

/* Takes the paths of a container on to one of its values, as s.next. */
static step advance(int array, const mj_value *name) {
	progress all = 0;
	uint32_t element = array ? s.element[s.live]++ : 0;
	for (uint32_t i = 0; i < settings.paths; i++) {
		const mj_path *path = &settings.path[i];
		progress have = s.at[s.live][i], more = array ? have : 0;
		for (; have; have &= have - 1) {
			uint32_t n = (uint32_t)__builtin_ctz(have);
			const uint16_t *start = &path->start[n];
			int hit = array ? path->index[n] == element : mj_is_text(name, path->text + start[0], (uint32_t)(start[1] - start[0]));
			if (!hit) continue;
			if (n + 1 == path->count) return HIDDEN;
			more |= (progress)2 << n;
		}
		s.next[i] = more;
		all |= more;
	}
	return all ? LEADS : STRANGE;
}

/* Goes to the next value of the container at work, whose separator or bracket is at the cursor's left. */
static step go_on(void) {
	mj_value name;
	if (!s.target) {
		s.from[0] = s.c.p - 1;
		s.from[1] = s.c.p;
	}
	int array = in_array(), known = s.depth == s.live;
	if (!array) {
		mj_space(&s.c);
		if (s.c.p == s.c.end || *s.c.p++ != '"' || !mj_string(&s.c, &name)) return BROKEN;
		mj_space(&s.c);
		if (s.c.p == s.c.end || *s.c.p++ != ':') return BROKEN;
	}
	if (!known) return STRANGE;
	step to = advance(array, &name);
	if (to != HIDDEN || array) s.stayed[s.live] = 1;
	return to;
}

static int open(step to) {
	if (s.depth == MJ_DEPTH_MAX) return 0;
	int array = *s.c.p++ == '[';
	if (to == LEADS) {
		if (s.live == PATH_DEPTH_MAX) return 0;
		s.live++;
		for (uint32_t i = 0; i < settings.paths; i++) s.at[s.live][i] = s.next[i];
		s.element[s.live] = 0;
		s.stayed[s.live] = 0;
	} else if (to == HIDDEN) {
		s.target = s.depth + 1;
		s.hidden.kind = array ? MJ_ARRAY : MJ_OBJECT;
		s.hidden.escaped = 0;
		s.hidden.at = s.c.p - 1;
	}
	uint8_t bit = (uint8_t)(1 << (s.depth & 7));
	if (array) s.arrays[s.depth >> 3] |= bit;
	else s.arrays[s.depth >> 3] &= (uint8_t)~bit;
	s.depth++;
	return 1;
}

static void shut(void) {
	int hidden = s.depth == s.target;
	s.c.p++;
	if (s.depth == s.live) s.live--;
	s.depth--;
	if (!hidden) return;
	s.hidden.end = s.c.p;
	s.target = 0;
	hide();
}

/* Copies a value of JSON to the output without what is hidden. 0: the text is not one JSON value. */
static int redact(mr_bytes json) {
	s.c.p = s.copied = json.at;
	s.c.end = json.at + json.length;
	s.changed = 0;
	s.depth = s.live = s.target = 0;
	for (uint32_t i = 0; i < settings.paths; i++) s.next[i] = 1;
	step to = LEADS; /* the root is where the paths begin */
	for (;;) {
		mj_space(&s.c);
		if (s.c.p == s.c.end || to == BROKEN) return 0;
		if (*s.c.p == '{' || *s.c.p == '[') {
			if (!open(to)) return 0;
			mj_space(&s.c);
			if (s.c.p == s.c.end) return 0;
			if (*s.c.p != (in_array() ? ']' : '}')) {
				to = go_on();
				continue;
			}
			shut();
		} else {
			mj_value v;
			if (!mj_scalar(&s.c, &v)) return 0;
			if (to == HIDDEN) {
				s.hidden = v;
				hide();
			}
		}
		/* Behind a value: close what ends here, then go to the next one. */
		for (;;) {
			mj_space(&s.c);
			if (s.depth == 0) {
				copy_to(s.c.end);
				return s.c.p == s.c.end;
			}
			if (s.c.p == s.c.end) return 0;
			if (*s.c.p == ',') break;
			if (*s.c.p != (in_array() ? ']' : '}')) return 0;
			shut();
		}
		s.c.p++;
		to = go_on();
	}
}

/* Puts the headers without those that are hidden; tells whether there were any. */
static int put_headers(mr_bytes b) {
	uint8_t *length = room(4), *body = room(4);
	uint32_t count = mr_load_(b.at), kept = 0, offset = (uint32_t)(body - length), changed = 0;
	const uint8_t *p = b.at + 4;
	for (; count > 0; count--) {
		mr_bytes name = {p + 4, mr_load_(p)};
		p += 4 + name.length;
		mr_bytes value = {p + 4, mr_load_(p)};
		p += 4 + (mr_is_null(value) ? 0 : value.length);
		int hidden = 0;
		for (uint32_t i = 0; i < settings.headers && !hidden; i++)
			hidden = mr_equal(name, (const char *)settings.header[i].at, settings.header[i].length);
		changed |= (uint32_t)hidden;
		if (hidden && settings.method == REMOVE) continue;
		kept++;
		put_part(name);
		if (hidden) put_redacted(value);
		else put_part(value);
	}
	uint32_t n = (uint32_t)(out.at - length) - offset;
	__builtin_memcpy(length, &n, 4);
	__builtin_memcpy(length + offset, &kept, 4);
	return (int)changed;
}

/* Takes back what was put since `at` and says that the part stays. */
static void as_input(uint8_t *at) {
	out.at = at;
	put_number(MR_AS_INPUT);
}

int64_t millrace_judge(const mr_record *r) {
	uint8_t *start = mr_.free;
	out.at = out.end = start;
	mr_bytes key = mr_key(r), value = mr_value(r), headers = {(const uint8_t *)mr_.frame + r->headers, r->headers_length};
	int changed = settings.key && !mr_is_null(key);
	if (changed) put_redacted(key);
	else put_number(MR_AS_INPUT);

	uint32_t at = (uint32_t)(out.at - start);
	put_number(MR_NULL);
	int hidden = 0;
	if (settings.paths > 0 && !mr_is_null(value)) {
		if (!redact(value)) {
			mr_.free = start;
			if (settings.drop_malformed) return MR_DROP | (int64_t)NO_JSON << 32;
			return mr_dead_letter(NO_JSON, "the value holds no JSON, so nothing in it can be redacted");
		}
		hidden = s.changed;
	}
	uint32_t n = (uint32_t)(out.at - start) - at - 4;
	if (hidden) __builtin_memcpy(start + at, &n, 4);
	else as_input(start + at);
	changed |= hidden;

	uint8_t *tail = out.at;
	hidden = settings.headers > 0 && !mr_is_null(headers) && headers.length >= 4 && put_headers(headers);
	if (!hidden) as_input(tail);
	if (!(changed | hidden)) {
		mr_.free = start;
		return MR_PASS;
	}
	mr_.free = (uint8_t *)(((uintptr_t)out.at + 7) & ~(uintptr_t)7);
	mr_.answer.output = (uint32_t)(uintptr_t)start;
	mr_.answer.output_length = (uint32_t)(out.at - start);
	return MR_REPLACE_;
}

MR_PLUGIN_WITH_CONFIG
