#include "passes/plan.h"

#include <string.h>

const char *pm_plan_bytes_text(pm_arena *arena, uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 999.95 && unit + 1 < PM_COUNT(units); unit++)
        value /= 1000;
    return pm_arena_printf(arena, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

uint64_t pm_plan_token_bytes(const pm_plan *plan, const char *entry, const char *device)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < plan->moved.n; i++) {
        const pm_moved *moved = &plan->moved.data[i];
        if (strcmp(moved->entry, entry) == 0 &&
            (!device || strcmp(moved->from, device) == 0 || strcmp(moved->to, device) == 0))
            bytes += moved->token_bytes;
    }
    return bytes;
}

static size_t count(const pm_plan *plan, int32_t device, const char *kind)
{
    size_t n = 0;
    for (size_t i = 0; i < plan->placed.n; i++)
        n += plan->placed.data[i].device == device && strcmp(plan->placed.data[i].kind, kind) == 0;
    return n;
}

static void print_devices(const pm_plan *plan, pm_arena *scratch, FILE *out)
{
    for (size_t d = 0; d < plan->n_devices; d++) {
        const pm_device *device = &plan->devices[d];
        bool limited = plan->capacity[d] != UINT64_MAX;
        fprintf(out, "%s: %s of weights%s%s; %zu experts, %zu routers, %zu attentions%s\n", device->name,
                pm_plan_bytes_text(scratch, plan->used[d]), limited ? " of at most " : "",
                limited ? pm_plan_bytes_text(scratch, plan->capacity[d]) : "", count(plan, (int32_t)d, "expert"),
                count(plan, (int32_t)d, "router"), count(plan, (int32_t)d, "attention"),
                count(plan, (int32_t)d, "rest") ? ", and all else" : "");
    }
}

static bool same_layer(const pm_placed *a, const pm_placed *b)
{
    return strcmp(b->kind, "expert") == 0 && a->loc == b->loc && strcmp(a->layer ? a->layer : "", b->layer ? b->layer : "") == 0;
}

/// "0-3,7": the layer's experts on one device, or nothing.
static void print_numbers(const pm_plan *plan, size_t first, size_t n, int32_t device, FILE *out)
{
    const pm_placed *units = &plan->placed.data[first];
    const char *between = "";
    for (size_t i = 0; i < n; i++) {
        if (units[i].device != device)
            continue;
        size_t last = i;
        while (last + 1 < n && units[last + 1].device == device)
            last++;
        fprintf(out, "%s%u", between, units[i].number);
        if (last > i)
            fprintf(out, "%s%u", last == i + 1 ? "," : "-", units[last].number);
        between = ",";
        i = last;
    }
}

static void print_layer(const pm_plan *plan, pm_arena *scratch, size_t first, size_t n, FILE *out)
{
    const pm_placed *units = &plan->placed.data[first];
    fprintf(out, "  %s:", units[0].layer ? units[0].layer : "experts");
    const char *between = "";
    for (size_t d = 0; d < plan->n_devices; d++) {
        uint64_t bytes = 0, here = 0;
        double seconds = 0, share = 0;
        for (size_t i = 0; i < n; i++) {
            if (units[i].device != (int32_t)d)
                continue;
            here++;
            bytes += units[i].bytes;
            seconds += units[i].seconds;
            share += units[i].share;
        }
        if (here == 0)
            continue;
        fprintf(out, "%s experts ", between);
        print_numbers(plan, first, n, (int32_t)d, out);
        fprintf(out, " on %s (%s, %.0f%% of the choices, %.3f ms for %d tokens)", plan->devices[d].name,
                pm_plan_bytes_text(scratch, bytes), 100 * share, seconds * 1e3, PM_PLAN_TOKENS);
        between = ";";
    }
    fprintf(out, "\n");
}

static void print_moved(const pm_plan *plan, pm_arena *scratch, FILE *out)
{
    const char *entry = NULL;
    for (size_t i = 0; i < plan->moved.n; i++) {
        const pm_moved *moved = &plan->moved.data[i];
        if (!entry || strcmp(entry, moved->entry) != 0) {
            entry = moved->entry;
            fprintf(out, "entry %s: %s cross for one token\n", entry,
                    pm_plan_bytes_text(scratch, pm_plan_token_bytes(plan, entry, NULL)));
        }
        fprintf(out, "  %s -> %s: %s, %s bytes\n", moved->from, moved->to, moved->name              ? moved->name
                : moved->loc && moved->loc->name ? moved->loc->name
                                                 : "(no name)",
                moved->bytes);
    }
}

void pm_plan_print(const pm_plan *plan, FILE *out)
{
    pm_arena *scratch = pm_arena_child(plan->arena);
    print_devices(plan, scratch, out);
    if (plan->trace)
        fprintf(out, "choices as in %s\n", plan->trace);
    for (size_t i = 0, n; i < plan->placed.n; i += n) {
        const pm_placed *unit = &plan->placed.data[i];
        for (n = 1; strcmp(unit->kind, "expert") == 0 && i + n < plan->placed.n && same_layer(unit, unit + n); n++)
            continue;
        if (strcmp(unit->kind, "expert") == 0)
            print_layer(plan, scratch, i, n, out);
        else if (unit->device != plan->placed.data[0].device) // the rest comes first
            fprintf(out, "  %s%s%s on %s (%s)\n", unit->kind, unit->layer ? " " : "", unit->layer ? unit->layer : "",
                    plan->devices[unit->device].name, pm_plan_bytes_text(scratch, unit->bytes));
    }
    print_moved(plan, scratch, out);
    pm_arena_destroy(scratch);
}
