/// Fusion: ops become groups that one dispatch computes, so that what lies between them stays in
/// registers.
///
/// One walk in order. Every op that a loop nest can compute joins the open group of a value that it
/// uses; products begin groups whose later members are their epilogue. A group is closed when an op
/// outside uses one of its values: it is computed where its last member stood, and its users come
/// after that. So groups never wait for each other, and the walk is linear.
///
/// Results keep their bits but for one thing: sums over columns are computed again where a later
/// member needs the same elements, from the same operands in the same order.
#include "passes/generic/fuse.h"

#include <string.h>

#include "ir/op_table.h"
#include "passes/generic/rewrite.h"

enum { MAX_MEMBERS = 48, MAX_OPERANDS = 32 };

static uint32_t number_of(const pm_op *op)
{
    return op->mark;
}

pm_cluster *pm_cluster_of(const pm_fusion *f, const pm_op *op)
{
    if (!op || op->graph != f->graph)
        return NULL;
    pm_cluster *c = f->cluster_of[number_of(op)];
    while (c && c->into)
        c = c->into;
    return c;
}

/// ---- what lies in a space ------------------------------------------------------------------------------

/// Costs more than reading the element again.
static bool is_expensive(const pm_op *op)
{
    switch (op->code) {
    case PM_OP_exp:
    case PM_OP_log:
    case PM_OP_sin:
    case PM_OP_cos:
    case PM_OP_tanh:
    case PM_OP_erf:
    case PM_OP_sigmoid:
    case PM_OP_silu:
    case PM_OP_gelu:
    case PM_OP_softplus:
    case PM_OP_pow: return true;
    default: return false;
    }
}

static bool is_reduction(const pm_op *op)
{
    return pm_op_info_of(op)->traits & PM_T_REDUCE;
}

/// Reads its operand once more than its result is computed.
static bool passes_twice(const pm_op *op)
{
    return is_reduction(op) || pm_op_has_row_statistics(op);
}

/// Whether operand i is read by the loop nest (a shape is not).
bool pm_op_reads_elements(const pm_op *op, uint32_t i)
{
    switch (op->code) {
    case PM_OP_reshape:
    case PM_OP_expand: return i == 0;
    case PM_OP_fill: return i == 1;
    default: return op->operands[i] != NULL;
    }
}

static bool reduces_columns(const pm_op *op)
{
    const pm_attr *axes = pm_op_attr(op, "axes");
    int32_t last = op->operands[0]->type->rank - 1;
    return axes->n == 1 && (axes->ints[0] == last || axes->ints[0] == -1) &&
           pm_op_i64(op, "keepdims");
}

static bool fits_rows(pm_module *m, pm_rows space, const pm_op *op)
{
    pm_row_fit fit = pm_rows_fit(m, space, op->results[0]->type);
    if (fit == PM_FIT_NONE)
        return false;
    if (pm_op_gathers_rows(op))
        return fit == PM_FIT_FULL;
    if (pm_op_has_row_statistics(op) && fit != PM_FIT_FULL)
        return false;
    if (is_reduction(op) &&
        (!reduces_columns(op) || pm_rows_fit(m, space, op->operands[0]->type) != PM_FIT_FULL))
        return false;
    if (is_expensive(op) && (fit == PM_FIT_COLUMN || fit == PM_FIT_ONE))
        return false;
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (pm_op_reads_elements(op, i) &&
            pm_rows_fit(m, space, op->operands[i]->type) == PM_FIT_NONE)
            return false;
    return true;
}

static bool fits_broadcast(pm_module *m, const pm_type *space, const pm_op *op)
{
    const pm_type *type = op->results[0]->type;
    bool is_plain = pm_op_info_of(op)->traits & PM_T_ELEMENTWISE || op->code == PM_OP_expand ||
                    op->code == PM_OP_fill;
    if (!is_plain || !pm_type_broadcasts_into(m, type, space))
        return false;
    if (is_expensive(op) && (type->rank != space->rank ||
                             (type->rank && memcmp(type->dims, space->dims,
                                                   (size_t)type->rank * sizeof *type->dims) != 0)))
        return false;
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (pm_op_reads_elements(op, i) &&
            !pm_type_broadcasts_into(m, op->operands[i]->type, space))
            return false;
    return true;
}

static bool has_member(const pm_cluster *c, const pm_op *op)
{
    for (size_t i = c->members.n; i-- > 0;)
        if (c->members.data[i] == op)
            return true;
    return false;
}

/// Whether only members and `op` use a value.
static bool stays_inside(const pm_cluster *c, const pm_op *op, const pm_value *v)
{
    for (const pm_use *use = v->uses; use; use = use->next)
        if (use->op != op && !has_member(c, use->op))
            return false;
    for (size_t i = 0; i < v->graph->results.n; i++)
        if (v->graph->results.data[i] == v)
            return false;
    return true;
}

/// Whether walking the space once stores every element of the type once. Of what is smaller, elements would be
/// stored again and again, or never when the space is empty: it must stay inside.
static bool is_walked(pm_module *m, const pm_type *space, bool by_rows, const pm_type *type)
{
    if (by_rows) {
        pm_row_fit fit = pm_rows_fit(m, pm_rows_of(m, space), type);
        return fit == PM_FIT_FULL || fit == PM_FIT_ROW;
    }
    return type->rank == space->rank &&
           (type->rank == 0 ||
            memcmp(type->dims, space->dims, (size_t)type->rank * sizeof *type->dims) == 0);
}

/// Whether all members and `op` lie in the space, as rows and columns or by broadcasting.
static bool fits(const pm_fusion *f, const pm_cluster *c, const pm_op *op, const pm_type *space)
{
    pm_module *m = f->ctx->module;
    bool by_rows = space->rank > 0, by_broadcast = !c->product;
    pm_rows rows = by_rows ? pm_rows_of(m, space) : (pm_rows){0, 0};
    for (size_t i = 0; i <= c->members.n; i++) {
        const pm_op *member = i < c->members.n ? c->members.data[i] : op;
        if (pm_op_is_product(member))
            continue;
        const pm_value *v = member->results[0];
        bool inside = member != op && stays_inside(c, op, v);
        by_rows = by_rows && fits_rows(m, rows, member) &&
                  (inside || is_walked(m, space, true, v->type));
        by_broadcast = by_broadcast && fits_broadcast(m, space, member) &&
                       (inside || is_walked(m, space, false, v->type));
        if (!by_rows && !by_broadcast)
            return false;
    }
    return true;
}

/// ---- joining -------------------------------------------------------------------------------------------

/// Shapes that are not known as expressions are read from memory by ops that make them.
static bool is_known_shape(const pm_value *v)
{
    return pm_value_is(v, PM_OP_dims) || (pm_value_is(v, PM_OP_const) && v->content);
}

/// A reshape that leaves rows and columns as they are.
static bool keeps_rows(const pm_fusion *f, const pm_op *op)
{
    if (op->code != PM_OP_reshape || op->operands[0]->type->rank == 0 ||
        op->results[0]->type->rank == 0 || !is_known_shape(op->operands[1]))
        return false;
    pm_rows from = pm_rows_of(f->ctx->module, op->operands[0]->type);
    pm_rows to = pm_rows_of(f->ctx->module, op->results[0]->type);
    return pm_dim_same(from.rows, to.rows) && pm_dim_same(from.columns, to.columns);
}

static bool can_be_member(const pm_fusion *f, const pm_op *op)
{
    if (op->n_results != 1)
        return false;
    if ((op->code == PM_OP_expand && !is_known_shape(op->operands[1])) ||
        (op->code == PM_OP_fill && !is_known_shape(op->operands[0])))
        return false;
    return (pm_op_can_loop(op) && op->code != PM_OP_transpose) || keeps_rows(f, op);
}

bool pm_op_is_product(const pm_op *op)
{
    return op->code == PM_OP_linear || op->code == PM_OP_grouped_linear;
}

static size_t count_operands(const pm_fusion *f, const pm_cluster *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->members.n; i++)
        for (uint32_t k = 0; k < c->members.data[i]->n_operands; k++) {
            const pm_value *v = c->members.data[i]->operands[k];
            n += v && pm_cluster_of(f, v->def) != c;
        }
    return n;
}

static pm_cluster *begin(pm_fusion *f, pm_op *op)
{
    pm_cluster *c = PM_NEW(f->ctx->module->arena, pm_cluster);
    c->space = op->results[0]->type;
    c->product = pm_op_is_product(op) ? op : NULL;
    PM_PUSH(f->ctx->module->arena, &c->members, op);
    PM_PUSH(f->ctx->module->arena, &f->clusters, c);
    f->cluster_of[number_of(op)] = c;
    return c;
}

static bool has_expensive(const pm_cluster *c)
{
    for (size_t i = 0; i < c->members.n; i++)
        if (is_expensive(c->members.data[i]))
            return true;
    return false;
}

/// What the members lie in when `op` joins; NULL: it can't.
static const pm_type *common_space(const pm_fusion *f, const pm_cluster *c, const pm_op *op)
{
    if (c->members.n >= MAX_MEMBERS || count_operands(f, c) + op->n_operands > MAX_OPERANDS)
        return NULL;
    if (c->product && (passes_twice(op) || pm_op_gathers_rows(op)))
        return NULL;
    if (passes_twice(op) && has_expensive(c))
        return NULL;
    if (fits(f, c, op, c->space))
        return c->space;
    const pm_type *wider = op->results[0]->type;
    return !c->product && fits(f, c, op, wider) ? wider : NULL;
}

/// Behind the last offset a grouped product computes nothing, nor its epilogue: what masks the rows there, for experts
/// of which others run elsewhere (lower-experts), must stand behind it. Only there are offsets a slice.
static bool masks_rows(const pm_cluster *c, const pm_op *op)
{
    return c->product && c->product->code == PM_OP_grouped_linear && op->code == PM_OP_where &&
           pm_value_is(c->product->operands[2], PM_OP_slice);
}

static bool join(pm_fusion *f, pm_cluster *c, pm_op *op)
{
    bool can_join = c->members.data[0]->device == op->device && !masks_rows(c, op);
    const pm_type *space = can_join ? common_space(f, c, op) : NULL;
    if (!space)
        return false;
    c->space = space;
    PM_PUSH(f->ctx->module->arena, &c->members, op);
    f->cluster_of[number_of(op)] = c;
    return true;
}

/// Two open groups as one; members stay in order. Neither depends on the other: both would be closed.
static void merge(pm_fusion *f, pm_cluster *a, pm_cluster *b, pm_cluster *into)
{
    pm_arena *arena = f->ctx->module->arena;
    size_t i = 0, k = 0;
    while (i < a->members.n || k < b->members.n) {
        bool first = k == b->members.n ||
                     (i < a->members.n &&
                      number_of(a->members.data[i]) < number_of(b->members.data[k]));
        PM_PUSH(arena, &into->members, first ? a->members.data[i++] : b->members.data[k++]);
    }
}

static pm_cluster *merged(pm_fusion *f, pm_cluster *a, pm_cluster *b, pm_op *op)
{
    if (a->members.data[0]->device != b->members.data[0]->device)
        return NULL;
    pm_cluster both = {.product = a->product, .second = b->product, .space = a->space};
    merge(f, a, b, &both);
    const pm_type *space = common_space(f, &both, op);
    if (!space && !both.product) {
        both.space = b->space;
        space = common_space(f, &both, op);
    }
    if (!space)
        return NULL;
    both.space = space;
    *a = both;
    b->into = a;
    return a;
}

/// Products that one panel can serve: gate and up of a gated unit.
static bool can_pair(const pm_cluster *a, const pm_cluster *b)
{
    const pm_op *p = a->product, *q = b->product;
    if (!p || !q || a->second || b->second || p->code != q->code || p->operands[0] != q->operands[0] ||
        p->n_operands != q->n_operands || p->operands[1]->type != q->operands[1]->type ||
        pm_op_i64(p, "compute") != pm_op_i64(q, "compute"))
        return false;
    if (p->code == PM_OP_grouped_linear && p->operands[2] != q->operands[2])
        return false;
    const pm_op *v = p->operands[1]->def, *w = q->operands[1]->def;
    if (!v || !w || v->code != PM_OP_pack || w->code != PM_OP_pack || v->n_operands != 1 ||
        w->n_operands != 1 || v->operands[0]->type != w->operands[0]->type ||
        pm_op_i64(v, "trans") != pm_op_i64(w, "trans") || pm_op_i64(v, "panel") % 2 != 0)
        return false;
    const char *g = pm_op_attr(v, "group")->s, *h = pm_op_attr(w, "group")->s;
    return g == h || (g && h && strcmp(g, h) == 0);
}

/// The open groups of the values that `op` uses.
static size_t candidates(const pm_fusion *f, const pm_op *op, pm_cluster **out, size_t max)
{
    size_t n = 0;
    for (uint32_t i = 0; i < op->n_operands && n < max; i++) {
        pm_cluster *c = op->operands[i] ? pm_cluster_of(f, op->operands[i]->def) : NULL;
        bool known = !c || c->closed || !pm_op_reads_elements(op, i);
        for (size_t k = 0; k < n && !known; k++)
            known = out[k] == c;
        if (!known)
            out[n++] = c;
    }
    return n;
}

static bool place_in_group(pm_fusion *f, pm_op *op)
{
    pm_cluster *found[4];
    size_t n = pm_op_gathers_rows(op) ? 0 : candidates(f, op, found, PM_COUNT(found));
    for (size_t i = 0; i < n; i++) // a pair, then one product
        for (size_t k = i + 1; k < n; k++)
            if (can_pair(found[i], found[k]) && merged(f, found[i], found[k], op))
                return join(f, found[i], op);
    for (size_t i = 0; i < n; i++)
        if (found[i]->product && join(f, found[i], op))
            return true;
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n; k++)
            if (!found[i]->product && !found[k]->product && !found[i]->into && !found[k]->into)
                merged(f, found[i], found[k], op);
    for (size_t i = 0; i < n; i++)
        if (!found[i]->product && !found[i]->into && join(f, found[i], op))
            return true;
    return false;
}

/// Groups whose values an op outside uses don't grow any more.
static void close_users_of_memory(pm_fusion *f, const pm_op *op, const pm_value *memory)
{
    for (const pm_use *use = memory->uses; use; use = use->next) {
        pm_cluster *c = pm_cluster_of(f, use->op);
        if (c && use->op != op)
            c->closed = true;
    }
}

static void close_used(pm_fusion *f, const pm_op *op)
{
    const pm_cluster *own = pm_cluster_of(f, op);
    for (uint32_t i = 0; i < op->n_operands; i++) {
        pm_cluster *c = op->operands[i] ? pm_cluster_of(f, op->operands[i]->def) : NULL;
        if (c && c != own)
            c->closed = true;
    }
    if (!(pm_op_info_of(op)->traits & PM_T_INPLACE))
        return;
    // What reads the memory that is overwritten now must not move behind this op.
    const pm_value *memory = op->operands[0];
    close_users_of_memory(f, op, memory);
    for (const pm_use *use = memory->uses; use; use = use->next)
        if (pm_op_info_of(use->op)->traits & PM_T_VIEW)
            close_users_of_memory(f, op, use->op->results[0]);
}

static void visit(pm_fusion *f, pm_op *op)
{
    if (pm_op_is_product(op) && op->operands[1]->type->layout &&
        op->operands[1]->type->layout->ways == 1)
        begin(f, op);
    else if (can_be_member(f, op) && !place_in_group(f, op) && op->code != PM_OP_reshape)
        begin(f, op);
    close_used(f, op);
}

static pm_status fuse_graph(pm_pass_ctx *ctx, pm_graph *g)
{
    pm_fusion f = {.ctx = ctx, .graph = g};
    uint32_t n = 0; // numbers start at 1: ops that are made meanwhile have 0 and no group
    for (pm_op *op = g->first; op; op = op->next)
        op->mark = ++n;
    f.cluster_of = PM_NEW_ARRAY(ctx->module->arena, pm_cluster *, n + 1);
    for (pm_op *op = g->first; op; op = op->next)
        visit(&f, op);
    pm_status status = PM_OK;
    for (size_t i = 0; i < f.clusters.n && status == PM_OK; i++) {
        ctx->module->device = f.clusters.data[i]->members.data[0]->device;
        if (!f.clusters.data[i]->into)
            status = pm_cluster_outline(&f, f.clusters.data[i]);
    }
    ctx->module->device = NULL;
    return status;
}

pm_status pm_pass_fuse(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++) {
        pm_graph_vec graphs;
        pm_bodies_of(ctx->module->entries.data[i], ctx->module->arena, &graphs);
        for (size_t k = 0; k < graphs.n; k++)
            PM_TRY(fuse_graph(ctx, graphs.data[k]));
    }
    return PM_OK;
}
