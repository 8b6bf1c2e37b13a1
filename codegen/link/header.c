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

/// What must not be the name of a parameter: words of C and C++, macros of their libraries, and
/// what the generated function itself uses.
static const char *const reserved[] = {
    "alignas",
    "alignof",
    "and",
    "and_eq",
    "asm",
    "auto",
    "bitand",
    "bitor",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "char8_t",
    "char16_t",
    "char32_t",
    "class",
    "co_await",
    "co_return",
    "co_yield",
    "compl",
    "concept",
    "const",
    "const_cast",
    "consteval",
    "constexpr",
    "constinit",
    "continue",
    "decltype",
    "default",
    "delete",
    "do",
    "double",
    "dynamic_cast",
    "else",
    "enum",
    "errno",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "i386",
    "if",
    "inline",
    "inputs",
    "int",
    "int16_t",
    "int32_t",
    "int64_t",
    "int8_t",
    "linux",
    "long",
    "mutable",
    "namespace",
    "new",
    "noexcept",
    "not",
    "not_eq",
    "NULL",
    "nullptr",
    "operator",
    "or",
    "or_eq",
    "outputs",
    "private",
    "protected",
    "public",
    "register",
    "reinterpret_cast",
    "requires",
    "restrict",
    "return",
    "session",
    "short",
    "signed",
    "size_t",
    "sizeof",
    "static",
    "static_assert",
    "static_cast",
    "stderr",
    "stdin",
    "stdout",
    "struct",
    "switch",
    "template",
    "this",
    "thread_local",
    "throw",
    "true",
    "try",
    "typedef",
    "typeid",
    "typename",
    "typeof",
    "uint16_t",
    "uint32_t",
    "uint64_t",
    "uint8_t",
    "union",
    "unix",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "wchar_t",
    "while",
    "xor",
    "xor_eq",
};

/// An entry as it is written: the C names of its parameters.
typedef struct entry_header {
    FILE *out;
    const pm_module *module;
    const pm_graph *graph;
    const char *
        *symbols; ///< by symbol; NULL: no input has it as a plain dim, so that it is no parameter
    const char **inputs, **outputs;
} entry_header;

/// `name` with all that no C identifier has replaced, and unlike all that are `taken`.
static const char *unique_name(pm_arena *arena, pm_map *taken, const char *name)
{
    char *clean = pm_arena_printf(arena, "%s%s", name && isdigit((unsigned char)*name) ? "_" : "",
                                  name && *name ? name : "value");
    for (char *c = clean; *c; c++)
        if (!isalnum((unsigned char)*c))
            *c = '_';
    // Names of the API begin with pm_, those of compilers with __ or _A.
    if (strncmp(clean, "pm_", 3) == 0 || strncmp(clean, "PM_", 3) == 0 ||
        (clean[0] == '_' && (clean[1] == '_' || isupper((unsigned char)clean[1]))))
        clean = pm_arena_printf(arena, "x_%s", clean);
    const char *unique = clean;
    uintptr_t last =
        (uintptr_t)pm_map_get_str(taken, clean); // what the latest of that name is numbered
    while (last > 0 && pm_map_get_str(taken, unique))
        unique = pm_arena_printf(arena, "%s_%zu", clean, (size_t)++last);
    pm_map_put_str(taken, clean, (void *)(last > 0 ? last : 1));
    if (unique != clean)
        pm_map_put_str(taken, unique, (void *)(uintptr_t)1);
    return unique;
}

static void name_parameters(entry_header *e, pm_arena *arena)
{
    const pm_module *m = e->module;
    const pm_graph *g = e->graph;
    pm_map taken;
    pm_map_init(&taken, arena);
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        pm_map_put_str(&taken, reserved[i], (void *)(uintptr_t)1);
    e->symbols = PM_NEW_ARRAY(arena, const char *, m->symbols.n);
    e->inputs = PM_NEW_ARRAY(arena, const char *, g->args.n);
    e->outputs = PM_NEW_ARRAY(arena, const char *, g->results.n);
    for (size_t i = 0; i < m->symbols.n; i++)
        e->symbols[i] = NULL;
    for (size_t i = 0; i < g->args.n; i++)
        for (int32_t k = 0; g->arg_states.data[i] < 0 && k < g->args.data[i]->type->rank; k++) {
            uint32_t s;
            if (pm_dim_is_symbol(m, g->args.data[i]->type->dims[k], &s))
                e->symbols[s] = "";
        }
    for (size_t i = 0; i < m->symbols.n; i++)
        if (e->symbols[i])
            e->symbols[i] = unique_name(arena, &taken, m->symbols.data[i].name);
    for (size_t i = 0; i < g->args.n; i++)
        e->inputs[i] =
            g->arg_states.data[i] < 0 ? unique_name(arena, &taken, g->args.data[i]->name) : NULL;
    for (size_t i = 0; i < g->results.n; i++)
        e->outputs[i] = g->result_states.data[i] < 0
                            ? unique_name(arena, &taken, g->result_names.data[i])
                            : NULL;
}

enum { DIM_DEPTH = 16, DIM_WORDS = 256 };

/// Can the dim be computed from the parameters, in an expression of decent size?
static bool dim_is_expressible(const entry_header *e, pm_dim dim, int depth, int *words)
{
    pm_dim_info info = pm_dim_get(e->module, dim);
    if (++*words > DIM_WORDS || depth > DIM_DEPTH)
        return false;
    if (info.kind == PM_DIM_CONST)
        return true;
    if (info.kind == PM_DIM_SYMBOL)
        return e->symbols[info.value] != NULL;
    // min and max write their operands twice, ceildiv its second one
    bool twice = info.kind == PM_DIM_MIN || info.kind == PM_DIM_MAX;
    for (int again = 0; again <= (twice || info.kind == PM_DIM_CEILDIV); again++)
        if (((again == 0 || twice) && !dim_is_expressible(e, info.a, depth + 1, words)) ||
            !dim_is_expressible(e, info.b, depth + 1, words))
            return false;
    return true;
}

static bool type_is_expressible(const entry_header *e, const pm_type *type)
{
    for (int32_t i = 0; i < type->rank; i++) {
        int words = 0;
        if (!dim_is_expressible(e, type->dims[i], 0, &words))
            return false;
    }
    return true;
}

/// A dim as a C expression over the parameters.
static void write_dim(const entry_header *e, pm_dim dim)
{
    pm_dim_info info = pm_dim_get(e->module, dim);
    if (info.kind == PM_DIM_CONST) {
        fprintf(e->out, "%" PRId64, info.value);
    } else if (info.kind == PM_DIM_SYMBOL) {
        fputs(e->symbols[info.value], e->out);
    } else if (info.kind == PM_DIM_CEILDIV) {
        fputs("((", e->out);
        write_dim(e, info.a);
        fputs(" + ", e->out);
        write_dim(e, info.b);
        fputs(" - 1) / ", e->out);
        write_dim(e, info.b);
        fputs(")", e->out);
    } else {
        static const char *const operators[] = {[PM_DIM_ADD] = "+",      [PM_DIM_MUL] = "*",
                                                [PM_DIM_MIN] = "<",      [PM_DIM_MAX] = ">",
                                                [PM_DIM_FLOORDIV] = "/", [PM_DIM_MOD] = "%"};
        fputs("(", e->out);
        write_dim(e, info.a);
        fprintf(e->out, " %s ", operators[info.kind]);
        write_dim(e, info.b);
        if (info.kind == PM_DIM_MIN || info.kind == PM_DIM_MAX) {
            fputs(" ? ", e->out);
            write_dim(e, info.a);
            fputs(" : ", e->out);
            write_dim(e, info.b);
        }
        fputs(")", e->out);
    }
}

/// Text of the model within a comment, which no text may leave.
static void write_comment(FILE *out, const char *text)
{
    for (; text && *text; text++)
        fputc((unsigned char)*text < ' ' || *text == '\\' || *text == 0x7f ? '?' : *text, out);
}

static void write_arg(const entry_header *e, const pm_type *type, const char *name)
{
    /* No designated initialisers: C++ before 20 has none. */
    fprintf(e->out, "        {(void *)%s, sizeof(%s)", name, c_type(type->elem));
    for (int32_t i = 0; i < type->rank; i++) {
        fputs(" * (size_t)", e->out);
        write_dim(e, type->dims[i]);
    }
    fprintf(e->out, ", %d, {", type->rank);
    for (int32_t i = 0; i < type->rank; i++) {
        fputs(i ? ", " : "", e->out);
        write_dim(e, type->dims[i]);
    }
    fputs(type->rank ? "}},\n" : "0}},\n", e->out);
}

static void write_arg_comment(const entry_header *e, const char *what, const char *name,
                              const pm_type *type)
{
    fprintf(e->out, "///   %s ", what);
    write_comment(e->out, name);
    fputs(": ", e->out);
    write_comment(e->out, pm_type_text((pm_module *)e->module, type));
    fputs("\n", e->out);
}

/// The table `name` of those that are no states; how many they are. In C, no array is empty.
static int write_args(const entry_header *e, const char *table, bool in)
{
    int n = 0;
    fprintf(e->out, "    pm_tensor_arg %s[] = {\n", table);
    for (size_t i = 0; i < (in ? e->graph->args.n : e->graph->results.n); i++) {
        const char *name = in ? e->inputs[i] : e->outputs[i];
        if (name) {
            write_arg(e, (in ? e->graph->args.data[i] : e->graph->results.data[i])->type, name);
            n++;
        }
    }
    fputs(n ? "    };\n" : "        {0, 0, 0, {0}},\n    };\n", e->out);
    return n;
}

/// static inline pm_status NAME_ENTRY(pm_session *session, int64_t SYMBOL…, const T *in…, T *out…)
static void write_function(const entry_header *e, uint32_t number, const char *symbol,
                           const char *entry)
{
    const pm_graph *g = e->graph;
    fputs("/// Runs entry `", e->out);
    write_comment(e->out, g->name);
    fputs("`. Tensors are row-major:\n", e->out);
    for (size_t i = 0; i < g->args.n; i++)
        if (e->inputs[i])
            write_arg_comment(e, "in ", g->args.data[i]->name, g->args.data[i]->type);
    for (size_t i = 0; i < g->results.n; i++)
        if (e->outputs[i])
            write_arg_comment(e, "out", g->result_names.data[i], g->results.data[i]->type);
    fprintf(e->out, "static inline pm_status %s_%s(pm_session *session", symbol, entry);
    for (size_t s = 0; s < e->module->symbols.n; s++)
        if (e->symbols[s])
            fprintf(e->out, ", int64_t %s", e->symbols[s]);
    for (size_t i = 0; i < g->args.n; i++)
        if (e->inputs[i])
            fprintf(e->out, ", const %s *%s", c_type(g->args.data[i]->type->elem), e->inputs[i]);
    for (size_t i = 0; i < g->results.n; i++)
        if (e->outputs[i])
            fprintf(e->out, ", %s *%s", c_type(g->results.data[i]->type->elem), e->outputs[i]);
    fputs(")\n{\n", e->out);
    int n_in = write_args(e, "inputs", true), n_out = write_args(e, "outputs", false);
    fprintf(e->out, "    return pm_session_run(session, %u, inputs, %d, outputs, %d);\n}\n\n",
            number, n_in, n_out);
}

static void write_entry(FILE *out, const pm_module *m, uint32_t number, const char *symbol,
                        pm_map *functions)
{
    pm_arena *arena = pm_arena_child(m->arena);
    const pm_graph *g = m->entries.data[number];
    entry_header e = {.out = out, .module = m, .graph = g};
    name_parameters(&e, arena);
    bool expressible = true;
    for (size_t i = 0; i < g->args.n; i++)
        expressible =
            expressible && (!e.inputs[i] || type_is_expressible(&e, g->args.data[i]->type));
    for (size_t i = 0; i < g->results.n; i++)
        expressible =
            expressible && (!e.outputs[i] || type_is_expressible(&e, g->results.data[i]->type));
    if (expressible) {
        write_function(&e, number, symbol, unique_name(m->arena, functions, g->name));
    } else {
        fputs("// Entry `", out);
        write_comment(out, g->name);
        fputs(
            "` has sizes that do not follow from plain dims of its inputs: use pm_session_run.\n\n",
            out);
    }
    pm_arena_destroy(arena);
}

pm_status pm_header_write(const pm_module *m, const char *symbol, FILE *out)
{
    fputs("/// Made by pimoec from model ", out);
    write_comment(out, m->name);
    fputs(": link the library beside this header.\n", out);
    fprintf(out, "#ifndef PM_MODEL_%s_H\n#define PM_MODEL_%s_H\n\n", symbol, symbol);
    pm_embedded api = pm_embedded_runtime_header();
    // The runtime's API is written into the header, so that a library needs nothing installed
    // beside it.
    fputs("#if defined(__has_include)\n#if __has_include(\"pm/runtime.h\")\n#include "
          "\"pm/runtime.h\"\n#endif\n#endif\n"
          "#ifndef PM_RUNTIME_H\n#define PM_STATUS_FROM_MODEL_HEADER\n",
          out);
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
    fprintf(out, "extern const pm_rt_model pm_model_%s;\n\n#ifdef __cplusplus\n}\n#endif\n\n",
            symbol);
    fprintf(out,
            "/// Opens the model: pm_model_open with this library's descriptor.\n"
            "static inline pm_status %s_open(pm_model **out_model)\n{\n"
            "    return pm_model_open(&pm_model_%s, NULL, out_model);\n}\n\n",
            symbol, symbol);
    pm_map functions;
    pm_map_init(&functions, m->arena);
    pm_map_put_str(&functions, "open", (void *)(uintptr_t)1);
    for (uint32_t i = 0; i < m->entries.n && !pm_graph_is_host_twin(m->entries.data[i]); i++)
        write_entry(out, m, i, symbol, &functions);
    fputs("#endif\n", out);
    return ferror(out) ? PM_ERR_IO : PM_OK;
}
