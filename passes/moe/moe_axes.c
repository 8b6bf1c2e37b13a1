/// Axes as runs of atoms: reshapes, permutations, broadcasts.
#include "passes/moe/moe_fact_rules.h"

#include "ir/op_table.h"

bool pm_moe_is_one(const pm_module *m, pm_dim dim)
{
    int64_t value;
    return pm_dim_is_const(m, dim, &value) && value == 1;
}

void pm_axes_put(pm_axes *axes, pm_atom atom, int32_t axis)
{
    atom.axis = axis;
    if (axes->n < PM_MAX_ATOMS)
        axes->atoms[axes->n] = atom;
    axes->n++; // one too many is noticed by pm_axes_fit()
}

pm_axes pm_axes_plain(pm_module *m, const pm_type *type)
{
    pm_axes axes = {.rank = type->rank};
    for (int32_t i = 0; i < type->rank; i++)
        if (!pm_moe_is_one(m, type->dims[i]))
            pm_axes_put(&axes, (pm_atom){.kind = PM_ATOM_PLAIN, .dim = type->dims[i]}, i);
    return axes;
}

/// Cuts a plain atom in two so that the part in front has `want` elements; NULL result: it can't be.
static bool cut(pm_module *m, pm_atom *atom, pm_dim want, pm_atom *out_front)
{
    int64_t whole, part;
    if ((atom->kind != PM_ATOM_PLAIN && atom->kind != PM_ATOM_SPREAD) ||
        !pm_dim_is_const(m, atom->dim, &whole) ||
        !pm_dim_is_const(m, want, &part) || part <= 0 || whole % part != 0)
        return false;
    *out_front = *atom;
    out_front->dim = want;
    atom->dim = pm_dim_const(m, whole / part);
    return true;
}

bool pm_axes_reshape(pm_module *m, const pm_axes *in, const pm_type *type, pm_axes *out)
{
    pm_axes left = *in; // what isn't used yet begins at `at`
    int32_t at = 0;
    *out = (pm_axes){.rank = type->rank};
    for (int32_t axis = 0; axis < type->rank; axis++) {
        pm_dim have = pm_dim_const(m, 1);
        while (have != type->dims[axis]) {
            if (at >= left.n)
                return false;
            pm_atom *atom = &left.atoms[at], front;
            int64_t want, done, whole;
            if (pm_dim_is_const(m, type->dims[axis], &want) && pm_dim_is_const(m, have, &done) &&
                pm_dim_is_const(m, atom->dim, &whole) && done > 0 && done * whole > want) {
                if (want % done != 0 || !cut(m, atom, pm_dim_const(m, want / done), &front))
                    return false;
                pm_axes_put(out, front, axis);
                have = type->dims[axis];
                continue;
            }
            have = pm_dim_mul(m, have, atom->dim);
            pm_axes_put(out, *atom, axis);
            at++;
        }
    }
    return at == left.n && pm_axes_fit(out);
}

bool pm_axes_expand(pm_module *m, const pm_axes *in, const pm_type *type, pm_axes *out)
{
    int32_t shift = type->rank - in->rank;
    pm_axes plain = pm_axes_plain(m, type);
    *out = (pm_axes){.rank = type->rank};
    for (int32_t axis = 0; axis < type->rank; axis++) {
        const pm_atom *first;
        int32_t n = pm_axes_at(in, axis - shift, &first);
        for (int32_t i = 0; i < n; i++)
            pm_axes_put(out, first[i], axis);
        if (n == 0 && pm_axes_at(&plain, axis, &first))
            pm_axes_put(out, (pm_atom){.kind = PM_ATOM_SPREAD, .dim = first->dim}, axis);
    }
    return pm_axes_fit(out);
}

pm_axes pm_axes_permuted(const pm_axes *in, const int64_t *perm)
{
    pm_axes out = {.rank = in->rank};
    for (int32_t axis = 0; axis < in->rank; axis++)
        for (int32_t i = 0; i < in->n; i++)
            if (in->atoms[i].axis == perm[axis])
                pm_axes_put(&out, in->atoms[i], axis);
    return out;
}

bool pm_moe_atom_same(const pm_atom *a, const pm_atom *b)
{
    return a->kind == b->kind && a->dim == b->dim && a->at == b->at && a->list == b->list;
}

bool pm_axes_same(const pm_axes *a, const pm_axes *b)
{
    bool same = a->rank == b->rank && a->n == b->n;
    for (int32_t i = 0; i < a->n && same; i++)
        same = a->atoms[i].axis == b->atoms[i].axis && pm_moe_atom_same(&a->atoms[i], &b->atoms[i]);
    return same;
}

/// The atoms of an axis: their number, and the first of them.
int32_t pm_axes_at(const pm_axes *axes, int32_t axis, const pm_atom **out_first)
{
    int32_t n = 0;
    *out_first = NULL;
    for (int32_t i = 0; i < axes->n; i++)
        if (axes->atoms[i].axis == axis) {
            if (!n)
                *out_first = &axes->atoms[i];
            n++;
        }
    return n;
}

/// What an atom yields to: 2 says what it counts, 0 says nothing.
static int weight_of(const pm_atom *atom)
{
    return atom->kind == PM_ATOM_SPREAD ? 0 : atom->kind == PM_ATOM_PLAIN ? 1 : 2;
}

/// Two runs of atoms along one axis as one; false where they contradict.
static bool merge_atoms(const pm_atom *x, int32_t n, const pm_atom *y, int32_t k, int32_t axis,
                        pm_axes *out)
{
    if (n == 0 || k == 0) {
        for (int32_t i = 0; i < n + k; i++)
            pm_axes_put(out, n ? x[i] : y[i], axis);
        return true;
    }
    if (n == 1 && k > 1 && weight_of(x) < 2) // one extent for all of the others'
        return merge_atoms(NULL, 0, y, k, axis, out);
    if (k == 1 && n > 1 && weight_of(y) < 2)
        return merge_atoms(x, n, NULL, 0, axis, out);
    if (n != k)
        return false;
    for (int32_t i = 0; i < n; i++) {
        bool same = pm_moe_atom_same(&x[i], &y[i]);
        if (!same && (x[i].dim != y[i].dim || (weight_of(&x[i]) == 2 && weight_of(&y[i]) == 2)))
            return false;
        pm_axes_put(out, weight_of(&x[i]) >= weight_of(&y[i]) ? x[i] : y[i], axis);
    }
    return true;
}

bool pm_axes_broadcast(const pm_axes *a, const pm_axes *b, int32_t rank, pm_axes *out)
{
    pm_axes both = {.rank = rank};
    for (int32_t axis = 0; axis < rank; axis++) {
        const pm_atom *x, *y;
        int32_t n = pm_axes_at(a, axis - (rank - a->rank), &x);
        int32_t k = pm_axes_at(b, axis - (rank - b->rank), &y);
        if (!merge_atoms(x, n, y, k, axis, &both))
            return false;
    }
    *out = both;
    return pm_axes_fit(out);
}

int32_t pm_moe_find_atom(const pm_axes *axes, pm_atom_kind kind)
{
    for (int32_t i = 0; i < axes->n; i++)
        if (axes->atoms[i].kind == kind)
            return i;
    return -1;
}

void pm_axes_drop_atoms(pm_axes *axes, int32_t axis)
{
    int32_t n = 0;
    for (int32_t i = 0; i < axes->n; i++)
        if (axes->atoms[i].axis != axis)
            axes->atoms[n++] = axes->atoms[i];
    axes->n = n;
}

void pm_axes_remove(pm_axes *axes, int32_t axis)
{
    pm_axes_drop_atoms(axes, axis);
    for (int32_t i = 0; i < axes->n; i++)
        axes->atoms[i].axis -= axes->atoms[i].axis > axis;
    axes->rank--;
}
