/// A trace of expert use: how often each expert of a layer was chosen.
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "passes/moe/placement.h"

enum { MAX_TRACE = 1 << 28 }; ///< bytes

static pm_status fault(pm_pass_ctx *ctx, const char *path, const pm_json *at, const char *what)
{
    pm_loc loc = pm_json_loc(pm_intern(ctx->module, path), at);
    return pm_error(ctx->diag, &loc, PM_ERR_INVALID, "a trace of expert use is {\"layers\": [{\"name\": …, \"counts\": [12, 0, …]}, …]}: %s",
                    what);
}

static pm_status read_layer(pm_pass_ctx *ctx, const char *path, const pm_json *json, pm_traced_layers *layers)
{
    pm_arena *arena = ctx->module->arena;
    const pm_json *counts = pm_json_get(json, "counts"), *name = pm_json_get(json, "name");
    if (!name || name->kind != PM_JSON_STRING)
        return fault(ctx, path, json, "a layer needs a name");
    if (!counts || counts->kind != PM_JSON_ARRAY || counts->n == 0)
        return fault(ctx, path, json, "a layer needs counts");
    double *values = PM_NEW_ARRAY(arena, double, counts->n);
    pm_traced_layer layer = {.name = pm_arena_strdup(arena, name->string), .counts = values, .n = counts->n,
                             .loc = pm_json_loc(pm_intern(ctx->module, path), json)};
    for (size_t i = 0; i < counts->n; i++) {
        if (counts->items[i].kind != PM_JSON_NUMBER || !(counts->items[i].number >= 0) ||
            !isfinite(counts->items[i].number))
            return fault(ctx, path, &counts->items[i], "counts are numbers from 0 on");
        values[i] = counts->items[i].number;
        layer.sum += values[i];
    }
    for (size_t i = 0; i < layers->n; i++)
        if (strcmp(layers->data[i].name, layer.name) == 0)
            return fault(ctx, path, json, "two layers have the same name");
    if (!(layer.sum > 0) || !isfinite(layer.sum))
        return fault(ctx, path, counts, "nobody was chosen");
    PM_PUSH(arena, layers, layer);
    return PM_OK;
}

pm_status pm_place_trace(pm_pass_ctx *ctx, const char *path, pm_traced_layers *out_layers)
{
    pm_arena *arena = ctx->module->arena;
    pm_file *file;
    const pm_json *root;
    *out_layers = (pm_traced_layers){0};
    PM_TRY(pm_file_open(arena, ctx->diag, path, &file));
    if (file->size > MAX_TRACE)
        return pm_error(ctx->diag, NULL, PM_ERR_UNSUPPORTED, "%s: a trace of more than %d bytes", path, MAX_TRACE);
    char *text = pm_arena_alloc(arena, file->size + 1, 1);
    PM_TRY(pm_file_read(ctx->diag, file, 0, text, file->size));
    PM_TRY(pm_json_parse(arena, ctx->diag, path, text, file->size, &root));
    const pm_json *layers = pm_json_get(root, "layers");
    if (!layers || layers->kind != PM_JSON_ARRAY)
        return fault(ctx, path, root, "there are no layers");
    for (size_t i = 0; i < layers->n; i++)
        PM_TRY(read_layer(ctx, path, &layers->items[i], out_layers));
    return PM_OK;
}

pm_status pm_place_traced(pm_pass_ctx *ctx, pm_place_spec *spec, const char *layer, size_t n_experts,
                          const pm_traced_layer **out)
{
    *out = NULL;
    for (size_t i = 0; i < spec->traced.n && layer; i++) {
        pm_traced_layer *traced = &spec->traced.data[i];
        if (strcmp(traced->name, layer) != 0)
            continue;
        if (traced->n != n_experts)
            return pm_error(ctx->diag, &traced->loc, PM_ERR_INVALID,
                            "layer '%s' has %zu experts, the trace counts %zu", layer, n_experts, traced->n);
        traced->used = true;
        *out = traced;
    }
    return PM_OK;
}
