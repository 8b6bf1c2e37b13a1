/// The text of --place.
#include <stdlib.h>
#include <string.h>

#include "passes/moe/placement.h"

/// "8GiB", "500 MB", "1.5e9"; false when it is no size.
static bool parse_size(const char *text, uint64_t *out_bytes)
{
    static const struct {
        const char *name;
        double factor;
    } units[] = {{"", 1},      {"B", 1},          {"kB", 1e3},        {"KB", 1e3},
                 {"MB", 1e6},  {"GB", 1e9},       {"TB", 1e12},       {"KiB", 1024.0},
                 {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
    char *end;
    double value = strtod(text, &end);
    if (end == text || !(value >= 0))
        return false;
    end += *end == ' ';
    for (size_t i = 0; i < PM_COUNT(units); i++)
        if (strcmp(end, units[i].name) == 0 && value * units[i].factor < 0x1p63) {
            *out_bytes = (uint64_t)(value * units[i].factor);
            return true;
        }
    return false;
}

static pm_status find_device(pm_pass_ctx *ctx, const char *part, const char *name, int32_t *out_device)
{
    const pm_pass_options *o = ctx->options;
    const char **names = PM_NEW_ARRAY(ctx->module->arena, const char *, o->n_devices);
    for (size_t i = 0; i < o->n_devices; i++) {
        names[i] = o->devices[i].name;
        *out_device = (int32_t)i;
        if (strcmp(names[i], name) == 0)
            return PM_OK;
    }
    const char *near = pm_nearest(name, names, o->n_devices);
    if (!near && o->n_devices == 1)
        return pm_error(ctx->diag, NULL, PM_ERR_USAGE, "--place: '%s': there is no device '%s', only %s", part,
                        name, names[0]);
    return pm_error(ctx->diag, NULL, PM_ERR_USAGE, "--place: '%s': there is no device '%s'%s%s%s", part, name,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/// "experts.3" -> "experts" and 3.
static void split_number(pm_arena *arena, pm_place_rule *rule)
{
    const char *dot = strrchr(rule->what, '.');
    rule->number = -1;
    size_t digits = dot ? strspn(dot + 1, "0123456789") : 0;
    if (digits == 0 || digits > 9 || dot[1 + digits])
        return;
    rule->number = strtol(dot + 1, NULL, 10);
    rule->what = pm_arena_strndup(arena, rule->what, (size_t)(dot - rule->what));
}

static pm_status parse_part(pm_pass_ctx *ctx, char *part, pm_place_spec *spec)
{
    pm_arena *arena = ctx->module->arena;
    const char *text = pm_arena_strdup(arena, part);
    if (strncmp(part, "trace:", 6) == 0) {
        spec->trace = text + 6;
        return pm_place_trace(ctx, spec->trace, &spec->traced);
    }
    char *at = strrchr(part, '@'), *equals = strrchr(part, '=');
    int32_t device;
    if (at && at > part) {
        *at = 0;
        pm_place_rule rule = {.text = text, .what = part, .whole = pm_arena_strdup(arena, part)};
        PM_TRY(find_device(ctx, text, at + 1, &rule.device));
        split_number(arena, &rule);
        PM_PUSH(arena, &spec->rules, rule);
        return PM_OK;
    }
    if (!equals || equals == part)
        return pm_error(ctx->diag, NULL, PM_ERR_USAGE,
                        "--place: '%s' is neither WHAT@DEVICE nor DEVICE=SIZE nor trace:FILE (experts@cpu0, cpu0=8GiB)", text);
    *equals = 0;
    PM_TRY(find_device(ctx, text, part, &device));
    if (!parse_size(equals + 1, &spec->capacity[device]))
        return pm_error(ctx->diag, NULL, PM_ERR_USAGE, "--place: '%s': '%s' is no size; 8GiB or 500MB would be", text,
                        equals + 1);
    return PM_OK;
}

pm_status pm_place_parse(pm_pass_ctx *ctx, const char *text, pm_place_spec *out_spec)
{
    const pm_pass_options *o = ctx->options;
    *out_spec = (pm_place_spec){.capacity = PM_NEW_ARRAY(ctx->module->arena, uint64_t, o->n_devices)};
    for (size_t i = 0; i < o->n_devices; i++)
        out_spec->capacity[i] = o->devices[i].memory;
    if (!text)
        return PM_OK;
    char *copy = pm_arena_strdup(ctx->module->arena, text), *rest = NULL;
    for (char *part = strtok_r(copy, ",", &rest); part; part = strtok_r(NULL, ",", &rest))
        PM_TRY(parse_part(ctx, part, out_spec));
    return PM_OK;
}

static const char *const kind_names[PM_UNIT_KINDS] = {"experts", "router", "attention", "rest"};

int32_t pm_place_by_hand(pm_place_spec *spec, const pm_unit *unit)
{
    int32_t device = -1;
    for (size_t i = 0; i < spec->rules.n; i++) {
        pm_place_rule *rule = &spec->rules.data[i];
        bool expert = unit->kind == PM_UNIT_EXPERT;
        bool named = strcmp(rule->what, kind_names[unit->kind]) == 0 ||
                     (expert && unit->layer && strcmp(rule->what, unit->layer) == 0);
        bool fits = named && (rule->number < 0 || (expert && rule->number == (int64_t)unit->number));
        if (!fits && !(expert && unit->layer && strcmp(rule->whole, unit->layer) == 0))
            continue;
        rule->used = true;
        device = rule->device;
    }
    return device;
}

pm_status pm_place_check_used(pm_pass_ctx *ctx, const pm_place_spec *spec)
{
    for (size_t i = 0; i < spec->rules.n; i++)
        if (!spec->rules.data[i].used)
            return pm_error(ctx->diag, NULL, PM_ERR_USAGE,
                            "--place: '%s' names nothing in this model; there are experts, router, attention, rest, and "
                            "experts by the name of their layer",
                            spec->rules.data[i].text);
    for (size_t i = 0; i < spec->traced.n; i++)
        if (!spec->traced.data[i].used)
            return pm_error(ctx->diag, &spec->traced.data[i].loc, PM_ERR_INVALID,
                            "the trace counts the experts of '%s', which this model has not",
                            spec->traced.data[i].name);
    return PM_OK;
}
