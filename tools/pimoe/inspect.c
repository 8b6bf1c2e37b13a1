/// pimoe inspect: what is in a model or an artifact.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/frontend.h"
#include "ir/op_table.h"
#include "tools/driver/driver.h"
#include "tools/driver/plan_json.h"
#include "tools/driver/sharding.h"
#include "tools/pimoe/artifact_file.h"
#include "tools/pimoe/commands.h"

typedef struct inspector {
    pm_arena *arena;
    pm_diag *diag;
    const char *path;
    bool json, ops;
    const char *place, *target, *sharding; ///< NULL: nobody asks
    const pm_plan *plan;        ///< NULL: nobody asks
} inspector;

/// ---- models -----------------------------------------------------------------------------------------------

static const char *kind_name(pm_model_kind kind)
{
    static const char *const names[] = {
        [PM_MODEL_UNKNOWN] = "unknown", [PM_MODEL_ONNX] = "onnx", [PM_MODEL_JSON] = "json graph",
        [PM_MODEL_TEXT] = "ir", [PM_MODEL_CHECKPOINT] = "checkpoint", [PM_MODEL_ARTIFACT] = "artifact"};
    return names[kind];
}

static void model_json(const inspector *x, pm_model_kind kind, const pm_summary *s, const pm_summary *raised)
{
    const pm_module *m = s->module;
    pm_json_out w = {.out = stdout};
    pm_jo_object(&w, NULL);
    pm_jo_int(&w, "schema_version", 1);
    pm_jo_bool(&w, "ok", true);
    pm_jo_text(&w, "path", x->path);
    pm_jo_text(&w, "kind", kind_name(kind));
    pm_jo_text(&w, "name", m->name);
    pm_jo_uint(&w, "weight_bytes", s->weight_bytes);
    pm_summary_entries_json(&w, m);
    pm_summary_layers_json(&w, raised);
    pm_summary_ops_json(&w, s);
    pm_summary_remarks_json(&w, raised, x->diag);
    if (x->plan)
        pm_plan_json(&w, x->plan);
    pm_jo_object(&w, "meta");
    for (size_t i = 0; i < m->meta.n; i++)
        pm_jo_text(&w, m->meta.entries[i].key, m->meta.entries[i].value);
    pm_jo_end(&w);
    pm_jo_end(&w);
}

static void print_ports(pm_module *m, const pm_graph *g)
{
    for (size_t i = 0; i < g->args.n; i++)
        if (g->arg_states.data[i] < 0)
            printf("    in   %s: %s\n", g->args.data[i]->name, pm_type_text(m, g->args.data[i]->type));
    for (size_t i = 0; i < g->results.n; i++)
        if (g->result_states.data[i] < 0)
            printf("    out  %s: %s\n", g->result_names.data[i], pm_type_text(m, g->results.data[i]->type));
}

static void print_layer(const inspector *x, const pm_layer_summary *layer)
{
    printf("  %s: %" PRId64 " experts%s, %" PRId64 " chosen; %s\n", layer->name, layer->n_experts,
           layer->alike ? "" : " unlike each other", layer->top_k,
           layer->route ? pm_summary_route(x->arena, layer->route) : "chosen as the graph writes it");
    if (layer->form)
        printf("    was %s%s%s\n", layer->form, layer->nodes.n ? ": " : "", pm_summary_kinds(x->arena, &layer->nodes));
    if (layer->route_nodes.n)
        printf("    its router was %s\n", pm_summary_kinds(x->arena, &layer->route_nodes));
    for (int64_t e = 0; e < layer->n_experts; e++) {
        const pm_expert_summary *one = &layer->experts[e];
        char hash[PM_HASH_TEXT_SIZE];
        pm_hash_text(one->hash, hash);
        printf("    %3" PRId64 "%s%s  %s in %" PRIu64 " tensor%s  %s  %s\n", e, one->name ? " " : "",
               one->name ? one->name : "", pm_bytes_text(x->arena, one->bytes), one->n_tensors,
               one->n_tensors == 1 ? "" : "s", one->hashed ? hash : "(computed weights)", one->shapes ? one->shapes : "");
    }
}

/// What is odd: on standard output, as the rest; errors end the command.
static void print_remarks(const inspector *x, const pm_summary *s)
{
    const char *text;
    for (size_t i = 0; i < pm_diag_size(x->diag); i++) {
        const pm_diag_entry *entry = pm_diag_at(x->diag, i);
        printf("%s: %s%s%s\n", entry->severity == PM_NOTE ? "note" : "warning", entry->text, entry->loc ? ", at " : "",
               entry->loc ? pm_loc_text(x->arena, entry->loc) : "");
    }
    for (size_t i = 0; i < s->layers.n; i++)
        if ((text = pm_summary_equal(s, i)) != NULL)
            printf("note: %s\n", text);
    for (size_t i = 0; i < s->findings->missed.n; i++)
        printf("near miss: %s, at %s\n", pm_near_miss_text(x->arena, &s->findings->missed.data[i]),
               pm_loc_text(x->arena, s->findings->missed.data[i].loc));
}

static void model_text(const inspector *x, pm_model_kind kind, const pm_summary *s, const pm_summary *raised)
{
    pm_module *m = s->module;
    printf("%s: %s, %s of weights\n", m->name ? m->name : x->path, kind_name(kind),
           pm_bytes_text(x->arena, s->weight_bytes));
    for (size_t i = 0; i < m->meta.n; i++)
        printf("  %s: %s\n", m->meta.entries[i].key, (const char *)m->meta.entries[i].value);
    for (size_t i = 0; i < m->entries.n; i++) {
        printf("  entry %s\n", m->entries.data[i]->name);
        print_ports(m, m->entries.data[i]);
    }
    for (size_t i = 0; i < m->symbols.n; i++) {
        const pm_symbol *symbol = &m->symbols.data[i];
        if (symbol->data_dependent)
            continue;
        printf("  symbol %s: %" PRId64 " to ", symbol->name, symbol->lo);
        if (symbol->hi == INT64_MAX)
            printf("any\n");
        else
            printf("%" PRId64 "\n", symbol->hi);
    }
    for (size_t i = 0; i < m->states.n; i++)
        printf("  state %s: %s\n", m->states.data[i].name, pm_type_text(m, m->states.data[i].type));
    printf("%zu layers of experts, %" PRId64 " experts in all\n", raised->layers.n, raised->total_experts);
    for (size_t i = 0; i < raised->layers.n; i++)
        print_layer(x, &raised->layers.data[i]);
    print_remarks(x, raised);
    if (x->plan)
        pm_plan_print(x->plan, stdout);
    for (int i = 0; x->ops && i < PM_OP_COUNT; i++)
        if (s->ops[i])
            printf("  %7" PRIu32 "  %s\n", s->ops[i], pm_op_table[i].name);
}

/// What pimoec would place where.
static pm_status plan_placement(inspector *x, pm_model_kind kind)
{
    pm_compile_options *options = PM_NEW(x->arena, pm_compile_options);
    pm_driver *d = PM_NEW(x->arena, pm_driver);
    *options = (pm_compile_options){.opt_level = 3, .target = x->target, .stop_after = "transfers",
                                    .place = x->place && strcmp(x->place, "cost") != 0 ? x->place : NULL};
    *d = (pm_driver){.arena = x->arena, .diag = x->diag, .options = options};
    d->findings = PM_NEW(x->arena, pm_findings);
    d->findings->arena = x->arena;
    PM_TRY(pm_driver_front(d, x->path));
    x->plan = d->plan;
    if (!x->sharding)
        return PM_OK;
    if (kind != PM_MODEL_ONNX)
        return pm_error(x->diag, NULL, PM_ERR_UNSUPPORTED, "--sharding: %s is no ONNX model, but %s", x->path,
                        kind_name(kind));
    size_t n;
    return pm_sharding_write(d, x->path, x->sharding, &n);
}

static pm_status inspect_model(inspector *x, pm_model_kind kind)
{
    pm_module *m, *copy;
    pm_summary *raised;
    PM_TRY(pm_frontend_load(x->arena, x->diag, x->path, &m));
    pm_summary *s = pm_summary_make(m);
    // once more, for raising: what is told of entries and ops is as they were loaded
    x->diag = pm_diag_create(x->arena);
    PM_TRY(pm_frontend_load(x->arena, x->diag, x->path, &copy));
    PM_TRY(pm_driver_raise(copy, &raised));
    pm_diag *remarks = x->diag;
    x->diag = pm_diag_create(x->arena); // what is odd was said
    if (x->place || x->target || x->sharding)
        PM_TRY(plan_placement(x, kind));
    x->diag = remarks;
    if (x->json)
        model_json(x, kind, s, raised);
    else
        model_text(x, kind, s, raised);
    return PM_OK;
}

/// ---- artifacts --------------------------------------------------------------------------------------------

static const char *string(const pm_model *m, pm_artifact_string s)
{
    return pm_model_string(m, s);
}

static void port_json(pm_json_out *w, const pm_port_info *p)
{
    pm_jo_object(w, NULL);
    pm_jo_text(w, "name", p->name);
    pm_jo_text(w, "type", pm_port_elem_name(p->elem));
    pm_jo_array(w, "shape");
    for (int32_t i = 0; i < p->rank; i++) {
        if (p->dims[i] >= 0)
            pm_jo_int(w, NULL, p->dims[i]);
        else
            pm_jo_text(w, NULL, p->symbols[i] ? p->symbols[i] : "?");
    }
    pm_jo_end(w);
    pm_jo_end(w);
}

static pm_status artifact_ports_json(const pm_model *m, int entry, pm_json_out *w)
{
    pm_port_info p;
    pm_jo_object(w, NULL);
    pm_jo_text(w, "name", pm_model_entry_name(m, entry));
    pm_jo_array(w, "inputs");
    for (int i = 0; i < pm_model_n_inputs(m, entry); i++) {
        PM_TRY(pm_model_input(m, entry, i, &p));
        port_json(w, &p);
    }
    pm_jo_end(w);
    pm_jo_array(w, "outputs");
    for (int i = 0; i < pm_model_n_outputs(m, entry); i++) {
        PM_TRY(pm_model_output(m, entry, i, &p));
        port_json(w, &p);
    }
    pm_jo_end(w);
    pm_jo_end(w);
    return PM_OK;
}

typedef struct totals {
    uint64_t bytes, expert_bytes;
    int64_t n_layers, n_experts, most;
} totals;

/// Counts; experts of one layer stand together in the table.
static totals count(const pm_model *m)
{
    totals t = {0};
    int64_t in_layer = 0;
    int32_t layer = -1;
    for (uint32_t i = 0; i < m->manifest->sections.n; i++) {
        const pm_artifact_section *s = &m->sections[i];
        t.bytes += s->size;
        if (s->kind != PM_SECTION_EXPERT)
            continue;
        if (s->layer != layer) {
            t.n_layers++;
            in_layer = 0;
        }
        layer = s->layer;
        t.expert_bytes += s->size;
        t.n_experts++;
        in_layer++;
        t.most = in_layer > t.most ? in_layer : t.most;
    }
    return t;
}

static void hash_text(const pm_artifact_section *s, char *out)
{
    pm_hash_text((pm_hash128){.hi = s->hash.hi, .lo = s->hash.lo}, out);
}

static void section_json(const pm_model *m, const pm_artifact_section *s, pm_json_out *w)
{
    char hash[PM_HASH_TEXT_SIZE];
    hash_text(s, hash);
    pm_jo_object(w, NULL);
    pm_jo_text(w, "name", string(m, s->name));
    pm_jo_text(w, "kind", s->kind == PM_SECTION_EXPERT ? "expert" : "shared");
    if (s->kind == PM_SECTION_EXPERT) {
        pm_jo_int(w, "layer", s->layer);
        pm_jo_int(w, "expert", s->expert);
    }
    pm_jo_uint(w, "bytes", s->size);
    pm_jo_text(w, "hash", hash);
    pm_jo_end(w);
}

static const char *const dispatch_kinds[] = {"reference", "loops", "kernel"};

static pm_status artifact_json(const inspector *x, const pm_artifact *a)
{
    const pm_model *m = &a->model;
    const pm_artifact_manifest *f = m->manifest;
    totals t = count(m);
    pm_json_out w = {.out = stdout};
    uint32_t kinds[3] = {0};
    pm_jo_object(&w, NULL);
    pm_jo_int(&w, "schema_version", 1);
    pm_jo_bool(&w, "ok", true);
    pm_jo_text(&w, "path", x->path);
    pm_jo_text(&w, "kind", a->kind);
    pm_jo_text(&w, "name", string(m, f->name));
    pm_jo_text(&w, "target", string(m, f->target));
    pm_jo_uint(&w, "file_bytes", a->file_size);
    pm_jo_uint(&w, "weight_bytes", t.bytes);
    pm_jo_int(&w, "moe_layers", t.n_layers);
    pm_jo_int(&w, "experts", t.most);
    pm_jo_int(&w, "experts_total", t.n_experts);
    pm_jo_uint(&w, "expert_bytes", t.expert_bytes);
    pm_jo_array(&w, "entries");
    for (int e = 0; pm_model_entry_name(m, e); e++)
        PM_TRY(artifact_ports_json(m, e, &w));
    pm_jo_end(&w);
    pm_jo_array(&w, "symbols");
    for (uint32_t i = 0; i < f->symbols.n; i++) {
        if (m->symbols[i].data_dependent)
            continue;
        pm_jo_object(&w, NULL);
        pm_jo_text(&w, "name", string(m, m->symbols[i].name));
        pm_jo_int(&w, "min", m->symbols[i].lo);
        pm_jo_int(&w, "max", m->symbols[i].hi);
        pm_jo_end(&w);
    }
    pm_jo_end(&w);
    pm_jo_object(&w, "meta");
    for (uint32_t i = 0; i < f->metas.n; i++)
        pm_jo_text(&w, string(m, m->metas[i].key), string(m, m->metas[i].value));
    pm_jo_end(&w);
    for (uint32_t i = 0; i < f->dispatches.n; i++)
        if (m->dispatches[i].kind < 3)
            kinds[m->dispatches[i].kind]++;
    pm_jo_object(&w, "dispatches");
    for (int i = 0; i < 3; i++)
        pm_jo_uint(&w, dispatch_kinds[i], kinds[i]);
    pm_jo_end(&w);
    pm_jo_array(&w, "sections");
    for (uint32_t i = 0; i < f->sections.n; i++)
        section_json(m, &m->sections[i], &w);
    pm_jo_end(&w);
    pm_jo_end(&w);
    return PM_OK;
}

static pm_status print_artifact_ports(const pm_model *m, int entry, bool output)
{
    pm_port_info p;
    int n = output ? pm_model_n_outputs(m, entry) : pm_model_n_inputs(m, entry);
    for (int i = 0; i < n; i++) {
        PM_TRY(output ? pm_model_output(m, entry, i, &p) : pm_model_input(m, entry, i, &p));
        printf("    %s %s: %s[", output ? "out " : "in  ", p.name, pm_port_elem_name(p.elem));
        for (int32_t k = 0; k < p.rank; k++) {
            printf("%s", k ? ", " : "");
            if (p.dims[k] >= 0)
                printf("%" PRId64, p.dims[k]);
            else
                printf("%s", p.symbols[k] ? p.symbols[k] : "?");
        }
        printf("]\n");
    }
    return PM_OK;
}

static pm_status artifact_text(const inspector *x, const pm_artifact *a)
{
    const pm_model *m = &a->model;
    const pm_artifact_manifest *f = m->manifest;
    totals t = count(m);
    uint32_t kinds[3] = {0};
    printf("%s: %s for %s, %s, of which %s weights\n", string(m, f->name), a->kind, string(m, f->target),
           pm_bytes_text(x->arena, a->file_size), pm_bytes_text(x->arena, t.bytes));
    for (uint32_t i = 0; i < f->metas.n; i++)
        printf("  %s: %s\n", string(m, m->metas[i].key), string(m, m->metas[i].value));
    for (int e = 0; pm_model_entry_name(m, e); e++) {
        printf("  entry %s\n", pm_model_entry_name(m, e));
        PM_TRY(print_artifact_ports(m, e, false));
        PM_TRY(print_artifact_ports(m, e, true));
    }
    for (uint32_t i = 0; i < f->symbols.n; i++)
        if (!m->symbols[i].data_dependent)
            printf("  symbol %s: %" PRId64 " to %" PRId64 "\n", string(m, m->symbols[i].name), m->symbols[i].lo,
                   m->symbols[i].hi);
    for (uint32_t i = 0; i < f->dispatches.n; i++)
        if (m->dispatches[i].kind < 3)
            kinds[m->dispatches[i].kind]++;
    printf("  %u dispatches: %u kernels, %u loops, %u references\n", f->dispatches.n, kinds[2], kinds[1], kinds[0]);
    printf("%" PRId64 " layers of experts, %" PRId64 " experts in all (%s)\n", t.n_layers, t.n_experts,
           pm_bytes_text(x->arena, t.expert_bytes));
    for (uint32_t i = 0; i < f->sections.n; i++) {
        const pm_artifact_section *s = &m->sections[i];
        char hash[PM_HASH_TEXT_SIZE];
        hash_text(s, hash);
        printf("  %s  %10" PRIu64 "  %s\n", hash, s->size, string(m, s->name));
    }
    return PM_OK;
}

/// ---- both -------------------------------------------------------------------------------------------------

static pm_status inspect(inspector *x)
{
    pm_model_kind kind;
    pm_artifact *a;
    PM_TRY(pm_model_detect(x->diag, x->path, &kind));
    if (kind != PM_MODEL_ARTIFACT)
        return inspect_model(x, kind);
    PM_TRY(pm_artifact_open(x->arena, x->diag, x->path, false, &a));
    return x->json ? artifact_json(x, a) : artifact_text(x, a);
}

int pm_command_inspect(pm_arena *arena, const pm_cli_args *args)
{
    inspector x = {.arena = arena, .diag = pm_diag_create(arena), .path = args->operands[0],
                   .json = args->count[INSPECT_JSON], .ops = args->count[INSPECT_OPS],
                   .place = args->value[INSPECT_PLACE], .target = pm_cli_joined(arena, args, INSPECT_TARGET),
                   .sharding = args->value[INSPECT_SHARDING]};
    pm_status status = inspect(&x);
    if (status == PM_OK)
        return 0;
    if (!x.json)
        return pm_command_failed(x.diag, status);
    printf("{\"schema_version\": 1, \"ok\": false, \"path\": ");
    pm_json_out w = {.out = stdout};
    pm_jo_text(&w, NULL, x.path);
    printf(", \"diagnostics\": ");
    pm_diag_json(x.diag, stdout);
    printf("}\n");
    return pm_exit_code(status);
}
