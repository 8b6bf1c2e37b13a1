/// Writes JSON: commas and nesting are kept here, so that what comes out is always well formed.
#ifndef PM_TOOLS_JSON_OUT_H
#define PM_TOOLS_JSON_OUT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"

enum { PM_JSON_OUT_DEPTH = 32 };

typedef struct pm_json_out {
    FILE *out;
    int depth;
    bool filled[PM_JSON_OUT_DEPTH], array[PM_JSON_OUT_DEPTH];
} pm_json_out;

/// `key` NULL: an element of an array, or the whole document.
void pm_jo_object(pm_json_out *w, const char *key);
void pm_jo_array(pm_json_out *w, const char *key);
/// Ends the innermost object or array; after the outermost one a newline.
void pm_jo_end(pm_json_out *w);
void pm_jo_text(pm_json_out *w, const char *key, const char *value); ///< NULL: null
void pm_jo_int(pm_json_out *w, const char *key, int64_t value);
void pm_jo_uint(pm_json_out *w, const char *key, uint64_t value);
/// Not finite: null. The shortest form that reads back equal.
void pm_jo_number(pm_json_out *w, const char *key, double value);
void pm_jo_ms(pm_json_out *w, const char *key, double milliseconds); ///< with three decimals
void pm_jo_bool(pm_json_out *w, const char *key, bool value);
void pm_jo_null(pm_json_out *w, const char *key);
/// JSON text that is there already.
void pm_jo_raw(pm_json_out *w, const char *key, const char *json);

/// The warnings of a JSON array of messages (pm_diag_json) under "warnings": `code`, `message`, `location` of each.
/// Text that isn't such an array has none.
void pm_jo_warnings(pm_json_out *w, pm_arena *arena, const char *messages, size_t size);

#endif
