/// The small expressions that recipes are written with: "hidden / heads",
/// "layer_types[l] == 'sliding_attention' ? window : 0", "not (l in mlp_only_layers)".
///
///   expr  = or [ "?" expr ":" expr ]             and, or, ?: decide before the other side is read
///   or    = and { "or" and }        and = not { "and" not }        not = [ "not" ] cmp
///   cmp   = sum [ ("==" | "!=" | "<" | "<=" | ">" | ">=" | "in") sum ]
///   sum   = prod { ("+" | "-") prod }      prod = power { ("*" | "/" | "//" | "%") power }
///   power = unary [ "**" unary ]           unary = [ "-" ] atom { "[" expr "]" }
///   atom  = number | 'string' | name | name "(" [ expr { "," expr } ] ")" | "(" expr ")"
///
/// Functions: len(list or string), min(a, b), max(a, b), sqrt(x), log(x), floor(x), has(tensor name),
/// number(string): the number that it begins with, or 0. Items of strings are their characters.
/// get(object, 'key', default): the member, or the default when it, or the object, isn't there.
#ifndef PM_FRONTEND_CHECKPOINT_RECIPE_EXPR_H
#define PM_FRONTEND_CHECKPOINT_RECIPE_EXPR_H

#include "base/containers.h"
#include "base/json.h"

typedef enum pm_expr_kind {
    PM_EXPR_NULL,
    PM_EXPR_NUMBER,
    PM_EXPR_STRING,
    PM_EXPR_LIST,
    PM_EXPR_OBJECT,
} pm_expr_kind;

typedef struct pm_expr_value {
    pm_expr_kind kind;
    double number; ///< truth is a number that isn't 0
    const char *string;
    const pm_json *list; ///< an array or object of the configuration
} pm_expr_value;

/// What names mean.
typedef struct pm_expr_scope {
    pm_arena *arena;
    pm_diag *diag;
    pm_map names; ///< pm_expr_value *
    bool (*has)(void *user, const char *tensor);
    void *user;
} pm_expr_scope;

void pm_expr_set(pm_expr_scope *scope, const char *name, pm_expr_value value);
void pm_expr_set_number(pm_expr_scope *scope, const char *name, double value);

/// Evaluates `text`. `loc` is the place in the recipe. Errors: PM_ERR_INTERNAL for a fault of the
/// recipe itself, PM_ERR_INVALID for an index beyond a list of the model's configuration.
PM_NODISCARD pm_status pm_expr_eval(pm_expr_scope *scope, const pm_loc *loc, const char *text,
                                    pm_expr_value *out);
/// The same, expecting an integer in [lo, hi] (PM_ERR_INVALID otherwise), a number, a truth value.
PM_NODISCARD pm_status pm_expr_int(pm_expr_scope *scope, const pm_loc *loc, const char *text,
                                   int64_t lo, int64_t hi, int64_t *out);
PM_NODISCARD pm_status pm_expr_number(pm_expr_scope *scope, const pm_loc *loc, const char *text,
                                      double *out);
PM_NODISCARD pm_status pm_expr_bool(pm_expr_scope *scope, const pm_loc *loc, const char *text,
                                    bool *out);
/// Replaces each {expr} of a template ("model.layers.{l}.mlp.gate.weight") by its value, an integer or
/// a string that is a template itself.
PM_NODISCARD pm_status pm_expr_template(pm_expr_scope *scope, const pm_loc *loc, const char *text,
                                        const char **out);

/// The value of a JSON scalar or list as an expression sees it.
pm_expr_value pm_expr_from_json(const pm_json *value);

#endif
