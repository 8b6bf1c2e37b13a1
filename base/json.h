/// Strict JSON for configuration and graphs: our own checks (depth, duplicate keys, UTF-8, trailing
/// bytes, integers beyond 2^53) around positions that errors can name.
#ifndef PM_BASE_JSON_H
#define PM_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/diag.h"

typedef enum pm_json_kind {
    PM_JSON_NULL,
    PM_JSON_BOOL,
    PM_JSON_NUMBER,
    PM_JSON_STRING,
    PM_JSON_ARRAY,
    PM_JSON_OBJECT,
} pm_json_kind;

/// A parsed value; children are arrays in the arena. Immutable.
typedef struct pm_json {
    pm_json_kind kind;
    bool boolean;
    bool is_int;        ///< number was written as an integer that fits int64 (kept exactly)
    int64_t integer;
    double number;
    const char *string; ///< NUL-terminated UTF-8; a string that holds U+0000 is refused
    size_t string_size;
    const struct pm_json *items; ///< array elements, or object values
    const char *const *keys;     ///< object keys, parallel to items
    size_t n;
    uint32_t line, col;
} pm_json;

/// Parses a whole document. Refuses: depth over 64, duplicate keys, byte-order mark, lone
/// surrogates, invalid UTF-8, NUL, trailing bytes, numbers that overflow. Iterative.
/// Errors name `file:line:col`.
PM_NODISCARD pm_status pm_json_parse(pm_arena *arena, pm_diag *diag, const char *file,
                                     const char *text, size_t size, const pm_json **out_json);

/// Member of an object by key, or NULL (also when `object` is NULL or no object).
const pm_json *pm_json_get(const pm_json *object, const char *key);

/// Typed members. `*out` keeps its value when the key is absent (or null) and not `required`.
/// A wrong type, or an absent required key, is an error with its place.
PM_NODISCARD pm_status pm_json_get_i64(pm_diag *diag, const char *file, const pm_json *object,
                                       const char *key, bool required, int64_t *out);
PM_NODISCARD pm_status pm_json_get_f64(pm_diag *diag, const char *file, const pm_json *object,
                                       const char *key, bool required, double *out);
PM_NODISCARD pm_status pm_json_get_bool(pm_diag *diag, const char *file, const pm_json *object,
                                        const char *key, bool required, bool *out);
PM_NODISCARD pm_status pm_json_get_str(pm_diag *diag, const char *file, const pm_json *object,
                                       const char *key, bool required, const char **out);

/// Location of a value, for errors.
pm_loc pm_json_loc(const char *file, const pm_json *value);

/// Writes a string as a JSON literal with quotes, escaping what must be.
void pm_json_write_string(FILE *out, const char *text);

#endif
