/* Handlers: attention as one operator, standard and contributed. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"

pm_onnx_handler pm_onnx_do_attention, pm_onnx_do_multi_head_attention,
    pm_onnx_do_group_query_attention;

/* What all of them come down to. q, k, v have rank 3 [B, T, heads * size] or 4 [B, heads, T, size]. */
typedef struct attention {
    pm_value *q, *k, *v;
    pm_value *mask, *past, *total, *sinks; /* as sdpa takes them; NULL: none */
    int64_t heads, kv_heads, left, right;
    double scale, softcap;
} attention;

static bool is_asked_for(const pm_onnx_call *call, size_t output)
{
    return output < call->n_out && call->node->output[output][0] != 0;
}

static pm_status build2(pm_onnx_call *call, pm_opcode op, pm_value *x, pm_value *y, pm_value **out)
{
    return pm_onnx_build(call, out, op, PM_OPERANDS(x, y), PM_NO_ATTRS);
}

static pm_dim const_dim(pm_onnx_call *call, int64_t value)
{
    return pm_dim_const(call->onnx->module, value);
}

/* The head size of a tensor of rank 3 or 4, which must be known. */
static pm_status head_size(pm_onnx_call *call, const pm_value *x, int64_t heads, int64_t *out)
{
    const pm_type *type = x->type;
    if (type->rank != 3 && type->rank != 4)
        return pm_onnx_error(call, PM_ERR_INVALID, "queries, keys and values need rank 3 or 4, found %s",
                             pm_type_text(call->onnx->module, type));
    if (!pm_dim_is_const(call->onnx->module, type->dims[type->rank - 1], out))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "the size of heads must be known");
    if (type->rank == 4)
        return PM_OK;
    if (*out % heads != 0)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "%" PRId64 " columns are not a multiple of %" PRId64 " heads", *out,
                             heads);
    *out /= heads;
    return PM_OK;
}

/* [B, T, heads * size] as [B, T, heads, size]. */
static pm_status split_heads(pm_onnx_call *call, pm_value *x, int64_t heads, pm_value **out)
{
    int64_t size;
    PM_TRY(head_size(call, x, heads, &size));
    const pm_dim dims[] = {x->type->dims[0], x->type->dims[1], const_dim(call, heads),
                           const_dim(call, size)};
    return pm_onnx_reshape(call, x, dims, 4, out);
}

/* As [B, heads, T, size]. */
static pm_status heads_first(pm_onnx_call *call, pm_value *x, int64_t heads, pm_value **out)
{
    const int64_t perm[] = {0, 2, 1, 3};
    *out = x;
    if (x->type->rank == 4)
        return PM_OK;
    PM_TRY(split_heads(call, x, heads, out));
    return pm_onnx_transpose(call, *out, perm, out);
}

static pm_dim tokens_of(const pm_value *x)
{
    return x->type->dims[x->type->rank == 4 ? 2 : 1];
}

/* first, first + 1, … as many as `count`, in i64. */
static pm_status counted(pm_onnx_call *call, pm_dim count, pm_value **out)
{
    pm_value *zero, *one, *limit;
    PM_TRY(pm_onnx_scalar(call, PM_I64, 0, &zero));
    PM_TRY(pm_onnx_scalar(call, PM_I64, 1, &one));
    PM_TRY(pm_build_dims(&call->b, 1, &count, &limit));
    PM_TRY(pm_onnx_reshape(call, limit, NULL, 0, &limit));
    return pm_onnx_build(call, out, PM_OP_range, PM_OPERANDS(zero, limit, one), PM_NO_ATTRS);
}

/* A vector seen as axis `axis` of `rank`. */
static pm_status along(pm_onnx_call *call, pm_value *x, int32_t rank, int32_t axis, pm_value **out)
{
    pm_dim dims[PM_MAX_RANK];
    for (int32_t i = 0; i < rank; i++)
        dims[i] = i == axis ? x->type->dims[0] : const_dim(call, 1);
    return pm_onnx_reshape(call, x, dims, rank, out);
}

/* Integers of any type and rank 0 or 1 as an i64 vector. */
static pm_status positions(pm_onnx_call *call, pm_value *x, pm_value **out)
{
    const pm_dim one = const_dim(call, 1);
    PM_TRY(pm_onnx_cast(call, x, PM_I64, out));
    if ((*out)->type->rank == 0)
        return pm_onnx_reshape(call, *out, &one, 1, out);
    return PM_OK;
}

/* Halves are computed with in f32. */
static pm_status wide(pm_onnx_call *call, pm_value *x, pm_value **out)
{
    *out = x;
    if (x == NULL || !pm_elem_is_float(x->type->elem))
        return PM_OK;
    return pm_onnx_cast(call, x, PM_F32, out);
}

static pm_status attend(pm_onnx_call *call, const attention *a, pm_value **out)
{
    pm_value *operands[] = {a->q, a->k, a->v, a->mask, a->past, a->total, a->sinks};
    pm_elem elem = a->q->type->elem;
    for (size_t i = 0; elem != PM_F64 && i < PM_COUNT(operands); i++)
        PM_TRY(wide(call, operands[i], &operands[i]));
    PM_TRY(pm_onnx_build(
        call, out, PM_OP_sdpa, operands, PM_COUNT(operands),
        PM_ATTRS(pm_attr_i64("heads", a->heads), pm_attr_i64("kv_heads", a->kv_heads),
                 pm_attr_f64("scale", a->scale), pm_attr_i64("left", a->left),
                 pm_attr_i64("right", a->right), pm_attr_f64("softcap", a->softcap))));
    return pm_onnx_cast(call, *out, elem, out);
}

/* The attribute `scale`, or 1 / sqrt(head size) where it isn't given or 0. */
static pm_status read_scale(pm_onnx_call *call, attention *a)
{
    int64_t size;
    const pm_onnx_attr *scale = pm_onnx_attr_of(call, "scale");
    a->scale = scale->f;
    if (scale->given && scale->f != 0)
        return PM_OK;
    PM_TRY(head_size(call, a->q, a->heads, &size));
    a->scale = size > 0 ? 1.0 / sqrt((double)size) : 1;
    return PM_OK;
}

static pm_status check_heads(pm_onnx_call *call, const attention *a)
{
    if (a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads != 0)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "%" PRId64 " heads can't share %" PRId64 " heads of keys evenly",
                             a->heads, a->kv_heads);
    return PM_OK;
}

/* ---- keys and values that grow ---- */

/* past (may be NULL) with the new rows at at[b]; `total` rows, or as many as past has when those are more. */
static pm_status append(pm_onnx_call *call, pm_value *past, pm_value *new, int64_t heads, pm_value *at,
                        pm_value *total, pm_value **out)
{
    if (past == NULL)
        PM_TRY(heads_first(call, new, heads, &new));
    else if (past->type->rank != 4)
        return pm_onnx_error(call, PM_ERR_INVALID, "past keys and values need rank 4, found %s",
                             pm_type_text(call->onnx->module, past->type));
    return pm_onnx_build(call, out, PM_OP_kv_append, PM_OPERANDS(new, at, total, past), PM_NO_ATTRS);
}

/* Past keys and values are put before the new ones; the queries come after the past. Outputs 1 and 2 are
 * what came of it. */
static pm_status grow(pm_onnx_call *call, attention *a, pm_value *past_key, pm_value *past_value)
{
    pm_module *m = call->onnx->module;
    if ((past_key == NULL) != (past_value == NULL))
        return pm_onnx_error(call, PM_ERR_INVALID, "past keys and past values go together");
    if (past_key == NULL) {
        if (is_asked_for(call, 1))
            PM_TRY(heads_first(call, a->k, a->kv_heads, &call->out[1]));
        if (is_asked_for(call, 2))
            PM_TRY(heads_first(call, a->v, a->kv_heads, &call->out[2]));
        return PM_OK;
    }
    if (past_key->type->rank != 4)
        return pm_onnx_error(call, PM_ERR_INVALID, "past keys need rank 4");
    pm_dim past = past_key->type->dims[2], all = pm_dim_add(m, past, tokens_of(a->k));
    pm_value *total;
    PM_TRY(pm_build_dims(&call->b, 1, &past, &a->past));
    PM_TRY(pm_build_dims(&call->b, 1, &all, &total));
    PM_TRY(append(call, past_key, a->k, a->kv_heads, a->past, total, &a->k));
    PM_TRY(append(call, past_value, a->v, a->kv_heads, a->past, total, &a->v));
    if (is_asked_for(call, 1))
        call->out[1] = a->k;
    if (is_asked_for(call, 2))
        call->out[2] = a->v;
    return PM_OK;
}

/* ---- the matrix of scores, where it is asked for ---- */

/* scale * q k^T as [B, heads, T, S]. */
static pm_status products(pm_onnx_call *call, const attention *a, pm_value **out)
{
    pm_module *m = call->onnx->module;
    pm_value *q, *k, *scale;
    PM_TRY(heads_first(call, a->q, a->heads, &q));
    PM_TRY(heads_first(call, a->k, a->kv_heads, &k));
    const pm_dim *dims = q->type->dims, *keys = k->type->dims;
    pm_dim kv = const_dim(call, a->kv_heads), group = const_dim(call, a->heads / a->kv_heads);
    const pm_dim q_dims[] = {dims[0], kv, pm_dim_mul(m, group, dims[2]), dims[3]};
    const pm_dim all[] = {dims[0], const_dim(call, a->heads), dims[2], keys[2]};
    PM_TRY(pm_onnx_reshape(call, q, q_dims, 4, &q));
    PM_TRY(pm_onnx_build(call, out, PM_OP_matmul, PM_OPERANDS(q, k),
                         PM_ATTRS(pm_attr_bool("trans_b", true))));
    PM_TRY(pm_onnx_reshape(call, *out, all, 4, out));
    PM_TRY(pm_onnx_scalar(call, (*out)->type->elem, a->scale, &scale));
    return build2(call, PM_OP_mul, *out, scale, out);
}

static pm_status restrict_to(pm_onnx_call *call, pm_opcode compare, pm_value *x, pm_value *y,
                             pm_value **seen)
{
    pm_value *more;
    PM_TRY(build2(call, compare, x, y, &more));
    return *seen ? build2(call, PM_OP_and, *seen, more, seen) : (*seen = more, PM_OK);
}

/* Which keys are seen whatever the mask says, as bool that broadcasts to [B, heads, T, S]; NULL: all. */
static pm_status sight(pm_onnx_call *call, const attention *a, pm_value **out)
{
    pm_value *row, *key, *first, *bound, *limit;
    *out = NULL;
    PM_TRY(counted(call, tokens_of(a->q), &row));
    PM_TRY(along(call, row, 4, 2, &row));
    PM_TRY(counted(call, tokens_of(a->k), &key));
    PM_TRY(along(call, key, 4, 3, &key));
    if (a->past) {
        PM_TRY(along(call, a->past, 4, 0, &first));
        PM_TRY(build2(call, PM_OP_add, row, first, &row));
    }
    if (a->right >= 0) {
        PM_TRY(pm_onnx_scalar(call, PM_I64, (double)a->right, &bound));
        PM_TRY(build2(call, PM_OP_add, row, bound, &limit));
        PM_TRY(restrict_to(call, PM_OP_less_equal, key, limit, out));
    }
    if (a->left >= 0) {
        PM_TRY(pm_onnx_scalar(call, PM_I64, (double)a->left, &bound));
        PM_TRY(build2(call, PM_OP_sub, row, bound, &limit));
        PM_TRY(restrict_to(call, PM_OP_less_equal, limit, key, out));
    }
    if (a->total) {
        PM_TRY(along(call, a->total, 4, 0, &limit));
        PM_TRY(restrict_to(call, PM_OP_less, key, limit, out));
    }
    return PM_OK;
}

/* Softmax of which a row of -inf alone becomes zeros. */
static pm_status guarded_softmax(pm_onnx_call *call, pm_value *x, pm_value **out)
{
    const int64_t axis = 3;
    const pm_attr axes[] = {pm_attr_ints("axes", &axis, 1)};
    pm_value *largest, *nothing, *is_nothing, *zero, *one, *sum, *all;
    PM_TRY(pm_onnx_scalar(call, x->type->elem, 0, &zero));
    PM_TRY(pm_onnx_scalar(call, x->type->elem, 1, &one));
    PM_TRY(pm_onnx_scalar(call, x->type->elem, -INFINITY, &nothing));
    PM_TRY(pm_onnx_build(call, &largest, PM_OP_reduce_max, PM_OPERANDS(x), axes, 1));
    PM_TRY(build2(call, PM_OP_equal, largest, nothing, &is_nothing));
    PM_TRY(pm_onnx_build(call, &largest, PM_OP_where, PM_OPERANDS(is_nothing, zero, largest),
                         PM_NO_ATTRS));
    PM_TRY(build2(call, PM_OP_sub, x, largest, &x));
    PM_TRY(pm_onnx_build(call, &x, PM_OP_exp, PM_OPERANDS(x), PM_NO_ATTRS));
    PM_TRY(pm_onnx_build(call, &sum, PM_OP_reduce_sum, PM_OPERANDS(x), axes, 1));
    PM_TRY(pm_onnx_build(call, &all, PM_OP_where, PM_OPERANDS(is_nothing, one, sum), PM_NO_ATTRS));
    return build2(call, PM_OP_div, x, all, out);
}

/* mode 0: the products; 1: capped; 2: with the mask; 3: after softmax. */
static pm_status score_matrix(pm_onnx_call *call, const attention *a, int64_t mode, pm_value **out)
{
    pm_value *cap, *mask = a->mask, *seen, *zero, *nothing, *bias;
    pm_elem elem = a->q->type->elem;
    attention w = *a;
    PM_TRY(wide(call, a->q, &w.q));
    PM_TRY(wide(call, a->k, &w.k));
    PM_TRY(products(call, &w, out));
    if (mode > 0 && a->softcap != 0) {
        PM_TRY(pm_onnx_scalar(call, PM_F32, a->softcap, &cap));
        PM_TRY(build2(call, PM_OP_div, *out, cap, out));
        PM_TRY(pm_onnx_build(call, out, PM_OP_tanh, PM_OPERANDS(*out), PM_NO_ATTRS));
        PM_TRY(build2(call, PM_OP_mul, *out, cap, out));
    }
    if (mode < 2)
        return pm_onnx_cast(call, *out, elem, out);
    if (a->sinks)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "the matrix of scores with sinks");
    if (mask && !pm_dim_same(mask->type->dims[mask->type->rank - 1], tokens_of(a->k)))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED,
                             "the matrix of scores with a mask shorter than the keys");
    PM_TRY(pm_onnx_scalar(call, PM_F32, 0, &zero));
    PM_TRY(pm_onnx_scalar(call, PM_F32, -INFINITY, &nothing));
    PM_TRY(sight(call, a, &seen));
    for (int i = 0; i < 2; i++) {
        pm_value *now = i ? seen : mask;
        if (now == NULL)
            continue;
        if (now->type->elem == PM_BOOL)
            PM_TRY(pm_onnx_build(call, &bias, PM_OP_where, PM_OPERANDS(now, zero, nothing), PM_NO_ATTRS));
        else
            PM_TRY(wide(call, now, &bias));
        PM_TRY(build2(call, PM_OP_add, *out, bias, out));
    }
    if (mode > 2)
        PM_TRY(guarded_softmax(call, *out, out));
    return pm_onnx_cast(call, *out, elem, out);
}

/* ---- Attention ---- */

/* A mask of keys; before opset 24 its last extent broadcasts, since then it may be shorter than the keys. */
static pm_status read_mask(pm_onnx_call *call, attention *a)
{
    int64_t width;
    pm_value *mask = pm_onnx_input(call, 3);
    a->mask = mask;
    if (mask == NULL)
        return PM_OK;
    int32_t rank = mask->type->rank;
    if (rank < 1 || rank > 4 || (mask->type->elem != PM_BOOL && !pm_elem_is_float(mask->type->elem)))
        return pm_onnx_error(call, PM_ERR_INVALID, "the mask is %s, must be bool or floats of rank 1 to 4",
                             pm_type_text(call->onnx->module, mask->type));
    if (call->row->since >= 24 || !pm_dim_is_const(call->onnx->module, mask->type->dims[rank - 1], &width) ||
        width != 1)
        return PM_OK;
    pm_dim dims[4];
    pm_value *shape;
    memcpy(dims, mask->type->dims, (size_t)rank * sizeof *dims);
    dims[rank - 1] = tokens_of(a->k);
    PM_TRY(pm_build_dims(&call->b, rank, dims, &shape));
    return build2(call, PM_OP_expand, mask, shape, &a->mask);
}

static int64_t window_of(pm_onnx_call *call, const char *name)
{
    return call->row->since >= 25 ? pm_onnx_attr_of(call, name)->i : -1;
}

static pm_status read_standard(pm_onnx_call *call, attention *a)
{
    const pm_type *q = call->in[0]->type, *k = call->in[1]->type;
    pm_value *lengths = pm_onnx_input(call, 6), *count;
    int64_t q_heads = pm_onnx_attr_of(call, "q_num_heads")->i;
    int64_t kv_heads = pm_onnx_attr_of(call, "kv_num_heads")->i;
    *a = (attention){.q = call->in[0], .k = call->in[1], .v = call->in[2],
                     .softcap = pm_onnx_attr_of(call, "softcap")->f};
    if (q->rank == 4 && k->rank == 4 &&
        (!pm_dim_is_const(call->onnx->module, q->dims[1], &q_heads) ||
         !pm_dim_is_const(call->onnx->module, k->dims[1], &kv_heads)))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "the number of heads must be known");
    a->heads = q_heads;
    a->kv_heads = kv_heads;
    PM_TRY(check_heads(call, a));
    PM_TRY(read_scale(call, a));
    a->left = window_of(call, "left_window_size");
    a->right = window_of(call, "right_window_size");
    if (a->left < -1 || a->right < -1)
        return pm_onnx_error(call, PM_ERR_INVALID, "windows are -1 or more");
    if (pm_onnx_attr_of(call, "is_causal")->i)
        a->right = 0;
    if (lengths && (pm_onnx_input(call, 4) || is_asked_for(call, 1)))
        return pm_onnx_error(call, PM_ERR_INVALID, "nonpad_kv_seqlen goes without past and present");
    PM_TRY(grow(call, a, pm_onnx_input(call, 4), pm_onnx_input(call, 5)));
    PM_TRY(read_mask(call, a));
    if (lengths == NULL)
        return PM_OK;
    pm_dim tokens = tokens_of(a->q);
    PM_TRY(positions(call, lengths, &a->total));
    PM_TRY(pm_build_dims(&call->b, 1, &tokens, &count));
    return build2(call, PM_OP_sub, a->total, count, &a->past);
}

pm_status pm_onnx_do_attention(pm_onnx_call *call)
{
    attention a;
    PM_TRY(read_standard(call, &a));
    PM_TRY(attend(call, &a, &call->out[0]));
    if (!is_asked_for(call, 3))
        return PM_OK;
    return score_matrix(call, &a, pm_onnx_attr_of(call, "qk_matmul_output_mode")->i, &call->out[3]);
}

/* ---- MultiHeadAttention ---- */

/* Part `part` of [B, S, heads, parts, size], as [B, S, heads * size]. */
static pm_status unpack(pm_onnx_call *call, pm_value *x, int64_t part, pm_value **out)
{
    pm_module *m = call->onnx->module;
    const pm_dim *dims = x->type->dims;
    const pm_dim joined[] = {dims[0], dims[1], pm_dim_mul(m, dims[2], dims[4])};
    PM_TRY(pm_onnx_slice(call, x, 3, part, part + 1, &x));
    return pm_onnx_reshape(call, x, joined, 3, out);
}

static pm_status read_packed(pm_onnx_call *call, attention *a)
{
    pm_value *q = call->in[0], *k = pm_onnx_input(call, 1);
    *a = (attention){.q = q, .k = k, .v = pm_onnx_input(call, 2), .left = -1, .right = -1};
    if (q->type->rank == 5) {
        PM_TRY(unpack(call, q, 0, &a->q));
        PM_TRY(unpack(call, q, 1, &a->k));
        return unpack(call, q, 2, &a->v);
    }
    if (k && k->type->rank == 5) {
        PM_TRY(unpack(call, k, 0, &a->k));
        return unpack(call, k, 1, &a->v);
    }
    if (a->k == NULL || a->v == NULL)
        return pm_onnx_error(call, PM_ERR_INVALID, "keys or values are missing");
    return PM_OK;
}

/* The bias of the projections [D + D + Dv], added to rows of rank 3. */
static pm_status add_bias(pm_onnx_call *call, attention *a, pm_value *bias)
{
    pm_value **rows[] = {&a->q, &a->k, &a->v};
    int64_t at = 0, width;
    for (size_t i = 0; i < PM_COUNT(rows); i++) {
        pm_value *part;
        const pm_type *type = (*rows[i])->type;
        if (type->rank != 3 || !pm_dim_is_const(call->onnx->module, type->dims[2], &width))
            return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "a bias for rows of rank 4 or unknown width");
        PM_TRY(pm_onnx_slice(call, bias, 0, at, at + width, &part));
        PM_TRY(build2(call, PM_OP_add, *rows[i], part, rows[i]));
        at += width;
    }
    return PM_OK;
}

/* Padding as numbers of keys per sequence, or as a mask (0: padding) per sequence or query. */
static pm_status read_padding(pm_onnx_call *call, attention *a, pm_value *padding)
{
    pm_module *m = call->onnx->module;
    const pm_type *type = padding->type;
    double filter = pm_onnx_attr_of(call, "mask_filter_value")->f;
    pm_value *zero, *filler, *keep;
    pm_dim one = pm_dim_const(m, 1);
    if (type->rank == 1) {
        if (pm_dim_differs(m, type->dims[0], a->q->type->dims[0]) || a->past)
            return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "padding by cumulated lengths");
        return positions(call, padding, &a->total);
    }
    if (type->rank != 2 && type->rank != 3)
        return pm_onnx_error(call, PM_ERR_INVALID, "key_padding_mask needs rank 1 to 3");
    const pm_dim dims[] = {type->dims[0], one, type->rank == 3 ? type->dims[1] : one,
                           type->dims[type->rank - 1]};
    PM_TRY(pm_onnx_reshape(call, padding, dims, 4, &padding));
    PM_TRY(pm_onnx_cast(call, padding, PM_BOOL, &keep));
    PM_TRY(pm_onnx_scalar(call, PM_F32, 0, &zero));
    PM_TRY(pm_onnx_scalar(call, PM_F32, filter, &filler));
    PM_TRY(pm_onnx_build(call, &a->mask, PM_OP_where, PM_OPERANDS(keep, zero, filler), PM_NO_ATTRS));
    return PM_OK;
}

pm_status pm_onnx_do_multi_head_attention(pm_onnx_call *call)
{
    attention a;
    pm_value *bias = pm_onnx_input(call, 5);
    PM_TRY(read_packed(call, &a));
    a.heads = a.kv_heads = pm_onnx_attr_of(call, "num_heads")->i;
    PM_TRY(check_heads(call, &a));
    if (pm_onnx_input(call, 8) || pm_onnx_input(call, 9))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "shared buffers and beams");
    if (pm_onnx_input(call, 3))
        PM_TRY(add_bias(call, &a, pm_onnx_input(call, 3)));
    PM_TRY(read_scale(call, &a));
    PM_TRY(grow(call, &a, pm_onnx_input(call, 6), pm_onnx_input(call, 7)));
    if (pm_onnx_attr_of(call, "unidirectional")->i)
        a.right = 0;
    if (pm_onnx_input(call, 4))
        PM_TRY(read_padding(call, &a, pm_onnx_input(call, 4)));
    if (bias) {
        PM_TRY(wide(call, bias, &bias));
        if (a.mask)
            PM_TRY(build2(call, PM_OP_add, a.mask, bias, &bias));
        a.mask = bias;
    }
    PM_TRY(attend(call, &a, &call->out[0]));
    if (a.q->type->rank == 4)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "queries of rank 4");
    return is_asked_for(call, 3) ? score_matrix(call, &a, 0, &call->out[3]) : PM_OK;
}

/* ---- GroupQueryAttention ---- */

static pm_status refuse_forms(pm_onnx_call *call)
{
    static const char *const quants[] = {"k_quant_type", "v_quant_type"};
    for (size_t i = 0; i < PM_COUNT(quants); i++)
        if (strcmp(pm_onnx_attr_of(call, quants[i])->s, "NONE") != 0)
            return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "caches of few bits");
    if (pm_onnx_input(call, 12) || pm_onnx_input(call, 13) || pm_onnx_attr_of(call, "kv_cache_bit_width")->i)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "caches of few bits");
    if (pm_onnx_attr_of(call, "sliding_window_cache")->i)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "caches that hold a window alone");
    if (is_asked_for(call, 3))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "the matrix of scores as an output");
    if (!pm_onnx_input(call, 5) || !pm_onnx_input(call, 6))
        return pm_onnx_error(call, PM_ERR_INVALID, "seqlens_k or total_sequence_length is missing");
    return PM_OK;
}

/* q, k and v of their own, or side by side in the columns of the query. */
static pm_status read_grouped(pm_onnx_call *call, attention *a)
{
    pm_module *m = call->onnx->module;
    int64_t width, parts = a->heads + 2 * a->kv_heads;
    a->q = call->in[0];
    a->k = pm_onnx_input(call, 1);
    a->v = pm_onnx_input(call, 2);
    if (a->q->type->rank != 3)
        return pm_onnx_error(call, PM_ERR_INVALID, "the query needs rank 3, found %s",
                             pm_type_text(m, a->q->type));
    if ((a->k == NULL) != (a->v == NULL))
        return pm_onnx_error(call, PM_ERR_INVALID, "keys and values go together");
    if (a->k)
        return PM_OK;
    if (!pm_dim_is_const(m, a->q->type->dims[2], &width))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "the width of packed rows must be known");
    if (width % parts != 0)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "%" PRId64 " columns don't hold %" PRId64 " heads", width, parts);
    int64_t size = width / parts, q_end = a->heads * size, k_end = q_end + a->kv_heads * size;
    pm_value *packed = a->q;
    PM_TRY(pm_onnx_slice(call, packed, 2, 0, q_end, &a->q));
    PM_TRY(pm_onnx_slice(call, packed, 2, q_end, k_end, &a->k));
    return pm_onnx_slice(call, packed, 2, k_end, width, &a->v);
}

/* RMS norm of each head. */
static pm_status norm_heads(pm_onnx_call *call, pm_value *x, int64_t heads, pm_value *scale,
                            const char *epsilon, pm_value **out)
{
    const pm_type *given = x->type;
    const pm_onnx_attr *eps = pm_onnx_attr_of(call, epsilon);
    double value = eps->given ? eps->f : pm_onnx_attr_of(call, "qk_norm_epsilon")->f;
    PM_TRY(split_heads(call, x, heads, &x));
    PM_TRY(pm_onnx_build(call, &x, PM_OP_rms_norm, PM_OPERANDS(x, scale),
                         PM_ATTRS(pm_attr_f64("eps", value))));
    return pm_onnx_reshape(call, x, given->dims, given->rank, out);
}

/* The table of cosines and sines for positions at[b] + t, or those given. */
static pm_status rotary_table(pm_onnx_call *call, const attention *a, pm_value *at, pm_value *given,
                              pm_value **out)
{
    pm_value *position = given, *cosine, *sine;
    if (position == NULL) {
        const pm_dim *dims = a->q->type->dims;
        const pm_dim all[] = {dims[0], dims[1]};
        pm_value *shape;
        PM_TRY(counted(call, dims[1], &position));
        if (at) {
            PM_TRY(along(call, at, 2, 0, &at));
            PM_TRY(build2(call, PM_OP_add, position, at, &position));
        }
        PM_TRY(pm_build_dims(&call->b, 2, all, &shape));
        PM_TRY(build2(call, PM_OP_expand, position, shape, &position));
    }
    const pm_attr axis[] = {pm_attr_i64("axis", 0)};
    PM_TRY(pm_onnx_build(call, &cosine, PM_OP_gather, PM_OPERANDS(call->in[7], position), axis, 1));
    PM_TRY(pm_onnx_build(call, &sine, PM_OP_gather, PM_OPERANDS(call->in[8], position), axis, 1));
    PM_TRY(pm_onnx_build(call, out, PM_OP_concat, PM_OPERANDS(cosine, sine),
                         PM_ATTRS(pm_attr_i64("axis", 2))));
    return pm_onnx_cast(call, *out, PM_F32, out);
}

static pm_status rotate_heads(pm_onnx_call *call, attention *a, pm_value *at)
{
    pm_value *table;
    int64_t size, kv_size;
    if (!pm_onnx_input(call, 7) || !pm_onnx_input(call, 8))
        return pm_onnx_error(call, PM_ERR_INVALID, "do_rotary needs cos_cache and sin_cache");
    PM_TRY(head_size(call, a->q, a->heads, &size));
    PM_TRY(head_size(call, a->k, a->kv_heads, &kv_size));
    if (size != kv_size)
        return pm_onnx_error(call, PM_ERR_INVALID, "heads of queries and keys differ in size");
    PM_TRY(rotary_table(call, a, at, pm_onnx_input(call, 9), &table));
    const pm_attr attrs[] = {pm_attr_i64("head_dim", size),
                             pm_attr_bool("interleaved", pm_onnx_attr_of(call, "rotary_interleaved")->i != 0)};
    PM_TRY(pm_onnx_build(call, &a->q, PM_OP_rope, PM_OPERANDS(a->q, table), attrs, PM_COUNT(attrs)));
    return pm_onnx_build(call, &a->k, PM_OP_rope, PM_OPERANDS(a->k, table), attrs, PM_COUNT(attrs));
}

/* How many keys each sequence has in the end, and where its new rows begin. */
static pm_status read_lengths(pm_onnx_call *call, const attention *a, pm_value **out_total,
                              pm_value **out_at)
{
    pm_value *one, *zero, *tokens, *valid = pm_onnx_input(call, 16);
    pm_dim count = a->q->type->dims[1];
    PM_TRY(positions(call, call->in[5], out_total));
    if ((*out_total)->type->rank == 2) { /* [B, 1] occurs */
        pm_dim batch = (*out_total)->type->dims[0];
        PM_TRY(pm_onnx_reshape(call, *out_total, &batch, 1, out_total));
    }
    PM_TRY(pm_onnx_scalar(call, PM_I64, 1, &one));
    PM_TRY(build2(call, PM_OP_add, *out_total, one, out_total));
    if (valid) {
        PM_TRY(positions(call, valid, &tokens));
        return build2(call, PM_OP_sub, *out_total, tokens, out_at);
    }
    PM_TRY(pm_onnx_scalar(call, PM_I64, 0, &zero));
    PM_TRY(pm_build_dims(&call->b, 1, &count, &tokens));
    PM_TRY(build2(call, PM_OP_sub, *out_total, tokens, out_at));
    return build2(call, PM_OP_max, *out_at, zero, out_at);
}

static pm_status read_sinks(pm_onnx_call *call, attention *a)
{
    a->sinks = pm_onnx_input(call, 11);
    if (a->sinks || pm_onnx_attr_of(call, "smooth_softmax")->i <= 0)
        return PM_OK;
    pm_value *zero, *shape;
    const int64_t dims[] = {a->heads};
    PM_TRY(pm_onnx_scalar(call, PM_F32, 0, &zero));
    PM_TRY(pm_onnx_vector(call, dims, 1, &shape));
    return build2(call, PM_OP_fill, shape, zero, &a->sinks);
}

pm_status pm_onnx_do_group_query_attention(pm_onnx_call *call)
{
    int64_t window = pm_onnx_attr_of(call, "local_window_size")->i;
    bool causal = pm_onnx_attr_of(call, "causal")->i != 0;
    attention a = {.heads = pm_onnx_attr_of(call, "num_heads")->i,
                   .kv_heads = pm_onnx_attr_of(call, "kv_num_heads")->i,
                   .softcap = pm_onnx_attr_of(call, "softcap")->f,
                   .left = window > 0 ? window - 1 : -1, .right = causal ? 0 : -1};
    pm_value *total, *at, *length;
    PM_TRY(refuse_forms(call));
    PM_TRY(check_heads(call, &a));
    PM_TRY(read_grouped(call, &a));
    PM_TRY(read_scale(call, &a));
    PM_TRY(read_lengths(call, &a, &total, &at));
    if ((pm_onnx_input(call, 14) == NULL) != (pm_onnx_input(call, 15) == NULL) ||
        (pm_onnx_input(call, 3) == NULL) != (pm_onnx_input(call, 4) == NULL))
        return pm_onnx_error(call, PM_ERR_INVALID, "weights of norms, and past keys and values, go in pairs");
    if (pm_onnx_input(call, 14)) {
        PM_TRY(norm_heads(call, a.q, a.heads, pm_onnx_input(call, 14), "q_norm_epsilon", &a.q));
        PM_TRY(norm_heads(call, a.k, a.kv_heads, pm_onnx_input(call, 15), "k_norm_epsilon", &a.k));
    }
    if (pm_onnx_attr_of(call, "do_rotary")->i)
        PM_TRY(rotate_heads(call, &a, at));
    PM_TRY(positions(call, call->in[6], &length));
    PM_TRY(append(call, pm_onnx_input(call, 3), a.k, a.kv_heads, at, length, &a.k));
    PM_TRY(append(call, pm_onnx_input(call, 4), a.v, a.kv_heads, at, length, &a.v));
    if (is_asked_for(call, 1))
        call->out[1] = a.k;
    if (is_asked_for(call, 2))
        call->out[2] = a.v;
    a.mask = pm_onnx_input(call, 10);
    a.past = at;
    if (!causal)
        a.total = total;
    PM_TRY(read_sinks(call, &a));
    return attend(call, &a, &call->out[0]);
}
