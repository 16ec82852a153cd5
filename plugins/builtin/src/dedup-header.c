/* Delivers one record of each value of a header within the window. Where a record has the header more than once the last
 * one counts, as it does for Kafka's own clients. A record without it, or whose last one is null or empty, becomes what
 * `missing` says, with code 1. */
#include "json.h"

#define NAME_BYTES_MAX 512
#define MISSING 1

static struct {
	uint32_t length;
	int64_t missing; /* a verdict */
	char name[NAME_BYTES_MAX];
} settings;

static mj_value member(mr_bytes config, const char *name, uint32_t length) {
	static mj_path path;
	mj_value value;
	mr_bytes text = {(const uint8_t *)name, length};
	mj_parse_path(text, &path);
	if (!mj_find(config, &path, &value)) value.kind = MJ_NONE;
	return value;
}

static int is(const mj_value *v, const char *text, uint32_t length) {
	return v->kind == MJ_STRING && mj_is_text(v, (const uint8_t *)text, length);
}

int32_t millrace_config(mr_bytes config) {
	mj_value header = member(config, "header", 6), missing = member(config, "missing", 7);
	if (header.kind != MJ_STRING) return 1;
	mr_bytes name = mj_text(&header);
	if (name.length == 0 || name.length > NAME_BYTES_MAX) return 2;
	for (uint32_t i = 0; i < name.length; i++) settings.name[i] = (char)name.at[i];
	settings.length = name.length;
	if (missing.kind == MJ_NONE || is(&missing, "pass", 4)) settings.missing = MR_PASS;
	else if (is(&missing, "drop", 4)) settings.missing = MR_DROP;
	else if (is(&missing, "dead-letter", 11)) settings.missing = MR_DEAD_LETTER_;
	else return 3;
	return 0;
}

int64_t millrace_judge(const mr_record *r) {
	mr_bytes id = mr_header(r, settings.name, settings.length);
	if (!mr_is_null(id) && id.length > 0) return mr_unique(MR_PASS, id);
	if (settings.missing == MR_DEAD_LETTER_) return mr_dead_letter(MISSING, "the header that identifies a record is missing");
	return settings.missing | (int64_t)MISSING << 32;
}

MR_PLUGIN_WITH_CONFIG
