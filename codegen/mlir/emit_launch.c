/// Ops on devices: what the host's entry does to have them run there.
#include <inttypes.h>
#include <string.h>

#include "codegen/mlir/emit_group.h"
#include "codegen/mlir/launch_plan.h"
#include "codegen/mlir/lowerings.h"
#include "ir/loop_space.h"
#include "runtime/runtime_abi.h"

enum { MAX_BLOCKS = 1 << 16 }; ///< of the general road

/// ---- addresses on devices ---------------------------------------------------------------------------------

int64_t pm_entry_device(const entry *n, const char *device)
{
    for (size_t i = 0; i < n->e->n_devices; i++)
        if (strcmp(n->e->devices[i].name, device) == 0)
            return (int64_t)i;
    PM_ASSERT(!"a device of the list");
    return -1;
}

/// A field of the device's side of the call.
static MlirValue device_field(entry *n, const char *device, size_t offset, MlirType type)
{
    mb *b = n->b;
    int64_t at = pm_entry_device(n, device) * (int64_t)sizeof(pm_rt_device_call) + (int64_t)offset;
    MlirValue calls = mb_load(b, b->ptr, mb_at_const(b, b->i8, n->call, offsetof(pm_rt_call, devices)));
    return mb_load(b, type, mb_at_const(b, b->i8, calls, at));
}

/// Where a value lies on a device that one of its users or its maker runs on.
static MlirValue device_pointer(entry *n, const pm_value *value, const char *device)
{
    mb *b = n->b;
    const pm_value *v = pm_value_root(value);
    switch (v->place.kind) {
    case PM_PLACE_ARENA:
        return mb_at(b, b->i8, device_field(n, device, offsetof(pm_rt_device_call, arena), b->ptr),
                     n->offsets[v->place.offset]);
    case PM_PLACE_WEIGHT:
        return mb_at_const(b, b->i8, device_field(n, device, offsetof(pm_rt_device_call, weights), b->ptr),
                           (int64_t)pm_weights_device_offset(n->e->weights, v, device));
    case PM_PLACE_STATE:
        return mb_load(b, b->ptr,
                       mb_at_const(b, b->ptr, device_field(n, device, offsetof(pm_rt_device_call, states), b->ptr),
                                   v->place.index));
    default: return mb_null(b);
    }
}

static MlirValue word(mb *b, MlirValue pointer)
{
    return mb_op(b, "llvm.ptrtoint", b->i64, &pointer, 1, NULL, 0);
}

/// ---- words ------------------------------------------------------------------------------------------------

void pm_launch_use(launch *l, const char *template_name)
{
    l->kernel = (pm_kernel){.template_name = template_name};
    l->n_words = 0;
}

void pm_launch_i64(launch *l, MlirValue value)
{
    PM_ASSERT(l->n_words < PM_LAUNCH_MAX_WORDS);
    l->words[l->n_words++] = value;
}

void pm_launch_const(launch *l, int64_t value)
{
    pm_launch_i64(l, mb_i64(l->b, value));
}

void pm_launch_f64(launch *l, double value)
{
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    pm_launch_const(l, bits);
}

void pm_launch_value(launch *l, const pm_value *value)
{
    if (!value)
        pm_launch_const(l, 0);
    else
        pm_launch_i64(l, word(l->b, device_pointer(l->n, value, l->op->device)));
}

void pm_launch_operand(launch *l, uint32_t i)
{
    pm_launch_value(l, i < l->op->n_operands ? l->op->operands[i] : NULL);
}

void pm_launch_fix(launch *l, const char *name, int64_t value)
{
    PM_ASSERT(l->kernel.n_fixed < PM_LAUNCH_MAX_FIXED);
    l->kernel.fixed[l->kernel.n_fixed++] = (pm_launch_fixed){name, value};
    pm_launch_const(l, value);
}

static pm_dim dim_of(const pm_value *value, int32_t i)
{
    return value->type->dims[i < 0 ? value->type->rank + i : i];
}

MlirValue pm_launch_dim_of(launch *l, const pm_value *value, int32_t i)
{
    return pm_emit_dim_at(l->n->e, l->n->symbols, dim_of(value, i));
}

void pm_launch_dim(launch *l, const pm_value *value, int32_t i, const char *name)
{
    int64_t known;
    if (name && pm_dim_is_const(l->n->e->module, dim_of(value, i), &known))
        pm_launch_fix(l, name, known);
    else
        pm_launch_i64(l, pm_launch_dim_of(l, value, i));
}

MlirValue pm_launch_count_of(launch *l, const pm_value *value, int32_t from, int32_t to)
{
    MlirValue n = mb_i64(l->b, 1);
    to = to < 0 ? value->type->rank + to : to;
    for (int32_t i = from; i < to; i++)
        n = mb_mul(l->b, n, pm_launch_dim_of(l, value, i));
    return n;
}

MlirValue pm_launch_ceil_div(launch *l, MlirValue x, int64_t by)
{
    return by == 1 ? x : mb_bin(l->b, "divui", mb_add(l->b, x, mb_i64(l->b, by - 1)), mb_i64(l->b, by));
}

void pm_launch_blocks(launch *l, MlirValue blocks)
{
    l->blocks = blocks;
}

void pm_launch_status(launch *l)
{
    pm_launch_i64(l, word(l->b, device_field(l->n, l->op->device, offsetof(pm_rt_device_call, status), l->b->ptr)));
    pm_launch_const(l, l->dispatch + 1);
}

MlirValue pm_launch_scratch(launch *l)
{
    return device_field(l->n, l->op->device, offsetof(pm_rt_device_call, scratch), l->b->ptr);
}

/// ---- what chips have --------------------------------------------------------------------------------------

bool pm_launch_may_have_wgmma(const launch *l)
{
    const pm_device_target *device = &l->n->e->devices[pm_entry_device(l->n, l->op->device)];
    for (size_t i = 0; i < device->n_archs; i++)
        if (strcmp(device->archs[i], PM_RT_WGMMA_ARCH) == 0)
            return true;
    return device->emulated;
}

MlirValue pm_launch_has_wgmma(launch *l)
{
    mb *b = l->b;
    MlirValue has = device_field(l->n, l->op->device, offsetof(pm_rt_device_call, has_wgmma), b->i64);
    return mb_cmpi(b, "ne", has, mb_i64(b, 0));
}

MlirValue pm_launch_tensor_map(launch *l, const pm_value *weight, const uint64_t extents[3], const uint64_t strides[2])
{
    emitter *e = l->n->e;
    mb *b = l->b;
    const char *device = l->op->device;
    pm_tensor_map map = {.device = device,
                         .device_offset = pm_weights_device_offset(e->weights, pm_value_root(weight), device)};
    memcpy(map.extents, extents, sizeof map.extents);
    memcpy(map.strides, strides, sizeof map.strides);
    int64_t number = 0; // among those of the device
    size_t at = 0;
    for (; at < e->tensor_maps.n; at++) {
        const pm_tensor_map *other = &e->tensor_maps.data[at];
        if (strcmp(other->device, device) != 0)
            continue;
        if (other->device_offset == map.device_offset && memcmp(other->extents, extents, sizeof map.extents) == 0 &&
            memcmp(other->strides, strides, sizeof map.strides) == 0)
            break;
        number++;
    }
    if (at == e->tensor_maps.n)
        PM_PUSH(e->arena, &e->tensor_maps, map);
    MlirValue maps = device_field(l->n, device, offsetof(pm_rt_device_call, maps), b->ptr);
    return word(b, mb_at_const(b, b->i8, maps, number * PM_RT_TENSOR_MAP_BYTES));
}

/// ---- launches ---------------------------------------------------------------------------------------------

/// What tells kernels apart: a template with its constants, or a function. A name, too: a template's code is the same in
/// every model that fixes the same, and found where it was kept.
static const char *kernel_name(emitter *e, const pm_kernel *kernel)
{
    if (!kernel->template_name)
        return pm_arena_printf(e->arena, "pm_kernel_%s", kernel->function);
    const char *name = pm_arena_printf(e->arena, "pm_cu_%s", kernel->template_name);
    for (uint32_t i = 0; i < kernel->n_fixed; i++) {
        int64_t value = kernel->fixed[i].value;
        name = pm_arena_printf(e->arena, "%s_%s%s%" PRIu64, name, kernel->fixed[i].name, value < 0 ? "m" : "",
                               value < 0 ? -(uint64_t)value : (uint64_t)value);
    }
    return name;
}

/// The number of an equal kernel, or that of a new one.
static int64_t kernel_number(emitter *e, const pm_kernel *kernel)
{
    const char *name = kernel_name(e, kernel);
    uintptr_t known = (uintptr_t)pm_map_get_str(&e->kernel_names, name);
    if (known)
        return (int64_t)known - 1;
    PM_PUSH(e->arena, &e->kernels, *kernel);
    e->kernels.data[e->kernels.n - 1].name = name;
    pm_map_put_str(&e->kernel_names, name, (void *)(uintptr_t)e->kernels.n);
    return (int64_t)e->kernels.n - 1;
}

void pm_launch_finish(launch *l)
{
    entry *n = l->n;
    mb *b = l->b;
    int64_t device = pm_entry_device(n, l->op->device);
    int64_t number = kernel_number(n->e, &l->kernel);
    mb_if first;
    mb_if_begin(b, &first, mb_cmpi(b, "eq", n->worker, mb_i64(b, 0)));
    for (uint32_t i = 0; i < l->n_words; i++)
        mb_store(b, l->words[i], mb_at_const(b, b->i64, n->words, i));
    MlirValue args[] = {n->call, mb_i64(b, device), mb_i64(b, number), l->blocks, n->words,
                        mb_i64(b, l->n_words), mb_i64(b, l->dispatch)};
    mb_call(b, "pm_rt_launch", (MlirType){0}, args, PM_COUNT(args));
    mb_if_end(b, &first);
    n->may_fail = true;
}

/// Threads that the general road gives an op: one for each element of what it makes, or where the lanes of warps share
/// rows a warp for each row, up to a limit.
static MlirValue general_blocks(launch *l, bool limited)
{
    mb *b = l->b;
    MlirValue most = mb_i64(b, 1);
    if (limited)
        return mb_i64(b, PM_RT_DEVICE_WORKERS / PM_GENERAL_THREADS);
    for (uint32_t i = 0; i < l->op->n_results; i++) {
        int32_t rank = l->op->results[i]->type->rank;
        MlirValue count = pm_launch_count_of(l, l->op->results[i], 0, l->kernel.meets && rank > 0 ? rank - 1 : rank);
        most = mb_bin(b, "maxsi", most, count);
    }
    if (l->kernel.meets)
        most = mb_mul(b, most, mb_i64(b, PM_WARP_LANES));
    return mb_bin(b, "minsi", pm_launch_ceil_div(l, most, PM_GENERAL_THREADS), mb_i64(b, MAX_BLOCKS));
}

/// As the CPU would run it: kernels with scratch have as many workers as there are pieces of it.
static pm_status launch_general(launch *l)
{
    entry *n = l->n;
    mb *b = l->b;
    pm_dispatch_fn fn;
    pm_value **values;
    PM_TRY(pm_dispatch_function(n->e->device_code, l->op, &fn));
    size_t count = pm_dispatch_values(n->e, l->op, &values);
    if (count + fn.n_symbols + 5 > PM_LAUNCH_MAX_WORDS)
        return pm_error(n->e->diag, l->op->loc, PM_ERR_UNSUPPORTED, "%s has too many operands for a device: %zu",
                        pm_op_info_of(l->op)->name, count);
    pm_launch_use(l, NULL);
    l->kernel.function = fn.name;
    l->kernel.n_pointers = (uint32_t)count;
    l->kernel.n_symbols = (uint32_t)fn.n_symbols;
    l->kernel.meets = pm_map_get_str(&n->e->device_code->meeting, fn.name) != NULL;
    for (size_t i = 0; i < count; i++)
        pm_launch_value(l, values[i]);
    for (size_t i = 0; i < fn.n_symbols; i++)
        pm_launch_i64(l, mb_load(b, b->i64, mb_at_const(b, b->i64, n->symbols, fn.symbols[i])));
    bool scratch = pm_emit_scratch_bytes(l->op) > 0;
    pm_launch_i64(l, word(b, pm_launch_scratch(l)));
    pm_launch_i64(l, device_field(n, l->op->device, offsetof(pm_rt_device_call, scratch_bytes), b->i64));
    pm_launch_const(l, scratch ? PM_RT_DEVICE_WORKERS : 0);
    pm_launch_status(l);
    pm_launch_blocks(l, general_blocks(l, scratch));
    return PM_OK;
}

static pm_status emit_transfer(entry *n, pm_op *op, int64_t dispatch)
{
    mb *b = n->b;
    pm_value *from = op->operands[0], *to = op->results[0];
    const char *source = pm_entry_value_device(from), *target = op->device;
    pm_entry_access(n, source ? NULL : from, target ? NULL : to);
    MlirValue none = mb_i64(b, -1);
    MlirValue bytes = pm_entry_bytes(n, from->type);
    mb_if first;
    mb_if_begin(b, &first, mb_cmpi(b, "eq", n->worker, mb_i64(b, 0)));
    MlirValue args[] = {n->call,
                        target ? mb_i64(b, pm_entry_device(n, target)) : none,
                        target ? device_pointer(n, to, target) : pm_entry_pointer(n, to),
                        source ? mb_i64(b, pm_entry_device(n, source)) : none,
                        source ? device_pointer(n, from, source) : pm_entry_pointer(n, from),
                        bytes, mb_i64(b, dispatch)};
    mb_call(b, "pm_rt_transfer", (MlirType){0}, args, PM_COUNT(args));
    mb_if_end(b, &first);
    if (!target) {
        coming c = {pm_value_root(to), pm_value_root(from), source, dispatch};
        PM_PUSH(n->e->arena, &n->coming, c);
    }
    n->may_fail = true;
    return PM_OK;
}

pm_launch_fn *pm_launch_fn_of(const pm_op *op)
{
    switch (op->code) {
#define PM_LAUNCH(op, function) case PM_OP_##op: return function;
#include "codegen/mlir/launches.def"
    default: return NULL;
    }
}

pm_status pm_emit_device_op(entry *n, pm_op *op, int64_t dispatch)
{
    if (op->code == PM_OP_transfer)
        return emit_transfer(n, op, dispatch);
    launch l = {.n = n, .b = n->b, .op = op, .dispatch = dispatch};
    pm_launch_fn *plan = pm_launch_fn_of(op);
    pm_status status = plan ? plan(&l) : PM_ERR_UNSUPPORTED;
    if (status == PM_ERR_UNSUPPORTED && pm_diag_count(n->e->diag, PM_ERROR) == 0)
        status = launch_general(&l);
    PM_TRY(status);
    if (l.kernel.template_name || l.kernel.function)
        pm_launch_finish(&l);
    return PM_OK;
}
