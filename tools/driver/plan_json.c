#include "tools/driver/plan_json.h"

#include <string.h>

static void device_json(pm_json_out *w, const pm_plan *plan, size_t d)
{
    const pm_device *device = &plan->devices[d];
    pm_jo_object(w, NULL);
    pm_jo_text(w, "name", device->name);
    pm_jo_uint(w, "weight_bytes", plan->used[d]);
    if (plan->capacity[d] == UINT64_MAX)
        pm_jo_null(w, "capacity");
    else
        pm_jo_uint(w, "capacity", plan->capacity[d]);
    pm_jo_number(w, "bytes_per_second", device->bytes_per_second);
    pm_jo_number(w, "flops_per_second", device->flops_per_second);
    pm_jo_number(w, "link_bytes_per_second", device->link_bytes_per_second);
    pm_jo_end(w);
}

static void unit_json(pm_json_out *w, const pm_plan *plan, const pm_placed *unit)
{
    pm_jo_object(w, NULL);
    pm_jo_text(w, "kind", unit->kind);
    pm_jo_text(w, "layer", unit->layer);
    if (strcmp(unit->kind, "expert") == 0) {
        pm_jo_uint(w, "number", unit->number);
        pm_jo_number(w, "share", unit->share);
    }
    pm_jo_text(w, "device", plan->devices[unit->device].name);
    pm_jo_bool(w, "by_hand", unit->by_hand);
    pm_jo_uint(w, "weight_bytes", unit->bytes);
    pm_jo_ms(w, "ms", unit->seconds * 1e3);
    pm_jo_text(w, "location", unit->loc ? pm_loc_text(plan->arena, unit->loc) : NULL);
    pm_jo_end(w);
}

static void moved_json(pm_json_out *w, const pm_plan *plan, const pm_moved *moved)
{
    pm_jo_object(w, NULL);
    pm_jo_text(w, "entry", moved->entry);
    pm_jo_text(w, "name", moved->name);
    pm_jo_text(w, "from", moved->from);
    pm_jo_text(w, "to", moved->to);
    pm_jo_text(w, "bytes", moved->bytes);
    pm_jo_uint(w, "bytes_per_token", moved->token_bytes);
    pm_jo_text(w, "location", moved->loc ? pm_loc_text(plan->arena, moved->loc) : NULL);
    pm_jo_end(w);
}

void pm_plan_json(pm_json_out *w, const pm_plan *plan)
{
    pm_jo_object(w, "placement");
    pm_jo_text(w, "trace", plan->trace);
    pm_jo_int(w, "tokens", PM_PLAN_TOKENS);
    pm_jo_array(w, "devices");
    for (size_t d = 0; d < plan->n_devices; d++)
        device_json(w, plan, d);
    pm_jo_end(w);
    pm_jo_array(w, "units");
    for (size_t i = 0; i < plan->placed.n; i++)
        unit_json(w, plan, &plan->placed.data[i]);
    pm_jo_end(w);
    pm_jo_array(w, "transfers");
    for (size_t i = 0; i < plan->moved.n; i++)
        moved_json(w, plan, &plan->moved.data[i]);
    pm_jo_end(w);
    pm_jo_end(w);
}
