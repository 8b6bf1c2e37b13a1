#include "tools/driver/report.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/driver/plan_json.h"

static const char *const dispatch_kinds[] = {"reference", "loops", "kernel"};

static const char *kind_name(int32_t kind)
{
    return kind >= 0 && kind < (int32_t)PM_COUNT(dispatch_kinds) ? dispatch_kinds[kind] : "?";
}

static const pm_dispatch *dispatches(pm_driver *d, size_t *out_n)
{
    *out_n = 0;
    return d->native ? pm_native_dispatches(d->native, out_n) : NULL;
}

static const char *entry_name(pm_driver *d, uint32_t entry)
{
    return entry < d->module->entries.n ? d->module->entries.data[entry]->name : "?";
}

/// ---- JSON -------------------------------------------------------------------------------------------------

static void write_json(pm_driver *d, const char *model, const char *output, FILE *out)
{
    const pm_compile_result *r = &d->result;
    pm_json_out w = {.out = out};
    size_t n;
    const pm_dispatch *list = dispatches(d, &n);
    pm_jo_object(&w, NULL);
    pm_jo_int(&w, "schema_version", 1);
    pm_jo_text(&w, "pimoec", PM_VERSION);
    pm_jo_text(&w, "model", model);
    pm_jo_text(&w, "output", output);
    pm_jo_text(&w, "emit", pm_emit_words[d->options->emit]);
    pm_jo_text(&w, "target", d->target.name);
    pm_jo_text(&w, "cpu", d->target.cpu);
    pm_jo_text(&w, "quantize", d->options->quantize ? d->options->quantize : "none");
    pm_summary_layers_json(&w, d->summary);
    pm_summary_entries_json(&w, d->module);
    pm_summary_ops_json(&w, d->summary);
    pm_summary_remarks_json(&w, d->summary, d->diag);
    pm_jo_object(&w, "bytes");
    pm_jo_uint(&w, "weights_of_the_model", d->summary->weight_bytes);
    pm_jo_uint(&w, "payload", r->payload_bytes);
    pm_jo_uint(&w, "code", r->code_bytes);
    pm_jo_end(&w);
    pm_jo_array(&w, "arenas");
    for (size_t i = 0; i < d->module->entries.n; i++) {
        const pm_graph *g = d->module->entries.data[i];
        pm_jo_object(&w, NULL);
        pm_jo_text(&w, "entry", g->name);
        pm_jo_text(&w, "bytes", pm_dim_text(d->module, g->arena_bytes));
        pm_jo_end(&w);
    }
    pm_jo_end(&w);
    pm_jo_array(&w, "dispatches");
    for (size_t i = 0; i < n; i++) {
        pm_jo_object(&w, NULL);
        pm_jo_text(&w, "entry", entry_name(d, list[i].entry));
        pm_jo_text(&w, "name", list[i].name);
        pm_jo_text(&w, "kind", kind_name(list[i].kind));
        pm_jo_text(&w, "location", list[i].loc ? pm_loc_text(d->arena, list[i].loc) : NULL);
        pm_jo_end(&w);
    }
    pm_jo_end(&w);
    if (d->plan->n_devices > 0)
        pm_plan_json(&w, d->plan);
    pm_jo_int(&w, "reference_dispatches", r->n_reference);
    pm_jo_object(&w, "ms");
    pm_jo_ms(&w, "frontend", r->frontend_ms);
    pm_jo_ms(&w, "passes", r->passes_ms);
    pm_jo_ms(&w, "codegen", r->codegen_ms);
    pm_jo_ms(&w, "link", r->link_ms);
    pm_jo_end(&w);
    pm_jo_end(&w);
}

/// ---- HTML -------------------------------------------------------------------------------------------------

static void html_text(FILE *out, const char *text)
{
    for (; text && *text; text++) {
        switch (*text) {
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '&': fputs("&amp;", out); break;
        case '"': fputs("&quot;", out); break;
        default: fputc(*text, out);
        }
    }
}

static void cell(FILE *out, const char *text)
{
    fputs("<td>", out);
    html_text(out, text);
    fputs("</td>", out);
}

static void table(FILE *out, const char *title, const char *const *columns)
{
    fputs("<h2>", out);
    html_text(out, title);
    fputs("</h2>\n<table><tr>", out);
    for (; *columns; columns++) {
        fputs("<th>", out);
        html_text(out, *columns);
        fputs("</th>", out);
    }
    fputs("</tr>\n", out);
}

static void html_row(FILE *out, const char *name, const char *value)
{
    fputs("<tr>", out);
    cell(out, name);
    cell(out, value);
    fputs("</tr>\n", out);
}

static void html_overview(pm_driver *d, const char *model, const char *output, FILE *out)
{
    static const char *const columns[] = {"what", "value", NULL};
    const pm_compile_result *r = &d->result;
    table(out, "Compilation", columns);
    html_row(out, "model", model);
    html_row(out, "output", output);
    html_row(out, "target", pm_arena_printf(d->arena, "%s (%s)", d->target.name, d->target.cpu));
    html_row(out, "products", d->options->quantize ? d->options->quantize : "as the model has them");
    html_row(out, "weights in the model", pm_bytes_text(d->arena, d->summary->weight_bytes));
    html_row(out, "weights in the output", pm_bytes_text(d->arena, r->payload_bytes));
    html_row(out, "code", pm_bytes_text(d->arena, r->code_bytes));
    html_row(out, "time", pm_arena_printf(d->arena, "frontend %.0f ms, passes %.0f, code %.0f, link %.0f",
                                          r->frontend_ms, r->passes_ms, r->codegen_ms, r->link_ms));
    html_row(out, "dispatches", pm_arena_printf(d->arena, "%d, of which %d run as the reference of their op",
                                                r->n_dispatches, r->n_reference));
    fputs("</table>\n", out);
}

static void html_layers(pm_driver *d, FILE *out)
{
    static const char *const columns[] = {"layer", "experts", "chosen", "router", "each", "where", NULL};
    table(out, "Experts", columns);
    for (size_t i = 0; i < d->summary->layers.n; i++) {
        const pm_layer_summary *layer = &d->summary->layers.data[i];
        uint64_t least = UINT64_MAX, most = 0;
        for (int64_t e = 0; layer->experts && e < layer->n_experts; e++) {
            least = layer->experts[e].bytes < least ? layer->experts[e].bytes : least;
            most = layer->experts[e].bytes > most ? layer->experts[e].bytes : most;
        }
        fputs("<tr>", out);
        cell(out, layer->name);
        cell(out, pm_arena_printf(d->arena, "%" PRId64 "%s", layer->n_experts, layer->alike ? "" : " (unlike)"));
        cell(out, pm_arena_printf(d->arena, "%" PRId64, layer->top_k));
        cell(out, layer->route ? pm_summary_route(d->arena, layer->route) : "as the graph writes it");
        cell(out, least > most ? ""
                  : least == most ? pm_bytes_text(d->arena, most)
                                  : pm_arena_printf(d->arena, "%s to %s", pm_bytes_text(d->arena, least),
                                                    pm_bytes_text(d->arena, most)));
        cell(out, pm_loc_text(d->arena, layer->loc));
        fputs("</tr>\n", out);
    }
    fputs("</table>\n", out);
}

/// Which nodes of the input became the layers.
static void html_absorbed(pm_driver *d, FILE *out)
{
    static const char *const columns[] = {"layer", "as", "nodes of the model", NULL};
    table(out, "What became experts", columns);
    for (size_t i = 0; i < d->summary->layers.n; i++) {
        const pm_layer_summary *layer = &d->summary->layers.data[i];
        fputs("<tr>", out);
        cell(out, layer->name);
        cell(out, layer->form ? layer->form : "one op");
        cell(out, layer->nodes.n ? pm_summary_kinds(d->arena, &layer->nodes) : pm_loc_text(d->arena, layer->loc));
        fputs("</tr>\n", out);
        if (layer->route_nodes.n == 0)
            continue;
        fputs("<tr>", out);
        cell(out, layer->name);
        cell(out, "router");
        cell(out, pm_summary_kinds(d->arena, &layer->route_nodes));
        fputs("</tr>\n", out);
    }
    fputs("</table>\n", out);
}

static void html_remark(pm_driver *d, FILE *out, const char *kind, const char *text, const pm_loc *loc)
{
    fputs("<tr>", out);
    cell(out, kind);
    cell(out, text);
    cell(out, loc ? pm_loc_text(d->arena, loc) : "");
    fputs("</tr>\n", out);
}

static void html_remarks(pm_driver *d, FILE *out)
{
    static const char *const columns[] = {"remark", "what", "where", NULL};
    const pm_findings *findings = d->summary->findings;
    const char *text;
    table(out, "Remarks", columns);
    for (size_t i = 0; i < pm_diag_size(d->diag); i++) {
        const pm_diag_entry *entry = pm_diag_at(d->diag, i);
        html_remark(d, out, entry->severity == PM_NOTE ? "note" : "warning", entry->text, entry->loc);
    }
    for (size_t i = 0; i < d->summary->layers.n; i++)
        if ((text = pm_summary_equal(d->summary, i)) != NULL)
            html_remark(d, out, "note", text, d->summary->layers.data[i].loc);
    for (size_t i = 0; findings && i < findings->missed.n; i++)
        html_remark(d, out, "near miss", pm_near_miss_text(d->arena, &findings->missed.data[i]),
                    findings->missed.data[i].loc);
    fputs("</table>\n", out);
}

static void html_entries(pm_driver *d, FILE *out)
{
    static const char *const columns[] = {"entry", "tensor", "type", NULL};
    pm_module *m = d->module;
    table(out, "Entries", columns);
    for (size_t e = 0; e < m->entries.n; e++) {
        const pm_graph *g = m->entries.data[e];
        for (size_t i = 0; i < g->args.n + g->results.n; i++) {
            bool in = i < g->args.n;
            size_t k = in ? i : i - g->args.n;
            const pm_type *type = in ? g->args.data[k]->type : g->results.data[k]->type;
            fputs("<tr>", out);
            cell(out, g->name);
            cell(out, pm_arena_printf(d->arena, "%s %s", in ? "in" : "out",
                                      in ? g->args.data[k]->name : g->result_names.data[k]));
            cell(out, pm_type_text(m, type));
            fputs("</tr>\n", out);
        }
    }
    fputs("</table>\n", out);
}

/// Where there is more than the host.
static void html_placement(pm_driver *d, FILE *out)
{
    static const char *const columns[] = {"device", "what", "bytes of weights", NULL};
    static const char *const crossing[] = {"entry", "value", "from", "to", "bytes", "of a token", NULL};
    const pm_plan *plan = d->plan;
    if (plan->n_devices < 2)
        return;
    table(out, "Placement", columns);
    for (size_t i = 0; i < plan->placed.n; i++) {
        const pm_placed *unit = &plan->placed.data[i];
        bool expert = strcmp(unit->kind, "expert") == 0;
        fputs("<tr>", out);
        cell(out, plan->devices[unit->device].name);
        cell(out, expert ? pm_arena_printf(d->arena, "%s expert %u", unit->layer ? unit->layer : "", unit->number)
                         : pm_arena_printf(d->arena, "%s %s", unit->kind, unit->layer ? unit->layer : ""));
        cell(out, pm_plan_bytes_text(d->arena, unit->bytes));
        fputs("</tr>\n", out);
    }
    fputs("</table>\n", out);
    table(out, "Transfers", crossing);
    for (size_t i = 0; i < plan->moved.n; i++) {
        const pm_moved *moved = &plan->moved.data[i];
        fputs("<tr>", out);
        cell(out, moved->entry);
        cell(out, moved->name ? moved->name : "");
        cell(out, moved->from);
        cell(out, moved->to);
        cell(out, moved->bytes);
        cell(out, pm_plan_bytes_text(d->arena, moved->token_bytes));
        fputs("</tr>\n", out);
    }
    fputs("</table>\n", out);
}

static void html_dispatches(pm_driver *d, FILE *out)
{
    static const char *const columns[] = {"entry", "dispatch", "kind", "where", NULL};
    size_t n;
    const pm_dispatch *list = dispatches(d, &n);
    table(out, "Dispatches", columns);
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "<tr class=\"%s\">", kind_name(list[i].kind));
        cell(out, entry_name(d, list[i].entry));
        cell(out, list[i].name);
        cell(out, kind_name(list[i].kind));
        cell(out, list[i].loc ? pm_loc_text(d->arena, list[i].loc) : "");
        fputs("</tr>\n", out);
    }
    fputs("</table>\n", out);
}

static void write_html(pm_driver *d, const char *model, const char *output, FILE *out)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>", out);
    html_text(out, d->module->name ? d->module->name : model);
    fputs("</title>\n<style>body{font:15px sans-serif;margin:2em;max-width:80em}table{border-collapse:collapse}"
          "td,th{border:1px solid #bbb;padding:.2em .6em;text-align:left}.reference{background:#fec}</style></head>\n"
          "<body><h1>", out);
    html_text(out, d->module->name ? d->module->name : model);
    fputs("</h1>\n", out);
    html_overview(d, model, output, out);
    html_layers(d, out);
    html_absorbed(d, out);
    html_remarks(d, out);
    html_entries(d, out);
    html_placement(d, out);
    html_dispatches(d, out);
    fputs("</body></html>\n", out);
}

pm_status pm_report_write(pm_driver *d, const char *model, const char *output)
{
    const char *path = d->options->report, *ending = strrchr(path, '.');
    pm_out_file *out;
    bool html = ending && strcmp(ending, ".html") == 0;
    if (!html && !(ending && strcmp(ending, ".json") == 0))
        return pm_error(d->diag, NULL, PM_ERR_USAGE, "--report=%s: the name ends in .html or .json", path);
    PM_TRY(pm_out_open(d->arena, d->diag, path, 0644, &out));
    if (html)
        write_html(d, model, output, out->stream);
    else
        write_json(d, model, output, out->stream);
    if (ferror(out->stream))
        return pm_error(d->diag, NULL, PM_ERR_IO, "%s: %s", path, strerror(errno));
    return pm_out_commit(d->diag, out);
}
