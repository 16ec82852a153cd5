/* Delivers one record of each key within the window. A record without a key, or with an empty one, passes; code 1. */
#include "millrace.h"

#define NO_KEY ((int64_t)1 << 32)

int64_t millrace_judge(const mr_record *r) {
	mr_bytes key = mr_key(r);
	if (mr_is_null(key) || key.length == 0) return MR_PASS | NO_KEY;
	return mr_unique_by_key(MR_PASS);
}

MR_PLUGIN
