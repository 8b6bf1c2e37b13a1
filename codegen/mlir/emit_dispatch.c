/// Dispatch functions: one for each distinct structure, shared by all layers and entries that have it.
#include "codegen/mlir/emit_dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "codegen/mlir/lowerings.h"

static const pm_lowering lowerings[] = {
#define ROW(token, fn, how) {.name = #token, .lower = fn, .kind = how}
    ROW(loops, pm_lower_loops, 1),
    ROW(fused, pm_lower_fused, 1),
    ROW(ref, pm_lower_ref, 0),
    ROW(linear, pm_lower_linear, 2),
    ROW(matmul, pm_lower_matmul, 2),
    ROW(rope_table, pm_lower_rope_table, 2),
    ROW(rope, pm_lower_rope, 2),
    ROW(softmax, pm_lower_softmax, 1), // kinds but f32 along the last axis: as loops
    ROW(cache, pm_lower_cache, 2),
    ROW(attention, pm_lower_attention, 2),
    ROW(kv_append, pm_lower_kv_append, 2),
    ROW(sdpa, pm_lower_sdpa, 2),
    ROW(causal_conv, pm_lower_causal_conv, 2),
    ROW(linear_attention, pm_lower_linear_attention, 2),
    ROW(selective_scan, pm_lower_selective_scan, 2),
    ROW(route, pm_lower_route, 2),
    ROW(expert_order, pm_lower_expert_order, 2),
    ROW(dims, pm_lower_dims, 1),
#undef ROW
    {.name = "transfer", .kind = 2}, // the entry's own (emit_launch.c)
    {.name = "view", .view = true},
    {.name = "weight", .weight = true},
    {.name = "control", .control = true, .kind = 1},
    {.name = "gone", .gone = true},
};

const pm_lowering *pm_lowering_of(const pm_op *op)
{
    static const char *const tokens[PM_OP_COUNT] = {
#define LOWER(token) #token
#define PM_OP(id, io, traits, ir, attrs, lower, help) [PM_OP_##id] = lower,
#include "ir/ops.def"
#undef LOWER
    };
    for (size_t i = 0; i < PM_COUNT(lowerings); i++)
        if (strcmp(lowerings[i].name, tokens[op->code]) == 0)
            return &lowerings[i];
    return NULL;
}

MlirType pm_emit_elem_type(mb *b, pm_elem elem)
{
    switch (elem) {
    case PM_F32: return b->f32;
    case PM_F64: return b->f64;
    case PM_F16: return b->f16;
    case PM_I64:
    case PM_U64: return b->i64;
    case PM_I32:
    case PM_U32: return b->i32;
    case PM_BF16: // bits: arithmetic is ours
    case PM_I16:
    case PM_U16: return b->i16;
    default: return b->i8;
    }
}

/// ---- dims -------------------------------------------------------------------------------------------

/// How expressions are computed.
typedef struct dim_code {
    const dispatch *d;  ///< whose symbols these are; NULL: all
    MlirValue symbols;
    MlirValue *cache;   ///< by pm_dim
    MlirValue overflow; ///< pointer to an i32 that becomes 1 when a sum or product wraps; or NULL
} dim_code;

static MlirValue checked(mb *b, const dim_code *c, const char *name, const char *plain, MlirValue x,
                         MlirValue y)
{
    if (!c->overflow.ptr)
        return mb_bin(b, plain, x, y);
    MlirValue args[] = {x, y, c->overflow};
    return mb_call(b, name, b->i64, args, 3);
}

static MlirValue combine_dims(mb *b, const dim_code *c, pm_dim_kind kind, MlirValue x, MlirValue y)
{
    MlirValue zero = mb_i64(b, 0), one = mb_i64(b, 1);
    // Of nothing: an extent that is asked for while another is 0 has no elements either.
    if (kind == PM_DIM_FLOORDIV || kind == PM_DIM_CEILDIV || kind == PM_DIM_MOD)
        y = mb_select(b, mb_cmpi(b, "eq", y, zero), one, y);
    switch (kind) {
    case PM_DIM_ADD: return checked(b, c, "pm_m_add_i64", "addi", x, y);
    case PM_DIM_MUL: return checked(b, c, "pm_m_mul_i64", "muli", x, y);
    case PM_DIM_FLOORDIV: return mb_bin(b, "floordivsi", x, y);
    case PM_DIM_CEILDIV: return mb_bin(b, "ceildivsi", x, y);
    case PM_DIM_MOD: // of the sign of the divisor, as Python's
        return mb_sub(b, x, mb_mul(b, mb_bin(b, "floordivsi", x, y), y));
    case PM_DIM_MIN: return mb_bin(b, "minsi", x, y);
    case PM_DIM_MAX: return mb_bin(b, "maxsi", x, y);
    default: PM_ASSERT(!"dim kind"); return x;
    }
}

/// Where a symbol's value lies: all of them, or those that a dispatch mentions.
static int64_t symbol_index(const dispatch *d, int64_t symbol)
{
    for (size_t i = 0; d && i < d->n_mentioned; i++)
        if (d->mentioned[i] == symbol)
            return (int64_t)i;
    PM_ASSERT(!d);
    return symbol;
}

/// Values of an expression and what it is made of. Operands have smaller ids: no recursion needed,
/// only those that are marked as needed are computed.
static MlirValue emit_dim(emitter *e, const dim_code *code, pm_dim dim)
{
    mb *b = &e->b;
    MlirValue *cache = code->cache;
    bool *needed = calloc((size_t)dim + 1, sizeof *needed);
    if (!needed)
        pm_arena_out_of_memory(b->arena);
    needed[dim] = true;
    for (pm_dim i = dim; i >= 0; i--) {
        if (!needed[i] || cache[i].ptr)
            continue;
        pm_dim_info info = pm_dim_get(e->module, i);
        if (info.kind != PM_DIM_CONST && info.kind != PM_DIM_SYMBOL)
            needed[info.a] = needed[info.b] = true;
    }
    for (pm_dim i = 0; i <= dim; i++) {
        if (!needed[i] || cache[i].ptr)
            continue;
        pm_dim_info info = pm_dim_get(e->module, i);
        if (info.kind == PM_DIM_CONST)
            cache[i] = mb_i64(b, info.value);
        else if (info.kind == PM_DIM_SYMBOL)
            cache[i] = mb_load(b, b->i64, mb_at_const(b, b->i64, code->symbols, symbol_index(code->d, info.value)));
        else
            cache[i] = combine_dims(b, code, info.kind, cache[info.a], cache[info.b]);
    }
    free(needed);
    return cache[dim];
}

MlirValue pm_emit_dim_cached(emitter *e, MlirValue symbols, pm_dim dim, MlirValue *cache)
{
    dim_code code = {.symbols = symbols, .cache = cache};
    return emit_dim(e, &code, dim);
}

MlirValue pm_emit_dim_checked(emitter *e, MlirValue symbols, pm_dim dim, MlirValue overflow)
{
    dim_code code = {.symbols = symbols, .overflow = overflow};
    code.cache = calloc((size_t)dim + 1, sizeof *code.cache);
    if (!code.cache)
        pm_arena_out_of_memory(e->b.arena);
    MlirValue value = emit_dim(e, &code, dim);
    free(code.cache);
    return value;
}

MlirValue pm_emit_dim_at(emitter *e, MlirValue symbols, pm_dim dim)
{
    return pm_emit_dim_checked(e, symbols, dim, (MlirValue){0});
}

MlirValue pm_emit_bytes_checked(emitter *e, MlirValue symbols, const pm_type *type, MlirValue overflow)
{
    mb *b = &e->b;
    dim_code code = {.overflow = overflow};
    MlirValue bytes = mb_i64(b, pm_elem_size(type->elem));
    for (int32_t i = 0; i < type->rank; i++)
        bytes = checked(b, &code, "pm_m_mul_i64", "muli", bytes,
                        pm_emit_dim_checked(e, symbols, type->dims[i], overflow));
    return bytes;
}

MlirValue pm_emit_dim(dispatch *d, pm_dim dim)
{
    int64_t value;
    if (pm_dim_is_const(d->e->module, dim, &value))
        return mb_i64(d->b, value);
    PM_ASSERT((size_t)dim < d->n_dims);
    dim_code code = {.d = d, .symbols = d->symbols, .cache = d->dims};
    return emit_dim(d->e, &code, dim);
}

MlirValue pm_emit_count(dispatch *d, const pm_type *type, int32_t from, int32_t to)
{
    MlirValue n = {0};
    for (int32_t i = from; i < to; i++) {
        MlirValue dim = pm_emit_dim(d, type->dims[i]);
        n = n.ptr ? mb_mul(d->b, n, dim) : dim;
    }
    return n.ptr ? n : mb_i64(d->b, 1);
}

/// Dims are computed at the function's head, where they dominate everything.
static void prepare_dims(dispatch *d, const pm_type *type)
{
    for (int32_t i = 0; i < type->rank; i++)
        pm_emit_dim(d, type->dims[i]);
}

static pm_dim largest_dim(const dispatch *d, const pm_type *type)
{
    (void)d;
    pm_dim largest = 0;
    for (int32_t i = 0; i < type->rank; i++)
        if (type->dims[i] > largest)
            largest = type->dims[i];
    return largest;
}

MlirValue pm_emit_pointer(dispatch *d, const pm_value *value)
{
    for (size_t i = d->n_values; i-- > 0;)
        if (d->values[i] == value)
            return d->pointers[i];
    PM_ASSERT(!"a value of the dispatch");
    return mb_null(d->b);
}

void pm_emit_split(dispatch *d, MlirValue total, int64_t grain, MlirValue *lo, MlirValue *hi)
{
    mb *b = d->b;
    MlirValue g = mb_i64(b, grain);
    MlirValue units = mb_bin(b, "divui", mb_add(b, total, mb_i64(b, grain - 1)), g);
    MlirValue from = mb_bin(b, "divui", mb_mul(b, units, d->worker), d->n_workers);
    MlirValue next = mb_add(b, d->worker, mb_i64(b, 1));
    MlirValue to = mb_bin(b, "divui", mb_mul(b, units, next), d->n_workers);
    *lo = mb_mul(b, from, g);
    *hi = mb_bin(b, "minsi", mb_mul(b, to, g), total);
}

/// ---- the structure of a dispatch, as text ---------------------------------------------------------------

typedef struct key_writer {
    emitter *e;
    FILE *out;
    pm_map numbers; ///< value id -> number + 1
    PM_VEC(uint32_t) symbols; ///< in order of appearance
} key_writer;

/// A symbol as the number of its first appearance.
static void key_symbol(key_writer *k, uint32_t symbol)
{
    size_t i = 0;
    while (i < k->symbols.n && k->symbols.data[i] != symbol)
        i++;
    if (i == k->symbols.n)
        PM_PUSH(k->e->arena, &k->symbols, symbol);
    fprintf(k->out, "$%zu,", i);
}

/// An expression, operators before their operands.
static void key_dim(key_writer *k, pm_dim dim)
{
    PM_VEC(pm_dim) left = {0};
    PM_PUSH(k->e->arena, &left, dim);
    while (left.n) {
        pm_dim_info info = pm_dim_get(k->e->module, left.data[--left.n]);
        if (info.kind == PM_DIM_CONST) {
            fprintf(k->out, "%lld,", (long long)info.value);
        } else if (info.kind == PM_DIM_SYMBOL) {
            key_symbol(k, (uint32_t)info.value);
        } else {
            fprintf(k->out, "(%d ", (int)info.kind);
            PM_PUSH(k->e->arena, &left, info.b);
            PM_PUSH(k->e->arena, &left, info.a);
        }
    }
}

static void key_type(key_writer *k, const pm_type *type)
{
    fprintf(k->out, " %s[", pm_elem_name(type->elem));
    for (int32_t i = 0; i < type->rank; i++)
        key_dim(k, type->dims[i]);
    fputc(']', k->out);
    if (type->layout)
        fprintf(k->out, "{%u}", type->id);
}

static void key_value(key_writer *k, const pm_value *v)
{
    if (!v) {
        fputs(" _", k->out);
        return;
    }
    void **slot = pm_map_at(&k->numbers, &v->id, sizeof v->id);
    if (!*slot) {
        *slot = (void *)(uintptr_t)k->numbers.n;
        key_type(k, v->type);
        if (pm_value_is(v, PM_OP_pack) && v->type->rank == 3) // a region's argument stands for one
            fprintf(k->out, " stride %llu",
                    (unsigned long long)pm_weights_expert_stride(k->e->weights, v));
        int64_t n = 0;
        if (pm_value_is(v, PM_OP_dims) && pm_type_const_count(k->e->module, v->type, &n))
            for (int64_t i = 0; i < n; i++)
                key_dim(k, v->content[i]);
    }
    fprintf(k->out, " %zu", (size_t)(uintptr_t)*slot);
}

static void key_attr(key_writer *k, const pm_attr *a)
{
    fprintf(k->out, " %s=%lld,%.17g,%s", a->key, (long long)a->i, a->f, a->s ? a->s : "");
    for (size_t i = 0; i < a->n && a->ints; i++)
        fprintf(k->out, ",%lld", (long long)a->ints[i]);
    for (size_t i = 0; i < a->n && a->floats; i++)
        fprintf(k->out, ",%.17g", a->floats[i]);
}

static void key_op(key_writer *k, const pm_op *op)
{
    fputs(pm_op_info_of(op)->name, k->out);
    for (uint32_t i = 0; i < op->n_attrs; i++)
        key_attr(k, &op->attrs[i]);
    for (uint32_t i = 0; i < op->n_operands; i++)
        key_value(k, op->operands[i]);
    const pm_value *codes = pm_device_codes(op);
    for (uint32_t i = 0; codes && i < codes->def->n_attrs; i++)
        key_attr(k, &codes->def->attrs[i]);
    for (uint32_t i = 0; codes && i < codes->def->n_operands; i++)
        key_value(k, codes->def->operands[i]);
    fputs(" ->", k->out);
    for (uint32_t i = 0; i < op->n_results; i++)
        key_value(k, op->results[i]);
    for (uint32_t r = 0; r < op->n_regions; r++) { // regions of dispatches hold no regions
        fputs(" {", k->out);
        for (size_t i = 0; i < op->regions[r]->args.n; i++)
            key_value(k, op->regions[r]->args.data[i]);
        for (const pm_op *inner = op->regions[r]->first; inner; inner = inner->next) {
            fputs("; ", k->out);
            fputs(pm_op_info_of(inner)->name, k->out);
            for (uint32_t i = 0; i < inner->n_attrs; i++)
                key_attr(k, &inner->attrs[i]);
            for (uint32_t i = 0; i < inner->n_operands; i++)
                key_value(k, inner->operands[i]);
            for (uint32_t i = 0; i < inner->n_results; i++)
                key_value(k, inner->results[i]);
        }
        fputs("}", k->out);
        for (size_t i = 0; i < op->regions[r]->results.n; i++)
            key_value(k, op->regions[r]->results.data[i]);
    }
}

static char *structure(emitter *e, const pm_op *op, const char *prefix, pm_dispatch_fn *fn)
{
    char *text = NULL;
    size_t size = 0;
    key_writer k = {.e = e, .out = open_memstream(&text, &size)};
    PM_ASSERT(k.out);
    pm_map_init(&k.numbers, e->arena);
    fputs(prefix, k.out);
    key_op(&k, op);
    fclose(k.out);
    char *kept = pm_arena_strndup(e->arena, text, size);
    free(text);
    fn->symbols = k.symbols.data;
    fn->n_symbols = k.symbols.n;
    return kept;
}

/// ---- functions ------------------------------------------------------------------------------------------

static bool contains(pm_value *const *values, size_t n, const pm_value *value)
{
    for (size_t i = 0; i < n; i++)
        if (values[i] == value)
            return true;
    return false;
}

static void collect_values(dispatch *d)
{
    pm_op *op = d->op;
    pm_value *codes = pm_device_codes(op);
    d->values = PM_NEW_ARRAY(d->e->arena, pm_value *, op->n_operands + op->n_results + 4);
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (op->operands[i] && op->operands[i] != codes && !contains(d->values, d->n_values, op->operands[i]))
            d->values[d->n_values++] = op->operands[i];
    for (uint32_t i = 0; codes && i < codes->def->n_operands; i++)
        if (codes->def->operands[i] && !contains(d->values, d->n_values, codes->def->operands[i]))
            d->values[d->n_values++] = codes->def->operands[i];
    d->n_inputs = d->n_values;
    for (uint32_t i = 0; i < op->n_results; i++)
        d->values[d->n_values++] = op->results[i];
}

size_t pm_dispatch_values(emitter *e, pm_op *op, pm_value ***out_values)
{
    dispatch d = {.e = e, .op = op};
    collect_values(&d);
    *out_values = d.values;
    return d.n_values;
}

/// The expressions that a `dims` op stores.
static const pm_value *stored_dims(const pm_op *op, size_t *out_n)
{
    int64_t n = 0;
    *out_n = 0;
    if (op->code == PM_OP_dims && pm_type_const_count(op->graph->module, op->results[0]->type, &n))
        *out_n = (size_t)n;
    return op->n_results ? op->results[0] : NULL;
}

static void prepare(dispatch *d)
{
    pm_dim largest = 0;
    size_t n_content;
    for (size_t i = 0; i < d->n_values; i++) {
        pm_dim n = largest_dim(d, d->values[i]->type);
        largest = n > largest ? n : largest;
    }
    pm_graph *region = d->op->n_regions ? d->op->regions[0] : NULL;
    const pm_value *shape = stored_dims(d->op, &n_content);
    for (size_t i = 0; i < n_content; i++)
        largest = shape->content[i] > largest ? shape->content[i] : largest;
    for (pm_op *op = region ? region->first : NULL; op; op = op->next) {
        pm_dim n = largest_dim(d, op->results[0]->type);
        largest = n > largest ? n : largest;
    }
    d->n_dims = (size_t)largest + 1;
    d->dims = PM_NEW_ARRAY(d->e->arena, MlirValue, d->n_dims);
    for (size_t i = 0; i < d->n_values; i++)
        prepare_dims(d, d->values[i]->type);
    for (size_t i = 0; i < n_content; i++)
        pm_emit_dim(d, shape->content[i]);
    for (pm_op *op = region ? region->first : NULL; op; op = op->next)
        prepare_dims(d, op->results[0]->type);
}

/// Alias sets of a dispatch's arguments: in-place results share memory with operand 0.
static void mark_noalias(const dispatch *d, bool *noalias)
{
    bool in_place = pm_op_info_of(d->op)->traits & PM_T_INPLACE;
    for (size_t i = 0; i < d->n_values; i++)
        noalias[i] = !in_place || (i != 0 && i < d->n_inputs);
}

typedef pm_status body_fn(dispatch *d);

static pm_status write_function(emitter *e, pm_op *op, const pm_dispatch_fn *fn, bool extent,
                                body_fn *body)
{
    mb *b = &e->b;
    dispatch d = {.e = e, .b = b, .op = op, .mentioned = fn->symbols, .n_mentioned = fn->n_symbols};
    collect_values(&d);
    if (extent)
        d.n_values = d.n_inputs;
    size_t n_args = d.n_values + 4;
    MlirType *types = PM_NEW_ARRAY(e->arena, MlirType, n_args);
    bool *noalias = PM_NEW_ARRAY(e->arena, bool, n_args);
    mark_noalias(&d, noalias);
    for (size_t i = 0; i < n_args; i++)
        types[i] = i < d.n_values + 2 ? b->ptr : b->i64;
    noalias[d.n_values] = noalias[d.n_values + 1] = true;
    mb_function f;
    mb_function_begin(b, &f, fn->name, b->i32, types, n_args, noalias, true, "noinline");
    d.pointers = PM_NEW_ARRAY(e->arena, MlirValue, d.n_values + 1);
    for (size_t i = 0; i < d.n_values; i++)
        d.pointers[i] = mb_function_arg(&f, i);
    d.symbols = mb_function_arg(&f, d.n_values);
    d.scratch = mb_function_arg(&f, d.n_values + 1);
    d.worker = mb_function_arg(&f, d.n_values + 2);
    d.n_workers = mb_function_arg(&f, d.n_values + 3);
    prepare(&d);
    pm_status status = body(&d);
    mb_return(b, d.status.ptr ? d.status : mb_int(b, b->i32, 0));
    mb_function_end(b, &f);
    return status;
}

static pm_status lower_body(dispatch *d)
{
    return pm_lowering_of(d->op)->lower(d);
}

/// Extents go to the scratch argument: int64_t[n_results * PM_MAX_RANK].
static pm_status extent_body(dispatch *d)
{
    d->status = pm_emit_reference_call(d, pm_op_info_of(d->op)->extent_name, &d->scratch);
    return PM_OK;
}

static pm_status function_for(emitter *e, pm_op *op, const char *prefix, bool extent, body_fn *body,
                              pm_dispatch_fn *out_fn)
{
    char *key = structure(e, op, prefix, out_fn);
    char *known = pm_map_get_str(&e->dispatch_names, key);
    if (known) {
        out_fn->name = known;
        return PM_OK;
    }
    char *name = pm_arena_printf(e->arena, "pm_%s%s%zu_%s", e->for_device ? "g" : "", prefix, e->dispatch_names.n,
                                 pm_op_info_of(op)->name);
    pm_map_put_str(&e->dispatch_names, key, name);
    out_fn->name = name;
    e->meets = false;
    pm_status status = write_function(e, op, out_fn, extent, body);
    if (e->meets)
        pm_map_put_str(&e->meeting, name, name);
    if (status == PM_ERR_UNSUPPORTED && pm_diag_count(e->diag, PM_ERROR) == 0)
        return pm_error(e->diag, op->loc, PM_ERR_UNSUPPORTED, "no code can be generated for %s of %s",
                        pm_op_info_of(op)->name,
                        op->n_operands && op->operands[0]
                            ? pm_type_text(e->module, op->operands[0]->type)
                            : "no operands");
    return status;
}

pm_status pm_dispatch_function(emitter *e, pm_op *op, pm_dispatch_fn *out_fn)
{
    return function_for(e, op, "d", false, lower_body, out_fn);
}

pm_status pm_extent_function(emitter *e, pm_op *op, pm_dispatch_fn *out_fn)
{
    return function_for(e, op, "x", true, extent_body, out_fn);
}
