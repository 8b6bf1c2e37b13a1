/// Launches of linear and grouped_linear (codegen/cuda/kernels/cu_product.h): few rows by warps that read a row of the
/// weight each, many by tiles, on CUDA cores or, where the factors have 16 bits, on tensor cores.
#include <string.h>

#include "base/containers.h"
#include "codegen/cuda/kernels/cu_product_sizes.h"
#include "codegen/mlir/launch_plan.h"
#include "codegen/mlir/lowerings.h"
#include "runtime/runtime_abi.h"

/* as cu_product.h has them */
enum { ELEM_F32, ELEM_BF16, ELEM_F16, ELEM_U8, ELEM_NONE };
enum { CODES_INT, CODES_E2M1, CODES_E4M3 };

/// Rows that are few: weights are then read once for each CU_FEW_ROWS of them. Of a grouped product: for each expert.
enum { MOST_FEW = 32, MOST_FEW_OF_EXPERT = CU_FEW_ROWS };

typedef struct product {
    launch *l;
    const pm_op *op;
    const pm_value *x, *w, *offsets, *bias, *y;
    const pm_op *codes;  ///< dequantize; NULL: w has elements
    bool grouped;
    int64_t n, k, experts, expert_bytes;
    MlirValue rows;
} product;

/// A template, and the tile of the result that its blocks make.
typedef struct tiling {
    const char *name;
    int64_t rows, columns;
} tiling;

static const tiling few = {"product_few", CU_FEW_ROWS, CU_FEW_COLUMNS};
static const tiling on_cores = {"product_f32", CU_F32_ROWS, CU_F32_COLUMNS};
static const tiling on_mma = {"product_mma", CU_MMA_ROWS, CU_MMA_COLUMNS};
static const tiling on_wgmma = {"product_wgmma", CU_WGMMA_ROWS, CU_WGMMA_COLUMNS};

/// -1: templates don't know the element.
static int64_t elem_number(const pm_value *v)
{
    if (!v)
        return ELEM_F32;
    switch (v->type->elem) {
    case PM_F32: return ELEM_F32;
    case PM_BF16: return ELEM_BF16;
    case PM_F16: return ELEM_F16;
    case PM_U8: return ELEM_U8;
    default: return -1;
    }
}

static const pm_value *code_operand(const product *p, uint32_t i)
{
    return p->codes && i < p->codes->n_operands ? p->codes->operands[i] : NULL;
}

/// The matrix as it is stored: codes, or the elements.
static const pm_value *stored(const product *p)
{
    return p->codes ? p->codes->operands[0] : p->w;
}

static bool known(const product *p, const pm_value *v, int32_t i, int64_t *out)
{
    return pm_dim_is_const(p->l->n->e->module, v->type->dims[i < 0 ? v->type->rank + i : i], out);
}

static bool elems_are_known(const product *p)
{
    const pm_value *zeros = code_operand(p, 2), *scales = code_operand(p, 1);
    int64_t x = elem_number(p->x), w = elem_number(stored(p)), y = elem_number(p->y), bias = elem_number(p->bias);
    return x >= 0 && x < ELEM_U8 && y >= 0 && y < ELEM_U8 && bias >= 0 && bias < ELEM_U8 && w >= 0 &&
           (w == ELEM_U8) == (p->codes != NULL) && elem_number(scales) >= 0 && elem_number(zeros) >= 0;
}

/// The op as a product; false: it goes by the general road.
static bool describe(product *p, launch *l, const pm_op *op)
{
    *p = (product){.l = l, .op = op};
    p->grouped = op->code == PM_OP_grouped_linear;
    uint32_t bias = p->grouped ? 3 : 2;
    pm_value *codes = pm_device_codes(op);
    p->codes = codes ? codes->def : NULL;
    p->x = op->operands[0];
    p->w = op->operands[1];
    p->y = op->results[0];
    p->offsets = p->grouped ? op->operands[2] : NULL;
    p->bias = op->n_operands > bias ? op->operands[bias] : NULL;
    const pm_value *w = stored(p);
    if (w->type->layout && (w->type->layout->panel != 1 || w->type->layout->ways != 1 || w->type->layout->bits))
        return false;
    if (!elems_are_known(p) || (p->offsets && p->offsets->type->elem != PM_I32) || pm_op_i64(op, "source") != 0 ||
        w->type->rank != (p->grouped ? 3 : 2) || !known(p, p->y, -1, &p->n) || !known(p, p->x, -1, &p->k) ||
        (p->grouped && !known(p, w, 0, &p->experts)))
        return false;
    int64_t row_bytes;
    if (!known(p, w, -1, &row_bytes))
        return false;
    if (p->codes && row_bytes != (p->k * pm_op_i64(p->codes, "bits") + 7) / 8)
        return false; // rows are filled up to whole blocks
    p->expert_bytes = p->n * row_bytes * (int64_t)pm_elem_size(w->type->elem);
    if (p->grouped && pm_value_is(w, PM_OP_pack))
        p->expert_bytes = (int64_t)pm_weights_expert_stride(l->n->e->weights, w);
    return p->n > 0 && p->k > 0 && (!p->grouped || p->experts > 0);
}

static int64_t format_of(const product *p)
{
    const char *format = p->codes ? pm_op_str(p->codes, "format") : "int";
    return strcmp(format, "e2m1") == 0 ? CODES_E2M1 : strcmp(format, "e4m3") == 0 ? CODES_E4M3 : CODES_INT;
}

static void push_size(launch *l, const char *name, int64_t size)
{
    if (name)
        pm_launch_fix(l, name, size);
    else
        pm_launch_const(l, size);
}

/// is_first: of several, which have n and the experts' bytes for themselves.
static void push_words(const product *p, bool is_first, MlirValue map)
{
    launch *l = p->l;
    const pm_value *scales = code_operand(p, 1), *zeros = code_operand(p, 2);
    const pm_value *pointers[] = {p->x, stored(p), scales, zeros, p->offsets, p->bias, p->y};
    for (size_t i = 0; i < PM_COUNT(pointers); i++)
        pm_launch_value(l, pointers[i]);
    pm_launch_i64(l, p->rows);
    push_size(l, is_first ? NULL : "N", p->n);
    pm_launch_fix(l, "K", p->k);
    pm_launch_fix(l, "EXPERTS", p->experts);
    push_size(l, is_first ? NULL : "EXPERT_BYTES", p->expert_bytes);
    pm_launch_fix(l, "X", elem_number(p->x));
    pm_launch_fix(l, "W", elem_number(stored(p)));
    pm_launch_fix(l, "Y", elem_number(p->y));
    pm_launch_fix(l, "BIAS", elem_number(p->bias));
    pm_launch_fix(l, "SCALE", elem_number(scales));
    pm_launch_fix(l, "ZERO", zeros ? elem_number(zeros) : ELEM_NONE);
    pm_launch_fix(l, "BITS", p->codes ? pm_op_i64(p->codes, "bits") : 0);
    pm_launch_fix(l, "BLOCK", p->codes ? pm_op_i64(p->codes, "block") : 0);
    pm_launch_fix(l, "FORMAT", format_of(p));
    pm_launch_fix(l, "ROUNDS", pm_op_attr(p->op, "compute")->i == PM_BF16);
    pm_launch_i64(l, map);
}

/// Blocks for all tiles that there can be: an expert's tiles begin at its first row.
static MlirValue blocks_of(const product *p, const tiling *t)
{
    mb *b = p->l->b;
    int64_t extra = p->grouped ? p->experts * (t->rows - 1) : t->rows - 1;
    MlirValue tiles = mb_bin(b, "divui", mb_add(b, p->rows, mb_i64(b, extra)), mb_i64(b, t->rows));
    tiles = mb_bin(b, "minsi", tiles, p->rows);
    return mb_mul(b, tiles, mb_i64(b, (p->n + t->columns - 1) / t->columns));
}

/// The launch, but for its end. `runs` (i1): when it isn't one, there are no blocks.
static void use(const product *p, const tiling *t, MlirValue runs, MlirValue map)
{
    mb *b = p->l->b;
    pm_launch_use(p->l, t->name);
    push_words(p, false, map);
    p->l->kernel.is_product = t != &few && !p->grouped && !p->codes;
    pm_launch_blocks(p->l, mb_select(b, runs, blocks_of(p, t), mb_i64(b, 0)));
}

/* ---- siblings -------------------------------------------------------------------------------------------- */

static bool same_elem(const pm_value *a, const pm_value *b)
{
    return elem_number(a) == elem_number(b);
}

/// Whether one launch makes both where rows are few (products_few): the same rows, weights of the same kind.
static bool are_siblings(const product *a, const product *b)
{
    const pm_op *x = a->op, *y = b->op;
    if (x->code != y->code || x->device != y->device || a->x != b->x || a->offsets != b->offsets || a->k != b->k ||
        a->experts != b->experts || pm_op_attr(x, "compute")->i != pm_op_attr(y, "compute")->i ||
        !same_elem(stored(a), stored(b)) || !same_elem(a->y, b->y) || !same_elem(a->bias, b->bias) ||
        !a->codes != !b->codes)
        return false;
    return !a->codes || (format_of(a) == format_of(b) && pm_op_i64(a->codes, "bits") == pm_op_i64(b->codes, "bits") &&
                         pm_op_i64(a->codes, "block") == pm_op_i64(b->codes, "block") &&
                         !code_operand(a, 2) == !code_operand(b, 2) &&
                         same_elem(code_operand(a, 1), code_operand(b, 1)) &&
                         same_elem(code_operand(a, 2), code_operand(b, 2)));
}

static const pm_op *next_of(const pm_op *op, bool back)
{
    return back ? op->prev : op->next;
}

/// Constants, packed and as codes: nothing is emitted for them.
static bool is_weight(const pm_op *op)
{
    return (pm_lowering_of(op) && pm_lowering_of(op)->weight) ||
           (op->code == PM_OP_dequantize && op->results[0]->place.kind == PM_PLACE_NONE);
}

/// The op beside a product's with nothing but weights between, if it is a sibling. Nothing happens between the two, so it
/// makes no difference when which of them runs.
static bool neighbour(const product *p, bool back, product *out)
{
    const pm_op *op = next_of(p->op, back);
    while (op && is_weight(op))
        op = next_of(op, back);
    return op && op->code == p->op->code && describe(out, p->l, op) && are_siblings(p, out);
}

/// Whether the op's few rows are made by the launch of one before it.
static bool is_made_already(const product *p)
{
    product at = *p, before;
    int64_t place = 0;
    for (; neighbour(&at, true, &before); at = before)
        place++;
    return place % CU_SIBLINGS != 0;
}

/// Few rows of a product, and of those that go with it.
static void use_few(const product *first, MlirValue runs)
{
    mb *b = first->l->b;
    launch *l = first->l;
    product p = *first, other;
    if (!neighbour(first, false, &other)) {
        use(first, &few, runs, mb_i64(b, 0));
        return;
    }
    MlirValue blocks = blocks_of(first, &few);
    pm_launch_use(l, "products_few");
    push_words(first, true, mb_i64(b, 0));
    for (int i = 1; i < CU_SIBLINGS; i++) {
        bool is_one = p.op && neighbour(&p, false, &other);
        p = is_one ? other : (product){0};
        const pm_value *pointers[] = {is_one ? stored(&p) : NULL, code_operand(&p, 1), code_operand(&p, 2), p.bias, p.y};
        for (size_t k = 0; k < PM_COUNT(pointers); k++)
            pm_launch_value(l, pointers[k]);
        pm_launch_const(l, p.n);
        pm_launch_const(l, p.expert_bytes);
        p.rows = first->rows;
        if (is_one)
            blocks = mb_add(b, blocks, blocks_of(&p, &few));
    }
    pm_launch_blocks(l, mb_select(b, runs, blocks, mb_i64(b, 0)));
}

/* ---- many rows -------------------------------------------------------------------------------------------- */

/// Whether both factors have 16 bits of a kind, as they are or because the op rounds them.
static bool is_for_tensor_cores(const product *p)
{
    pm_elem x = p->x->type->elem, w = p->w->type->elem;
    return pm_op_attr(p->op, "compute")->i != PM_F32 || (!p->codes && x == w && (x == PM_BF16 || x == PM_F16));
}

/// Whether the tensor memory accelerator takes the weight, and async copies the rows: multiples of 16 bytes. Of a tile that is
/// mostly beyond the columns nothing is gained.
static bool is_for_wgmma(const product *p)
{
    pm_elem x = p->x->type->elem, w = stored(p)->type->elem;
    return !p->codes && x == w && (x == PM_BF16 || x == PM_F16) && p->k % 8 == 0 && p->expert_bytes % 16 == 0 &&
           2 * p->n >= CU_WGMMA_COLUMNS &&
           stored(p)->place.kind == PM_PLACE_WEIGHT && pm_launch_may_have_wgmma(p->l);
}

/// Tiles of rows, for as many as `runs` says.
static void use_tiles(const product *p, MlirValue runs)
{
    launch *l = p->l;
    mb *b = l->b;
    MlirValue none = mb_i64(b, 0);
    if (!is_for_tensor_cores(p)) {
        use(p, &on_cores, runs, none);
        return;
    }
    if (is_for_wgmma(p)) {
        const uint64_t extents[] = {(uint64_t)p->k, (uint64_t)p->n, p->grouped ? (uint64_t)p->experts : 1};
        const uint64_t strides[] = {(uint64_t)p->k * 2, (uint64_t)p->expert_bytes};
        MlirValue has = pm_launch_has_wgmma(l);
        use(p, &on_wgmma, mb_bin(b, "andi", runs, has), pm_launch_tensor_map(l, stored(p), extents, strides));
        pm_launch_finish(l);
        runs = mb_bin(b, "andi", runs, mb_bin(b, "xori", has, mb_int(b, b->i1, 1)));
    }
    use(p, &on_mma, runs, none);
}

/// False: the number of rows is not known yet.
static bool count_rows(const product *p, int64_t *out_rows)
{
    int64_t extent, rows = 1;
    for (int32_t i = 0; i < p->x->type->rank - 1; i++)
        if (!known(p, p->x, i, &extent) || !pm_mul_i64(rows, extent, &rows))
            return false;
    *out_rows = rows;
    return true;
}

pm_status pm_plan_linear(launch *l)
{
    product p;
    int64_t rows;
    mb *b = l->b;
    if (!describe(&p, l, l->op))
        return PM_ERR_UNSUPPORTED;
    p.rows = pm_launch_count_of(l, p.x, 0, -1);
    int64_t most = p.grouped ? p.experts * MOST_FEW_OF_EXPERT : MOST_FEW;
    bool rows_known = count_rows(&p, &rows), few_alone = rows_known && rows <= most;
    bool can_be_few = !rows_known || few_alone, made_already = can_be_few && is_made_already(&p);
    if (can_be_few && !made_already)
        use_few(&p, mb_cmpi(b, "sle", p.rows, mb_i64(b, most)));
    if (few_alone)
        return PM_OK;
    if (can_be_few && !made_already)
        pm_launch_finish(l);
    use_tiles(&p, mb_cmpi(b, "sgt", p.rows, mb_i64(b, most)));
    return PM_OK;
}
