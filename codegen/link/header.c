/// The C header of a compiled library: the model's descriptor and typed entry points.
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "codegen/codegen.h"
#include "codegen/embedded.h"

static const char *c_type(pm_elem elem)
{
    switch (elem) {
    case PM_F32: return "float";
    case PM_F64: return "double";
    case PM_F16:
    case PM_BF16:
    case PM_U16: return "uint16_t";
    case PM_I64: return "int64_t";
    case PM_I32: return "int32_t";
    case PM_I16: return "int16_t";
    case PM_I8: return "int8_t";
    case PM_U64: return "uint64_t";
    case PM_U32: return "uint32_t";
    default: return "uint8_t";
    }
}

/// A name as a C identifier.
static void identifier(FILE *out, const char *name)
{
    if (!name || !*name)
        name = "value";
    if (isdigit((unsigned char)*name))
        fputc('_', out);
    for (; *name; name++)
        fputc(isalnum((unsigned char)*name) ? *name : '_', out);
}

/// Symbols that an entry's inputs have as plain dims: they become parameters.
static bool uses_symbol(const pm_module *m, const pm_graph *g, uint32_t symbol)
{
    for (size_t i = 0; i < g->args.n; i++)
        for (int32_t k = 0; g->arg_states.data[i] < 0 && k < g->args.data[i]->type->rank; k++) {
            uint32_t s;
            if (pm_dim_is_symbol(m, g->args.data[i]->type->dims[k], &s) && s == symbol)
                return true;
        }
    return false;
}

/// A dim as a C expression over those parameters.
static void write_dim(FILE *out, const pm_module *m, pm_dim dim, int depth)
{
    static const char *const functions[] = {[PM_DIM_FLOORDIV] = "/", [PM_DIM_MOD] = "%"};
    pm_dim_info info = pm_dim_get(m, dim);
    if (info.kind == PM_DIM_CONST) {
        fprintf(out, "%" PRId64, info.value);
    } else if (info.kind == PM_DIM_SYMBOL) {
        identifier(out, m->symbols.data[info.value].name);
    } else if (depth > 16) {
        fputs("0", out);
    } else if (info.kind == PM_DIM_CEILDIV) {
        fputs("((", out);
        write_dim(out, m, info.a, depth + 1);
        fputs(" + ", out);
        write_dim(out, m, info.b, depth + 1);
        fputs(" - 1) / ", out);
        write_dim(out, m, info.b, depth + 1);
        fputs(")", out);
    } else {
        const char *op = info.kind == PM_DIM_ADD ? "+" : info.kind == PM_DIM_MUL ? "*"
                         : info.kind == PM_DIM_MIN ? "<" : info.kind == PM_DIM_MAX ? ">" : functions[info.kind];
        bool choose = *op == '<' || *op == '>';
        fputs("(", out);
        write_dim(out, m, info.a, depth + 1);
        fprintf(out, " %s ", op);
        write_dim(out, m, info.b, depth + 1);
        if (choose) {
            fputs(" ? ", out);
            write_dim(out, m, info.a, depth + 1);
            fputs(" : ", out);
            write_dim(out, m, info.b, depth + 1);
        }
        fputs(")", out);
    }
}

static bool is_dynamic(const pm_module *m, const pm_type *type)
{
    for (int32_t i = 0; i < type->rank; i++)
        if (pm_dim_is_dynamic(m, type->dims[i]))
            return true;
    return false;
}

static void write_arg(FILE *out, const pm_module *m, const pm_type *type, const char *name, bool input)
{
    /* No designated initialisers: C++ before 20 has none. */
    fputs("        {(void *)", out);
    identifier(out, name);
    fprintf(out, ", sizeof(%s)", c_type(type->elem));
    for (int32_t i = 0; i < type->rank; i++) {
        fputs(" * (size_t)", out);
        write_dim(out, m, type->dims[i], 0);
    }
    fprintf(out, ", %d, {", type->rank);
    for (int32_t i = 0; i < type->rank; i++) {
        fputs(i ? ", " : "", out);
        write_dim(out, m, type->dims[i], 0);
    }
    fputs(type->rank ? "}},\n" : "0}},\n", out);
    (void)input;
}

/// static inline pm_status NAME_ENTRY(pm_session *session, int64_t SYMBOL…, const T *in…, T *out…)
static void write_entry(FILE *out, const pm_module *m, const pm_graph *g, uint32_t number, const char *symbol)
{
    int n_in = 0, n_out = 0;
    for (size_t i = 0; i < g->results.n; i++)
        if (g->result_states.data[i] < 0 && is_dynamic(m, g->results.data[i]->type)) {
            fprintf(out, "/* entry %s: has results whose sizes are known only after a run: use pm_session_run. */\n", g->name);
            return;
        }
    fprintf(out, "/// Runs entry `%s`. Tensors are row-major:\n", g->name);
    for (size_t i = 0; i < g->args.n + g->results.n; i++) {
        bool in = i < g->args.n;
        size_t k = in ? i : i - g->args.n;
        if ((in ? g->arg_states.data[k] : g->result_states.data[k]) >= 0)
            continue;
        const pm_type *type = in ? g->args.data[k]->type : g->results.data[k]->type;
        fprintf(out, "///   %s %s: %s\n", in ? "in " : "out", in ? g->args.data[k]->name : g->result_names.data[k],
                pm_type_text((pm_module *)m, type));
    }
    fprintf(out, "static inline pm_status %s_%s(pm_session *session", symbol, g->name);
    for (uint32_t s = 0; s < m->symbols.n; s++)
        if (uses_symbol(m, g, s)) {
            fputs(", int64_t ", out);
            identifier(out, m->symbols.data[s].name);
        }
    for (size_t i = 0; i < g->args.n; i++)
        if (g->arg_states.data[i] < 0) {
            fprintf(out, ", const %s *", c_type(g->args.data[i]->type->elem));
            identifier(out, g->args.data[i]->name);
            n_in++;
        }
    for (size_t i = 0; i < g->results.n; i++)
        if (g->result_states.data[i] < 0) {
            fprintf(out, ", %s *", c_type(g->results.data[i]->type->elem));
            identifier(out, g->result_names.data[i]);
            n_out++;
        }
    fputs(")\n{\n    pm_tensor_arg inputs[] = {\n", out);
    for (size_t i = 0; i < g->args.n; i++)
        if (g->arg_states.data[i] < 0)
            write_arg(out, m, g->args.data[i]->type, g->args.data[i]->name, true);
    fputs("    };\n    pm_tensor_arg outputs[] = {\n", out);
    for (size_t i = 0; i < g->results.n; i++)
        if (g->result_states.data[i] < 0)
            write_arg(out, m, g->results.data[i]->type, g->result_names.data[i], false);
    fprintf(out, "    };\n    return pm_session_run(session, %u, inputs, %d, outputs, %d);\n}\n\n", number, n_in, n_out);
}

pm_status pm_header_write(const pm_module *m, const char *symbol, FILE *out)
{
    fprintf(out, "/// Made by pimoec from model %s: link the library beside this header.\n", m->name ? m->name : "");
    fprintf(out, "#ifndef PM_MODEL_%s_H\n#define PM_MODEL_%s_H\n\n", symbol, symbol);
    pm_embedded api = pm_embedded_runtime_header();
    // The runtime's API is written into the header, so that a library needs nothing installed beside it.
    fputs("#if defined(__has_include)\n#if __has_include(\"pm/runtime.h\")\n#include \"pm/runtime.h\"\n#endif\n#endif\n"
          "#ifndef PM_RUNTIME_H\n#define PM_STATUS_FROM_MODEL_HEADER\n", out);
    fwrite(pm_embedded_status_header().bytes, 1, pm_embedded_status_header().size, out);
    const char *text = (const char *)api.bytes;
    for (size_t at = 0; at < api.size;) { // without its own include of status.h
        const char *end = memchr(text + at, '\n', api.size - at);
        size_t n = end ? (size_t)(end - text) + 1 - at : api.size - at;
        if (!(n > 21 && memcmp(text + at, "#include \"pm/status.h\"", 22) == 0))
            fwrite(text + at, 1, n, out);
        at += n;
    }
    fputs("#endif\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n", out);
    fprintf(out, "extern const pm_rt_model pm_model_%s;\n\n#ifdef __cplusplus\n}\n#endif\n\n", symbol);
    fprintf(out, "/// Opens the model: pm_model_open with this library's descriptor.\n"
                 "static inline pm_status %s_open(pm_model **out_model)\n{\n"
                 "    return pm_model_open(&pm_model_%s, NULL, out_model);\n}\n\n", symbol, symbol);
    for (uint32_t i = 0; i < m->entries.n; i++)
        write_entry(out, m, m->entries.data[i], i, symbol);
    fputs("#endif\n", out);
    return ferror(out) ? PM_ERR_IO : PM_OK;
}
