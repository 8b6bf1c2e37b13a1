/* The way of a model: file, wire scan, protobuf, opsets and functions, main graph. */
#include <inttypes.h>
#include <string.h>

#include "frontend/frontend.h"
#include "frontend/onnx/onnx_import.h"
#include "frontend/onnx/onnx_wire.h"

enum { MIN_IR_VERSION = 3, MAX_IR_VERSION = 14 };

/* ---- opsets and functions ---- */

static pm_status check_opsets(pm_onnx *onnx, const pm_loc *loc, Onnx__OpsetId *const *opsets,
                              size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *domain = pm_onnx_domain(opsets[i]->domain);
        for (size_t k = 0; k < i; k++) {
            if (strcmp(pm_onnx_domain(opsets[k]->domain), domain) == 0)
                return pm_error(onnx->diag, loc, PM_ERR_INVALID,
                                "operator domain '%s' is imported twice",
                                *domain ? domain : "ai.onnx");
        }
        if (*domain == 0 &&
            (opsets[i]->version < PM_ONNX_MIN_OPSET || opsets[i]->version > PM_ONNX_MAX_OPSET))
            return pm_error(onnx->diag, loc, PM_ERR_UNSUPPORTED,
                            "opset %" PRId64 " is not supported, only %d to %d", opsets[i]->version,
                            PM_ONNX_MIN_OPSET, PM_ONNX_MAX_OPSET);
    }
    return PM_OK;
}

static pm_status check_functions(pm_onnx *onnx)
{
    const Onnx__Model *model = onnx->model;
    for (size_t i = 0; i < model->n_functions; i++) {
        const Onnx__Function *function = model->functions[i];
        pm_loc loc = {.file = onnx->path,
                      .what = "function",
                      .name = function->name ? function->name : "",
                      .detail = function->domain};
        if (!*loc.name)
            return pm_error(onnx->diag, &loc, PM_ERR_INVALID, "function %zu has no name", i);
        if (!pm_onnx_add_function(onnx, function))
            return pm_error(onnx->diag, &loc, PM_ERR_INVALID, "is defined twice");
        PM_TRY(check_opsets(onnx, &loc, function->opset_import, function->n_opset_import));
    }
    return PM_OK;
}

/* ---- inputs and outputs ---- */

static const char *type_kind(const Onnx__Type *type)
{
    return type->tensor_type              ? "a tensor"
           : type->has_sequence_type      ? "a sequence"
           : type->has_map_type           ? "a map"
           : type->has_optional_type      ? "an optional value"
           : type->has_sparse_tensor_type ? "a sparse tensor"
           : type->has_opaque_type        ? "opaque"
                                          : "of no type";
}

static pm_status input_dim(pm_onnx *onnx, const pm_loc *loc, const char *input, size_t index,
                           const Onnx__Dimension *dim, pm_dim *out)
{
    pm_module *m = onnx->module;
    bool named = dim->dim_param && *dim->dim_param;
    if (dim->has_dim_value && named)
        return pm_error(onnx->diag, loc, PM_ERR_INVALID, "dim %zu has both a value and a name",
                        index);
    if (dim->has_dim_value) {
        if (dim->dim_value < 0)
            return pm_error(onnx->diag, loc, PM_ERR_INVALID, "dim %zu is %" PRId64, index,
                            dim->dim_value);
        *out = pm_dim_const(m, dim->dim_value);
        return PM_OK;
    }
    *out = named ? pm_onnx_parse_dim(onnx, dim->dim_param) : PM_DIM_NONE;
    if (*out == PM_DIM_NONE && named)
        *out = pm_dim_find(m, dim->dim_param);
    if (*out == PM_DIM_NONE)
        *out = pm_dim_symbol(
            m, named ? dim->dim_param : pm_arena_printf(onnx->temp, "%s_%zu", input, index), 0,
            INT64_MAX);
    return PM_OK;
}

static pm_status input_type(pm_onnx *onnx, const pm_loc *loc, const Onnx__ValueInfo *info,
                            const pm_type **out)
{
    if (!info->type || !info->type->tensor_type)
        return pm_error(onnx->diag, loc, PM_ERR_UNSUPPORTED, "is %s; only tensors are supported",
                        info->type ? type_kind(info->type) : "of no type");
    const Onnx__TensorType *type = info->type->tensor_type;
    if (strcmp(type_kind(info->type), "a tensor") != 0 || info->type->has_sequence_type ||
        info->type->has_map_type || info->type->has_optional_type)
        return pm_error(onnx->diag, loc, PM_ERR_INVALID, "has more than one type");
    pm_elem elem;
    if (!pm_elem_from_onnx(type->elem_type, &elem))
        return pm_error(onnx->diag, loc, PM_ERR_UNSUPPORTED,
                        "element type %" PRId32 " (%s) is not supported", type->elem_type,
                        pm_onnx_type_name(type->elem_type));
    if (!type->shape)
        return pm_error(onnx->diag, loc, PM_ERR_UNSUPPORTED,
                        "has no shape; its rank must be known");
    if (type->shape->n_dim > PM_MAX_RANK)
        return pm_error(onnx->diag, loc, PM_ERR_UNSUPPORTED, "rank %zu is above %d",
                        type->shape->n_dim, PM_MAX_RANK);
    pm_dim dims[PM_MAX_RANK];
    for (size_t i = 0; i < type->shape->n_dim; i++)
        PM_TRY(input_dim(onnx, loc, info->name, i, type->shape->dim[i], &dims[i]));
    *out = pm_type_get(onnx->module, elem, (int32_t)type->shape->n_dim, dims);
    if (pm_dim_is_error(onnx->module, pm_type_bytes(onnx->module, *out)))
        return pm_error(onnx->diag, loc, PM_ERR_INVALID, "the product of its dims overflows");
    return PM_OK;
}

/* An initializer of the same name is an input's default value; we compile it in. */
static bool has_initializer(const pm_map *initializers, const char *name)
{
    return pm_map_get_str(initializers, name) != NULL;
}

static pm_status import_inputs(pm_onnx_scope *scope, const Onnx__Graph *graph)
{
    pm_onnx *onnx = scope->onnx;
    pm_map initializers;
    pm_map_init(&initializers, onnx->temp);
    pm_onnx_declare_dims(onnx, graph);
    for (size_t i = 0; i < graph->n_initializer; i++) {
        if (graph->initializer[i]->name)
            pm_map_put_str(&initializers, graph->initializer[i]->name, graph->initializer[i]);
    }
    for (size_t i = 0; i < graph->n_input; i++) {
        const Onnx__ValueInfo *info = graph->input[i];
        pm_loc loc = {.file = onnx->path, .what = "input", .name = info->name};
        pm_onnx_binding *binding;
        const pm_type *type = NULL;
        if (!info->name || !*info->name) {
            loc = (pm_loc){.file = onnx->path};
            return pm_error(onnx->diag, &loc, PM_ERR_INVALID, "input %zu has no name", i);
        }
        if (has_initializer(&initializers, info->name))
            continue;
        PM_TRY(pm_onnx_declare(scope, &loc, info->name, &binding));
        PM_TRY(input_type(onnx, &loc, info, &type));
        binding->value = pm_graph_add_arg(scope->graph, info->name, type, -1);
    }
    return PM_OK;
}

/* What the model says about an output, where it contradicts what follows from the graph. */
static pm_status check_output(pm_onnx *onnx, const pm_loc *loc, const Onnx__ValueInfo *info,
                              const pm_value *value)
{
    const Onnx__TensorType *type = info->type ? info->type->tensor_type : NULL;
    pm_elem elem;
    if (!type)
        return PM_OK;
    if (type->elem_type &&
        (!pm_elem_from_onnx(type->elem_type, &elem) || elem != value->type->elem))
        return pm_error(onnx->diag, loc, PM_ERR_INVALID,
                        "is declared as %s, but the graph computes %s",
                        pm_onnx_type_name(type->elem_type), pm_elem_name(value->type->elem));
    if (!type->shape)
        return PM_OK;
    bool fits = type->shape->n_dim == (size_t)value->type->rank;
    for (size_t i = 0; fits && i < type->shape->n_dim; i++) {
        int64_t have;
        const Onnx__Dimension *dim = type->shape->dim[i];
        fits = !dim->has_dim_value || !pm_dim_is_const(onnx->module, value->type->dims[i], &have) ||
               have == dim->dim_value;
    }
    if (!fits)
        pm_warning(onnx->diag, loc, "other_shape", "is declared with another shape than the graph computes: %s",
                   pm_type_text(onnx->module, value->type));
    return PM_OK;
}

static pm_status import_outputs(pm_onnx_scope *scope, const Onnx__Graph *graph)
{
    pm_onnx *onnx = scope->onnx;
    pm_map seen;
    pm_map_init(&seen, onnx->temp);
    for (size_t i = 0; i < graph->n_output; i++) {
        const Onnx__ValueInfo *info = graph->output[i];
        pm_loc loc = {.file = onnx->path, .what = "output", .name = info->name};
        pm_value *value;
        if (!info->name || !*info->name) {
            loc = (pm_loc){.file = onnx->path};
            return pm_error(onnx->diag, &loc, PM_ERR_INVALID, "output %zu has no name", i);
        }
        void **slot = pm_map_at(&seen, info->name, strlen(info->name));
        if (*slot)
            return pm_error(onnx->diag, &loc, PM_ERR_INVALID, "is listed twice");
        *slot = (void *)info;
        PM_TRY(pm_onnx_value(scope, &loc, info->name, &value));
        PM_TRY(check_output(onnx, &loc, info, value));
        pm_graph_add_result(scope->graph, info->name, value, -1);
    }
    if (graph->n_output == 0) {
        pm_loc loc = {.file = onnx->path};
        return pm_error(onnx->diag, &loc, PM_ERR_INVALID, "the graph has no outputs");
    }
    return PM_OK;
}

static pm_status import_model(pm_onnx *onnx)
{
    const Onnx__Model *model = onnx->model;
    pm_loc loc = {.file = onnx->path};
    if (!model->graph)
        return pm_error(onnx->diag, &loc, PM_ERR_INVALID, "there is no graph: not an ONNX model?");
    if (model->ir_version < MIN_IR_VERSION || model->ir_version > MAX_IR_VERSION)
        return pm_error(onnx->diag, &loc,
                        model->has_ir_version ? PM_ERR_UNSUPPORTED : PM_ERR_INVALID,
                        "IR version %" PRId64 " is not supported, only %d to %d", model->ir_version,
                        MIN_IR_VERSION, MAX_IR_VERSION);
    PM_TRY(check_opsets(onnx, &loc, model->opset_import, model->n_opset_import));
    PM_TRY(check_functions(onnx));
    if (model->graph->n_sparse_initializer)
        return pm_error(onnx->diag, &loc, PM_ERR_UNSUPPORTED, "sparse initializers");
    pm_onnx_frame frame = {.opsets = model->opset_import, .n_opsets = model->n_opset_import};
    pm_onnx_scope scope;
    pm_graph *entry = pm_entry_create(onnx->module, "main");
    pm_onnx_scope_init(&scope, onnx, &frame, NULL, entry);
    PM_TRY(import_inputs(&scope, model->graph));
    PM_TRY(pm_onnx_import_body(&scope, &loc, model->graph->node, model->graph->n_node,
                               model->graph->initializer, model->graph->n_initializer));
    return import_outputs(&scope, model->graph);
}

/* ---- memory of the import ---- */

/* protobuf-c allocates in the arena of the import and frees nothing. */
static void *arena_alloc(void *arena, size_t size)
{
    return pm_arena_alloc(arena, size, _Alignof(max_align_t));
}

static void arena_free(void *arena, void *pointer)
{
    (void)arena, (void)pointer;
}

static void destroy_temp(void *box)
{
    pm_arena_destroy(*(pm_arena **)box);
    *(pm_arena **)box = NULL;
}

static pm_status load(pm_arena *temp, pm_arena *arena, pm_diag *diag, const char *path,
                      pm_module **out_module)
{
    pm_file *file;
    pm_onnx_wire wire;
    pm_loc loc = {.file = path};
    PM_TRY(pm_file_open(arena, diag, path, &file));
    PM_TRY(pm_file_map(arena, diag, file));
    PM_TRY(pm_onnx_wire_scan(temp, diag, path, file->data, file->size, &wire));
    ProtobufCAllocator allocator = {
        .alloc = arena_alloc, .free = arena_free, .allocator_data = temp};
    const Onnx__Model *model = onnx__model__unpack(&allocator, wire.size, wire.bytes);
    if (!model)
        return pm_error(diag, &loc, PM_ERR_INVALID, "not a valid ONNX model");
    const char *name = model->graph && model->graph->name ? model->graph->name : "";
    pm_onnx onnx = {.module = pm_module_create(arena, diag, *name ? name : "model"),
                    .temp = temp,
                    .diag = diag,
                    .path = path,
                    .dir = pm_path_dir(temp, path),
                    .file = file,
                    .model = model};
    pm_map_init(&onnx.functions, temp);
    pm_map_init(&onnx.externals, temp);
    pm_map_init(&onnx.rows, temp);
    pm_map_init(&onnx.tensors, temp);
    pm_map_init(&onnx.float8, temp);
    PM_TRY(import_model(&onnx));
    *out_module = onnx.module;
    return PM_OK;
}

pm_status pm_onnx_load(pm_arena *arena, pm_diag *diag, const char *path, pm_module **out_module)
{
    *out_module = NULL;
    pm_arena **box = PM_NEW(arena, pm_arena *);
    *box = pm_arena_create();
    if (!*box)
        return pm_error(diag, NULL, PM_ERR_NO_MEMORY, "out of memory");
    /* Should memory run out, the jump passes by here: then the arena's end frees the box. */
    jmp_buf *target = pm_arena_on_oom(arena, NULL);
    pm_arena_on_oom(arena, target);
    pm_arena_on_oom(*box, target);
    pm_arena_defer(arena, destroy_temp, box);
    pm_status status = load(*box, arena, diag, path, out_module);
    destroy_temp(box);
    return status;
}
