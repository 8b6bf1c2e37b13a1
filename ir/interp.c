/// The interpreter: every op by its `eval`, one after the other, values on the heap until their last
/// use. Slow and plain on purpose: it is what compiled code is judged against.
///
/// Tensors are row-major always. A value of a packed type is kept as the row-major matrix that it
/// packs: with two sources (ways = 2) the rows of source 0, then those of source 1.
#include "ir/interp.h"

#include <inttypes.h>
#include <stdlib.h>

#include "ir/op_table.h"

enum {
    UNBOUND = -1,
    ALIGNMENT = 64,
};

/// A heap block: bytes that several values may share, or scratch memory. All are in one list, so
/// that whatever an error (or running out of memory) leaves behind is freed at the end.
typedef struct buffer {
    struct buffer *prev, *next;
    size_t n_users;
    void *data; ///< what follows this header, or bytes of a constant or a caller
} buffer;

/// A value while it lives.
typedef struct cell {
    buffer *buffer; ///< NULL: not computed, or freed after the last use
    uint32_t uses_left;
    pm_elem elem;
    int32_t rank;
    int64_t dims[PM_MAX_RANK];
} cell;

typedef struct interp {
    pm_module *module;
    pm_diag *diag;
    cell *cells;       ///< by value id; regions are isolated, so one table serves all
    int64_t *bindings; ///< by symbol
    buffer blocks; ///< head of the list of all blocks
    int depth;
} interp;

// ---- buffers and cells ----

static bool count_elements(const cell *c, int64_t *out_count)
{
    int64_t count = 1;
    for (int32_t i = 0; i < c->rank; i++)
        if (c->dims[i] < 0 || !pm_mul_i64(count, c->dims[i], &count))
            return false;
    *out_count = count;
    return true;
}

static bool count_bytes(const cell *c, int64_t *out_bytes)
{
    return count_elements(c, out_bytes) &&
           pm_mul_i64(*out_bytes, pm_elem_size(c->elem), out_bytes);
}

static void link_buffer(interp *in, buffer *b)
{
    b->prev = &in->blocks;
    b->next = in->blocks.next;
    b->next->prev = b;
    b->prev->next = b;
}

static void buffer_free(buffer *b)
{
    b->prev->next = b->next;
    b->next->prev = b->prev;
    free(b);
}

static buffer *buffer_create(interp *in, size_t size)
{
    size_t total;
    if (__builtin_add_overflow(size, (size_t)2 * ALIGNMENT, &total))
        return NULL;
    // uninitialised on purpose: MSan and valgrind then see what an eval leaves out
    buffer *b = aligned_alloc(ALIGNMENT, total / ALIGNMENT * ALIGNMENT);
    if (b == NULL)
        return NULL;
    *b = (buffer){.n_users = 1, .data = (uint8_t *)b + ALIGNMENT};
    link_buffer(in, b);
    return b;
}

/// Bytes that someone else owns. Never NULL inside: an eval takes that for an absent operand.
static buffer *buffer_borrow(interp *in, const void *data)
{
    static uint64_t nothing;
    buffer *b = malloc(sizeof *b);
    if (b == NULL)
        return NULL;
    *b = (buffer){.n_users = 1, .data = data != NULL ? (void *)data : &nothing};
    link_buffer(in, b);
    return b;
}

static pm_status fail_memory(interp *in, const pm_loc *loc)
{
    return pm_error(in->diag, loc, PM_ERR_NO_MEMORY, "out of memory");
}

/// Zeroed scratch memory for `n` items; never NULL on success.
static pm_status scratch(interp *in, const pm_loc *loc, size_t n, size_t size, buffer **out)
{
    size_t bytes;
    *out = __builtin_mul_overflow(n, size, &bytes) ? NULL : buffer_create(in, bytes);
    if (*out == NULL)
        return fail_memory(in, loc);
    memset((*out)->data, 0, bytes);
    return PM_OK;
}

static void cell_clear(cell *c)
{
    if (c->buffer != NULL && --c->buffer->n_users == 0)
        buffer_free(c->buffer);
    c->buffer = NULL;
}

/// A second user of the same bytes.
static cell cell_share(const cell *c)
{
    cell copy = *c;
    copy.buffer->n_users++;
    return copy;
}

static pm_tensor tensor_of(const cell *c)
{
    return (pm_tensor){
        .data = c->buffer->data, .dims = c->dims, .rank = c->rank, .elem = (int32_t)c->elem};
}

static const char *dims_text(interp *in, const cell *c)
{
    char *text = pm_arena_strdup(in->module->arena, "[");
    for (int32_t i = 0; i < c->rank; i++)
        text = pm_arena_printf(in->module->arena, "%s%s%" PRId64, text, i > 0 ? ", " : "",
                               c->dims[i]);
    return pm_arena_printf(in->module->arena, "%s]", text);
}

static pm_status cell_allocate(interp *in, const pm_loc *loc, cell *c)
{
    int64_t bytes = 0;
    if (!count_bytes(c, &bytes))
        return pm_error(in->diag, loc, PM_ERR_INVALID, "a tensor %s is too large",
                        dims_text(in, c));
    c->buffer = buffer_create(in, (size_t)bytes);
    if (c->buffer == NULL)
        return pm_error(in->diag, loc, PM_ERR_NO_MEMORY, "no memory for a tensor of %" PRId64
                        " bytes", bytes);
    return PM_OK;
}

static cell *cell_of(interp *in, const pm_value *value)
{
    PM_ASSERT(value->id < in->module->next_value);
    return &in->cells[value->id];
}

static cell *operand_cell(interp *in, const pm_op *op, uint32_t i)
{
    return i < op->n_operands && op->operands[i] != NULL ? cell_of(in, op->operands[i]) : NULL;
}

// ---- symbols ----

static pm_status bind_symbol(interp *in, const pm_loc *loc, const char *what, uint32_t symbol,
                             int64_t value, const cell *c)
{
    const pm_symbol *s = &in->module->symbols.data[symbol];
    int64_t bound = INT64_MAX;
    if (s->bound != PM_DIM_NONE)
        (void)pm_dim_eval(in->module, s->bound, in->bindings, &bound);
    if (value < s->lo || value > s->hi)
        return pm_error(in->diag, loc, PM_ERR_INVALID,
                        "%s is %s%s, but %s must be in [%" PRId64 ", %" PRId64 "]", what,
                        pm_elem_name(c->elem), dims_text(in, c), s->name, s->lo, s->hi);
    if (value > bound)
        return pm_error(in->diag, loc, PM_ERR_INVALID, "%s is %s%s, but %s is at most %" PRId64,
                        what, pm_elem_name(c->elem), dims_text(in, c), s->name, bound);
    in->bindings[symbol] = value;
    return PM_OK;
}

/// Compares a type's dims with actual ones: a symbol that has no value yet gets it. `what` is for
/// the message ("argument 'x'", "result 0 of topk").
static pm_status bind(interp *in, const pm_loc *loc, const char *what, const pm_type *type,
                      const cell *c)
{
    pm_module *m = in->module;
    if (type->elem != c->elem || type->rank != c->rank)
        return pm_error(in->diag, loc, PM_ERR_INVALID, "%s is %s%s, expected %s", what,
                        pm_elem_name(c->elem), dims_text(in, c), pm_type_text(m, type));
    for (int32_t i = 0; i < type->rank; i++) {
        uint32_t symbol = 0;
        int64_t expected = 0;
        bool is_symbol = pm_dim_is_symbol(m, type->dims[i], &symbol);
        if (is_symbol && in->bindings[symbol] == UNBOUND) {
            PM_TRY(bind_symbol(in, loc, what, symbol, c->dims[i], c));
            continue;
        }
        if (!pm_dim_eval(m, type->dims[i], in->bindings, &expected))
            continue; // of symbols that nothing has bound: nothing to compare with
        if (expected != c->dims[i])
            return pm_error(in->diag, loc, PM_ERR_INVALID,
                            "%s is %s%s, expected %s with %s = %" PRId64, what,
                            pm_elem_name(c->elem), dims_text(in, c), pm_type_text(m, type),
                            pm_dim_text(m, type->dims[i]), expected);
    }
    return PM_OK;
}

static pm_status bind_result(interp *in, const pm_op *op, uint32_t i)
{
    char what[64];
    snprintf(what, sizeof what, "result %" PRIu32 " of %s", i, pm_op_info_of(op)->name);
    return bind(in, op->loc, what, op->results[i]->type, cell_of(in, op->results[i]));
}

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

/// A call of another op's eval (the parts of which `experts` is made).
static int32_t call_eval(pm_opcode code, const pm_tensor *inputs, int32_t n_inputs,
                         const pm_tensor *outputs, int32_t n_outputs, const pm_attr_value *attrs)
{
    pm_eval_args args = {inputs, n_inputs, outputs, n_outputs, attrs};
    return pm_op_table[code].eval(&args);
}

// ---- plain ops ----

static pm_status fail_data(interp *in, const pm_op *op)
{
    return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                    "%s: the data are at fault (an index out of range, a division by zero, or sizes "
                    "that don't fit)",
                    pm_op_info_of(op)->name);
}

/// Finds the dims of all results: by the op's extent function where there is one, else from the
/// types. Both must agree.
static pm_status result_dims(interp *in, const pm_op *op, const pm_eval_args *args)
{
    const pm_op_info *info = pm_op_info_of(op);
    buffer *block = NULL;
    PM_TRY(scratch(in, op->loc, op->n_results, PM_MAX_RANK * sizeof(int64_t), &block));
    int64_t *found = block->data;
    if (info->extent != NULL && info->extent(args, found) != 0)
        return fail_data(in, op);
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_type *type = op->results[i]->type;
        cell *c = cell_of(in, op->results[i]);
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
        PM_TRY(bind_result(in, op, i));
    }
    buffer_free(block);
    return PM_OK;
}

static pm_status run_eval(interp *in, const pm_op *op)
{
    const pm_op_info *info = pm_op_info_of(op);
    pm_attr_value attrs[PM_MAX_ATTRS] = {{0}};
    buffer *block = NULL;
    if (info->eval == NULL)
        return pm_error(in->diag, op->loc, PM_ERR_UNSUPPORTED, "%s can't be interpreted",
                        info->name);
    PM_TRY(scratch(in, op->loc, (size_t)op->n_operands + op->n_results, sizeof(pm_tensor),
                   &block));
    pm_tensor *tensors = block->data;
    pm_tensor *outputs = tensors + op->n_operands;
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (op->operands[i] != NULL)
            tensors[i] = tensor_of(cell_of(in, op->operands[i]));
    attrs_of(op, attrs);
    pm_eval_args args = {tensors, (int32_t)op->n_operands, outputs, (int32_t)op->n_results, attrs};
    PM_TRY(result_dims(in, op, &args));
    for (uint32_t i = 0; i < op->n_results; i++) {
        cell *c = cell_of(in, op->results[i]);
        PM_TRY(cell_allocate(in, op->loc, c));
        outputs[i] = tensor_of(c);
    }
    if (info->eval(&args) != 0)
        return fail_data(in, op);
    buffer_free(block);
    return PM_OK;
}

// ---- constants and packed weights ----

/// A matrix of weights as panels -> row-major; see pm_layout.
static void unpack_matrix(const uint8_t *packed, const pm_layout *layout, int64_t n, int64_t k,
                          uint32_t size, uint8_t *out)
{
    int64_t width = layout->panel / layout->ways; // rows of one source in a panel
    int64_t source_rows = n / layout->ways;
    int64_t groups = (k + layout->pair - 1) / layout->pair;
    for (int64_t row = 0; row < n; row++) {
        int64_t way = source_rows > 0 ? row / source_rows : 0;
        int64_t r = source_rows > 0 ? row % source_rows : 0;
        int64_t panel = r / width, lane = way * width + r % width;
        for (int64_t i = 0; i < k; i++) {
            int64_t from = ((panel * groups + i / layout->pair) * layout->panel + lane) *
                               layout->pair + i % layout->pair;
            memcpy(out + (row * k + i) * size, packed + from * size, size);
        }
    }
}

/// A constant whose bytes are packed already.
static pm_status unpack_const(interp *in, const pm_op *op, const uint8_t *bytes, cell *c)
{
    const pm_layout *layout = op->results[0]->type->layout;
    uint32_t size = pm_elem_size(c->elem);
    int64_t n = c->dims[c->rank - 2], k = c->dims[c->rank - 1], matrices = 1;
    PM_TRY(cell_allocate(in, op->loc, c)); // also checks the products below
    if (n % layout->ways != 0)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID, "%" PRId64
                        " rows can't come from %d equal sources", n, (int)layout->ways);
    for (int32_t i = 0; i < c->rank - 2; i++)
        matrices *= c->dims[i];
    int64_t padded = (n + layout->panel - 1) / layout->panel * layout->panel *
                     ((k + layout->pair - 1) / layout->pair * layout->pair);
    for (int64_t i = 0; i < matrices; i++)
        unpack_matrix(bytes + i * padded * size, layout, n, k, size,
                      (uint8_t *)c->buffer->data + i * n * k * size);
    return PM_OK;
}

/// Bytes of a constant for as long as the run lasts: borrowed where they are mapped and aligned,
/// else read into memory that is freed after the last use.
static pm_status const_bytes(interp *in, const pm_op *op, const pm_data *data, uint32_t alignment,
                             buffer **out)
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
    *out = is_aligned ? buffer_borrow(in, bytes) : buffer_create(in, (size_t)data->size);
    if (*out == NULL)
        return fail_memory(in, op->loc);
    if (is_aligned || data->size == 0)
        return PM_OK;
    if (bytes != NULL) {
        memcpy((*out)->data, bytes, (size_t)data->size);
        return PM_OK;
    }
    return pm_file_read(in->diag, data->file, data->offset, (*out)->data, (size_t)data->size);
}

static pm_status run_const(interp *in, const pm_op *op)
{
    const pm_type *type = op->results[0]->type;
    const pm_data *data = pm_value_const(op->results[0]);
    cell *c = cell_of(in, op->results[0]);
    int64_t stored = 0;
    c->elem = type->elem;
    c->rank = type->rank;
    for (int32_t i = 0; i < type->rank; i++)
        if (!pm_dim_is_const(in->module, type->dims[i], &c->dims[i]) || c->dims[i] < 0)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID, "a constant of unknown size");
    if (data == NULL || !pm_dim_is_const(in->module, pm_type_bytes(in->module, type), &stored) ||
        (uint64_t)stored != data->size)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                        "the constant's bytes don't match its type %s",
                        pm_type_text(in->module, type));
    buffer *bytes = NULL;
    PM_TRY(const_bytes(in, op, data, pm_elem_size(type->elem), &bytes));
    if (type->layout == NULL) {
        c->buffer = bytes;
        return PM_OK;
    }
    PM_TRY(unpack_const(in, op, bytes->data, c));
    buffer_free(bytes);
    return PM_OK;
}

/// pack: the sources' rows one below the other (turned when stored [K, N]), converted.
static pm_status run_pack(interp *in, const pm_op *op)
{
    cell *out = cell_of(in, op->results[0]);
    const pm_type *type = op->results[0]->type;
    bool is_turned = pm_op_i64(op, "trans") != 0;
    uint32_t n_sources = 0;
    int64_t rows[2] = {0, 0}, n = 0, matrices = 1;
    const cell *sources[2] = {NULL, NULL};
    for (uint32_t i = 0; i < op->n_operands && i < 2; i++) {
        const cell *c = operand_cell(in, op, i);
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
    *out = (cell){.uses_left = out->uses_left, .elem = sources[0]->elem, .rank = rank};
    memcpy(out->dims, sources[0]->dims, sizeof out->dims);
    out->dims[rank - 2] = n;
    out->dims[rank - 1] = k;
    cell joined = *out;
    PM_TRY(cell_allocate(in, op->loc, &joined));
    uint32_t size = pm_elem_size(joined.elem);
    uint8_t *to = joined.buffer->data;
    for (int64_t i = 0; i < matrices; i++)
        for (uint32_t s = 0; s < n_sources; s++) {
            const uint8_t *from = (uint8_t *)sources[s]->buffer->data + i * rows[s] * k * size;
            for (int64_t at = 0; at < rows[s] * k; at++, to += size)
                memcpy(to, from + (is_turned ? at % k * rows[s] + at / k : at) * size, size);
        }
    out->elem = type->elem;
    PM_TRY(cell_allocate(in, op->loc, out));
    pm_tensor input = tensor_of(&joined), output = tensor_of(out);
    pm_attr_value to_elem = {.i = (int64_t)type->elem, .present = 1};
    if (call_eval(PM_OP_cast, &input, 1, &output, 1, &to_elem) != 0)
        return fail_data(in, op);
    cell_clear(&joined);
    return bind_result(in, op, 0);
}

/// dims: sizes as a tensor of i64.
static pm_status run_dims(interp *in, const pm_op *op)
{
    const pm_value *result = op->results[0];
    cell *c = cell_of(in, result);
    int64_t n = 1;
    c->elem = result->type->elem;
    c->rank = result->type->rank;
    if (c->elem != PM_I64 || c->rank > 1 || result->content == NULL ||
        (c->rank == 1 && !pm_dim_is_const(in->module, result->type->dims[0], &n)))
        return pm_error(in->diag, op->loc, PM_ERR_INVALID, "dims: the sizes are not known");
    c->dims[0] = n;
    PM_TRY(cell_allocate(in, op->loc, c));
    for (int64_t i = 0; i < n; i++)
        if (!pm_dim_eval(in->module, result->content[i], in->bindings,
                         (int64_t *)c->buffer->data + i))
            return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                            "dims: the size %s is not known when it is needed",
                            pm_dim_text(in->module, result->content[i]));
    return PM_OK;
}

// ---- regions ----

static pm_status run_graph(interp *in, const pm_graph *g, cell *args, size_t n_args, cell *results,
                           const pm_loc *loc);

/// Runs a region with symbols of its own: what it binds is forgotten afterwards. Takes the args'
/// cells; gives `results`, one cell for each result.
static pm_status run_region(interp *in, const pm_op *op, uint32_t which, cell *args, size_t n_args,
                            cell *results)
{
    size_t n_symbols = in->module->symbols.n;
    buffer *saved = NULL;
    if (in->depth >= PM_MAX_REGION_DEPTH)
        return pm_error(in->diag, op->loc, PM_ERR_UNSUPPORTED,
                        "regions are nested deeper than %d levels", (int)PM_MAX_REGION_DEPTH);
    PM_TRY(scratch(in, op->loc, n_symbols, sizeof(int64_t), &saved));
    if (n_symbols > 0)
        memcpy(saved->data, in->bindings, n_symbols * sizeof(int64_t));
    in->depth++;
    PM_TRY(run_graph(in, op->regions[which], args, n_args, results, op->loc));
    in->depth--;
    if (n_symbols > 0)
        memcpy(in->bindings, saved->data, n_symbols * sizeof(int64_t));
    buffer_free(saved);
    return PM_OK;
}

/// Hands a region's results to the op's, and binds the symbols of their types.
static pm_status take_results(interp *in, const pm_op *op, const cell *results, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cell *c = cell_of(in, op->results[i]);
        uint32_t uses_left = c->uses_left;
        *c = results[i];
        c->uses_left = uses_left;
        PM_TRY(bind_result(in, op, (uint32_t)i));
    }
    return PM_OK;
}

/// fused, if: a region takes the operands from `first` on and gives the op's results.
static pm_status run_simple_region(interp *in, const pm_op *op, uint32_t which, uint32_t first)
{
    const pm_graph *region = op->regions[which];
    size_t n_args = op->n_operands - first;
    buffer *block = NULL;
    if (region->results.n != op->n_results)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID, "%s has %" PRIu32
                        " results, its region gives %zu", pm_op_info_of(op)->name, op->n_results,
                        region->results.n);
    PM_TRY(scratch(in, op->loc, n_args + op->n_results, sizeof(cell), &block));
    cell *args = block->data, *results = args + n_args;
    for (size_t i = 0; i < n_args; i++) {
        const cell *c = operand_cell(in, op, first + (uint32_t)i);
        if (c == NULL)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID, "operand %zu of %s is absent",
                            first + i, pm_op_info_of(op)->name);
        args[i] = cell_share(c);
    }
    PM_TRY(run_region(in, op, which, args, n_args, results));
    PM_TRY(take_results(in, op, results, op->n_results));
    buffer_free(block);
    return PM_OK;
}

static pm_status take_scalar(interp *in, const pm_op *op, const cell *c, pm_elem elem,
                             const char *what, int64_t *out_value)
{
    int64_t n = 0;
    if (c->elem != elem || !count_elements(c, &n) || n != 1)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID, "%s of %s must be one %s, found %s%s",
                        what, pm_op_info_of(op)->name, pm_elem_name(elem), pm_elem_name(c->elem),
                        dims_text(in, c));
    *out_value = elem == PM_BOOL ? *(const uint8_t *)c->buffer->data != 0
                                 : *(const int64_t *)c->buffer->data;
    return PM_OK;
}

static pm_status run_if(interp *in, const pm_op *op)
{
    const cell *cond = operand_cell(in, op, 0);
    int64_t is_true = 0;
    if (cond == NULL)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID, "the condition of if is absent");
    PM_TRY(take_scalar(in, op, cond, PM_BOOL, "the condition", &is_true));
    return run_simple_region(in, op, is_true ? 0 : 1, 1);
}

// ---- loop ----

/// What a loop carries from one iteration to the next.
typedef struct loop_run {
    uint32_t n_carried, n_scanned, n_captured;
    cell *args;      ///< iteration, condition, carried, captured
    cell *results;   ///< condition, carried, scanned
    buffer *scanned; ///< cells of each iteration, n_scanned at a time
    size_t n_kept, capacity;
} loop_run;

static pm_status scalar_cell(interp *in, const pm_loc *loc, pm_elem elem, int64_t value, cell *out)
{
    *out = (cell){.elem = elem};
    PM_TRY(cell_allocate(in, loc, out));
    if (elem == PM_BOOL)
        *(uint8_t *)out->buffer->data = value != 0;
    else
        *(int64_t *)out->buffer->data = value;
    return PM_OK;
}

static pm_status keep_scanned(interp *in, const pm_op *op, loop_run *run)
{
    if (run->n_kept + run->n_scanned > run->capacity) {
        buffer *grown = NULL;
        run->capacity = 2 * (run->capacity + run->n_scanned);
        PM_TRY(scratch(in, op->loc, run->capacity, sizeof(cell), &grown));
        if (run->scanned != NULL) {
            memcpy(grown->data, run->scanned->data, run->n_kept * sizeof(cell));
            buffer_free(run->scanned);
        }
        run->scanned = grown;
    }
    for (uint32_t i = 0; i < run->n_scanned; i++)
        ((cell *)run->scanned->data)[run->n_kept++] = run->results[1 + run->n_carried + i];
    return PM_OK;
}

/// Scanned value `i` of every iteration, stacked along a new first axis.
static pm_status join_scanned(interp *in, const pm_op *op, const loop_run *run, uint32_t i)
{
    const pm_value *result = op->results[run->n_carried + i];
    size_t n_rounds = run->n_kept / run->n_scanned;
    cell *scanned = run->scanned != NULL ? run->scanned->data : NULL;
    cell *out = cell_of(in, result);
    out->elem = result->type->elem;
    out->rank = result->type->rank;
    out->dims[0] = (int64_t)n_rounds;
    for (int32_t d = 1; d < out->rank; d++) {
        if (n_rounds > 0)
            out->dims[d] = d <= scanned[i].rank ? scanned[i].dims[d - 1] : 0;
        else if (!pm_dim_eval(in->module, result->type->dims[d], in->bindings, &out->dims[d]))
            out->dims[d] = 0; // of nothing, and nothing else says
    }
    PM_TRY(cell_allocate(in, op->loc, out));
    uint8_t *to = out->buffer->data;
    for (size_t round = 0; round < n_rounds; round++) {
        cell *c = &scanned[round * run->n_scanned + i];
        int64_t bytes = 0;
        bool is_same = c->elem == out->elem && c->rank + 1 == out->rank && count_bytes(c, &bytes);
        for (int32_t d = 1; d < out->rank && is_same; d++)
            is_same = c->dims[d - 1] == out->dims[d];
        if (!is_same)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                            "scanned value %" PRIu32 " of a loop changes its type or size", i);
        if (bytes > 0)
            memcpy(to, c->buffer->data, (size_t)bytes);
        to += bytes;
        cell_clear(c);
    }
    return bind_result(in, op, run->n_carried + i);
}

/// One iteration; the carried values are in the args before and after it.
static pm_status loop_round(interp *in, const pm_op *op, loop_run *run, int64_t round,
                            int64_t *inout_goes_on)
{
    size_t n_args = 2 + (size_t)run->n_carried + run->n_captured;
    PM_TRY(scalar_cell(in, op->loc, PM_I64, round, &run->args[0]));
    PM_TRY(scalar_cell(in, op->loc, PM_BOOL, *inout_goes_on, &run->args[1]));
    for (uint32_t i = 2 + run->n_carried; i < n_args; i++)
        run->args[i] = cell_share(operand_cell(in, op, i));
    PM_TRY(run_region(in, op, 0, run->args, n_args, run->results));
    PM_TRY(take_scalar(in, op, &run->results[0], PM_BOOL, "the condition", inout_goes_on));
    cell_clear(&run->results[0]);
    for (uint32_t i = 0; i < run->n_carried; i++)
        run->args[2 + i] = run->results[1 + i];
    return run->n_scanned > 0 ? keep_scanned(in, op, run) : PM_OK;
}

static pm_status run_rounds(interp *in, const pm_op *op, loop_run *run)
{
    const cell *trip = operand_cell(in, op, 0), *cond = operand_cell(in, op, 1);
    int64_t trips = INT64_MAX, goes_on = true;
    if (trip != NULL)
        PM_TRY(take_scalar(in, op, trip, PM_I64, "the trip count", &trips));
    if (cond != NULL)
        PM_TRY(take_scalar(in, op, cond, PM_BOOL, "the condition", &goes_on));
    for (uint32_t i = 2; i < op->n_operands; i++) {
        const cell *c = operand_cell(in, op, i);
        if (c == NULL)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID, "operand %" PRIu32
                            " of loop is absent", i);
        if (i < 2 + run->n_carried)
            run->args[i] = cell_share(c);
    }
    for (int64_t round = 0; round < trips && goes_on; round++)
        PM_TRY(loop_round(in, op, run, round, &goes_on));
    PM_TRY(take_results(in, op, run->args + 2, run->n_carried));
    for (uint32_t i = 0; i < run->n_scanned; i++)
        PM_TRY(join_scanned(in, op, run, i));
    return PM_OK;
}

static pm_status run_loop(interp *in, const pm_op *op)
{
    const pm_graph *region = op->regions[0];
    int64_t n_carried = pm_op_i64(op, "carried"), n_scanned = pm_op_i64(op, "scanned");
    buffer *block = NULL;
    if (n_carried < 0 || n_scanned < 0 || n_carried > op->n_operands - 2 ||
        n_scanned > op->n_results || n_carried + n_scanned != op->n_results ||
        region->results.n != 1 + (size_t)op->n_results)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                        "the loop's counts don't match its operands, results and region");
    PM_TRY(scratch(in, op->loc, op->n_operands + region->results.n, sizeof(cell), &block));
    loop_run run = {.n_carried = (uint32_t)n_carried,
                    .n_scanned = (uint32_t)n_scanned,
                    .n_captured = op->n_operands - 2 - (uint32_t)n_carried,
                    .args = block->data,
                    .results = (cell *)block->data + op->n_operands};
    PM_TRY(run_rounds(in, op, &run));
    if (run.scanned != NULL)
        buffer_free(run.scanned);
    buffer_free(block);
    return PM_OK;
}

// ---- experts ----

/// An `experts` op while it runs.
typedef struct experts_run {
    int64_t n_experts, n_rows; ///< rows: tokens times choices
    cell token, offsets, slot;        ///< see expert_order
    cell weight;                      ///< of the combination; all one when inputs were scaled
    cell rows;                        ///< results of all experts, [n_rows, D]
    bool scales_input;
} experts_run;

/// Rows of one expert out of x, as a new cell; scaled by their weights when those apply to inputs.
static pm_status gather_expert(interp *in, const pm_op *op, const experts_run *run, int64_t expert,
                               cell *out)
{
    const cell *x = operand_cell(in, op, 0), *weight = operand_cell(in, op, 2);
    const int32_t *offsets = run->offsets.buffer->data, *token = run->token.buffer->data;
    const int32_t *slot = run->slot.buffer->data;
    int64_t first = offsets[expert], n = offsets[expert + 1] - first;
    *out = (cell){.elem = x->elem, .rank = 2, .dims = {n, x->dims[1]}};
    PM_TRY(cell_allocate(in, op->loc, out));
    pm_tensor inputs[2] = {tensor_of(x),
                           {.data = (void *)(token + first), .dims = &n, .rank = 1, .elem = PM_I32}};
    pm_tensor output = tensor_of(out);
    if (call_eval(PM_OP_gather_rows, inputs, 2, &output, 1, NULL) != 0)
        return fail_data(in, op);
    if (!run->scales_input)
        return PM_OK;
    // the weight of each row, in x's element type, times the row
    cell narrow = {.elem = PM_F32, .rank = 2, .dims = {n, 1}}, scale = narrow, scaled = *out;
    scale.elem = x->elem;
    PM_TRY(cell_allocate(in, op->loc, &narrow));
    PM_TRY(cell_allocate(in, op->loc, &scale));
    PM_TRY(cell_allocate(in, op->loc, &scaled));
    for (int64_t choice = 0; choice < run->n_rows; choice++)
        if (slot[choice] >= first && slot[choice] < first + n)
            ((float *)narrow.buffer->data)[slot[choice] - first] =
                ((const float *)weight->buffer->data)[choice];
    pm_attr_value to = {.i = (int64_t)x->elem, .present = 1};
    pm_tensor narrow_tensor = tensor_of(&narrow), scale_tensor = tensor_of(&scale);
    pm_tensor factors[2] = {tensor_of(out), scale_tensor}, product = tensor_of(&scaled);
    if (call_eval(PM_OP_cast, &narrow_tensor, 1, &scale_tensor, 1, &to) != 0 ||
        call_eval(PM_OP_mul, factors, 2, &product, 1, NULL) != 0)
        return fail_data(in, op);
    cell_clear(&narrow);
    cell_clear(&scale);
    cell_clear(out);
    *out = scaled;
    return PM_OK;
}

/// Slice `expert` of a captured tensor [E, …], as a view into it.
static pm_status slice_expert(interp *in, const pm_op *op, const cell *c, int64_t expert, cell *out)
{
    int64_t n_experts = c->rank > 0 ? c->dims[0] : 0, bytes = 0;
    if (expert >= n_experts)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                        "a captured tensor %s of experts has no slice %" PRId64, dims_text(in, c),
                        expert);
    *out = (cell){.elem = c->elem, .rank = c->rank - 1};
    memcpy(out->dims, c->dims + 1, (size_t)(c->rank - 1) * sizeof *c->dims);
    (void)count_bytes(out, &bytes); // a part of a tensor that exists
    out->buffer = buffer_borrow(in, (const uint8_t *)c->buffer->data + expert * bytes);
    return out->buffer != NULL ? PM_OK : fail_memory(in, op->loc);
}

static pm_status run_expert(interp *in, const pm_op *op, experts_run *run, int64_t expert,
                            cell *args)
{
    const int32_t *offsets = run->offsets.buffer->data;
    int64_t first = offsets[expert], n = offsets[expert + 1] - first;
    bool is_template = op->n_regions == 1;
    size_t n_args = op->n_operands - 2; // rows and what is captured
    cell result = {0};
    PM_TRY(gather_expert(in, op, run, expert, &args[0]));
    for (size_t i = 1; i < n_args; i++) {
        const cell *c = operand_cell(in, op, (uint32_t)i + 2);
        if (c == NULL)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID, "a captured operand is absent");
        if (is_template)
            PM_TRY(slice_expert(in, op, c, expert, &args[i]));
        else
            args[i] = cell_share(c);
    }
    PM_TRY(run_region(in, op, is_template ? 0 : (uint32_t)expert, args, n_args, &result));
    int64_t bytes = 0;
    if (result.elem != run->rows.elem || result.rank != 2 || result.dims[0] != n ||
        result.dims[1] != run->rows.dims[1])
        return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                        "expert %" PRId64 " gives %s%s, expected %s[%" PRId64 ", %" PRId64 "]",
                        expert, pm_elem_name(result.elem), dims_text(in, &result),
                        pm_elem_name(run->rows.elem), n, run->rows.dims[1]);
    if (count_bytes(&result, &bytes) && bytes > 0)
        memcpy((uint8_t *)run->rows.buffer->data + first * (bytes / n), result.buffer->data,
               (size_t)bytes);
    cell_clear(&result);
    return PM_OK;
}

/// Checks the operands and sorts the choices by expert.
static pm_status experts_start(interp *in, const pm_op *op, experts_run *run)
{
    const cell *x = operand_cell(in, op, 0), *expert = operand_cell(in, op, 1);
    const cell *weight = operand_cell(in, op, 2);
    const pm_type *type = op->results[0]->type;
    run->n_experts = pm_op_i64(op, "experts");
    run->scales_input = strcmp(pm_op_str(op, "apply"), "input") == 0;
    bool fits = x->rank == 2 && expert->rank == 2 && weight->rank == 2 && expert->elem == PM_I32 &&
                weight->elem == PM_F32 && expert->dims[0] == x->dims[0] &&
                weight->dims[0] == x->dims[0] && weight->dims[1] == expert->dims[1] &&
                type->rank == 2 && run->n_experts >= 1 && run->n_experts < INT32_MAX &&
                (op->n_regions == 1 || op->n_regions == (uint64_t)run->n_experts);
    if (!fits || !count_elements(expert, &run->n_rows) || run->n_rows > INT32_MAX)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                        "experts takes x [M, D], expert i32[M, k], weight f32[M, k], and one region "
                        "or one for each expert; found %s, %s, %s",
                        dims_text(in, x), dims_text(in, expert), dims_text(in, weight));
    run->token = (cell){.elem = PM_I32, .rank = 1, .dims = {run->n_rows}};
    run->offsets = (cell){.elem = PM_I32, .rank = 1, .dims = {run->n_experts + 1}};
    run->slot = (cell){.elem = PM_I32, .rank = 2, .dims = {expert->dims[0], expert->dims[1]}};
    PM_TRY(cell_allocate(in, op->loc, &run->token));
    PM_TRY(cell_allocate(in, op->loc, &run->offsets));
    PM_TRY(cell_allocate(in, op->loc, &run->slot));
    pm_tensor input = tensor_of(expert);
    pm_tensor outputs[3] = {tensor_of(&run->token), tensor_of(&run->offsets),
                            tensor_of(&run->slot)};
    pm_attr_value attrs = {.i = run->n_experts, .present = 1};
    if (call_eval(PM_OP_expert_order, &input, 1, outputs, 3, &attrs) != 0)
        return fail_data(in, op);
    run->rows = (cell){.elem = type->elem, .rank = 2, .dims = {run->n_rows, 0}};
    if (!pm_dim_eval(in->module, type->dims[1], in->bindings, &run->rows.dims[1]))
        return pm_error(in->diag, op->loc, PM_ERR_INVALID, "the width of the result is not known");
    PM_TRY(cell_allocate(in, op->loc, &run->rows));
    if (!run->scales_input) {
        run->weight = cell_share(weight);
        return PM_OK;
    }
    run->weight = (cell){.elem = PM_F32, .rank = 2, .dims = {expert->dims[0], expert->dims[1]}};
    PM_TRY(cell_allocate(in, op->loc, &run->weight));
    for (int64_t i = 0; i < run->n_rows; i++)
        ((float *)run->weight.buffer->data)[i] = 1;
    return PM_OK;
}

static pm_status run_all_experts(interp *in, const pm_op *op, experts_run *run)
{
    PM_TRY(experts_start(in, op, run));
    const int32_t *offsets = run->offsets.buffer->data;
    buffer *args = NULL;
    PM_TRY(scratch(in, op->loc, op->n_operands, sizeof(cell), &args));
    for (int64_t e = 0; e < run->n_experts; e++)
        if (offsets[e + 1] > offsets[e]) // an expert without rows does not run
            PM_TRY(run_expert(in, op, run, e, args->data));
    buffer_free(args);
    cell *out = cell_of(in, op->results[0]);
    out->elem = run->rows.elem;
    out->rank = 2;
    out->dims[0] = run->slot.dims[0];
    out->dims[1] = run->rows.dims[1];
    PM_TRY(cell_allocate(in, op->loc, out));
    pm_tensor inputs[3] = {tensor_of(&run->rows), tensor_of(&run->slot), tensor_of(&run->weight)};
    pm_tensor output = tensor_of(out);
    if (call_eval(PM_OP_combine, inputs, 3, &output, 1, NULL) != 0)
        return fail_data(in, op);
    return bind_result(in, op, 0);
}

static pm_status run_experts(interp *in, const pm_op *op)
{
    experts_run run = {0};
    for (uint32_t i = 0; i < 3; i++)
        if (operand_cell(in, op, i) == NULL)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID, "an operand of experts is absent");
    PM_TRY(run_all_experts(in, op, &run));
    cell_clear(&run.token);
    cell_clear(&run.offsets);
    cell_clear(&run.slot);
    cell_clear(&run.weight);
    cell_clear(&run.rows);
    return PM_OK;
}

// ---- graphs ----

static pm_status run_op(interp *in, const pm_op *op)
{
    switch (op->code) {
    case PM_OP_const: return run_const(in, op);
    case PM_OP_pack: return run_pack(in, op);
    case PM_OP_fused: return run_simple_region(in, op, 0, 0);
    case PM_OP_if: return run_if(in, op);
    case PM_OP_loop: return run_loop(in, op);
    case PM_OP_experts: return run_experts(in, op);
    default: break;
    }
    if (strcmp(pm_op_info_of(op)->name, "dims") == 0)
        return run_dims(in, op);
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
static void start_value(interp *in, const pm_value *value)
{
    cell *c = cell_of(in, value);
    c->uses_left += count_operand_uses(value);
    if (c->uses_left == 0)
        cell_clear(c);
}

static void end_use(interp *in, const pm_value *value)
{
    cell *c = cell_of(in, value);
    if (c->uses_left > 0 && --c->uses_left == 0)
        cell_clear(c);
}

static pm_status run_ops(interp *in, const pm_graph *g)
{
    for (const pm_op *op = g->first; op != NULL; op = op->next) {
        for (uint32_t i = 0; i < op->n_operands; i++)
            if (op->operands[i] != NULL && cell_of(in, op->operands[i])->buffer == NULL)
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

static const char *arg_name(interp *in, const pm_graph *g, size_t i)
{
    const char *name = g->args.data[i]->name;
    return name != NULL ? pm_arena_printf(in->module->arena, "argument '%s'", name)
                        : pm_arena_printf(in->module->arena, "argument %zu", i);
}

static pm_status bind_args(interp *in, const pm_graph *g, const cell *args, size_t n_args,
                           const pm_loc *loc)
{
    if (n_args != g->args.n)
        return pm_error(in->diag, loc, PM_ERR_INVALID, "%zu arguments given, expected %zu", n_args,
                        g->args.n);
    // twice: a dim such as 2*T may stand before the argument that binds T
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < n_args; i++)
            PM_TRY(bind(in, loc, arg_name(in, g, i), g->args.data[i]->type, &args[i]));
    return PM_OK;
}

/// Runs one graph. The args' cells are taken; `results` gets one cell for each result, which the
/// caller clears. No value of the graph is left.
static pm_status run_graph(interp *in, const pm_graph *g, cell *args, size_t n_args, cell *results,
                           const pm_loc *loc)
{
    PM_TRY(bind_args(in, g, args, n_args, loc));
    for (size_t i = 0; i < g->results.n; i++)
        cell_of(in, g->results.data[i])->uses_left++;
    for (size_t i = 0; i < n_args; i++) {
        cell *c = cell_of(in, g->args.data[i]);
        uint32_t uses_left = c->uses_left;
        *c = args[i];
        c->uses_left = uses_left;
        args[i].buffer = NULL;
        start_value(in, g->args.data[i]);
    }
    PM_TRY(run_ops(in, g));
    for (size_t i = 0; i < g->results.n; i++)
        results[i] = cell_share(cell_of(in, g->results.data[i]));
    for (size_t i = 0; i < g->results.n; i++)
        end_use(in, g->results.data[i]);
    return PM_OK;
}

// ---- entries ----

static pm_status take_input(interp *in, const pm_graph *entry, size_t i, const pm_array *input,
                            cell *out)
{
    int64_t bytes = 0;
    if (input->rank < 0 || input->rank > PM_MAX_RANK || (unsigned)input->elem >= PM_ELEM_COUNT)
        return pm_error(in->diag, NULL, PM_ERR_USAGE, "%s has no valid type",
                        arg_name(in, entry, i));
    *out = (cell){.elem = input->elem, .rank = input->rank};
    memcpy(out->dims, input->dims, sizeof out->dims);
    if (!count_bytes(out, &bytes) || (input->data == NULL && bytes > 0))
        return pm_error(in->diag, NULL, PM_ERR_USAGE, "%s has no data, or no valid size",
                        arg_name(in, entry, i));
    out->buffer = buffer_borrow(in, input->data);
    return out->buffer != NULL ? PM_OK : fail_memory(in, NULL);
}

static void give_output(pm_arena *arena, const cell *c, pm_array *out)
{
    int64_t bytes = 0;
    (void)count_bytes(c, &bytes); // it was allocated with that size
    *out = (pm_array){.elem = c->elem, .rank = c->rank};
    memcpy(out->dims, c->dims, sizeof out->dims);
    out->data = pm_arena_alloc(arena, (size_t)bytes, ALIGNMENT);
    if (bytes > 0)
        memcpy(out->data, c->buffer->data, (size_t)bytes);
}

static pm_status interpret(interp *in, pm_arena *arena, const pm_graph *entry,
                           const pm_array *inputs, size_t n_inputs, pm_array *outputs)
{
    pm_module *m = in->module;
    buffer *block = NULL, *bindings = NULL, *cells = NULL;
    if (n_inputs != entry->args.n)
        return pm_error(in->diag, NULL, PM_ERR_USAGE, "entry '%s' takes %zu inputs, found %zu",
                        entry->name, entry->args.n, n_inputs);
    PM_TRY(scratch(in, NULL, m->next_value, sizeof(cell), &cells));
    PM_TRY(scratch(in, NULL, m->symbols.n, sizeof(int64_t), &bindings));
    PM_TRY(scratch(in, NULL, n_inputs + entry->results.n, sizeof(cell), &block));
    in->cells = cells->data;
    in->bindings = bindings->data;
    for (size_t i = 0; i < m->symbols.n; i++)
        in->bindings[i] = UNBOUND;
    cell *args = block->data, *results = args + n_inputs;
    for (size_t i = 0; i < n_inputs; i++)
        PM_TRY(take_input(in, entry, i, &inputs[i], &args[i]));
    PM_TRY(run_graph(in, entry, args, n_inputs, results, NULL));
    for (size_t i = 0; i < entry->results.n; i++)
        give_output(arena, &results[i], &outputs[i]);
    return PM_OK;
}

/// Frees every block; also called by the arena when running out of memory jumped over the run.
static void free_blocks(void *arg)
{
    interp *in = arg;
    while (in->blocks.next != &in->blocks)
        buffer_free(in->blocks.next);
}

pm_status pm_interpret(pm_arena *arena, const pm_graph *entry, const pm_array *inputs,
                       size_t n_inputs, pm_array *outputs)
{
    pm_module *m = entry->module;
    interp *in = PM_NEW(arena, interp);
    *in = (interp){.module = m, .diag = m->diag};
    in->blocks.next = in->blocks.prev = &in->blocks;
    pm_arena_defer(arena, free_blocks, in);
    pm_status status = interpret(in, arena, entry, inputs, n_inputs, outputs);
    free_blocks(in);
    return status;
}
