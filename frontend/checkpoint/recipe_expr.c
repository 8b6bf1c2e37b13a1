#include "frontend/checkpoint/recipe_expr.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/str.h"

enum { MAX_DEPTH = 24, MAX_ARGS = 4 };

typedef struct parser {
    pm_expr_scope *scope;
    const pm_loc *loc;
    const char *text, *at;
    int depth;
    int dead; ///< above 0: a branch not taken; it is read, but not evaluated
} parser;

void pm_expr_set(pm_expr_scope *scope, const char *name, pm_expr_value value)
{
    void **slot = pm_map_at(&scope->names, name, strlen(name));
    if (*slot == NULL)
        *slot = PM_NEW(scope->arena, pm_expr_value);
    *(pm_expr_value *)*slot = value;
}

void pm_expr_set_number(pm_expr_scope *scope, const char *name, double value)
{
    pm_expr_set(scope, name, (pm_expr_value){.kind = PM_EXPR_NUMBER, .number = value});
}

pm_expr_value pm_expr_from_json(const pm_json *value)
{
    pm_expr_value v = {.kind = PM_EXPR_NULL};
    const pm_json *object = value;
    if (value == NULL)
        return v;
    switch (value->kind) {
    case PM_JSON_BOOL:
        v.kind = PM_EXPR_NUMBER;
        v.number = value->boolean;
        break;
    case PM_JSON_NUMBER:
        v.kind = PM_EXPR_NUMBER;
        v.number = value->number;
        break;
    case PM_JSON_STRING:
        v.kind = PM_EXPR_STRING;
        v.string = value->string;
        break;
    case PM_JSON_ARRAY:
        v.kind = PM_EXPR_LIST;
        v.list = value;
        break;
    case PM_JSON_OBJECT: // how transformers writes numbers that JSON doesn't have
        value = pm_json_get(object, "__float__");
        if (value != NULL && value->kind == PM_JSON_STRING &&
            strcmp(value->string, "Infinity") == 0) {
            v.kind = PM_EXPR_NUMBER;
            v.number = INFINITY;
        } else {
            v.kind = PM_EXPR_OBJECT;
            v.list = object;
        }
        break;
    case PM_JSON_NULL: break;
    }
    return v;
}

// ---- reading ----

static pm_status fault(parser *p, const char *what)
{
    return pm_error(p->scope->diag, p->loc, PM_ERR_INTERNAL, "recipe expression '%s': %s at '%.20s'",
                    p->text, what, p->at);
}

static void skip_space(parser *p)
{
    while (*p->at == ' ')
        p->at++;
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/// Takes the token if it comes next; a word only as a whole.
static bool take(parser *p, const char *token)
{
    skip_space(p);
    size_t n = strlen(token);
    if (strncmp(p->at, token, n) != 0 || (is_word(token[0]) && is_word(p->at[n])))
        return false;
    p->at += n;
    return true;
}

static bool truth(pm_expr_value v)
{
    switch (v.kind) {
    case PM_EXPR_NULL: return false;
    case PM_EXPR_NUMBER: return v.number != 0;
    case PM_EXPR_STRING: return v.string[0] != '\0';
    case PM_EXPR_LIST:
    case PM_EXPR_OBJECT: return v.list->n > 0;
    }
    return false;
}

static bool equal(pm_expr_value a, pm_expr_value b)
{
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case PM_EXPR_NULL: return true;
    case PM_EXPR_NUMBER: return a.number == b.number;
    case PM_EXPR_STRING: return strcmp(a.string, b.string) == 0;
    case PM_EXPR_LIST:
    case PM_EXPR_OBJECT: return a.list == b.list;
    }
    return false;
}

static pm_expr_value number(double x)
{
    return (pm_expr_value){.kind = PM_EXPR_NUMBER, .number = x};
}

/// Items of a list, characters of a string.
static double length(pm_expr_value v)
{
    if (v.kind == PM_EXPR_STRING)
        return (double)strlen(v.string);
    return v.kind == PM_EXPR_LIST ? (double)v.list->n : 0;
}

static pm_status expect_number(parser *p, pm_expr_value v)
{
    if (v.kind == PM_EXPR_NUMBER || p->dead > 0)
        return PM_OK;
    return fault(p, "a number was expected before");
}

static pm_status parse_expr(parser *p, pm_expr_value *out);

/// get(object, key, default)
static pm_status call_get(parser *p, const pm_expr_value *args, pm_expr_value *out)
{
    const pm_json *member = NULL;
    const char *key = args[1].string;
    if (args[1].kind == PM_EXPR_NUMBER) // keys are strings in JSON, always
        key = pm_arena_printf(p->scope->arena, "%.0f", args[1].number);
    else if (args[1].kind != PM_EXPR_STRING)
        return fault(p, "get takes an object, a key and a default, before");
    if (args[0].kind == PM_EXPR_OBJECT)
        member = pm_json_get(args[0].list, key);
    *out = member != NULL && member->kind != PM_JSON_NULL ? pm_expr_from_json(member) : args[2];
    return PM_OK;
}

static pm_status call_has(parser *p, const char *template, pm_expr_value *out)
{
    const char *tensor;
    PM_TRY(pm_expr_template(p->scope, p->loc, template, &tensor));
    *out = number(p->scope->has != NULL && p->scope->has(p->scope->user, tensor));
    return PM_OK;
}

static pm_status call(parser *p, const char *name, size_t size, pm_expr_value *out)
{
    pm_expr_value args[MAX_ARGS];
    int n = 0;
    while (!take(p, ")")) {
        if (n == MAX_ARGS || (n > 0 && !take(p, ",")))
            return fault(p, "expected ')'");
        PM_TRY(parse_expr(p, &args[n++]));
    }
    *out = number(0);
    if (p->dead > 0)
        return PM_OK;
    bool one = n == 1 && args[0].kind == PM_EXPR_NUMBER;
    bool two = n == 2 && args[0].kind == PM_EXPR_NUMBER && args[1].kind == PM_EXPR_NUMBER;
    if (size == 3 && memcmp(name, "len", 3) == 0 && n == 1)
        *out = number(length(args[0]));
    else if (size == 6 && memcmp(name, "number", 6) == 0 && n == 1 &&
             args[0].kind == PM_EXPR_STRING)
        *out = number(strtod(args[0].string, NULL));
    else if (size == 3 && memcmp(name, "has", 3) == 0 && n == 1 && args[0].kind == PM_EXPR_STRING)
        return call_has(p, args[0].string, out);
    else if (size == 3 && memcmp(name, "get", 3) == 0 && n == 3)
        return call_get(p, args, out);
    else if (size == 3 && memcmp(name, "min", 3) == 0 && two)
        *out = number(fmin(args[0].number, args[1].number));
    else if (size == 3 && memcmp(name, "max", 3) == 0 && two)
        *out = number(fmax(args[0].number, args[1].number));
    else if (size == 4 && memcmp(name, "sqrt", 4) == 0 && one)
        *out = number(sqrt(args[0].number));
    else if (size == 3 && memcmp(name, "log", 3) == 0 && one)
        *out = number(log(args[0].number));
    else if (size == 5 && memcmp(name, "floor", 5) == 0 && one)
        *out = number(floor(args[0].number));
    else
        return fault(p, "unknown function or wrong arguments before");
    return PM_OK;
}

static pm_status parse_name(parser *p, pm_expr_value *out)
{
    const char *name = p->at;
    while (is_word(*p->at))
        p->at++;
    size_t size = (size_t)(p->at - name);
    if (take(p, "("))
        return call(p, name, size, out);
    if (size == 4 && memcmp(name, "null", 4) == 0) {
        *out = (pm_expr_value){.kind = PM_EXPR_NULL};
        return PM_OK;
    }
    const pm_expr_value *value = pm_map_get(&p->scope->names, name, size);
    if (value == NULL) {
        p->at = name;
        return fault(p, "unknown name");
    }
    *out = *value;
    return PM_OK;
}

static pm_status parse_atom(parser *p, pm_expr_value *out)
{
    skip_space(p);
    if (take(p, "(")) {
        PM_TRY(parse_expr(p, out));
        return take(p, ")") ? PM_OK : fault(p, "expected ')'");
    }
    if (*p->at == '\'') {
        const char *end = strchr(p->at + 1, '\'');
        if (end == NULL)
            return fault(p, "string without end");
        *out = (pm_expr_value){.kind = PM_EXPR_STRING,
                               .string = pm_arena_strndup(p->scope->arena, p->at + 1,
                                                          (size_t)(end - p->at - 1))};
        p->at = end + 1;
        return PM_OK;
    }
    if (isdigit((unsigned char)*p->at)) {
        char *end;
        *out = number(strtod(p->at, &end));
        p->at = end;
        return PM_OK;
    }
    if (is_word(*p->at))
        return parse_name(p, out);
    return fault(p, "expected a value");
}

static pm_status parse_unary(parser *p, pm_expr_value *out)
{
    bool is_negative = take(p, "-");
    PM_TRY(parse_atom(p, out));
    while (take(p, "[")) {
        pm_expr_value index;
        PM_TRY(parse_expr(p, &index));
        if (!take(p, "]"))
            return fault(p, "expected ']'");
        PM_TRY(expect_number(p, index));
        if (p->dead > 0)
            continue;
        if (out->kind != PM_EXPR_LIST && out->kind != PM_EXPR_STRING)
            return fault(p, "a list was expected before");
        if (!(index.number >= 0) || index.number >= length(*out))
            return pm_error(p->scope->diag, p->loc, PM_ERR_INVALID,
                            "the configuration's list has %.0f items, '%s' needs item %.0f",
                            length(*out), p->text, index.number);
        if (out->kind == PM_EXPR_STRING) {
            out->string =
                pm_arena_strndup(p->scope->arena, out->string + (size_t)index.number, 1);
            continue;
        }
        *out = pm_expr_from_json(&out->list->items[(size_t)index.number]);
    }
    if (is_negative) {
        PM_TRY(expect_number(p, *out));
        out->number = -out->number;
    }
    return PM_OK;
}

static pm_status parse_power(parser *p, pm_expr_value *out)
{
    PM_TRY(parse_unary(p, out));
    if (!take(p, "**"))
        return PM_OK;
    pm_expr_value exponent;
    PM_TRY(parse_unary(p, &exponent));
    PM_TRY(expect_number(p, *out));
    PM_TRY(expect_number(p, exponent));
    *out = number(pow(out->number, exponent.number));
    return PM_OK;
}

static pm_status parse_product(parser *p, pm_expr_value *out)
{
    PM_TRY(parse_power(p, out));
    for (;;) {
        // `//` before `/`, and `*` must not eat half of `**`
        int op = take(p, "//") ? 'f' : take(p, "/") ? '/' : take(p, "*") ? '*' : take(p, "%") ? '%' : 0;
        if (op == 0)
            return PM_OK;
        pm_expr_value right;
        PM_TRY(parse_power(p, &right));
        PM_TRY(expect_number(p, *out));
        PM_TRY(expect_number(p, right));
        if (op != '*' && right.number == 0 && p->dead == 0)
            return pm_error(p->scope->diag, p->loc, PM_ERR_INVALID, "'%s' divides by zero",
                            p->text);
        double x = out->number, y = right.number;
        *out = number(op == '*' ? x * y
                      : op == '/' ? x / y
                      : op == 'f' ? floor(x / y)
                                  : x - y * floor(x / y));
    }
}

static pm_status parse_sum(parser *p, pm_expr_value *out)
{
    PM_TRY(parse_product(p, out));
    for (;;) {
        int op = take(p, "+") ? '+' : take(p, "-") ? '-' : 0;
        if (op == 0)
            return PM_OK;
        pm_expr_value right;
        PM_TRY(parse_product(p, &right));
        PM_TRY(expect_number(p, *out));
        PM_TRY(expect_number(p, right));
        *out = number(op == '+' ? out->number + right.number : out->number - right.number);
    }
}

static bool list_has(const pm_json *list, pm_expr_value value)
{
    for (size_t i = 0; i < list->n; i++)
        if (equal(pm_expr_from_json(&list->items[i]), value))
            return true;
    return false;
}

static pm_status parse_compare(parser *p, pm_expr_value *out)
{
    static const char *const ops[] = {"==", "!=", "<=", ">=", "<", ">", "in"};
    PM_TRY(parse_sum(p, out));
    size_t op = 0;
    while (op < PM_COUNT(ops) && !take(p, ops[op]))
        op++;
    if (op == PM_COUNT(ops))
        return PM_OK;
    pm_expr_value right;
    PM_TRY(parse_sum(p, &right));
    if (p->dead > 0)
        return PM_OK;
    if (op < 2) {
        *out = number(equal(*out, right) == (op == 0));
        return PM_OK;
    }
    if (op == 6) { // in a list that is absent: no
        *out = number(right.kind == PM_EXPR_LIST && list_has(right.list, *out));
        return PM_OK;
    }
    PM_TRY(expect_number(p, *out));
    PM_TRY(expect_number(p, right));
    double x = out->number, y = right.number;
    *out = number(op == 2 ? x <= y : op == 3 ? x >= y : op == 4 ? x < y : x > y);
    return PM_OK;
}

static pm_status parse_not(parser *p, pm_expr_value *out)
{
    bool negate = take(p, "not");
    PM_TRY(parse_compare(p, out));
    if (negate)
        *out = number(!truth(*out));
    return PM_OK;
}

static pm_status parse_and(parser *p, pm_expr_value *out)
{
    PM_TRY(parse_not(p, out));
    while (take(p, "and")) {
        bool left = truth(*out);
        p->dead += !left;
        PM_TRY(parse_not(p, out));
        p->dead -= !left;
        *out = number(left && truth(*out));
    }
    return PM_OK;
}

static pm_status parse_or(parser *p, pm_expr_value *out)
{
    PM_TRY(parse_and(p, out));
    while (take(p, "or")) {
        bool left = truth(*out);
        p->dead += left;
        PM_TRY(parse_and(p, out));
        p->dead -= left;
        *out = number(left || truth(*out));
    }
    return PM_OK;
}

/// Recursion follows the text of a recipe, which is ours, and is bounded all the same.
static pm_status parse_expr(parser *p, pm_expr_value *out)
{
    if (++p->depth > MAX_DEPTH)
        return fault(p, "nested too deep");
    PM_TRY(parse_or(p, out));
    if (take(p, "?")) {
        bool is_true = truth(*out);
        pm_expr_value no;
        p->dead += !is_true;
        PM_TRY(parse_expr(p, out));
        p->dead -= !is_true;
        if (!take(p, ":"))
            return fault(p, "expected ':'");
        p->dead += is_true;
        PM_TRY(parse_expr(p, &no));
        p->dead -= is_true;
        if (!is_true)
            *out = no;
    }
    p->depth--;
    return PM_OK;
}

// ---- the interface ----

pm_status pm_expr_eval(pm_expr_scope *scope, const pm_loc *loc, const char *text,
                       pm_expr_value *out)
{
    parser p = {.scope = scope, .loc = loc, .text = text, .at = text};
    *out = (pm_expr_value){.kind = PM_EXPR_NULL};
    PM_TRY(parse_expr(&p, out));
    skip_space(&p);
    return *p.at == '\0' ? PM_OK : fault(&p, "unexpected text");
}

pm_status pm_expr_number(pm_expr_scope *scope, const pm_loc *loc, const char *text, double *out)
{
    pm_expr_value value;
    PM_TRY(pm_expr_eval(scope, loc, text, &value));
    if (value.kind != PM_EXPR_NUMBER || !isfinite(value.number))
        return pm_error(scope->diag, loc, PM_ERR_INVALID, "'%s' isn't a finite number here", text);
    *out = value.number;
    return PM_OK;
}

pm_status pm_expr_int(pm_expr_scope *scope, const pm_loc *loc, const char *text, int64_t lo,
                      int64_t hi, int64_t *out)
{
    double x;
    PM_TRY(pm_expr_number(scope, loc, text, &x));
    if (x != floor(x) || x < (double)lo || x > (double)hi)
        return pm_error(scope->diag, loc, PM_ERR_INVALID,
                        "'%s' is %g here, must be an integer in [%" PRId64 ", %" PRId64 "]", text, x,
                        lo, hi);
    *out = (int64_t)x;
    return PM_OK;
}

pm_status pm_expr_bool(pm_expr_scope *scope, const pm_loc *loc, const char *text, bool *out)
{
    pm_expr_value value;
    PM_TRY(pm_expr_eval(scope, loc, text, &value));
    *out = truth(value);
    return PM_OK;
}

/// Appends the template's text. `depth` bounds templates within templates.
static pm_status add_template(pm_expr_scope *scope, const pm_loc *loc, const char *text, int depth,
                              pm_str *out)
{
    if (depth > MAX_DEPTH)
        return pm_error(scope->diag, loc, PM_ERR_INTERNAL, "recipe template '%s': nested too deep",
                        text);
    for (const char *open; (open = strchr(text, '{')) != NULL;) {
        const char *close = strchr(open, '}');
        if (close == NULL)
            return pm_error(scope->diag, loc, PM_ERR_INTERNAL, "recipe template '%s': no '}'",
                            text);
        pm_str_add_n(out, text, (size_t)(open - text));
        const char *inner = pm_arena_strndup(scope->arena, open + 1, (size_t)(close - open - 1));
        pm_expr_value value;
        int64_t number;
        PM_TRY(pm_expr_eval(scope, loc, inner, &value));
        if (value.kind == PM_EXPR_STRING) {
            PM_TRY(add_template(scope, loc, value.string, depth + 1, out));
        } else {
            PM_TRY(pm_expr_int(scope, loc, inner, INT32_MIN, INT32_MAX, &number));
            pm_str_printf(out, "%" PRId64, number);
        }
        text = close + 1;
    }
    pm_str_add(out, text);
    return PM_OK;
}

pm_status pm_expr_template(pm_expr_scope *scope, const pm_loc *loc, const char *text,
                           const char **out)
{
    pm_str result = pm_str_new(scope->arena);
    PM_TRY(add_template(scope, loc, text, 0, &result));
    *out = result.data;
    return PM_OK;
}
