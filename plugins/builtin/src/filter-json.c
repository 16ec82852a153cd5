/* Passes or drops by a JSON field. A record matches if the field equals one value, or one of several, or if it exists
 * as configured; `then` says what becomes of those that match, and the others get the other. A record that holds no
 * JSON passes with code 2. */
#include "json.h"

#define NO_JSON ((int64_t)2 << 32)
#define CONFIG_BYTES_MAX 8192
#define VALUES_MAX 256

static struct {
	mj_path field;
	int64_t match, other; /* verdicts */
	enum { BY_VALUE, BY_EXISTENCE } rule;
	int exists;
	uint32_t values;
	mj_value value[VALUES_MAX]; /* into text */
	uint8_t text[CONFIG_BYTES_MAX];
} settings;

static mr_bytes whole; /* the configuration, as it lies in settings */

/* Finds a member of the configuration. */
static mj_value member(const char *name, uint32_t length) {
	static mj_path path;
	mj_value value;
	mr_bytes text = {(const uint8_t *)name, length};
	mj_parse_path(text, &path);
	if (!mj_find(whole, &path, &value)) value.kind = MJ_NONE;
	return value;
}

/* Reads the values of a list, which hold no others. */
static int list(mj_value array) {
	mj_cursor c = {array.at + 1, array.end};
	for (;;) {
		mj_space(&c);
		if (*c.p == ']') return settings.values > 0;
		if (*c.p == ',') c.p++; /* the whole text was found to be JSON before */
		mj_space(&c);
		if (settings.values == VALUES_MAX || !mj_scalar(&c, &settings.value[settings.values++])) return 0;
	}
}

int32_t millrace_config(mr_bytes config) {
	if (config.length > CONFIG_BYTES_MAX) return 3;
	for (uint32_t i = 0; i < config.length; i++) settings.text[i] = config.at[i];
	whole.at = settings.text;
	whole.length = config.length;
	mj_value field = member("field", 5), equals = member("equals", 6), in = member("in", 2), exists = member("exists", 6),
	         then = member("then", 4);
	if (field.kind != MJ_STRING) return 1;
	if (!mj_parse_path(mj_text(&field), &settings.field)) return 2;
	if ((equals.kind != MJ_NONE) + (in.kind != MJ_NONE) + (exists.kind != MJ_NONE) != 1) return 4;
	if (equals.kind != MJ_NONE) {
		if (equals.kind >= MJ_OBJECT) return 5;
		settings.value[settings.values++] = equals;
	}
	if (in.kind != MJ_NONE && (in.kind != MJ_ARRAY || !list(in))) return 5;
	if (exists.kind != MJ_NONE) {
		if (exists.kind != MJ_WORD || *exists.at == 'n') return 5;
		settings.rule = BY_EXISTENCE;
		settings.exists = *exists.at == 't';
	}
	int drop = then.kind == MJ_STRING && mj_is_text(&then, (const uint8_t *)"drop", 4);
	int pass = then.kind == MJ_NONE || (then.kind == MJ_STRING && mj_is_text(&then, (const uint8_t *)"pass", 4));
	if (!drop && !pass) return 6;
	settings.match = drop ? MR_DROP : MR_PASS;
	settings.other = drop ? MR_PASS : MR_DROP;
	return 0;
}

static int matches(const mj_value *value) {
	if (settings.rule == BY_EXISTENCE) return (value->kind != MJ_NONE) == settings.exists;
	for (uint32_t i = 0; i < settings.values; i++)
		if (mj_same(value, &settings.value[i])) return 1;
	return 0;
}

int64_t millrace_judge(const mr_record *r) {
	mj_value value;
	mr_bytes json = mr_value(r);
	if (mr_is_null(json) || !mj_find(json, &settings.field, &value)) return MR_PASS | NO_JSON;
	return matches(&value) ? settings.match : settings.other;
}

MR_PLUGIN_WITH_CONFIG
