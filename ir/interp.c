/// The interpreter: every op by its `eval`, one after the other, values on the heap until their
/// last use. Slow and plain on purpose: it is what compiled code is judged against.
#include "ir/interp.h"

#include <inttypes.h>

#include "ir/interp_cells.h"

// ---- attributes ----

/// The attributes as eval takes them: in the order of the op's list, which is that of op->attrs.
static void attrs_of(const pm_op *op, pm_attr_value *out)
{
    for (uint32_t i = 0; i < op->n_attrs && i < PM_MAX_ATTRS; i++) {
        const pm_attr *attr = &op->attrs[i];
        bool is_text = attr->kind == PM_ATTR_STR && attr->s != NULL;
        out[i] = (pm_attr_value){.i = attr->i,
                                 .f = attr->f,
                                 .s = attr->s,
                                 .ints = attr->ints,
                                 .floats = attr->floats,
                                 .n = is_text ? (int64_t)strlen(attr->s) : (int64_t)attr->n,
                                 .present = attr->present};
    }
}

// ---- plain ops ----

/// Finds the dims of all results: by the op's extent function where there is one, else from the
/// types. Both must agree.
static pm_status result_dims(pm_interp *in, const pm_op *op, const pm_eval_args *args)
{
    const pm_op_info *info = pm_op_info_of(op);
    pm_block *block = NULL;
    PM_TRY(pm_interp_scratch(in, op->loc, op->n_results, PM_MAX_RANK * sizeof(int64_t), &block));
    int64_t *found = block->data;
    if (info->extent != NULL && info->extent(args, found) != 0)
        return pm_interp_bad_data(in, op);
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_type *type = op->results[i]->type;
        pm_cell *c = pm_interp_cell(in, op->results[i]);
        c->elem = type->elem;
        c->rank = type->rank;
        for (int32_t d = 0; d < type->rank; d++) {
            if (info->extent != NULL)
                c->dims[d] = found[i * PM_MAX_RANK + (uint32_t)d];
            else if (!pm_dim_eval(in->module, type->dims[d], in->bindings, &c->dims[d]))
                return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                                "the size %s of a result of %s is not known when it runs",
                                pm_dim_text(in->module, type->dims[d]), info->name);
        }
        PM_TRY(pm_interp_bind_result(in, op, i));
    }
    pm_block_free(block);
    return PM_OK;
}

static pm_status run_eval(pm_interp *in, const pm_op *op)
{
    const pm_op_info *info = pm_op_info_of(op);
    pm_attr_value attrs[PM_MAX_ATTRS] = {{0}};
    pm_block *block = NULL;
    if (info->eval == NULL)
        return pm_error(in->diag, op->loc, PM_ERR_UNSUPPORTED, "%s can't be interpreted",
                        info->name);
    PM_TRY(pm_interp_scratch(in, op->loc, (size_t)op->n_operands + op->n_results, sizeof(pm_tensor),
                             &block));
    pm_tensor *tensors = block->data;
    pm_tensor *outputs = tensors + op->n_operands;
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (op->operands[i] != NULL)
            tensors[i] = pm_cell_tensor(pm_interp_cell(in, op->operands[i]));
    attrs_of(op, attrs);
    pm_eval_args args = {tensors, (int32_t)op->n_operands, outputs, (int32_t)op->n_results, attrs};
    PM_TRY(result_dims(in, op, &args));
    for (uint32_t i = 0; i < op->n_results; i++) {
        pm_cell *c = pm_interp_cell(in, op->results[i]);
        PM_TRY(pm_cell_allocate(in, op->loc, c));
        outputs[i] = pm_cell_tensor(c);
    }
    if (info->eval(&args) != 0)
        return pm_interp_bad_data(in, op);
    pm_block_free(block);
    return PM_OK;
}

// ---- constants ----

/// Bytes of a constant for as long as the run lasts: borrowed where they are mapped and aligned,
/// else read into memory that is freed after the last use.
static pm_status const_bytes(pm_interp *in, const pm_op *op, const pm_data *data,
                             uint32_t alignment, pm_block **out)
{
    const uint8_t *bytes = data->bytes;
    uint64_t end = 0;
    *out = NULL;
    if (bytes == NULL && data->size > 0) {
        if (data->file == NULL || __builtin_add_overflow(data->offset, data->size, &end) ||
            end > data->file->size)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                            "the constant ends beyond the end of its file");
        if (data->file->data != NULL)
            bytes = data->file->data + data->offset;
    }
    bool is_aligned = bytes != NULL && (uintptr_t)bytes % alignment == 0;
    *out = is_aligned ? pm_block_borrow(in, bytes) : pm_block_create(in, (size_t)data->size);
    if (*out == NULL)
        return pm_interp_no_memory(in, op->loc);
    if (is_aligned || data->size == 0)
        return PM_OK;
    if (bytes != NULL) {
        memcpy((*out)->data, bytes, (size_t)data->size);
        return PM_OK;
    }
    return pm_file_read(in->diag, data->file, data->offset, (*out)->data, (size_t)data->size);
}

static pm_status run_const(pm_interp *in, const pm_op *op)
{
    const pm_type *type = op->results[0]->type;
    const pm_data *data = pm_value_const(op->results[0]);
    pm_cell *c = pm_interp_cell(in, op->results[0]);
    int64_t bytes = 0;
    c->elem = type->elem;
    c->rank = type->rank;
    for (int32_t i = 0; i < type->rank; i++)
        if (!pm_dim_is_const(in->module, type->dims[i], &c->dims[i]) || c->dims[i] < 0)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID, "a constant of unknown size");
    if (data == NULL || type->layout != NULL || !pm_cell_bytes(c, &bytes) ||
        (uint64_t)bytes != data->size)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                        "the constant's bytes don't match its type %s",
                        pm_type_text(in->module, type));
    return const_bytes(in, op, data, pm_elem_size(type->elem), &c->buffer);
}

/// pack: the sources' rows one below the other (turned when stored [K, N]), converted.
static pm_status run_pack(pm_interp *in, const pm_op *op)
{
    pm_cell *out = pm_interp_cell(in, op->results[0]);
    const pm_type *type = op->results[0]->type;
    bool is_turned = pm_op_i64(op, "trans") != 0;
    uint32_t n_sources = 0;
    int64_t rows[2] = {0, 0}, n = 0, matrices = 1;
    const pm_cell *sources[2] = {NULL, NULL};
    for (uint32_t i = 0; i < op->n_operands && i < 2; i++) {
        const pm_cell *c = pm_interp_operand(in, op, i);
        if (c == NULL)
            continue;
        sources[n_sources] = c;
        rows[n_sources] = c->dims[c->rank - (is_turned ? 1 : 2)];
        n += rows[n_sources++];
    }
    if (n_sources == 0)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID, "pack has nothing to pack");
    int32_t rank = sources[0]->rank;
    int64_t k = sources[0]->dims[rank - (is_turned ? 2 : 1)];
    for (int32_t i = 0; i < rank - 2; i++)
        matrices *= sources[0]->dims[i];
    *out = (pm_cell){.uses_left = out->uses_left, .elem = sources[0]->elem, .rank = rank};
    memcpy(out->dims, sources[0]->dims, sizeof out->dims);
    out->dims[rank - 2] = n;
    out->dims[rank - 1] = k;
    pm_cell joined = *out;
    PM_TRY(pm_cell_allocate(in, op->loc, &joined));
    uint32_t size = pm_elem_size(joined.elem);
    uint8_t *to = joined.buffer->data;
    for (int64_t i = 0; i < matrices; i++)
        for (uint32_t s = 0; s < n_sources; s++) {
            const uint8_t *from = (uint8_t *)sources[s]->buffer->data + i * rows[s] * k * size;
            for (int64_t at = 0; at < rows[s] * k; at++, to += size)
                memcpy(to, from + (is_turned ? at % k * rows[s] + at / k : at) * size, size);
        }
    out->elem = type->elem;
    PM_TRY(pm_cell_allocate(in, op->loc, out));
    pm_tensor input = pm_cell_tensor(&joined), output = pm_cell_tensor(out);
    pm_attr_value to_elem = {.i = (int64_t)type->elem, .present = 1};
    if (pm_interp_eval(PM_OP_cast, &input, 1, &output, 1, &to_elem) != 0)
        return pm_interp_bad_data(in, op);
    pm_cell_clear(&joined);
    return pm_interp_bind_result(in, op, 0);
}

/// dims: sizes as a tensor of i64.
static pm_status run_dims(pm_interp *in, const pm_op *op)
{
    const pm_value *result = op->results[0];
    pm_cell *c = pm_interp_cell(in, result);
    int64_t n = 1;
    c->elem = result->type->elem;
    c->rank = result->type->rank;
    if (c->elem != PM_I64 || c->rank > 1 || result->content == NULL ||
        (c->rank == 1 && !pm_dim_is_const(in->module, result->type->dims[0], &n)))
        return pm_error(in->diag, op->loc, PM_ERR_INVALID, "dims: the sizes are not known");
    c->dims[0] = n;
    PM_TRY(pm_cell_allocate(in, op->loc, c));
    for (int64_t i = 0; i < n; i++)
        if (!pm_dim_eval(in->module, result->content[i], in->bindings,
                         (int64_t *)c->buffer->data + i))
            return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                            "dims: the size %s is not known when it is needed",
                            pm_dim_text(in->module, result->content[i]));
    return PM_OK;
}

// ---- graphs ----

static pm_status run_op(pm_interp *in, const pm_op *op)
{
    switch (op->code) {
    case PM_OP_const: return run_const(in, op);
    case PM_OP_dims: return run_dims(in, op);
    case PM_OP_pack: return run_pack(in, op);
    case PM_OP_fused: return pm_interp_region(in, op, 0, 0);
    case PM_OP_if: return pm_interp_if(in, op);
    case PM_OP_loop: return pm_interp_loop(in, op);
    case PM_OP_experts: return pm_interp_experts(in, op);
    default: break;
    }
    return run_eval(in, op);
}

static uint32_t count_operand_uses(const pm_value *value)
{
    uint32_t n = 0;
    for (const pm_use *use = value->uses; use != NULL; use = use->next)
        n++;
    return n;
}

/// A value begins to live: its uses as operands are added to those as a result of its graph.
static void start_value(pm_interp *in, const pm_value *value)
{
    pm_cell *c = pm_interp_cell(in, value);
    c->uses_left += count_operand_uses(value);
    if (c->uses_left == 0)
        pm_cell_clear(c);
}

static void end_use(pm_interp *in, const pm_value *value)
{
    pm_cell *c = pm_interp_cell(in, value);
    if (c->uses_left > 0 && --c->uses_left == 0)
        pm_cell_clear(c);
}

static pm_status run_ops(pm_interp *in, const pm_graph *g)
{
    for (const pm_op *op = g->first; op != NULL; op = op->next) {
        for (uint32_t i = 0; i < op->n_operands; i++)
            if (op->operands[i] != NULL && pm_interp_cell(in, op->operands[i])->buffer == NULL)
                return pm_error(in->diag, op->loc, PM_ERR_INTERNAL,
                                "operand %" PRIu32 " of %s has no value", i,
                                pm_op_info_of(op)->name);
        PM_TRY(run_op(in, op));
        for (uint32_t i = 0; i < op->n_results; i++)
            start_value(in, op->results[i]);
        for (uint32_t i = 0; i < op->n_operands; i++)
            if (op->operands[i] != NULL)
                end_use(in, op->operands[i]);
    }
    return PM_OK;
}

static const char *arg_name(pm_interp *in, const pm_graph *g, size_t i)
{
    const char *name = g->args.data[i]->name;
    return name != NULL ? pm_arena_printf(in->module->arena, "argument '%s'", name)
                        : pm_arena_printf(in->module->arena, "argument %zu", i);
}

/// Binds a symbol that stands in an argument's extent only rounded or multiplied, such as C in
/// ceildiv(C, 16): to the largest value that gives the extent (a cache holds at most that many).
static void bind_by_inverse(pm_interp *in, pm_dim dim, int64_t extent)
{
    const pm_module *m = in->module;
    int64_t factor;
    for (;;) {
        pm_dim_info info = pm_dim_get(m, dim);
        if (info.kind == PM_DIM_SYMBOL) {
            const pm_symbol *symbol = &m->symbols.data[info.value];
            bool fits = extent >= symbol->lo && !symbol->data_dependent;
            if (in->bindings[info.value] == PM_UNBOUND && fits)
                in->bindings[info.value] = extent < symbol->hi ? extent : symbol->hi;
            return;
        }
        bool is_product = info.kind == PM_DIM_MUL;
        if (is_product && pm_dim_is_const(m, info.a, &factor) && factor > 0)
            dim = info.b;
        else if ((is_product || info.kind == PM_DIM_CEILDIV) &&
                 pm_dim_is_const(m, info.b, &factor) && factor > 0)
            dim = info.a;
        else
            return; // not of that form: compared with what is bound otherwise
        if (is_product)
            extent /= factor;
        else if (!pm_mul_i64(extent, factor, &extent))
            return;
    }
}

static pm_status bind_args(pm_interp *in, const pm_graph *g, const pm_cell *args, size_t n_args,
                           const pm_loc *loc)
{
    if (n_args != g->args.n)
        return pm_error(in->diag, loc, PM_ERR_INVALID, "%zu arguments given, expected %zu", n_args,
                        g->args.n);
    // twice: a dim such as 2*T may stand before the argument that binds T
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < n_args; i++)
            PM_TRY(pm_interp_bind(in, loc, arg_name(in, g, i), g->args.data[i]->type, &args[i]));
        for (size_t i = 0; i < n_args; i++)
            for (int32_t axis = 0; axis < g->args.data[i]->type->rank; axis++)
                bind_by_inverse(in, g->args.data[i]->type->dims[axis], args[i].dims[axis]);
    }
    return PM_OK;
}

/// Runs one graph. The args' cells are taken; `results` gets one cell for each result, which the
/// caller clears. No value of the graph is left.
pm_status pm_interp_graph(pm_interp *in, const pm_graph *g, pm_cell *args, size_t n_args,
                          pm_cell *results, const pm_loc *loc)
{
    PM_TRY(bind_args(in, g, args, n_args, loc));
    for (size_t i = 0; i < g->results.n; i++)
        pm_interp_cell(in, g->results.data[i])->uses_left++;
    for (size_t i = 0; i < n_args; i++) {
        pm_cell *c = pm_interp_cell(in, g->args.data[i]);
        uint32_t uses_left = c->uses_left;
        *c = args[i];
        c->uses_left = uses_left;
        args[i].buffer = NULL;
        start_value(in, g->args.data[i]);
    }
    PM_TRY(run_ops(in, g));
    for (size_t i = 0; i < g->results.n; i++)
        results[i] = pm_cell_share(pm_interp_cell(in, g->results.data[i]));
    for (size_t i = 0; i < g->results.n; i++)
        end_use(in, g->results.data[i]);
    return PM_OK;
}

// ---- entries ----

static pm_status take_input(pm_interp *in, const pm_graph *entry, size_t i, const pm_array *input,
                            pm_cell *out)
{
    int64_t bytes = 0;
    if (input->rank < 0 || input->rank > PM_MAX_RANK || (unsigned)input->elem >= PM_ELEM_COUNT)
        return pm_error(in->diag, NULL, PM_ERR_USAGE, "%s has no valid type",
                        arg_name(in, entry, i));
    *out = (pm_cell){.elem = input->elem, .rank = input->rank};
    memcpy(out->dims, input->dims, sizeof out->dims);
    if (!pm_cell_bytes(out, &bytes) || (input->data == NULL && bytes > 0))
        return pm_error(in->diag, NULL, PM_ERR_USAGE, "%s has no data, or no valid size",
                        arg_name(in, entry, i));
    out->buffer = pm_block_borrow(in, input->data);
    return out->buffer != NULL ? PM_OK : pm_interp_no_memory(in, NULL);
}

static void give_output(pm_arena *arena, const pm_cell *c, pm_array *out)
{
    int64_t bytes = 0;
    (void)pm_cell_bytes(c, &bytes); // it was allocated with that size
    *out = (pm_array){.elem = c->elem, .rank = c->rank};
    memcpy(out->dims, c->dims, sizeof out->dims);
    out->data = pm_arena_alloc(arena, (size_t)bytes, 64);
    if (bytes > 0)
        memcpy(out->data, c->buffer->data, (size_t)bytes);
}

static pm_status interpret(pm_interp *in, pm_arena *arena, const pm_graph *entry,
                           const pm_array *inputs, size_t n_inputs, pm_array *outputs)
{
    pm_module *m = in->module;
    pm_block *block = NULL, *bindings = NULL, *cells = NULL;
    if (n_inputs != entry->args.n)
        return pm_error(in->diag, NULL, PM_ERR_USAGE, "entry '%s' takes %zu inputs, found %zu",
                        entry->name, entry->args.n, n_inputs);
    PM_TRY(pm_interp_scratch(in, NULL, m->next_value, sizeof(pm_cell), &cells));
    PM_TRY(pm_interp_scratch(in, NULL, m->symbols.n, sizeof(int64_t), &bindings));
    PM_TRY(pm_interp_scratch(in, NULL, n_inputs + entry->results.n, sizeof(pm_cell), &block));
    in->cells = cells->data;
    in->bindings = bindings->data;
    for (size_t i = 0; i < m->symbols.n; i++)
        in->bindings[i] = PM_UNBOUND;
    pm_cell *args = block->data, *results = args + n_inputs;
    for (size_t i = 0; i < n_inputs; i++)
        PM_TRY(take_input(in, entry, i, &inputs[i], &args[i]));
    PM_TRY(pm_interp_graph(in, entry, args, n_inputs, results, NULL));
    for (size_t i = 0; i < entry->results.n; i++)
        give_output(arena, &results[i], &outputs[i]);
    return PM_OK;
}

/// Frees every block; also called by the arena when running out of memory jumped over the run.
static void free_blocks(void *arg)
{
    pm_interp *in = arg;
    while (in->blocks.next != &in->blocks)
        pm_block_free(in->blocks.next);
}

pm_status pm_interpret(pm_arena *arena, const pm_graph *entry, const pm_array *inputs,
                       size_t n_inputs, pm_array *outputs)
{
    pm_module *m = entry->module;
    pm_interp *in = PM_NEW(arena, pm_interp);
    *in = (pm_interp){.module = m, .diag = m->diag};
    in->blocks.next = in->blocks.prev = &in->blocks;
    pm_arena_defer(arena, free_blocks, in);
    pm_status status = interpret(in, arena, entry, inputs, n_inputs, outputs);
    free_blocks(in);
    return status;
}
