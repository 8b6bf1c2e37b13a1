/// The verifier: structure first, then each op's own rules.
#include "ir/op_table.h"
#include "ir/text.h"

typedef struct verifier {
    pm_module *m;
    pm_arena *scratch;
    uint8_t *defined;            ///< by value id: defined so far in the graph being walked
    uint8_t *found;              ///< by symbol: a data-dependent one whose value is known by now
    PM_VEC(uint32_t) found_list; ///< those, in order: a graph's own are forgotten at its end
    size_t n_faults;
} verifier;

enum { MAX_FAULTS = 100 }; ///< as many as the sink keeps

static void fault(verifier *v, const pm_loc *loc, const char *fmt, ...) PM_PRINTF(3, 4);

static void fault(verifier *v, const pm_loc *loc, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text = pm_arena_vprintf(v->scratch, fmt, ap);
    va_end(ap);
    v->n_faults++;
    pm_status ignored = pm_error(v->m->diag, loc, PM_ERR_INVALID, "%s", text);
    (void)ignored;
}

static bool too_many(const verifier *v)
{
    return v->n_faults >= MAX_FAULTS;
}

/* ---- values ---------------------------------------------------------------------------------- */

static void check_value(verifier *v, const pm_loc *loc, const pm_value *value, const pm_graph *g,
                        const pm_op *def, size_t index)
{
    if (value == NULL) {
        fault(v, loc, "a value is missing");
        return;
    }
    if (value->graph != g || value->def != def || value->index != index)
        fault(v, loc, "value %u is linked wrongly to where it is defined", value->id);
    if (value->id >= v->m->next_value)
        fault(v, loc, "value id %u is out of range", value->id);
    else if (v->defined[value->id])
        fault(v, loc, "value %u is defined twice", value->id);
    else
        v->defined[value->id] = 1;
    if (value->type == NULL)
        fault(v, loc, "value %u has no type", value->id);
}

static bool is_defined(const verifier *v, const pm_value *value, const pm_graph *g)
{
    return value->graph == g && value->id < v->m->next_value && v->defined[value->id];
}

static void check_operands(verifier *v, const pm_op *op)
{
    const char *name = pm_op_info_of(op)->name;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const pm_value *value = op->operands[i];
        const pm_use *use = &op->uses[i];
        if (value == NULL)
            continue;
        if (value->graph != op->graph)
            fault(v, op->loc, "%s: operand %u belongs to another graph; regions are isolated", name,
                  i);
        else if (!is_defined(v, value, op->graph))
            fault(v, op->loc, "%s: operand %u is used before it is defined", name, i);
        const pm_use *linked = use->prev ? use->prev->next : value->uses;
        if (use->op != op || use->index != i || linked != use ||
            (use->next && use->next->prev != use))
            fault(v, op->loc, "%s: the use list of operand %u is broken", name, i);
    }
}

/* ---- symbols that are found while the entry runs ------------------------------------------------
 */

static bool is_lost(const pm_module *m, uint32_t symbol, const void *found)
{
    return m->symbols.data[symbol].data_dependent && !((const uint8_t *)found)[symbol];
}

/// The symbol when the extent is nothing else, and data-dependent.
static bool is_found_here(const pm_module *m, pm_dim d, uint32_t *out_symbol)
{
    return pm_dim_is_symbol(m, d, out_symbol) && m->symbols.data[*out_symbol].data_dependent;
}

static void check_mentions(verifier *v, const pm_loc *loc, pm_dim d, const char *what)
{
    uint32_t symbol;
    if (pm_dim_find_symbol(v->m, d, is_lost, v->found, &symbol))
        fault(v, loc, "%s mentions %s before its value is found", what,
              v->m->symbols.data[symbol].name);
}

/// A new value: extents that are data-dependent symbols are found with it, others must be known.
/// `def` NULL: an argument.
static void find_symbols(verifier *v, const pm_loc *loc, const pm_value *value, const pm_op *def)
{
    uint32_t symbol;
    for (int32_t i = 0; i < value->type->rank; i++) {
        if (!is_found_here(v->m, value->type->dims[i], &symbol) || v->found[symbol])
            continue;
        v->found[symbol] = 1;
        PM_PUSH(v->scratch, &v->found_list, symbol);
    }
    for (int32_t i = 0; i < value->type->rank; i++)
        check_mentions(v, loc, value->type->dims[i], "a type");
    int64_t n;
    if (def == NULL || def->code != PM_OP_dims || value->content == NULL ||
        !pm_type_const_count(v->m, value->type, &n))
        return;
    for (int64_t i = 0; i < n; i++)
        check_mentions(v, loc, value->content[i], "dims");
}

/// The first op that finds a symbol binds it; what a later one finds is compared with that, as with any other
/// expression that stands in its type (pass extents says that they are equal). A copy that wasn't inferred again claims
/// the extents of its original, and nobody said that they are equal.
static void check_copy_finds_its_own(verifier *v, const pm_op *op)
{
    uint32_t symbol;
    if (!op->is_clone || pm_op_info_of(op)->infer == NULL || op->n_regions > 0)
        return;
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_type *type = op->results[i]->type;
        for (int32_t d = 0; type && d < type->rank; d++)
            if (is_found_here(v->m, type->dims[d], &symbol) && v->found[symbol] &&
                !pm_op_takes_symbol(op, symbol))
                fault(v, op->loc, "%s: result %u of a copy has the extent %s, which another op finds",
                      pm_op_info_of(op)->name, i, v->m->symbols.data[symbol].name);
    }
}

static void forget_symbols(verifier *v, size_t n_before)
{
    while (v->found_list.n > n_before)
        v->found[v->found_list.data[--v->found_list.n]] = 0;
}

/* ---- ops ------------------------------------------------------------------------------------- */

static bool in_bounds(size_t n, uint32_t lo, uint32_t hi)
{
    return n >= lo && (n <= hi || hi == PM_ANY);
}

static bool check_shape_of_op(verifier *v, const pm_op *op)
{
    const pm_op_info *info = pm_op_info_of(op);
    size_t before = v->n_faults;
    if (!in_bounds(op->n_operands, info->min_in, info->max_in))
        fault(v, op->loc, "%s has %u operands", info->name, op->n_operands);
    if (!in_bounds(op->n_results, info->n_out == PM_ANY ? 0 : info->n_out, info->n_out))
        fault(v, op->loc, "%s has %u results, must have %u", info->name, op->n_results,
              info->n_out);
    if (!in_bounds(op->n_regions, info->n_regions == PM_ANY ? 0 : info->n_regions, info->n_regions))
        fault(v, op->loc, "%s has %u regions, must have %u", info->name, op->n_regions,
              info->n_regions);
    pm_attr_decl decls[PM_MAX_ATTRS];
    size_t n = pm_op_attr_decls(op->code, decls);
    if (op->n_attrs != n)
        fault(v, op->loc, "%s has %u attributes, must have %zu", info->name, op->n_attrs, n);
    for (size_t i = 0; i < n && op->n_attrs == n; i++) {
        const pm_attr *attr = &op->attrs[i];
        if (strcmp(attr->key, decls[i].key) != 0 || attr->kind != decls[i].kind)
            fault(v, op->loc, "%s: attribute %zu must be '%s' of kind %s", info->name, i,
                  decls[i].key, pm_attr_kind_name(decls[i].kind));
        else if (!attr->present && (decls[i].required || decls[i].has_default))
            fault(v, op->loc, "%s: attribute '%s' is missing", info->name, decls[i].key);
    }
    return v->n_faults == before;
}

/// Regions run where their op does; constants lie everywhere.
static void check_device(verifier *v, const pm_op *op)
{
    if (!op->device)
        return;
    if (op->graph->parent)
        fault(v, op->loc, "%s has a device, but is in a region", pm_op_info_of(op)->name);
    else if (op->code == PM_OP_const || (pm_op_info_of(op)->traits & PM_T_WEIGHT))
        fault(v, op->loc, "%s has a device, but constants lie everywhere", pm_op_info_of(op)->name);
    else if (op->device[0] == 0)
        fault(v, op->loc, "%s: its device has no name", pm_op_info_of(op)->name);
}

/// A constant, or a view of one.
static bool is_weight(const pm_value *value)
{
    while (value->def && value->def->n_operands > 0 && value->def->operands[0] &&
           (pm_op_info_of(value->def)->traits & PM_T_VIEW))
        value = value->def->operands[0];
    return value->def && (value->def->code == PM_OP_const || (pm_op_info_of(value->def)->traits & PM_T_WEIGHT));
}

/// In a planned graph bytes are read where they lie.
static void check_operand_devices(verifier *v, const pm_op *op)
{
    if (op->graph->parent || op->graph->arena_bytes == PM_DIM_NONE || op->code == PM_OP_transfer ||
        (pm_op_info_of(op)->traits & PM_T_WEIGHT))
        return;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const pm_value *value = op->operands[i];
        if (!value || value->content || value->place.kind == PM_PLACE_NONE || is_weight(value))
            continue;
        const char *there = pm_value_device(value);
        if (there != op->device)
            fault(v, op->loc, "%s on %s: operand %u lies on %s", pm_op_info_of(op)->name,
                  op->device ? op->device : "the host", i, there ? there : "the host");
    }
}

static void check_graph(verifier *v, const pm_graph *g, int depth);

static void check_op(verifier *v, pm_op *op, const pm_graph *g, int depth)
{
    size_t before = v->n_faults;
    if (op->loc == NULL) {
        fault(v, NULL, "an op has no location");
        return;
    }
    if ((unsigned)op->code >= PM_OP_COUNT) {
        fault(v, op->loc, "unknown op %d", (int)op->code);
        return;
    }
    if (op->graph != g || (op->next ? op->next->prev : g->last) != op)
        fault(v, op->loc, "%s is linked wrongly into its graph", pm_op_info_of(op)->name);
    if (!check_shape_of_op(v, op))
        return;
    check_operands(v, op);
    for (uint32_t i = 0; i < op->n_regions; i++) {
        const pm_graph *region = op->regions[i];
        if (region == NULL || region->parent != op) {
            fault(v, op->loc, "%s: region %u is missing or linked wrongly", pm_op_info_of(op)->name,
                  i);
            continue;
        }
        check_graph(v, region, depth + 1);
        if (too_many(v))
            return;
    }
    for (uint32_t i = 0; i < op->n_results; i++)
        check_value(v, op->loc, op->results[i], g, op, i);
    if (v->n_faults == before)
        check_copy_finds_its_own(v, op);
    for (uint32_t i = 0; i < op->n_results && v->n_faults == before; i++)
        find_symbols(v, op->loc, op->results[i], op);
    if (v->n_faults == before)
        check_device(v, op);
    if (v->n_faults == 0) // sound so far: no value leads to itself
        check_operand_devices(v, op);
    // the hooks rely on sound structure
    if (v->n_faults == before && pm_op_check(op) != PM_OK)
        v->n_faults++;
}

/* ---- graphs ---------------------------------------------------------------------------------- */

/// Arguments and results that stand for states have the states' types.
static void check_states(verifier *v, const pm_graph *g)
{
    const struct {
        const char *what;
        size_t n, n_states;
        pm_value *const *values;
        const int32_t *states;
    } sides[2] = {
        {"argument", g->args.n, g->arg_states.n, g->args.data, g->arg_states.data},
        {"result", g->results.n, g->result_states.n, g->results.data, g->result_states.data},
    };
    for (int side = 0; side < 2; side++) {
        if (sides[side].n != sides[side].n_states) {
            fault(v, NULL, "graph '%s' has %zu %ss and %zu states for them", g->name ? g->name : "",
                  sides[side].n, sides[side].what, sides[side].n_states);
            continue;
        }
        for (size_t i = 0; i < sides[side].n; i++) {
            int32_t state = sides[side].states[i];
            const pm_type *type = sides[side].values[i]->type;
            if (state == -1)
                continue;
            if (state < 0 || (size_t)state >= v->m->states.n)
                fault(v, NULL, "%s %zu of '%s' names state %d, there are %zu", sides[side].what, i,
                      g->name ? g->name : "", (int)state, v->m->states.n);
            else if (g->parent)
                fault(v, g->parent->loc, "%s %zu of a region can't be a state", sides[side].what,
                      i);
            else if (type && type != v->m->states.data[state].type)
                fault(v, NULL, "%s %zu of '%s' is %s, state '%s' is %s", sides[side].what, i,
                      g->name ? g->name : "", pm_type_text(v->m, type),
                      v->m->states.data[state].name,
                      pm_type_text(v->m, v->m->states.data[state].type));
        }
    }
}

static void check_graph(verifier *v, const pm_graph *g, int depth)
{
    const pm_loc *loc = g->parent ? g->parent->loc : NULL;
    if (depth > PM_MAX_REGION_DEPTH) {
        fault(v, loc, "regions are nested deeper than %d levels", (int)PM_MAX_REGION_DEPTH);
        return;
    }
    if (g->module != v->m)
        fault(v, loc, "graph '%s' belongs to another module", g->name ? g->name : "");
    size_t n_found = v->found_list.n;
    for (size_t i = 0; i < g->args.n; i++) {
        check_value(v, loc, g->args.data[i], g, NULL, i);
        if (g->args.data[i] && g->args.data[i]->type)
            find_symbols(v, loc, g->args.data[i], NULL);
    }
    const pm_op *previous = NULL;
    for (pm_op *op = g->first; op && !too_many(v); previous = op, op = op->next) {
        if (op->prev != previous) {
            fault(v, op->loc, "the list of ops is broken");
            return;
        }
        check_op(v, op, g, depth);
    }
    forget_symbols(v, n_found);
    if (too_many(v))
        return;
    if (g->results.n != g->result_names.n)
        fault(v, loc, "graph '%s' has %zu results and %zu names for them", g->name ? g->name : "",
              g->results.n, g->result_names.n);
    for (size_t i = 0; i < g->results.n; i++) {
        const pm_value *result = g->results.data[i];
        if (result == NULL || !is_defined(v, result, g)) {
            fault(v, loc, "result %zu of graph '%s' is not defined in it", i,
                  g->name ? g->name : "");
            return;
        }
    }
    check_states(v, g);
}

pm_status pm_module_verify(const pm_module *m)
{
    verifier v = {.m = (pm_module *)m, .scratch = pm_arena_create()};
    if (v.scratch == NULL)
        return PM_ERR_NO_MEMORY;
    v.defined = PM_NEW_ARRAY(v.scratch, uint8_t, m->next_value);
    v.found = PM_NEW_ARRAY(v.scratch, uint8_t, m->symbols.n);
    pm_map names;
    pm_map_init(&names, v.scratch);
    for (size_t i = 0; i < m->entries.n && !too_many(&v); i++) {
        const pm_graph *g = m->entries.data[i];
        if (g->name == NULL || g->name[0] == 0)
            fault(&v, NULL, "entry %zu has no name", i);
        else if (pm_map_get_str(&names, g->name))
            fault(&v, NULL, "there are two entries named '%s'", g->name);
        else
            pm_map_put_str(&names, g->name, (void *)g);
        if (g->parent)
            fault(&v, NULL, "entry %zu is a region", i);
        check_graph(&v, g, 0);
    }
    size_t n_faults = v.n_faults;
    pm_arena_destroy(v.scratch);
    return n_faults == 0 ? PM_OK : PM_ERR_INVALID;
}
