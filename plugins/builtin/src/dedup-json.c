/* Delivers one record of each value of a JSON field within the window. The id is the text of a string, and every other
 * value as written. A record whose field is missing, null or empty passes with code 1, one that holds no JSON with
 * code 2. */
#include "json.h"

#define NO_FIELD ((int64_t)1 << 32)
#define NO_JSON ((int64_t)2 << 32)

static mj_path field;

int32_t millrace_config(mr_bytes config) {
	static mj_path path;
	mj_value value;
	mr_bytes name = {(const uint8_t *)"field", 5};
	mj_parse_path(name, &path);
	if (!mj_find(config, &path, &value) || value.kind != MJ_STRING) return 1;
	return mj_parse_path(mj_text(&value), &field) ? 0 : 2;
}

int64_t millrace_judge(const mr_record *r) {
	mj_value value;
	mr_bytes json = mr_value(r);
	if (mr_is_null(json) || !mj_find(json, &field, &value)) return MR_PASS | NO_JSON;
	if (value.kind == MJ_NONE || (value.kind == MJ_WORD && *value.at == 'n')) return MR_PASS | NO_FIELD;
	mr_bytes id = mj_text(&value);
	if (id.length == 0) return MR_PASS | NO_FIELD;
	return mr_unique(MR_PASS, id);
}

MR_PLUGIN_WITH_CONFIG
