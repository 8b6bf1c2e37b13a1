/// Modules, graphs, ops and values. The only file that edits links.
#include "ir/graph.h"

#include <signal.h>

#include "ir/interner.h"
#include "ir/op_table.h"

/* ---- modules --------------------------------------------------------------------------------- */

pm_module *pm_module_create(pm_arena *arena, pm_diag *diag, const char *name)
{
    pm_module *m = PM_NEW(arena, pm_module);
    m->arena = arena;
    m->diag = diag;
    m->next_serial = 1; // 0 stands for none
    pm_map_init(&m->meta, arena);
    pm_map_init(&m->blobs, arena);
    struct pm_interner *in = PM_NEW(arena, struct pm_interner);
    m->interner = in;
    pm_map_init(&in->types, arena);
    pm_map_init(&in->layouts, arena);
    pm_map_init(&in->strings, arena);
    pm_map_init(&in->locations, arena);
    pm_map_init(&in->file_bytes, arena);
    pm_dims_init(m);
    m->name = pm_intern(m, name ? name : "");
    return m;
}

const char *pm_intern(pm_module *m, const char *text)
{
    if (text == NULL)
        return NULL;
    void **slot = pm_map_at(&m->interner->strings, text, strlen(text));
    if (*slot == NULL)
        *slot = pm_arena_strdup(m->arena, text);
    return *slot;
}

const pm_loc *pm_loc_intern(pm_module *m, const pm_loc *loc)
{
    static const pm_loc nowhere;
    if (loc == NULL)
        loc = &nowhere;
    // `from` is the caller's: it lives in the module already, or is NULL
    pm_loc copy;
    memset(&copy, 0, sizeof copy); // padding too: the bytes are the key
    copy.file = pm_intern(m, loc->file);
    copy.line = loc->line;
    copy.col = loc->col;
    copy.offset = loc->offset;
    copy.has_offset = loc->has_offset;
    copy.what = pm_intern(m, loc->what);
    copy.name = pm_intern(m, loc->name);
    copy.detail = pm_intern(m, loc->detail);
    copy.from = loc->from;
    copy.by = pm_intern(m, loc->by);
    void **slot = pm_map_at(&m->interner->locations, &copy, sizeof copy);
    if (*slot == NULL) {
        pm_loc *kept = PM_NEW(m->arena, pm_loc);
        *kept = copy;
        *slot = kept;
    }
    return *slot;
}

const pm_loc *pm_loc_derive(pm_module *m, const pm_loc *from, const char *by)
{
    if (from && from->by && by && strcmp(from->by, by) == 0)
        return from; // the same pass again adds nothing
    pm_loc loc = from ? *from : (pm_loc){0};
    loc.from = from;
    loc.by = by;
    return pm_loc_intern(m, &loc);
}

/* ---- graphs ---------------------------------------------------------------------------------- */

static pm_graph *graph_create(pm_module *m, const char *name, pm_op *parent)
{
    pm_graph *g = PM_NEW(m->arena, pm_graph);
    g->module = m;
    g->name = pm_intern(m, name);
    g->parent = parent;
    g->arena_bytes = PM_DIM_NONE;
    return g;
}

pm_graph *pm_entry_create(pm_module *m, const char *name)
{
    pm_graph *g = graph_create(m, name, NULL);
    PM_PUSH(m->arena, &m->entries, g);
    return g;
}

pm_graph *pm_region_create(pm_op *parent)
{
    pm_module *m = parent->graph->module;
    pm_graph *g = graph_create(m, NULL, parent);
    // the array was sized by pm_op_create, or grows by one (experts)
    uint32_t lo = 0, hi = parent->n_regions; // those that exist come first
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (parent->regions[mid])
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < parent->n_regions) {
        parent->regions[lo] = g;
        return g;
    }
    size_t capacity = parent->n_regions;
    // powers of two: the array is full when the count is one
    if ((capacity & (capacity - 1)) == 0) {
        pm_graph **grown = PM_NEW_ARRAY(m->arena, pm_graph *, capacity ? capacity * 2 : 1);
        if (capacity)
            memcpy(grown, parent->regions, capacity * sizeof *grown);
        parent->regions = grown;
    }
    parent->regions[parent->n_regions++] = g;
    return g;
}

static pm_value *value_create(pm_graph *g, pm_op *def, uint32_t index, const pm_type *type)
{
    pm_module *m = g->module;
    pm_value *v = PM_NEW(m->arena, pm_value);
    v->type = type;
    v->def = def;
    v->graph = g;
    v->index = index;
    v->id = m->next_value++;
    v->place.offset = PM_DIM_NONE;
    return v;
}

pm_value *pm_graph_add_arg(pm_graph *g, const char *name, const pm_type *type, int32_t state)
{
    pm_module *m = g->module;
    pm_value *v = value_create(g, NULL, (uint32_t)g->args.n, type);
    v->name = pm_intern(m, name);
    PM_PUSH(m->arena, &g->args, v);
    PM_PUSH(m->arena, &g->arg_states, state);
    return v;
}

void pm_graph_add_result(pm_graph *g, const char *name, pm_value *value, int32_t state)
{
    pm_module *m = g->module;
    PM_ASSERT(value != NULL && value->graph == g);
    PM_PUSH(m->arena, &g->results, value);
    PM_PUSH(m->arena, &g->result_names, pm_intern(m, name));
    PM_PUSH(m->arena, &g->result_states, state);
}

bool pm_graph_is_host_twin(const pm_graph *g)
{
    size_t n = g->name ? strlen(g->name) : 0, k = strlen(PM_HOST_SUFFIX);
    return n > k && strcmp(g->name + n - k, PM_HOST_SUFFIX) == 0;
}

int32_t pm_state_add(pm_module *m, const char *name, const pm_type *type)
{
    PM_PUSH(m->arena, &m->states, ((pm_state){pm_intern(m, name), type, NULL}));
    return (int32_t)m->states.n - 1;
}

/* ---- links ----------------------------------------------------------------------------------- */

static void link_op(pm_graph *g, pm_op *op, pm_op *before)
{
    PM_ASSERT(before == NULL || before->graph == g);
    op->graph = g;
    op->next = before;
    op->prev = before ? before->prev : g->last;
    *(op->prev ? &op->prev->next : &g->first) = op;
    *(before ? &before->prev : &g->last) = op;
}

static void unlink_op(pm_op *op)
{
    *(op->prev ? &op->prev->next : &op->graph->first) = op->next;
    *(op->next ? &op->next->prev : &op->graph->last) = op->prev;
    op->prev = op->next = NULL;
}

static void link_use(pm_op *op, uint32_t index, pm_value *value)
{
    pm_use *use = &op->uses[index];
    op->operands[index] = value;
    *use = (pm_use){.op = op, .index = index};
    if (value == NULL)
        return;
    use->next = value->uses;
    if (value->uses)
        value->uses->prev = use;
    value->uses = use;
}

static void unlink_use(pm_op *op, uint32_t index)
{
    pm_use *use = &op->uses[index];
    pm_value *value = op->operands[index];
    op->operands[index] = NULL;
    if (value == NULL)
        return;
    *(use->prev ? &use->prev->next : &value->uses) = use->next;
    if (use->next)
        use->next->prev = use->prev;
    use->next = use->prev = NULL;
}

/// An op of that shape, linked, its attributes not filled in.
static pm_op *op_create(pm_graph *g, pm_op *before, pm_opcode code, const pm_loc *loc,
                        pm_value *const *operands, size_t n_operands, size_t n_results,
                        size_t n_regions)
{
    pm_module *m = g->module;
    PM_ASSERT(n_operands < UINT32_MAX && n_results < UINT32_MAX && n_regions < UINT32_MAX);
    pm_op *op = PM_NEW(m->arena, pm_op);
    op->code = code;
    op->loc = loc ? loc : pm_loc_intern(m, NULL);
    op->serial = m->next_serial++;
    bool has_device = code != PM_OP_const && !(pm_op_table[code].traits & PM_T_WEIGHT);
    op->device = has_device && !g->parent ? m->device : NULL;
    op->n_operands = (uint32_t)n_operands;
    op->n_results = (uint32_t)n_results;
    op->n_regions = (uint32_t)n_regions;
    op->operands = PM_NEW_ARRAY(m->arena, pm_value *, n_operands);
    op->uses = PM_NEW_ARRAY(m->arena, pm_use, n_operands);
    op->results = PM_NEW_ARRAY(m->arena, pm_value *, n_results);
    size_t region_capacity = 1;
    while (region_capacity < n_regions)
        region_capacity *= 2;
    op->regions = PM_NEW_ARRAY(m->arena, pm_graph *, region_capacity);
    link_op(g, op, before);
    for (uint32_t i = 0; i < op->n_operands; i++)
        link_use(op, i, operands[i]);
    for (uint32_t i = 0; i < op->n_results; i++)
        op->results[i] = value_create(g, op, i, NULL);
    if (m->break_on_op != 0 && op->serial == m->break_on_op)
        raise(SIGTRAP); // --break-on-op: a debugger stops where the op is created
    return op;
}

static pm_status check_count(pm_module *m, const pm_loc *loc, pm_opcode code, const char *what,
                             size_t n, uint32_t lo, uint32_t hi)
{
    if (n >= lo && (n <= hi || hi == PM_ANY))
        return PM_OK;
    const char *name = pm_op_table[code].name;
    if (hi == PM_ANY)
        return pm_error(m->diag, loc, PM_ERR_INVALID, "%s takes at least %u %s, found %zu", name,
                        lo, what, n);
    if (lo == hi)
        return pm_error(m->diag, loc, PM_ERR_INVALID, "%s takes %u %s, found %zu", name, lo, what,
                        n);
    return pm_error(m->diag, loc, PM_ERR_INVALID, "%s takes %u to %u %s, found %zu", name, lo, hi,
                    what, n);
}

static uint32_t region_depth(const pm_graph *g)
{
    uint32_t depth = 0;
    for (; g->parent; g = g->parent->graph)
        depth++;
    return depth;
}

pm_status pm_op_create(pm_graph *g, pm_op *before, pm_opcode code, const pm_loc *loc,
                       pm_value *const *operands, size_t n_operands, const pm_attr *attrs,
                       size_t n_attrs, size_t n_results, size_t n_regions, pm_op **out_op)
{
    pm_module *m = g->module;
    *out_op = NULL;
    PM_ASSERT((unsigned)code < PM_OP_COUNT);
    const pm_op_info *info = &pm_op_table[code];
    PM_TRY(check_count(m, loc, code, "operands", n_operands, info->min_in, info->max_in));
    PM_TRY(check_count(m, loc, code, "results", n_results, info->n_out == PM_ANY ? 0 : info->n_out,
                       info->n_out));
    PM_TRY(check_count(m, loc, code, "regions", n_regions,
                       info->n_regions == PM_ANY ? 0 : info->n_regions, info->n_regions));
    // slice always has its five operands; axes and steps may be absent
    size_t n_required = code == PM_OP_slice ? 3 : info->min_in;
    for (size_t i = 0; i < n_operands; i++) {
        if (operands[i] == NULL && i < n_required)
            return pm_error(m->diag, loc, PM_ERR_INVALID, "operand %zu of %s is missing", i,
                            info->name);
        if (operands[i] && operands[i]->graph != g)
            return pm_error(m->diag, loc, PM_ERR_INVALID,
                            "operand %zu of %s belongs to another graph; regions are isolated", i,
                            info->name);
    }
    if (n_regions > 0 && region_depth(g) >= PM_MAX_REGION_DEPTH)
        return pm_error(m->diag, loc, PM_ERR_UNSUPPORTED,
                        "regions are nested deeper than %d levels", (int)PM_MAX_REGION_DEPTH);
    pm_attr *filled = NULL;
    size_t n_filled = 0;
    PM_TRY(pm_attrs_fill(m, loc, code, attrs, n_attrs, &filled, &n_filled));
    pm_op *op = op_create(g, before, code, loc, operands, n_operands, n_results, n_regions);
    op->attrs = filled;
    op->n_attrs = (uint32_t)n_filled;
    *out_op = op;
    return PM_OK;
}

void pm_op_erase(pm_op *op)
{
    for (uint32_t i = 0; i < op->n_results; i++)
        PM_ASSERT(op->results[i]->uses == NULL);
    for (uint32_t i = 0; i < op->n_operands; i++)
        unlink_use(op, i);
    unlink_op(op);
    op->graph = NULL;
}

void pm_op_move_before(pm_op *op, pm_op *before)
{
    PM_ASSERT(before == NULL || before->graph == op->graph);
    if (op == before)
        return;
    pm_graph *g = op->graph;
    unlink_op(op);
    link_op(g, op, before);
}

void pm_op_set_operand(pm_op *op, uint32_t index, pm_value *value)
{
    PM_ASSERT(index < op->n_operands);
    PM_ASSERT(value == NULL || value->graph == op->graph);
    unlink_use(op, index);
    link_use(op, index, value);
}

static void drop_arg(pm_graph *g, uint32_t index)
{
    PM_ASSERT(pm_value_use_count(g->args.data[index]) == 0);
    for (size_t i = index; i + 1 < g->args.n; i++) {
        g->args.data[i] = g->args.data[i + 1];
        g->args.data[i]->index = (uint32_t)i;
        g->arg_states.data[i] = g->arg_states.data[i + 1];
    }
    g->args.n--;
    g->arg_states.n--;
}

void pm_op_drop_captured(pm_op *op, uint32_t operand, uint32_t arg)
{
    for (uint32_t r = 0; r < op->n_regions; r++)
        drop_arg(op->regions[r], arg);
    unlink_use(op, operand);
    for (uint32_t i = operand; i + 1 < op->n_operands; i++) {
        pm_value *next = op->operands[i + 1];
        unlink_use(op, i + 1);
        link_use(op, i, next);
    }
    op->n_operands--;
}

void pm_value_replace(pm_value *old, pm_value *value)
{
    PM_ASSERT(old != value && old->graph == value->graph);
    while (old->uses)
        pm_op_set_operand(old->uses->op, old->uses->index, value);
    pm_graph *g = old->graph;
    for (size_t i = 0; i < g->results.n; i++)
        if (g->results.data[i] == old)
            g->results.data[i] = value;
}

uint32_t pm_value_use_count(const pm_value *value)
{
    uint32_t n = 0;
    for (const pm_use *use = value->uses; use; use = use->next)
        n++;
    const pm_graph *g = value->graph;
    for (size_t i = 0; i < g->results.n; i++)
        n += g->results.data[i] == value;
    return n;
}

const char *pm_value_device(const pm_value *v)
{
    if (v->def && v->def->device)
        return v->def->device;
    const pm_graph *g = v->graph;
    for (; g->parent; g = g->parent->graph)
        if (g->parent->device)
            return g->parent->device; // regions run where their op does
    int32_t state = v->def || g != v->graph ? -1 : g->arg_states.data[v->index];
    return state < 0 ? NULL : v->graph->module->states.data[state].device;
}

const pm_value *pm_value_root(const pm_value *v)
{
    for (;;) {
        const pm_op *op = v->def ? v->def : v->graph->parent;
        if (v->place.kind == PM_PLACE_RESULT)
            v = v->graph->parent->results[v->place.index];
        else if (v->place.kind != PM_PLACE_ALIAS)
            return v;
        else if (v->def && op->code == PM_OP_loop)
            v = op->regions[0]->args.data[v->place.index];
        else
            v = op->operands[v->place.index];
    }
}

/// The first op of the op's regions from number `from` on, or NULL.
static pm_op *first_inside(const pm_op *op, uint32_t from)
{
    for (uint32_t r = from; r < op->n_regions; r++)
        if (op->regions[r]->first)
            return op->regions[r]->first;
    return NULL;
}

pm_op *pm_op_next_nested(const pm_graph *top, pm_op *op)
{
    pm_op *inside = first_inside(op, 0);
    while (!inside && !op->next && op->graph != top) {
        pm_op *parent = op->graph->parent;
        uint32_t r = 0;
        while (parent->regions[r] != op->graph)
            r++;
        inside = first_inside(parent, r + 1);
        op = parent;
    }
    return inside ? inside : op->next;
}

/* ---- copies ---------------------------------------------------------------------------------- */

pm_value *pm_value_map_get(const pm_map *value_map, const pm_value *key)
{
    return pm_map_get(value_map, &key->id, sizeof key->id);
}

void pm_value_map_put(pm_map *value_map, const pm_value *key, pm_value *value)
{
    pm_map_put(value_map, &key->id, sizeof key->id, value);
}

static void copy_facts(const pm_value *from, pm_value *to)
{
    to->type = from->type;
    to->name = from->name;
    to->content = from->content;
}

static pm_status clone_region(const pm_graph *from, pm_op *parent, pm_map *value_map)
{
    pm_graph *g = pm_region_create(parent);
    g->name = from->name;
    for (size_t i = 0; i < from->args.n; i++) {
        const pm_value *arg = from->args.data[i];
        pm_value *copy = pm_graph_add_arg(g, arg->name, arg->type, -1);
        copy->content = arg->content;
        pm_value_map_put(value_map, arg, copy);
    }
    for (pm_op *op = from->first; op; op = op->next) {
        pm_op *ignored;
        PM_TRY(pm_op_clone(op, g, NULL, value_map, &ignored)); // depth: PM_MAX_REGION_DEPTH
    }
    for (size_t i = 0; i < from->results.n; i++) {
        pm_value *result = pm_value_map_get(value_map, from->results.data[i]);
        PM_ASSERT(result != NULL);
        pm_graph_add_result(g, from->result_names.data[i], result, -1);
    }
    return PM_OK;
}

pm_status pm_op_clone(pm_op *op, pm_graph *g, pm_op *before, pm_map *value_map, pm_op **out_op)
{
    pm_module *m = g->module;
    *out_op = NULL;
    if (op->n_regions > 0 && region_depth(g) >= PM_MAX_REGION_DEPTH)
        return pm_error(m->diag, op->loc, PM_ERR_UNSUPPORTED,
                        "regions are nested deeper than %d levels", (int)PM_MAX_REGION_DEPTH);
    pm_value **operands = PM_NEW_ARRAY(m->arena, pm_value *, op->n_operands);
    for (uint32_t i = 0; i < op->n_operands; i++) {
        pm_value *old = op->operands[i];
        pm_value *mapped = old ? pm_value_map_get(value_map, old) : NULL;
        operands[i] = mapped ? mapped : old;
        PM_ASSERT(operands[i] == NULL || operands[i]->graph == g);
    }
    pm_op *copy =
        op_create(g, before, op->code, op->loc, operands, op->n_operands, op->n_results, 0);
    copy->attrs = PM_NEW_ARRAY(m->arena, pm_attr, op->n_attrs);
    copy->n_attrs = op->n_attrs;
    if (op->n_attrs)
        memcpy(copy->attrs, op->attrs, op->n_attrs * sizeof *copy->attrs);
    copy->is_clone = true;
    copy->device = g->parent ? NULL : op->device;
    for (uint32_t i = 0; i < op->n_results; i++) {
        copy_facts(op->results[i], copy->results[i]);
        pm_value_map_put(value_map, op->results[i], copy->results[i]);
    }
    for (uint32_t i = 0; i < op->n_regions; i++)
        PM_TRY(clone_region(op->regions[i], copy, value_map));
    *out_op = copy;
    return PM_OK;
}

/* ---- constants ------------------------------------------------------------------------------- */

pm_status pm_data_bytes(pm_module *m, const pm_data *data, const uint8_t **out_bytes)
{
    static const uint8_t nothing[1];
    *out_bytes = NULL;
    if (data->bytes || data->size == 0) {
        *out_bytes = data->bytes ? data->bytes : nothing;
        return PM_OK;
    }
    uint64_t end;
    if (__builtin_add_overflow(data->offset, data->size, &end) || end > data->file->size)
        return pm_error(m->diag, NULL, PM_ERR_INVALID,
                        "%s: a constant ends past the end of the file", data->file->path);
    if (data->file->data) {
        *out_bytes = data->file->data + data->offset;
        return PM_OK;
    }
    void **slot = pm_map_at(&m->interner->file_bytes, &data, sizeof data);
    if (*slot == NULL) {
        void *bytes = pm_arena_alloc(m->arena, data->size, 64);
        PM_TRY(pm_file_read(m->diag, data->file, data->offset, bytes, data->size));
        *slot = bytes;
    }
    *out_bytes = *slot;
    return PM_OK;
}

const pm_data *pm_value_const(const pm_value *value)
{
    return pm_value_is(value, PM_OP_const) ? value->def->attrs[0].data : NULL;
}

int64_t pm_data_int(const uint8_t *bytes, pm_elem elem, size_t i)
{
    int64_t wide = 0;
    size_t size = pm_elem_size(elem);
    memcpy(&wide, bytes + i * size, size); // little-endian hosts only, as everywhere
    switch (elem) {
    case PM_I32: return (int32_t)wide;
    case PM_I16: return (int16_t)wide;
    case PM_I8: return (int8_t)wide;
    default: return wide;
    }
}

bool pm_value_const_ints(pm_value *value, int64_t *out, size_t max, size_t *out_n)
{
    pm_module *m = value->graph->module;
    const pm_type *type = value->type;
    int64_t count;
    *out_n = 0;
    if (type == NULL || pm_elem_is_float(type->elem) || !pm_type_const_count(m, type, &count) ||
        (uint64_t)count > max)
        return false;
    if (value->content) {
        for (int64_t i = 0; i < count; i++)
            if (!pm_dim_is_const(m, value->content[i], &out[i]))
                return false;
        *out_n = (size_t)count;
        return true;
    }
    const pm_data *data = pm_value_const(value);
    const uint8_t *bytes;
    if (data == NULL || data->size != (uint64_t)count * pm_elem_size(type->elem) ||
        pm_data_bytes(m, data, &bytes) != PM_OK)
        return false;
    for (int64_t i = 0; i < count; i++) {
        out[i] = pm_data_int(bytes, type->elem, (size_t)i);
        if (type->elem == PM_U64 && out[i] < 0)
            return false; // beyond what the caller's type holds
    }
    *out_n = (size_t)count;
    return true;
}
