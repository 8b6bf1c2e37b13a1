/// Errors, warnings and notes for the user, each with its place.
#ifndef PM_BASE_DIAG_H
#define PM_BASE_DIAG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"

/// A place in the user's input, or one derived from it. Immutable; lives in the module's arena.
/// Rendered as `model.onnx: node 'layers.3/router' (TopK)` or `file:line:col`.
typedef struct pm_loc {
    const char *file;          ///< as the user named it; NULL: no file
    uint32_t line, col;        ///< 1-based; 0: not a text file
    uint64_t offset;           ///< byte offset in a binary file, with `has_offset`
    bool has_offset;
    const char *what;          ///< "node", "tensor", "key" …; NULL when `name` is NULL
    const char *name;          ///< name of the node, tensor, key
    const char *detail;        ///< op type and the like, shown in brackets; may be NULL
    const struct pm_loc *from; ///< the place that this one was derived from; may be NULL
    const char *by;            ///< the pass that derived it; may be NULL
} pm_loc;

typedef enum pm_severity { PM_ERROR, PM_WARNING, PM_NOTE } pm_severity;

typedef struct pm_diag_entry {
    pm_severity severity;
    pm_status code; ///< PM_OK for warnings and notes
    const char *kind; ///< of a warning: a word that stays, for programs; NULL otherwise
    const pm_loc *loc; ///< may be NULL
    const char *text;
} pm_diag_entry;

/// The sink. Keeps at most 100 errors and 1,000 entries in all (then counts only).
typedef struct pm_diag pm_diag;

/// Entries and their texts are copied into `arena`; so are the locations (they may die first).
pm_diag *pm_diag_create(pm_arena *arena);

/// Adds an error and returns `code`, so that callers write `return pm_error(…)`.
pm_status pm_error(pm_diag *diag, const pm_loc *loc, pm_status code, const char *fmt, ...)
    PM_PRINTF(4, 5);
/// `kind`: a word that names what is warned of, for programs ("router_ties"); a literal.
void pm_warning(pm_diag *diag, const pm_loc *loc, const char *kind, const char *fmt, ...) PM_PRINTF(4, 5);
/// Notes belong to the error or warning before them.
void pm_note(pm_diag *diag, const pm_loc *loc, const char *fmt, ...) PM_PRINTF(3, 4);

size_t pm_diag_count(const pm_diag *diag, pm_severity severity);
size_t pm_diag_size(const pm_diag *diag);
const pm_diag_entry *pm_diag_at(const pm_diag *diag, size_t i);

/// Registers the text of a source file, so that errors in it show the line with a caret.
void pm_diag_source(pm_diag *diag, const char *file, const char *text, size_t size);

/// Writes all entries for a person: `place: error: text`, the source line and a caret where known.
/// Control characters and invalid UTF-8 of the input are escaped.
void pm_diag_print(const pm_diag *diag, FILE *out, bool colour);
/// Writes the location alone, as pm_diag_print does ("model.onnx: node 'x' (TopK)").
void pm_loc_print(const pm_loc *loc, FILE *out);
char *pm_loc_text(pm_arena *arena, const pm_loc *loc);
/// Writes the entries as a JSON array of {"severity","code","message","location"}.
void pm_diag_json(const pm_diag *diag, FILE *out);
/// Name of a status for JSON: "invalid", "unsupported", …
const char *pm_status_name(pm_status status);

/// Prints the failed condition and aborts (exit code by signal): our bugs only, never the user's.
_Noreturn void pm_assert_failed(const char *cond, const char *file, int line);
#define PM_ASSERT(cond) ((cond) ? (void)0 : pm_assert_failed(#cond, __FILE__, __LINE__))

#endif
