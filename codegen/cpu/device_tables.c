#include "codegen/cpu/device_tables.h"

#include <string.h>

#include "llvm-c/Core.h"

#include "runtime/runtime_abi.h"

/// The layouts that the constants below follow.
_Static_assert(sizeof(pm_rt_kernel) == 32 && sizeof(pm_rt_code) == 48 && sizeof(pm_rt_upload) == 24 &&
                   sizeof(pm_rt_tensor_map) == 48 && sizeof(pm_rt_device) == 88, "pm_rt_device and its tables");

static const char code_table_name[] = "pm_device_codes";

typedef struct tables {
    LLVMModuleRef host;
    LLVMContextRef c;
    LLVMTypeRef ptr, i32, i64;
} tables;

static tables tables_of(LLVMModuleRef host)
{
    LLVMContextRef c = LLVMGetModuleContext(host);
    return (tables){host, c, LLVMPointerTypeInContext(c, 0), LLVMInt32TypeInContext(c), LLVMInt64TypeInContext(c)};
}

static LLVMValueRef number32(const tables *t, uint32_t x)
{
    return LLVMConstInt(t->i32, x, false);
}

static LLVMValueRef number64(const tables *t, uint64_t x)
{
    return LLVMConstInt(t->i64, x, false);
}

static LLVMValueRef constant(const tables *t, LLVMValueRef value)
{
    LLVMValueRef global = LLVMAddGlobal(t->host, LLVMTypeOf(value), "pm_device_table");
    LLVMSetInitializer(global, value);
    LLVMSetLinkage(global, LLVMInternalLinkage);
    LLVMSetGlobalConstant(global, true);
    LLVMSetAlignment(global, 16);
    return global;
}

static LLVMValueRef bytes(const tables *t, const void *data, size_t size)
{
    return data ? constant(t, LLVMConstStringInContext2(t->c, data, size, true)) : LLVMConstNull(t->ptr);
}

static LLVMValueRef text(const tables *t, const char *s)
{
    return bytes(t, s, s ? strlen(s) + 1 : 0);
}

static LLVMValueRef record(const tables *t, LLVMValueRef *fields, unsigned n)
{
    return LLVMConstStructInContext(t->c, fields, n, false);
}

/// Records of one type, one after the other.
static LLVMValueRef list(const tables *t, LLVMValueRef *records, size_t n)
{
    return n ? constant(t, LLVMConstArray2(LLVMTypeOf(records[0]), records, n)) : LLVMConstNull(t->ptr);
}

static LLVMValueRef kernel_list(const tables *t, const pm_kernel *kernels, const pm_kernel_facts *facts, size_t n,
                                LLVMValueRef *room)
{
    for (size_t i = 0; i < n; i++) {
        LLVMValueRef f[] = {text(t, kernels[i].name), number32(t, facts[i].code), number32(t, facts[i].threads),
                            number32(t, facts[i].shared_bytes), number32(t, facts[i].flags),
                            facts[i].emu ? facts[i].emu : LLVMConstNull(t->ptr)};
        room[i] = record(t, f, PM_COUNT(f));
    }
    return list(t, room, n);
}

static LLVMTypeRef code_type(const tables *t)
{
    LLVMTypeRef fields[] = {t->i32, t->i32, t->ptr, t->ptr, t->ptr, t->i64, t->i64};
    return LLVMStructTypeInContext(t->c, fields, PM_COUNT(fields), false);
}

/// Room for the codes, which are still being made.
static LLVMValueRef code_room(const tables *t, size_t n)
{
    return LLVMAddGlobal(t->host, LLVMArrayType2(code_type(t), n), code_table_name);
}

static LLVMValueRef code_list(const tables *t, const pm_device_code *codes, size_t n, LLVMValueRef *room)
{
    for (size_t i = 0; i < n; i++) {
        LLVMValueRef f[] = {number32(t, codes[i].number), number32(t, 0), text(t, codes[i].arch),
                            bytes(t, codes[i].ptx, codes[i].ptx ? codes[i].ptx_size + 1 : 0),
                            bytes(t, codes[i].cubin, codes[i].cubin_size), number64(t, codes[i].ptx_size),
                            number64(t, codes[i].cubin_size)};
        room[i] = record(t, f, PM_COUNT(f));
    }
    return LLVMConstArray2(code_type(t), room, n);
}

static LLVMValueRef upload_list(const tables *t, const pm_weights_range *ranges, size_t n, LLVMValueRef *room)
{
    for (size_t i = 0; i < n; i++) {
        LLVMValueRef f[] = {number64(t, ranges[i].payload_offset), number64(t, ranges[i].device_offset),
                            number64(t, ranges[i].size)};
        room[i] = record(t, f, PM_COUNT(f));
    }
    return list(t, room, n);
}

/// Those of one device; *out_n: how many.
static LLVMValueRef map_list(const tables *t, const pm_tensor_map *maps, size_t n_maps, const char *device,
                             LLVMValueRef *room, size_t *out_n)
{
    size_t n = 0;
    for (size_t i = 0; i < n_maps; i++) {
        const pm_tensor_map *m = &maps[i];
        if (strcmp(m->device, device) != 0)
            continue;
        LLVMValueRef f[] = {number64(t, m->device_offset), number64(t, m->extents[0]), number64(t, m->extents[1]),
                            number64(t, m->extents[2]), number64(t, m->strides[0]), number64(t, m->strides[1])};
        room[n++] = record(t, f, PM_COUNT(f));
    }
    *out_n = n;
    return list(t, room, n);
}

/// The runtime's functions of a kind of device: naming them takes them into the program.
static LLVMValueRef device_functions(const tables *t, const pm_device_target *device)
{
    const char *name = device->emulated ? "pm_rt_emu_ops" : "pm_rt_cuda_ops";
    LLVMValueRef global = LLVMGetNamedGlobal(t->host, name);
    return global ? global : LLVMAddGlobal(t->host, t->ptr, name);
}

LLVMValueRef pm_device_tables(pm_arena *arena, LLVMModuleRef host, const pm_weights *weights, const pm_target *target,
                              const pm_kernel *kernels, const pm_kernel_facts *facts, size_t n_kernels,
                              size_t n_codes, const pm_tensor_map *maps, size_t n_maps)
{
    tables t = tables_of(host);
    size_t most = n_kernels + n_maps + target->n_devices, n, n_own_maps;
    uint64_t weight_bytes;
    for (size_t i = 0; i < target->n_devices; i++) {
        pm_weights_device_ranges(weights, target->devices[i].name, &n, &weight_bytes);
        most = n > most ? n : most;
    }
    LLVMValueRef *room = PM_NEW_ARRAY(arena, LLVMValueRef, most + 1);
    LLVMValueRef *devices = PM_NEW_ARRAY(arena, LLVMValueRef, target->n_devices + 1);
    LLVMValueRef kernel_table = kernel_list(&t, kernels, facts, n_kernels, room);
    LLVMValueRef code_table = n_codes ? code_room(&t, n_codes) : LLVMConstNull(t.ptr);
    for (size_t i = 0; i < target->n_devices; i++) {
        const pm_weights_range *ranges =
            pm_weights_device_ranges(weights, target->devices[i].name, &n, &weight_bytes);
        LLVMValueRef uploads = upload_list(&t, ranges, n, room);
        LLVMValueRef own_maps = map_list(&t, maps, n_maps, target->devices[i].name, room, &n_own_maps);
        LLVMValueRef f[] = {device_functions(&t, &target->devices[i]), text(&t, target->devices[i].name),
                            kernel_table, code_table, uploads, number64(&t, n_kernels),
                            number64(&t, n_codes), number64(&t, n), number64(&t, weight_bytes),
                            own_maps, number64(&t, n_own_maps)};
        devices[i] = record(&t, f, PM_COUNT(f));
    }
    return list(&t, devices, target->n_devices);
}

void pm_device_tables_fill(pm_arena *arena, LLVMModuleRef host, const pm_device_code *codes, size_t n_codes)
{
    tables t = tables_of(host);
    LLVMValueRef room = LLVMGetNamedGlobal(host, code_table_name);
    if (!room)
        return;
    LLVMSetInitializer(room, code_list(&t, codes, n_codes, PM_NEW_ARRAY(arena, LLVMValueRef, n_codes + 1)));
    LLVMSetLinkage(room, LLVMInternalLinkage);
    LLVMSetGlobalConstant(room, true);
    LLVMSetAlignment(room, 16);
}
