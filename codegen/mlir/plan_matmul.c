/// Launches of matmul (codegen/cuda/kernels/cu_matmul.c).
#include "codegen/cuda/kernels/cu_matmul_sizes.h"
#include "codegen/mlir/launch_plan.h"

/* elements, as codegen/cuda/kernels/cu_product.h has them */
enum { ELEM_F32, ELEM_BF16, ELEM_F16 };

/// What one extent of the batch is to an operand.
typedef enum batch_kind {
    WHOLE, ///< as long as the result's
    SAME,  ///< 1: the same matrix again
    ASKED, ///< known when it runs
} batch_kind;

enum { A, B, N_SIDES };

/// One extent of the batch; those that lie together in both operands are one.
typedef struct batch_dim {
    MlirValue extent, of[N_SIDES];
    batch_kind kind[N_SIDES];
} batch_dim;

typedef struct matmul {
    launch *l;
    const pm_value *in[N_SIDES], *y;
    bool turned[N_SIDES];
    int32_t n_batch; ///< of y
    batch_dim dims[PM_MAX_RANK];
    int32_t n_dims;
} matmul;

static const pm_module *module_of(const matmul *p)
{
    return p->l->n->e->module;
}

static bool is_one(const matmul *p, pm_dim d)
{
    int64_t n;
    return pm_dim_is_const(module_of(p), d, &n) && n == 1;
}

/// Operand's axis for axis d of the batch, or -1.
static int32_t axis_of(const matmul *p, int side, int32_t d)
{
    return d - (p->n_batch - (p->in[side]->type->rank - 2));
}

static batch_dim describe_dim(const matmul *p, int32_t d)
{
    batch_dim out = {.extent = pm_launch_dim_of(p->l, p->y, d)};
    for (int side = 0; side < N_SIDES; side++) {
        const pm_type *t = p->in[side]->type;
        int32_t axis = axis_of(p, side, d);
        if (axis < 0 || is_one(p, t->dims[axis])) {
            out.kind[side] = SAME;
            out.of[side] = mb_i64(p->l->b, 1);
            continue;
        }
        out.kind[side] = pm_dim_same(t->dims[axis], p->y->type->dims[d]) ? WHOLE : ASKED;
        out.of[side] = pm_launch_dim_of(p->l, p->in[side], axis);
    }
    return out;
}

/// Collects the batch's extents; false: there are more than a kernel takes.
static bool describe_batch(matmul *p)
{
    mb *b = p->l->b;
    for (int32_t d = 0; d < p->n_batch; d++) {
        if (is_one(p, p->y->type->dims[d]))
            continue;
        batch_dim next = describe_dim(p, d), *last = p->n_dims ? &p->dims[p->n_dims - 1] : NULL;
        bool joins = last != NULL;
        for (int side = 0; side < N_SIDES && joins; side++)
            joins = last->kind[side] == next.kind[side] && next.kind[side] != ASKED;
        if (!joins) {
            p->dims[p->n_dims++] = next;
            continue;
        }
        last->extent = mb_mul(b, last->extent, next.extent);
        for (int side = 0; side < N_SIDES; side++)
            last->of[side] = mb_mul(b, last->of[side], next.of[side]);
    }
    return p->n_dims <= CU_MATMUL_BATCH;
}

/// Extents, then for each operand how many matrices one step of each is.
static void push_batch(const matmul *p)
{
    launch *l = p->l;
    mb *b = l->b;
    MlirValue one = mb_i64(b, 1), none = mb_i64(b, 0), steps[N_SIDES][CU_MATMUL_BATCH];
    int32_t first = CU_MATMUL_BATCH - p->n_dims;
    for (int32_t i = 0; i < CU_MATMUL_BATCH; i++)
        pm_launch_i64(l, i < first ? one : p->dims[i - first].extent);
    for (int side = 0; side < N_SIDES; side++) {
        MlirValue step = one;
        for (int32_t i = CU_MATMUL_BATCH - 1; i >= 0; i--) {
            steps[side][i] = none;
            if (i < first)
                continue;
            const batch_dim *d = &p->dims[i - first];
            if (d->kind[side] == WHOLE)
                steps[side][i] = step;
            else if (d->kind[side] == ASKED)
                steps[side][i] = mb_select(b, mb_cmpi(b, "eq", d->of[side], one), none, step);
            step = mb_mul(b, step, d->of[side]);
        }
        for (int32_t i = 0; i < CU_MATMUL_BATCH; i++)
            pm_launch_i64(l, steps[side][i]);
    }
}

static int64_t elem_number(pm_elem elem)
{
    return elem == PM_F32 ? ELEM_F32 : elem == PM_BF16 ? ELEM_BF16 : elem == PM_F16 ? ELEM_F16 : -1;
}

/// Whether all rows of a meet the same matrix: then they are one matrix.
static bool is_one_matrix(const matmul *p)
{
    const pm_type *t = p->in[B]->type;
    for (int32_t i = 0; i < t->rank - 2; i++)
        if (!is_one(p, t->dims[i]))
            return false;
    return !p->turned[A] && p->in[A]->type->rank >= 2;
}

/// The number that is known, or as a word.
static void push_extent(launch *l, const pm_value *v, int32_t axis, bool is_vector, const char *name)
{
    if (is_vector)
        pm_launch_fix(l, name, 1);
    else
        pm_launch_dim(l, v, axis, name);
}

static void push_words(const matmul *p, MlirValue m)
{
    launch *l = p->l;
    const pm_type *b = p->in[B]->type;
    pm_launch_operand(l, A);
    pm_launch_operand(l, B);
    pm_launch_value(l, p->y);
    pm_launch_i64(l, m);
    push_extent(l, p->in[B], p->turned[B] ? -2 : -1, b->rank == 1, "N");
    pm_launch_dim(l, p->in[A], p->turned[A] ? -2 : -1, "K");
    push_batch(p);
    pm_launch_fix(l, "TURNED_A", p->turned[A]);
    pm_launch_fix(l, "TURNED_B", p->turned[B] || b->rank == 1); // a vector is either
    pm_launch_fix(l, "ELEM", elem_number(p->y->type->elem));
}

pm_status pm_plan_matmul(launch *l)
{
    mb *b = l->b;
    const pm_op *op = l->op;
    matmul p = {.l = l, .in = {op->operands[0], op->operands[1]}, .y = op->results[0]};
    const pm_type *left = p.in[A]->type, *right = p.in[B]->type;
    if (elem_number(left->elem) < 0 || right->elem != left->elem || p.y->type->elem != left->elem)
        return PM_ERR_UNSUPPORTED;
    p.turned[A] = pm_op_i64(op, "trans_a") && left->rank > 1;
    p.turned[B] = pm_op_i64(op, "trans_b") && right->rank > 1;
    p.n_batch = p.y->type->rank - (left->rank > 1) - (right->rank > 1);
    MlirValue one = mb_i64(b, 1), batches = one, m = one;
    int32_t first = left->rank - 2 + p.turned[A], behind = first + 1; // extents of a that are m
    if (is_one_matrix(&p))
        first = p.n_batch = 0;
    bool m_is_known = true;
    int64_t known_m = 1, extent;
    for (int32_t i = first < 0 ? behind : first; i < behind; i++) {
        m = mb_mul(b, m, pm_launch_dim_of(l, p.in[A], i));
        m_is_known = m_is_known && pm_dim_is_const(module_of(&p), left->dims[i], &extent) &&
                     pm_mul_i64(known_m, extent, &known_m);
    }
    if (!describe_batch(&p))
        return PM_ERR_UNSUPPORTED;
    for (int32_t i = 0; i < p.n_dims; i++)
        batches = mb_mul(b, batches, p.dims[i].extent);
    MlirValue n = right->rank == 1 ? one : pm_launch_dim_of(l, p.in[B], p.turned[B] ? -2 : -1);
    MlirValue is_few = mb_cmpi(b, "sle", m, mb_i64(b, CU_MATMUL_FEW_ROWS)), none = mb_i64(b, 0);
    if (!m_is_known || known_m <= CU_MATMUL_FEW_ROWS) {
        pm_launch_use(l, "matmul_few");
        push_words(&p, m);
        MlirValue tiles = mb_mul(b, pm_launch_ceil_div(l, m, CU_MATMUL_FEW_ROWS),
                                 pm_launch_ceil_div(l, n, CU_MATMUL_FEW_COLUMNS));
        pm_launch_blocks(l, mb_select(b, is_few, mb_mul(b, batches, tiles), none));
        if (m_is_known)
            return PM_OK;
        pm_launch_finish(l);
    }
    pm_launch_use(l, "matmul");
    push_words(&p, m);
    MlirValue tiles = mb_mul(b, pm_launch_ceil_div(l, m, CU_MATMUL_ROWS), pm_launch_ceil_div(l, n, CU_MATMUL_COLUMNS));
    pm_launch_blocks(l, mb_select(b, is_few, none, mb_mul(b, batches, tiles)));
    return PM_OK;
}
