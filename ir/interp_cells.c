/// What the interpreter's parts share: values on the heap, and symbols while a graph runs.
#include "ir/interp_cells.h"

#include <inttypes.h>
#include <stdlib.h>

enum { ALIGNMENT = 64 };

// ---- buffers and cells ----

bool pm_cell_count(const pm_cell *c, int64_t *out_count)
{
    int64_t count = 1;
    for (int32_t i = 0; i < c->rank; i++)
        if (c->dims[i] < 0 || !pm_mul_i64(count, c->dims[i], &count))
            return false;
    *out_count = count;
    return true;
}

bool pm_cell_bytes(const pm_cell *c, int64_t *out_bytes)
{
    return pm_cell_count(c, out_bytes) && pm_mul_i64(*out_bytes, pm_elem_size(c->elem), out_bytes);
}

static void link_buffer(pm_interp *in, pm_block *b)
{
    b->prev = &in->blocks;
    b->next = in->blocks.next;
    b->next->prev = b;
    b->prev->next = b;
}

void pm_block_free(pm_block *b)
{
    b->prev->next = b->next;
    b->next->prev = b->prev;
    free(b);
}

pm_block *pm_block_create(pm_interp *in, size_t size)
{
    size_t total;
    if (__builtin_add_overflow(size, (size_t)2 * ALIGNMENT, &total))
        return NULL;
    // uninitialised on purpose: MSan and valgrind then see what an eval leaves out
    pm_block *b = aligned_alloc(ALIGNMENT, total / ALIGNMENT * ALIGNMENT);
    if (b == NULL)
        return NULL;
    *b = (pm_block){.n_users = 1, .data = (uint8_t *)b + ALIGNMENT};
    link_buffer(in, b);
    return b;
}

/// Bytes that someone else owns. Never NULL inside: an eval takes that for an absent operand.
pm_block *pm_block_borrow(pm_interp *in, const void *data)
{
    static uint64_t nothing;
    pm_block *b = malloc(sizeof *b);
    if (b == NULL)
        return NULL;
    *b = (pm_block){.n_users = 1, .data = data != NULL ? (void *)data : &nothing};
    link_buffer(in, b);
    return b;
}

pm_status pm_interp_no_memory(pm_interp *in, const pm_loc *loc)
{
    return pm_error(in->diag, loc, PM_ERR_NO_MEMORY, "out of memory");
}

/// Zeroed scratch memory for `n` items; never NULL on success.
pm_status pm_interp_scratch(pm_interp *in, const pm_loc *loc, size_t n, size_t size, pm_block **out)
{
    size_t bytes;
    *out = __builtin_mul_overflow(n, size, &bytes) ? NULL : pm_block_create(in, bytes);
    if (*out == NULL)
        return pm_interp_no_memory(in, loc);
    memset((*out)->data, 0, bytes);
    return PM_OK;
}

void pm_cell_clear(pm_cell *c)
{
    if (c->buffer != NULL && --c->buffer->n_users == 0)
        pm_block_free(c->buffer);
    c->buffer = NULL;
}

/// A second user of the same bytes.
pm_cell pm_cell_share(const pm_cell *c)
{
    pm_cell copy = *c;
    copy.buffer->n_users++;
    return copy;
}

pm_tensor pm_cell_tensor(const pm_cell *c)
{
    return (pm_tensor){
        .data = c->buffer->data, .dims = c->dims, .rank = c->rank, .elem = (int32_t)c->elem};
}

const char *pm_cell_dims_text(pm_interp *in, const pm_cell *c)
{
    char *text = pm_arena_strdup(in->module->arena, "[");
    for (int32_t i = 0; i < c->rank; i++)
        text =
            pm_arena_printf(in->module->arena, "%s%s%" PRId64, text, i > 0 ? ", " : "", c->dims[i]);
    return pm_arena_printf(in->module->arena, "%s]", text);
}

pm_status pm_cell_allocate(pm_interp *in, const pm_loc *loc, pm_cell *c)
{
    int64_t bytes = 0;
    if (!pm_cell_bytes(c, &bytes))
        return pm_error(in->diag, loc, PM_ERR_INVALID, "a tensor %s is too large",
                        pm_cell_dims_text(in, c));
    c->buffer = pm_block_create(in, (size_t)bytes);
    if (c->buffer == NULL)
        return pm_error(in->diag, loc, PM_ERR_NO_MEMORY,
                        "no memory for a tensor of %" PRId64 " bytes", bytes);
    return PM_OK;
}

pm_cell *pm_interp_cell(pm_interp *in, const pm_value *value)
{
    PM_ASSERT(value->id < in->module->next_value);
    return &in->cells[value->id];
}

pm_cell *pm_interp_operand(pm_interp *in, const pm_op *op, uint32_t i)
{
    return i < op->n_operands && op->operands[i] != NULL ? pm_interp_cell(in, op->operands[i])
                                                         : NULL;
}

// ---- symbols ----

static pm_status bind_symbol(pm_interp *in, const pm_loc *loc, const char *what, uint32_t symbol,
                             int64_t value, const pm_cell *c)
{
    const pm_symbol *s = &in->module->symbols.data[symbol];
    int64_t bound = INT64_MAX;
    if (s->bound != PM_DIM_NONE)
        (void)pm_dim_eval(in->module, s->bound, in->bindings, &bound);
    if (value < s->lo || value > s->hi)
        return pm_error(in->diag, loc, PM_ERR_INVALID,
                        "%s is %s%s, but %s must be in [%" PRId64 ", %" PRId64 "]", what,
                        pm_elem_name(c->elem), pm_cell_dims_text(in, c), s->name, s->lo, s->hi);
    if (value > bound)
        return pm_error(in->diag, loc, PM_ERR_INVALID, "%s is %s%s, but %s is at most %" PRId64,
                        what, pm_elem_name(c->elem), pm_cell_dims_text(in, c), s->name, bound);
    in->bindings[symbol] = value;
    return PM_OK;
}

/// Compares a type's dims with actual ones: a symbol that has no value yet gets it. `what` is for
/// the message ("argument 'x'", "result 0 of topk").
pm_status pm_interp_bind(pm_interp *in, const pm_loc *loc, const char *what, const pm_type *type,
                         const pm_cell *c)
{
    pm_module *m = in->module;
    if (type->elem != c->elem || type->rank != c->rank)
        return pm_error(in->diag, loc, PM_ERR_INVALID, "%s is %s%s, expected %s", what,
                        pm_elem_name(c->elem), pm_cell_dims_text(in, c), pm_type_text(m, type));
    for (int32_t i = 0; i < type->rank; i++) {
        uint32_t symbol = 0;
        int64_t expected = 0;
        bool is_symbol = pm_dim_is_symbol(m, type->dims[i], &symbol);
        if (is_symbol && in->bindings[symbol] == PM_UNBOUND) {
            PM_TRY(bind_symbol(in, loc, what, symbol, c->dims[i], c));
            continue;
        }
        if (!pm_dim_eval(m, type->dims[i], in->bindings, &expected))
            continue; // of symbols that nothing has bound: nothing to compare with
        if (expected == c->dims[i])
            continue;
        const char *with = "";
        if (!pm_dim_is_const(m, type->dims[i], NULL))
            with = pm_arena_printf(m->arena, " with %s = %" PRId64, pm_dim_text(m, type->dims[i]),
                                   expected);
        return pm_error(in->diag, loc, PM_ERR_INVALID, "%s is %s%s, expected %s%s", what,
                        pm_elem_name(c->elem), pm_cell_dims_text(in, c), pm_type_text(m, type),
                        with);
    }
    return PM_OK;
}

pm_status pm_interp_bind_result(pm_interp *in, const pm_op *op, uint32_t i)
{
    char what[64];
    snprintf(what, sizeof what, "result %" PRIu32 " of %s", i, pm_op_info_of(op)->name);
    return pm_interp_bind(in, op->loc, what, op->results[i]->type,
                          pm_interp_cell(in, op->results[i]));
}

// ---- calls ----

/// A call of another op's eval (the parts of which `experts` is made).
int32_t pm_interp_eval(pm_opcode code, const pm_tensor *inputs, int32_t n_inputs,
                       const pm_tensor *outputs, int32_t n_outputs, const pm_attr_value *attrs)
{
    pm_eval_args args = {inputs, n_inputs, outputs, n_outputs, attrs};
    return pm_op_table[code].eval(&args);
}

pm_status pm_interp_bad_data(pm_interp *in, const pm_op *op)
{
    return pm_error(
        in->diag, op->loc, PM_ERR_INVALID,
        "%s: the data are at fault (an index out of range, a division by zero, or sizes "
        "that don't fit)",
        pm_op_info_of(op)->name);
}
