// ir/ops/eval_*.c against results computed elsewhere: tests/data/eval, made by
// tests/tools/make_eval_vectors.py (which also describes the format).

#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/containers.h"
#include "ir/op_table.h"
#include "ir/ops/eval_util.h"

enum { MAX_TENSORS = 8, MAX_LIST = 32 };

/// A tensor in memory of exactly its size, so that a sanitizer sees every step over its end.
typedef struct tensor {
    int64_t dims[PM_MAX_RANK];
    pm_tensor t;
    uint8_t *expected; ///< of an output; `size` bytes (more than the elements' when it is packed)
    size_t size;
} tensor;

typedef struct test_case {
    char name[80];
    pm_opcode op;
    tensor in[MAX_TENSORS], out[MAX_TENSORS];
    int32_t n_in, n_out;
    pm_attr_value attrs[PM_MAX_ATTRS];
    int64_t lists[PM_MAX_ATTRS][MAX_LIST];
    char texts[PM_MAX_ATTRS][32];
    double ulps, absolute;
    bool is_fault;
} test_case;

// ---- reading ----

static pm_attr_decl decls[PM_MAX_ATTRS];

static void begin_case(test_case *c, const char *name)
{
    memset(c, 0, sizeof *c);
    snprintf(c->name, sizeof c->name, "%s", name);
    c->op = PM_OP_COUNT;
    c->ulps = -1;
}

static void begin_op(test_case *c, const char *name)
{
    ck_assert_msg(pm_opcode_parse(name, &c->op), "no op %s", name);
    size_t n = pm_op_attr_decls(c->op, decls);
    for (size_t i = 0; i < n; i++) {
        const pm_attr *def = &decls[i].def;
        c->attrs[i] = (pm_attr_value){.i = def->i, .f = def->f, .s = def->s,
                                      .present = decls[i].has_default};
    }
}

static void read_attr(test_case *c, const char *key, char *value)
{
    size_t n = pm_op_attr_decls(c->op, decls), i = 0;
    pm_elem elem;
    while (i < n && strcmp(decls[i].key, key) != 0)
        i++;
    ck_assert_msg(i < n, "%s: no attribute %s", c->name, key);
    pm_attr_value *a = &c->attrs[i];
    a->present = 1;
    switch (decls[i].kind) {
    case PM_ATTR_F64: a->f = strtod(value, NULL); break;
    case PM_ATTR_ELEM:
        ck_assert_msg(pm_elem_parse(value, &elem), "%s: no element type %s", c->name, value);
        a->i = (int64_t)elem;
        break;
    case PM_ATTR_STR:
        snprintf(c->texts[i], sizeof c->texts[i], "%s", value);
        a->s = c->texts[i];
        a->n = (int64_t)strlen(a->s);
        break;
    case PM_ATTR_INTS:
        a->ints = c->lists[i];
        for (char *end = value; *value != '\0'; value = *end == ',' ? end + 1 : end)
            c->lists[i][a->n++] = strtoll(value, &end, 10);
        break;
    default: a->i = strtoll(value, NULL, 10); break;
    }
}

static uint8_t nibble(char digit)
{
    return (uint8_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

static void *copy_of(const void *bytes, size_t size)
{
    void *copy = malloc(size ? size : 1);
    if (size)
        memcpy(copy, bytes, size);
    return copy;
}

static void read_tensor(const test_case *c, tensor *out, char *text)
{
    pm_elem elem;
    char *dims = strchr(text, ' '), *data = dims ? strchr(dims + 1, ' ') : NULL, *end;
    ck_assert_msg(data != NULL, "%s: bad tensor", c->name);
    *dims++ = '\0';
    *data++ = '\0';
    ck_assert_msg(pm_elem_parse(text, &elem), "%s: no element type %s", c->name, text);
    for (char *at = dims + 1; *at != ']'; at = *end == ',' ? end + 1 : end)
        out->dims[out->t.rank++] = strtoll(at, &end, 10);
    out->t.elem = (int32_t)elem;
    out->t.dims = out->dims;
    out->size = strlen(data + 1) / 2;
    out->expected = malloc(out->size ? out->size : 1);
    for (size_t i = 0; i < out->size; i++)
        out->expected[i] = (uint8_t)(nibble(data[1 + 2 * i]) << 4 | nibble(data[2 + 2 * i]));
}

static void read_line(test_case *c, char *line)
{
    char *value = strchr(line, ' '), *end;
    if (value)
        *value++ = '\0';
    if (strcmp(line, "op") == 0) {
        begin_op(c, value);
    } else if (strcmp(line, "attr") == 0) {
        char *key = value;
        value = strchr(key, ' ');
        *value++ = '\0';
        read_attr(c, key, value);
    } else if (strcmp(line, "in") == 0) {
        tensor *t = &c->in[c->n_in++];
        ck_assert_int_le(c->n_in, MAX_TENSORS);
        if (strcmp(value, "-") != 0) {
            read_tensor(c, t, value);
            t->t.data = copy_of(t->expected, t->size);
        }
    } else if (strcmp(line, "out") == 0) {
        ck_assert_int_lt(c->n_out, MAX_TENSORS);
        read_tensor(c, &c->out[c->n_out++], value);
    } else if (strcmp(line, "tol") == 0) {
        c->ulps = strtod(value, &end);
        c->absolute = strtod(end, NULL);
    } else {
        ck_assert_msg(strcmp(line, "fault") == 0, "%s: bad line %s", c->name, line);
        c->is_fault = true;
    }
}

static void end_case(test_case *c)
{
    for (int32_t i = 0; i < MAX_TENSORS; i++) {
        free(c->in[i].t.data);
        free(c->in[i].expected);
        free(c->out[i].t.data);
        free(c->out[i].expected);
    }
}

// ---- comparing ----

/// Distance between neighbours of a number of the type.
static double ulp_of(double value, int32_t elem)
{
    int exponent, digits = 53, lowest = -1074;
    if (elem == PM_F32)
        digits = 24, lowest = -149;
    if (elem == PM_F16)
        digits = 11, lowest = -24;
    if (elem == PM_BF16)
        digits = 8, lowest = -133;
    frexp(value, &exponent);
    return ldexp(1, exponent - digits > lowest ? exponent - digits : lowest);
}

static bool is_close(const test_case *c, double got, double want, int32_t elem)
{
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got);
    if (isinf(want) || isinf(got))
        return got == want;
    double ulps = c->ulps >= 0 ? c->ulps : elem == PM_F64 ? 4 : 1;
    return fabs(got - want) <= ulps * ulp_of(want, elem) + c->absolute;
}

static void compare(const test_case *c, const tensor *t, int32_t output)
{
    int32_t elem = t->t.elem;
    if (!pm_is_float(elem)) {
        ck_assert_msg(t->size == 0 || memcmp(t->t.data, t->expected, t->size) == 0,
                      "%s: output %d differs", c->name, (int)output);
        return;
    }
    int64_t n = (int64_t)t->size / pm_bytes_of(elem);
    for (int64_t i = 0; i < n; i++) {
        double got = pm_get_f64(t->t.data, elem, i), want = pm_get_f64(t->expected, elem, i);
        ck_assert_msg(is_close(c, got, want, elem),
                      "%s: output %d, element %lld is %.17g, expected %.17g", c->name, (int)output,
                      (long long)i, got, want);
    }
}

// ---- running ----

static void check_extents(const test_case *c, const int64_t *found)
{
    for (int32_t i = 0; i < c->n_out; i++)
        for (int32_t d = 0; d < c->out[i].t.rank; d++)
            ck_assert_msg(found[i * PM_MAX_RANK + d] == c->out[i].dims[d],
                          "%s: extent %d of output %d is %lld, expected %lld", c->name, (int)d,
                          (int)i, (long long)found[i * PM_MAX_RANK + d],
                          (long long)c->out[i].dims[d]);
}

static void run_case(test_case *c)
{
    const pm_op_info *info = &pm_op_table[c->op];
    pm_tensor in[MAX_TENSORS], out[MAX_TENSORS];
    int64_t found[MAX_TENSORS * PM_MAX_RANK];
    int32_t status = 0;
    for (int32_t i = 0; i < c->n_in; i++)
        in[i] = c->in[i].t;
    for (int32_t i = 0; i < c->n_out; i++) {
        c->out[i].t.data = malloc(c->out[i].size ? c->out[i].size : 1);
        memset(c->out[i].t.data, 0xa5, c->out[i].size);
        out[i] = c->out[i].t;
    }
    pm_eval_args args = {in, c->n_in, out, c->n_out, c->attrs};
    if (info->extent)
        status = info->extent(&args, found);
    if (info->extent && status == 0 && !c->is_fault)
        check_extents(c, found);
    if (status == 0)
        status = info->eval(&args);
    ck_assert_msg(status == c->is_fault, "%s: returned %d", c->name, (int)status);
    for (int32_t i = 0; i < c->n_out && !c->is_fault; i++)
        compare(c, &c->out[i], i);
    for (int32_t i = 0; i < c->n_in; i++)
        ck_assert_msg(c->in[i].size == 0 ||
                          memcmp(c->in[i].t.data, c->in[i].expected, c->in[i].size) == 0,
                      "%s: input %d has changed", c->name, (int)i);
}

static bool tested[PM_OP_COUNT];

static size_t run_family(const char *family)
{
    char path[512], *line = NULL;
    size_t capacity = 0, n = 0;
    ssize_t length;
    test_case *c = calloc(1, sizeof *c);
    snprintf(path, sizeof path, "%s/tests/data/eval/%s.txt", PM_SOURCE_DIR, family);
    FILE *file = fopen(path, "r");
    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    c->op = PM_OP_COUNT;
    while ((length = getline(&line, &capacity, file)) > 0) {
        if (line[length - 1] == '\n')
            line[length - 1] = '\0';
        if (line[0] == '#' || line[0] == '\0')
            continue;
        if (strncmp(line, "case ", 5) != 0) {
            read_line(c, line);
            continue;
        }
        if (n++ > 0)
            run_case(c);
        end_case(c);
        begin_case(c, line + 5);
    }
    if (n > 0) {
        run_case(c);
        tested[c->op] = true;
    }
    end_case(c);
    free(c);
    free(line);
    fclose(file);
    return n;
}

static const char *const families[] = {"elementwise", "reduce", "shape", "gather",
                                       "linalg",      "lm",     "moe",    "recurrent", "lowbit",
                                       "attention"};

START_TEST(test_family)
{
    ck_assert_uint_gt(run_family(families[_i]), 50);
}
END_TEST

/// Every op that has a meaning has vectors.
START_TEST(test_all_ops)
{
    char path[512], line[128];
    for (size_t i = 0; i < PM_COUNT(families); i++) {
        pm_opcode op;
        snprintf(path, sizeof path, "%s/tests/data/eval/%s.txt", PM_SOURCE_DIR, families[i]);
        FILE *file = fopen(path, "r");
        ck_assert_ptr_nonnull(file);
        while (fgets(line, sizeof line, file)) {
            line[strcspn(line, "\n")] = '\0';
            if (strncmp(line, "op ", 3) == 0 && pm_opcode_parse(line + 3, &op))
                tested[op] = true;
        }
        fclose(file);
    }
    for (int i = 0; i < PM_OP_COUNT; i++)
        ck_assert_msg(pm_op_table[i].eval == NULL || tested[i], "%s has no vectors",
                      pm_op_table[i].name);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("eval_vectors");
    TCase *tcase = tcase_create("families");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, test_family, 0, (int)PM_COUNT(families));
    tcase_add_test(tcase, test_all_ops);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
