#include "codegen/mlir/mb.h"

#include <stdlib.h>
#include <string.h>

#include "mlir-c/Dialect/LLVM.h"
#include "mlir-c/RegisterEverything.h"

#include "base/diag.h"

static MlirStringRef ref(const char *text)
{
    return mlirStringRefCreateFromCString(text);
}

MlirAttribute mb_parse_attr(mb *b, const char *text)
{
    MlirAttribute attr = mlirAttributeParseGet(b->context, ref(text));
    PM_ASSERT(!mlirAttributeIsNull(attr));
    return attr;
}

void mb_init(mb *b, pm_arena *arena)
{
    memset(b, 0, sizeof *b);
    b->arena = arena;
    MlirDialectRegistry registry = mlirDialectRegistryCreate();
    mlirRegisterAllDialects(registry);
    b->context = mlirContextCreateWithRegistry(registry, false);
    mlirDialectRegistryDestroy(registry);
    mlirRegisterAllLLVMTranslations(b->context);
    static const char *const dialects[] = {"llvm", "arith", "scf", "cf"};
    for (size_t i = 0; i < PM_COUNT(dialects); i++)
        mlirContextGetOrLoadDialect(b->context, ref(dialects[i]));
    b->loc = mlirLocationUnknownGet(b->context);
    b->module = mlirModuleCreateEmpty(b->loc);
    b->block = mlirModuleGetBody(b->module);
    b->i1 = mlirIntegerTypeGet(b->context, 1);
    b->i8 = mlirIntegerTypeGet(b->context, 8);
    b->i16 = mlirIntegerTypeGet(b->context, 16);
    b->i32 = mlirIntegerTypeGet(b->context, 32);
    b->i64 = mlirIntegerTypeGet(b->context, 64);
    b->f16 = mlirF16TypeGet(b->context);
    b->bf16 = mlirBF16TypeGet(b->context);
    b->f32 = mlirF32TypeGet(b->context);
    b->f64 = mlirF64TypeGet(b->context);
    b->ptr = mlirLLVMPointerTypeGet(b->context, 0);
    pm_map_init(&b->functions, arena);
}

void mb_deinit(mb *b)
{
    if (!mlirModuleIsNull(b->module))
        mlirModuleDestroy(b->module);
    if (!mlirContextIsNull(b->context))
        mlirContextDestroy(b->context);
    memset(b, 0, sizeof *b);
}

static MlirNamedAttribute named(mb *b, const char *name, MlirAttribute value)
{
    return mlirNamedAttributeGet(mlirIdentifierGet(b->context, ref(name)), value);
}

/// A copy that mlirOperationCreate frees. (MLIR's own functions that add to a state don't look at what malloc returns.)
static void *owned(mb *b, const void *items, size_t n, size_t size)
{
    void *copy = n ? malloc(n * size) : NULL;
    if (n && !copy)
        pm_arena_out_of_memory(b->arena);
    if (n)
        memcpy(copy, items, n * size);
    return copy;
}

static MlirOperation create(mb *b, const char *name, const MlirType *results, size_t n_results,
                            const MlirValue *operands, size_t n_operands, const mb_attr *attrs,
                            size_t n_attrs, MlirRegion *regions, size_t n_regions)
{
    MlirOperationState state = mlirOperationStateGet(ref(name), b->loc);
    MlirNamedAttribute list[12];
    PM_ASSERT(n_attrs <= PM_COUNT(list));
    for (size_t i = 0; i < n_attrs; i++)
        list[i] = named(b, attrs[i].name, attrs[i].value);
    state.nResults = (intptr_t)n_results;
    state.results = owned(b, results, n_results, sizeof *results);
    state.nOperands = (intptr_t)n_operands;
    state.operands = owned(b, operands, n_operands, sizeof *operands);
    state.nAttributes = (intptr_t)n_attrs;
    state.attributes = owned(b, list, n_attrs, sizeof *list);
    state.nRegions = (intptr_t)n_regions;
    state.regions = owned(b, regions, n_regions, sizeof *regions);
    MlirOperation op = mlirOperationCreate(&state);
    PM_ASSERT(!mlirOperationIsNull(op));
    mlirBlockAppendOwnedOperation(b->block, op);
    return op;
}

MlirValue mb_op(mb *b, const char *name, MlirType result, const MlirValue *operands,
                size_t n_operands, const mb_attr *attrs, size_t n_attrs)
{
    size_t n_results = result.ptr ? 1 : 0;
    MlirOperation op =
        create(b, name, &result, n_results, operands, n_operands, attrs, n_attrs, NULL, 0);
    return n_results ? mlirOperationGetResult(op, 0) : (MlirValue){0};
}

MlirValue mb_int(mb *b, MlirType type, int64_t value)
{
    mb_attr attr = {"value", mlirIntegerAttrGet(type, value)};
    return mb_op(b, "arith.constant", type, NULL, 0, &attr, 1);
}

MlirValue mb_i64(mb *b, int64_t value)
{
    return mb_int(b, b->i64, value);
}

MlirValue mb_float(mb *b, MlirType type, double value)
{
    mb_attr attr = {"value", mlirFloatAttrDoubleGet(b->context, type, value)};
    return mb_op(b, "arith.constant", type, NULL, 0, &attr, 1);
}

/// "arith." + name, in a buffer of the caller.
static const char *arith(char buffer[48], const char *name)
{
    snprintf(buffer, 48, "arith.%s", name);
    return buffer;
}

MlirValue mb_bin(mb *b, const char *name, MlirValue x, MlirValue y)
{
    char buffer[48];
    MlirValue operands[] = {x, y};
    return mb_op(b, arith(buffer, name), mlirValueGetType(x), operands, 2, NULL, 0);
}

MlirValue mb_bin_fast(mb *b, const char *name, MlirValue x, MlirValue y, const char *flags)
{
    char buffer[48], text[64];
    snprintf(text, sizeof text, "#arith.fastmath<%s>", flags);
    mb_attr attr = {"fastmath", mb_parse_attr(b, text)};
    MlirValue operands[] = {x, y};
    return mb_op(b, arith(buffer, name), mlirValueGetType(x), operands, 2, &attr, 1);
}

MlirValue mb_un(mb *b, const char *name, MlirValue x)
{
    char buffer[48];
    return mb_op(b, arith(buffer, name), mlirValueGetType(x), &x, 1, NULL, 0);
}

MlirValue mb_convert(mb *b, const char *name, MlirValue x, MlirType to)
{
    char buffer[48];
    return mb_op(b, arith(buffer, name), to, &x, 1, NULL, 0);
}

static MlirValue compare(mb *b, const char *op, const char *const *names, size_t n,
                         const char *predicate, MlirValue x, MlirValue y)
{
    size_t i = 0;
    while (i < n && strcmp(names[i], predicate) != 0)
        i++;
    PM_ASSERT(i < n);
    mb_attr attr = {"predicate", mlirIntegerAttrGet(b->i64, (int64_t)i)};
    MlirValue operands[] = {x, y};
    return mb_op(b, op, b->i1, operands, 2, &attr, 1);
}

MlirValue mb_cmpi(mb *b, const char *predicate, MlirValue x, MlirValue y)
{
    static const char *const names[] = {"eq",  "ne",  "slt", "sle", "sgt",
                                        "sge", "ult", "ule", "ugt", "uge"};
    return compare(b, "arith.cmpi", names, PM_COUNT(names), predicate, x, y);
}

MlirValue mb_cmpf(mb *b, const char *predicate, MlirValue x, MlirValue y)
{
    static const char *const names[] = {"false", "oeq", "ogt", "oge", "olt", "ole", "one", "ord",
                                        "ueq",   "ugt", "uge", "ult", "ule", "une", "uno", "true"};
    return compare(b, "arith.cmpf", names, PM_COUNT(names), predicate, x, y);
}

MlirValue mb_select(mb *b, MlirValue cond, MlirValue x, MlirValue y)
{
    MlirValue operands[] = {cond, x, y};
    return mb_op(b, "arith.select", mlirValueGetType(x), operands, 3, NULL, 0);
}

MlirValue mb_load(mb *b, MlirType type, MlirValue pointer)
{
    mb_attr attr = {"ordering", mlirIntegerAttrGet(b->i64, 0)};
    return mb_op(b, "llvm.load", type, &pointer, 1, &attr, 1);
}

void mb_store(mb *b, MlirValue value, MlirValue pointer)
{
    mb_attr attr = {"ordering", mlirIntegerAttrGet(b->i64, 0)};
    MlirValue operands[] = {value, pointer};
    mb_op(b, "llvm.store", (MlirType){0}, operands, 2, &attr, 1);
}

static MlirValue gep(mb *b, MlirType elem, MlirValue pointer, const MlirValue *index, int32_t raw)
{
    MlirValue operands[2] = {pointer};
    if (index)
        operands[1] = *index;
    mb_attr attrs[] = {
        {"elem_type", mlirTypeAttrGet(elem)},
        {"noWrapFlags", mlirIntegerAttrGet(b->i32, 3)}, // inbounds
        {"rawConstantIndices", mlirDenseI32ArrayGet(b->context, 1, &raw)},
    };
    return mb_op(b, "llvm.getelementptr", b->ptr, operands, index ? 2 : 1, attrs, PM_COUNT(attrs));
}

MlirValue mb_at(mb *b, MlirType elem, MlirValue pointer, MlirValue index)
{
    return gep(b, elem, pointer, &index, INT32_MIN);
}

MlirValue mb_at_const(mb *b, MlirType elem, MlirValue pointer, int64_t index)
{
    if (index == 0)
        return pointer;
    if (index > 0 && index < INT32_MAX)
        return gep(b, elem, pointer, NULL, (int32_t)index);
    return mb_at(b, elem, pointer, mb_i64(b, index));
}

static MlirBlock function_entry(mb *b)
{
    MlirOperation op = mlirBlockGetParentOperation(b->block);
    while (!mlirStringRefEqual(mlirIdentifierStr(mlirOperationGetName(op)), ref("llvm.func")))
        op = mlirOperationGetParentOperation(op);
    return mlirRegionGetFirstBlock(mlirOperationGetRegion(op, 0));
}

MlirValue mb_alloca(mb *b, MlirType elem, int64_t n)
{
    // At the head of the entry block: once per call, and promotable to registers.
    MlirBlock entry = function_entry(b), saved = b->block;
    MlirBlock scratch = mlirBlockCreate(0, NULL, NULL);
    b->block = scratch;
    MlirValue count = mb_i64(b, n);
    mb_attr attrs[] = {{"elem_type", mlirTypeAttrGet(elem)},
                       {"alignment", mlirIntegerAttrGet(b->i64, 64)}};
    MlirValue pointer = mb_op(b, "llvm.alloca", b->ptr, &count, 1, attrs, PM_COUNT(attrs));
    b->block = saved;
    MlirOperation constant = mlirOpResultGetOwner(count), alloca_op = mlirOpResultGetOwner(pointer);
    mlirOperationRemoveFromParent(alloca_op);
    mlirOperationRemoveFromParent(constant);
    mlirBlockDestroy(scratch);
    mlirBlockInsertOwnedOperation(entry, 0, constant);
    mlirBlockInsertOwnedOperation(entry, 1, alloca_op);
    return pointer;
}

MlirValue mb_null(mb *b)
{
    return mb_op(b, "llvm.mlir.zero", b->ptr, NULL, 0, NULL, 0);
}

static MlirAttribute symbol(mb *b, const char *name)
{
    return mlirFlatSymbolRefAttrGet(b->context, ref(name));
}

MlirValue mb_address(mb *b, const char *function)
{
    mb_attr attr = {"global_name", symbol(b, function)};
    return mb_op(b, "llvm.mlir.addressof", b->ptr, NULL, 0, &attr, 1);
}

MlirValue mb_bytes(mb *b, const void *bytes, size_t size)
{
    char name[32];
    snprintf(name, sizeof name, "pm_bytes_%u", b->n_globals++);
    MlirBlock saved = b->block;
    b->block = mlirModuleGetBody(b->module);
    mb_attr attrs[] = {
        {"sym_name", mlirStringAttrGet(b->context, ref(name))},
        {"global_type", mlirTypeAttrGet(mlirLLVMArrayTypeGet(b->i8, (unsigned)size))},
        {"linkage", mb_parse_attr(b, "#llvm.linkage<internal>")},
        {"constant", mlirUnitAttrGet(b->context)},
        {"value", mlirStringAttrGet(b->context, mlirStringRefCreate(bytes, size))},
        {"addr_space", mlirIntegerAttrGet(b->i32, 0)},
        {"alignment", mlirIntegerAttrGet(b->i64, 16)},
    };
    MlirRegion region = mlirRegionCreate();
    create(b, "llvm.mlir.global", NULL, 0, NULL, 0, attrs, PM_COUNT(attrs), &region, 1);
    b->block = saved;
    return mb_address(b, name);
}

static MlirType function_type(mb *b, MlirType result, const MlirType *args, size_t n_args)
{
    MlirType type = result.ptr ? result : mlirLLVMVoidTypeGet(b->context);
    return mlirLLVMFunctionTypeGet(type, (intptr_t)n_args, args, false);
}

void mb_declare(mb *b, const char *name, MlirType result, const MlirType *args, size_t n_args)
{
    void **slot = pm_map_at(&b->functions, name, strlen(name));
    if (*slot)
        return;
    *slot = b;
    MlirBlock saved = b->block;
    b->block = mlirModuleGetBody(b->module);
    mb_attr attrs[] = {
        {"sym_name", mlirStringAttrGet(b->context, ref(name))},
        {"function_type", mlirTypeAttrGet(function_type(b, result, args, n_args))},
        {"linkage", mb_parse_attr(b, "#llvm.linkage<external>")},
    };
    MlirRegion region = mlirRegionCreate();
    create(b, "llvm.func", NULL, 0, NULL, 0, attrs, PM_COUNT(attrs), &region, 1);
    b->block = saved;
}

MlirValue mb_call(mb *b, const char *name, MlirType result, const MlirValue *args, size_t n_args)
{
    MlirType types[64];
    PM_ASSERT(n_args <= PM_COUNT(types));
    for (size_t i = 0; i < n_args; i++)
        types[i] = mlirValueGetType(args[i]);
    mb_declare(b, name, result, types, n_args);
    int32_t segments[] = {(int32_t)n_args, 0};
    mb_attr attrs[] = {
        {"callee", symbol(b, name)},
        {"operandSegmentSizes", mlirDenseI32ArrayGet(b->context, 2, segments)},
        {"op_bundle_sizes", mlirDenseI32ArrayGet(b->context, 0, NULL)},
    };
    return mb_op(b, "llvm.call", result, args, n_args, attrs, PM_COUNT(attrs));
}

void mb_function_begin(mb *b, mb_function *f, const char *name, MlirType result,
                       const MlirType *args, size_t n_args, const bool *noalias, bool internal,
                       const char *passthrough)
{
    f->saved = b->block;
    f->saved_loc = b->loc;
    pm_map_put_str(&b->functions, name, b);
    MlirAttribute *arg_attrs = PM_NEW_ARRAY(b->arena, MlirAttribute, n_args + 1);
    MlirLocation *locs = PM_NEW_ARRAY(b->arena, MlirLocation, n_args + 1);
    for (size_t i = 0; i < n_args; i++) {
        MlirNamedAttribute attr = named(b, "llvm.noalias", mlirUnitAttrGet(b->context));
        arg_attrs[i] = mlirDictionaryAttrGet(b->context, noalias && noalias[i] ? 1 : 0, &attr);
        locs[i] = b->loc;
    }
    mb_attr attrs[5] = {
        {"sym_name", mlirStringAttrGet(b->context, ref(name))},
        {"function_type", mlirTypeAttrGet(function_type(b, result, args, n_args))},
        {"linkage",
         mb_parse_attr(b, internal ? "#llvm.linkage<internal>" : "#llvm.linkage<external>")},
        {"arg_attrs", mlirArrayAttrGet(b->context, (intptr_t)n_args, arg_attrs)},
    };
    size_t n_attrs = 4;
    if (passthrough) {
        MlirAttribute word = mlirStringAttrGet(b->context, ref(passthrough));
        attrs[n_attrs++] = (mb_attr){"passthrough", mlirArrayAttrGet(b->context, 1, &word)};
    }
    b->block = mlirModuleGetBody(b->module);
    MlirRegion region = mlirRegionCreate();
    f->entry = mlirBlockCreate((intptr_t)n_args, args, locs);
    mlirRegionAppendOwnedBlock(region, f->entry);
    f->op = create(b, "llvm.func", NULL, 0, NULL, 0, attrs, n_attrs, &region, 1);
    b->block = f->entry;
}

MlirValue mb_function_arg(const mb_function *f, size_t i)
{
    return mlirBlockGetArgument(f->entry, (intptr_t)i);
}

void mb_return(mb *b, MlirValue value)
{
    mb_op(b, "llvm.return", (MlirType){0}, &value, value.ptr ? 1 : 0, NULL, 0);
}

void mb_function_end(mb *b, mb_function *f)
{
    b->block = f->saved;
    b->loc = f->saved_loc;
}

void mb_for_begin(mb *b, mb_loop *loop, MlirValue from, MlirValue to, MlirValue step,
                  const MlirValue *init, size_t n_carried)
{
    PM_ASSERT(n_carried <= MB_MAX_CARRIED);
    MlirType types[MB_MAX_CARRIED + 1] = {b->i64};
    MlirLocation locs[MB_MAX_CARRIED + 1];
    loop->from = from;
    loop->to = to;
    loop->step = step;
    loop->n_carried = n_carried;
    for (size_t i = 0; i < n_carried; i++) {
        loop->init[i] = init[i];
        types[i + 1] = mlirValueGetType(init[i]);
    }
    for (size_t i = 0; i <= n_carried; i++)
        locs[i] = b->loc;
    loop->saved = b->block;
    loop->region = mlirRegionCreate();
    loop->body = mlirBlockCreate((intptr_t)n_carried + 1, types, locs);
    mlirRegionAppendOwnedBlock(loop->region, loop->body);
    loop->index = mlirBlockGetArgument(loop->body, 0);
    for (size_t i = 0; i < n_carried; i++)
        loop->carried[i] = mlirBlockGetArgument(loop->body, (intptr_t)i + 1);
    // The op is created first, so that code inside can find its function.
    MlirValue operands[MB_MAX_CARRIED + 3] = {from, to, step};
    for (size_t i = 0; i < n_carried; i++)
        operands[3 + i] = init[i];
    loop->op = create(b, "scf.for", types + 1, n_carried, operands, 3 + n_carried, NULL, 0,
                      &loop->region, 1);
    b->block = loop->body;
}

void mb_for_end(mb *b, mb_loop *loop, const MlirValue *next, MlirValue *results)
{
    mb_op(b, "scf.yield", (MlirType){0}, next, loop->n_carried, NULL, 0);
    b->block = loop->saved;
    for (size_t i = 0; i < loop->n_carried; i++)
        results[i] = mlirOperationGetResult(loop->op, (intptr_t)i);
}

void mb_if_begin(mb *b, mb_if *branch, MlirValue cond)
{
    MlirRegion regions[2] = {mlirRegionCreate(), mlirRegionCreate()};
    MlirBlock body = mlirBlockCreate(0, NULL, NULL);
    mlirRegionAppendOwnedBlock(regions[0], body);
    branch->saved = b->block;
    create(b, "scf.if", NULL, 0, &cond, 1, NULL, 0, regions, 2);
    b->block = body;
}

void mb_if_end(mb *b, mb_if *branch)
{
    mb_op(b, "scf.yield", (MlirType){0}, NULL, 0, NULL, 0);
    b->block = branch->saved;
}

MlirBlock mb_block(mb *b)
{
    MlirBlock block = mlirBlockCreate(0, NULL, NULL);
    mlirRegionAppendOwnedBlock(mlirBlockGetParentRegion(b->block), block);
    return block;
}

void mb_enter(mb *b, MlirBlock block)
{
    b->block = block;
}

void mb_branch(mb *b, MlirBlock to)
{
    MlirOperationState state = mlirOperationStateGet(ref("cf.br"), b->loc);
    state.nSuccessors = 1;
    state.successors = owned(b, &to, 1, sizeof to);
    mlirBlockAppendOwnedOperation(b->block, mlirOperationCreate(&state));
}

void mb_branch_if(mb *b, MlirValue cond, MlirBlock yes, MlirBlock no)
{
    int32_t segments[] = {1, 0, 0};
    MlirNamedAttribute attr = named(b, "operandSegmentSizes",
                                    mlirDenseI32ArrayGet(b->context, 3, segments));
    MlirOperationState state = mlirOperationStateGet(ref("cf.cond_br"), b->loc);
    MlirBlock successors[] = {yes, no};
    state.nOperands = state.nAttributes = 1;
    state.operands = owned(b, &cond, 1, sizeof cond);
    state.attributes = owned(b, &attr, 1, sizeof attr);
    state.nSuccessors = PM_COUNT(successors);
    state.successors = owned(b, successors, PM_COUNT(successors), sizeof *successors);
    mlirBlockAppendOwnedOperation(b->block, mlirOperationCreate(&state));
}

void mb_return_if(mb *b, MlirValue cond)
{
    MlirBlock leave = mb_block(b), go_on = mb_block(b);
    mb_branch_if(b, cond, leave, go_on);
    mb_enter(b, leave);
    mb_return(b, (MlirValue){0});
    mb_enter(b, go_on);
}

typedef struct text_sink {
    char *data;
    size_t n, cap;
    bool is_cut; ///< there was no memory
} text_sink;

static void append(MlirStringRef part, void *user)
{
    text_sink *sink = user;
    if (sink->n + part.length + 1 > sink->cap) {
        size_t cap = (sink->n + part.length + 1) * 2;
        char *grown = realloc(sink->data, cap);
        if (!grown) {
            sink->is_cut = true;
            return;
        }
        sink->data = grown;
        sink->cap = cap;
    }
    memcpy(sink->data + sink->n, part.data, part.length);
    sink->n += part.length;
    sink->data[sink->n] = '\0';
}

char *mb_text(mb *b)
{
    text_sink sink = {0};
    mlirOperationPrint(mlirModuleGetOperation(b->module), append, &sink);
    if (sink.is_cut) {
        free(sink.data);
        pm_arena_out_of_memory(b->arena);
    }
    char *text = pm_arena_strdup(b->arena, sink.data ? sink.data : "");
    free(sink.data);
    return text;
}
