#include "runtime/program_args.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/npy.h"
#include "runtime/rt_internal.h"

enum {
    OPT_IN = 256, OPT_OUT, OPT_DESCRIBE, OPT_BENCH, OPT_SELFTEST, OPT_JSON, OPT_STATS, OPT_THREADS, OPT_REPEAT,
    OPT_SHAPE, OPT_ENTRY, OPT_TEMPERATURE, OPT_TOP_K, OPT_TOP_P, OPT_SEED, OPT_PERPLEXITY, OPT_CONTEXT, OPT_BATCH,
};

static const struct option options[] = {
    {"in", required_argument, NULL, OPT_IN},
    {"out", required_argument, NULL, OPT_OUT},
    {"describe", no_argument, NULL, OPT_DESCRIBE},
    {"bench", no_argument, NULL, OPT_BENCH},
    {"selftest", no_argument, NULL, OPT_SELFTEST},
    {"json", no_argument, NULL, OPT_JSON},
    {"stats", no_argument, NULL, OPT_STATS},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"repeat", required_argument, NULL, OPT_REPEAT},
    {"shape", required_argument, NULL, OPT_SHAPE},
    {"entry", required_argument, NULL, OPT_ENTRY},
    {"temperature", required_argument, NULL, OPT_TEMPERATURE},
    {"top-k", required_argument, NULL, OPT_TOP_K},
    {"top-p", required_argument, NULL, OPT_TOP_P},
    {"seed", required_argument, NULL, OPT_SEED},
    {"perplexity", required_argument, NULL, OPT_PERPLEXITY},
    {"context", required_argument, NULL, OPT_CONTEXT},
    {"batch", required_argument, NULL, OPT_BATCH},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static void help(const char *name)
{
    printf("Examples:\n"
           "  %s \"Once upon a time\" -n 100 --temperature 0.8    a language model writes on\n"
           "  %s --in x=@x.npy --out y=@y.npy                   tensors in, tensors out\n"
           "  %s --describe                                     what it takes and gives\n"
           "\n"
           "Tensors\n"
           "  --in NAME=VALUE     @FILE.npy, @FILE.npz, 1,2,3 or random:4x64\n"
           "  --out NAME=@FILE    writes an output (the others are printed)\n"
           "  --entry NAME        which entry (default: forward, or the first)\n"
           "Text (language models)\n"
           "  PROMPT              or - for standard input; the continuation goes to standard output\n"
           "  -n N                tokens at most (100)\n"
           "  --temperature T     0 is greedy (0)\n"
           "  --top-k K, --top-p P, --seed S\n"
           "  --stats             speed and memory, on standard error\n"
           "  --perplexity FILE   how well the model predicts a text, in windows of --context N (256) tokens\n"
           "The program itself\n"
           "  --describe          entries, types, shapes, symbols, experts, bytes\n"
           "  --bench             time of an entry; --shape SYMBOL=N, --in (default: random), --repeat N\n"
           "  --selftest          checks weights and workers on this machine\n"
           "  --threads N         workers (default: one per core)\n"
           "  --json              machine-readable results\n",
           name, name, name);
}

static int usage(const char *what, const char *word)
{
    fprintf(stderr, "error: %s%s%s\nTry --help.\n", what, word ? " " : "", word ? word : "");
    return 2;
}

static bool integer(const char *text, int64_t lo, int64_t hi, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    *out = v;
    return end != text && !*end && !errno && v >= lo && v <= hi;
}

static bool number(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && !*end;
}

static bool add(char **list, size_t *n, char *text)
{
    if (*n == MAX_ASSIGNMENTS || !strchr(text, '='))
        return false;
    list[(*n)++] = text;
    return true;
}

int pm_program_parse(int argc, char **argv, pm_program_args *a)
{
    *a = (pm_program_args){.n = 100};
    int64_t v = 0;
    int c;
    opterr = 0;
    while ((c = getopt_long(argc, argv, "n:h", options, NULL)) != -1) {
        bool ok = true;
        switch (c) {
        case OPT_IN: ok = add(a->in, &a->n_in, optarg); break;
        case OPT_OUT: ok = add(a->out, &a->n_out, optarg); break;
        case OPT_SHAPE: ok = add(a->shape, &a->n_shape, optarg); break;
        case OPT_DESCRIBE: a->describe = true; break;
        case OPT_BENCH: a->bench = true; break;
        case OPT_SELFTEST: a->selftest = true; break;
        case OPT_JSON: a->json = true; break;
        case OPT_STATS: a->stats = true; break;
        case OPT_ENTRY: a->entry = optarg; break;
        case OPT_PERPLEXITY: a->perplexity = optarg; break;
        case OPT_THREADS: ok = integer(optarg, 1, 256, &v); a->threads = (int)v; break;
        case OPT_REPEAT: ok = integer(optarg, 1, 1000000, &v); a->repeat = (int)v; break;
        case OPT_BATCH: ok = integer(optarg, 1, 1 << 20, &a->batch); break;
        case OPT_CONTEXT: ok = integer(optarg, 2, INT32_MAX, &a->context); break;
        case OPT_TOP_K: ok = integer(optarg, 0, INT32_MAX, &a->top_k); break;
        case OPT_SEED: ok = integer(optarg, 0, INT64_MAX, &v); a->seed = (uint64_t)v; break;
        case OPT_TEMPERATURE: ok = number(optarg, &a->temperature); break;
        case OPT_TOP_P: ok = number(optarg, &a->top_p); break;
        case 'n': ok = integer(optarg, 0, INT64_MAX, &a->n); break;
        case 'h': help(argv[0]); return 0;
        default: return usage("unknown option or missing value:", argv[optind - 1]);
        }
        if (!ok)
            return usage("this value is not possible:", optarg);
    }
    if (optind < argc)
        a->prompt = argv[optind++];
    if (optind < argc)
        return usage("one prompt at a time; what is", argv[optind]);
    if (!a->prompt && !a->n_in && !a->describe && !a->bench && !a->selftest && !a->perplexity) {
        help(argv[0]);
        return 2;
    }
    return -1;
}

/// ---- tensors ----------------------------------------------------------------------------------------------

double pm_program_element(int32_t elem, const void *data, int64_t i)
{
    uint16_t h;
    uint32_t bits;
    float f;
    switch (elem) {
    case PM_F32: return (double)((const float *)data)[i];
    case PM_F64: return ((const double *)data)[i];
    case PM_BF16:
        bits = (uint32_t)((const uint16_t *)data)[i] << 16;
        memcpy(&f, &bits, 4);
        return (double)f;
    case PM_F16:
        h = ((const uint16_t *)data)[i];
        if ((h >> 10 & 31) == 0)
            return ((h & 0x8000) ? -1.0 : 1.0) * (h & 1023) * 0x1p-24;
        bits = (uint32_t)(h & 0x8000) << 16 | ((h >> 10 & 31) == 31 ? 255u : (uint32_t)(h >> 10 & 31) + 112) << 23 |
               (uint32_t)(h & 1023) << 13;
        memcpy(&f, &bits, 4);
        return (double)f;
    case PM_I64: return (double)((const int64_t *)data)[i];
    case PM_I32: return ((const int32_t *)data)[i];
    case PM_I16: return ((const int16_t *)data)[i];
    case PM_I8: return ((const int8_t *)data)[i];
    case PM_U64: return (double)((const uint64_t *)data)[i];
    case PM_U32: return ((const uint32_t *)data)[i];
    case PM_U16: return ((const uint16_t *)data)[i];
    default: return ((const uint8_t *)data)[i];
    }
}

static bool put_element(int32_t elem, void *data, int64_t i, double v, int64_t whole)
{
    switch (elem) {
    case PM_F32: ((float *)data)[i] = (float)v; return true;
    case PM_F64: ((double *)data)[i] = v; return true;
    case PM_I64: case PM_U64: ((int64_t *)data)[i] = whole; return true;
    case PM_I32: case PM_U32: ((int32_t *)data)[i] = (int32_t)whole; return true;
    case PM_I16: case PM_U16: ((int16_t *)data)[i] = (int16_t)whole; return true;
    case PM_I8: case PM_U8: ((int8_t *)data)[i] = (int8_t)whole; return true;
    case PM_BOOL: ((uint8_t *)data)[i] = v != 0; return true;
    case PM_BF16: {
        float f = (float)v;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        ((uint16_t *)data)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        return true;
    }
    default: return false;
    }
}

static pm_status allocate(const pm_port_info *port, pm_tensor_arg *out, int64_t *out_n)
{
    size_t size = port->elem_size;
    *out_n = 1;
    for (int32_t i = 0; i < out->rank; i++) {
        if (out->dims[i] < 0 || __builtin_mul_overflow(size, (size_t)out->dims[i], &size) || size > SIZE_MAX / 4)
            return pm_rt_error_set(PM_ERR_USAGE, "%s: the shape is too large", port->name);
        *out_n *= out->dims[i];
    }
    out->size = size;
    out->data = aligned_alloc(64, (size + 127) / 64 * 64);
    return out->data ? PM_OK : pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
}

static pm_status random_tensor(const pm_port_info *port, const char *shape, uint64_t seed, pm_tensor_arg *out)
{
    out->rank = 0;
    for (const char *at = shape; *at;) {
        char *end;
        long long n = strtoll(at, &end, 10);
        if (end == at || n < 0 || out->rank == PM_TENSOR_MAX_RANK)
            return pm_rt_error_set(PM_ERR_USAGE, "%s=random:%s: write random:4x64", port->name, shape);
        out->dims[out->rank++] = n;
        at = *end == 'x' ? end + 1 : end;
        if (*end && *end != 'x')
            return pm_rt_error_set(PM_ERR_USAGE, "%s=random:%s: write random:4x64", port->name, shape);
    }
    int64_t n;
    PM_TRY(allocate(port, out, &n));
    uint64_t x = seed * 2 + 0x9e3779b97f4a7c15u;
    for (int64_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        double unit = (double)(x >> 11) * 0x1p-53;
        if (!put_element(port->elem, out->data, i, 2 * unit - 1, (int64_t)(unit * 16)))
            return pm_rt_error_set(PM_ERR_UNSUPPORTED, "%s: random values of %s are not supported", port->name,
                                   pm_port_elem_name(port->elem));
    }
    return PM_OK;
}

static pm_status inline_tensor(const pm_port_info *port, const char *text, pm_tensor_arg *out)
{
    int64_t n = 1, known = 1, count;
    for (const char *c = text; *c; c++)
        n += *c == ',';
    int32_t open = -1;
    out->rank = port->rank;
    for (int32_t i = 0; i < port->rank; i++) {
        out->dims[i] = port->dims[i] >= 0 ? port->dims[i] : 1;
        if (port->dims[i] < 0)
            open = i; // the last open dim takes what is left
        else
            known *= port->dims[i];
    }
    if (open >= 0)
        out->dims[open] = known ? n / known : 0;
    PM_TRY(allocate(port, out, &count));
    if (count != n)
        return pm_rt_error_set(PM_ERR_USAGE, "%s: %lld values given, that fits no shape of it", port->name, (long long)n);
    const char *at = text;
    for (int64_t i = 0; i < n; i++) {
        char *end, *end_whole;
        double v = strtod(at, &end);
        int64_t whole = strtoll(at, &end_whole, 10);
        if (end == at || (*end && *end != ',') || !put_element(port->elem, out->data, i, v, end_whole == end ? whole : (int64_t)v))
            return pm_rt_error_set(PM_ERR_USAGE, "%s: value %lld is no number", port->name, (long long)i);
        at = end + 1;
    }
    return PM_OK;
}

/// An array from a file; of an archive, the one of the port's name.
static pm_status file_tensor(const pm_port_info *port, const char *path, pm_tensor_arg *out)
{
    uint8_t *bytes;
    size_t size;
    pm_npy array;
    PM_TRY(pm_read_file(path, &bytes, &size));
    if (size > 4 && memcmp(bytes, "PK", 2) == 0) {
        for (int i = 0, found = 1;; i++) {
            PM_TRY(pm_npz_read(bytes, size, path, i, &array, &found));
            if (!found)
                return pm_rt_error_set(PM_ERR_INVALID, "%s holds no array named %s", path, port->name);
            if (strcmp(array.name, port->name) == 0)
                break;
        }
    } else {
        PM_TRY(pm_npy_read(bytes, size, path, &array));
    }
    if (array.elem != port->elem)
        return pm_rt_error_set(PM_ERR_INVALID, "%s holds %s, %s is %s", path, pm_port_elem_name(array.elem), port->name,
                               pm_port_elem_name(port->elem));
    *out = (pm_tensor_arg){.size = array.size, .rank = array.rank};
    memcpy(out->dims, array.dims, sizeof array.dims);
    if ((uintptr_t)array.data % 64 == 0) {
        out->data = (void *)array.data;
        return PM_OK;
    }
    out->data = aligned_alloc(64, (array.size + 127) / 64 * 64);
    if (!out->data)
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    memcpy(out->data, array.data, array.size);
    free(bytes);
    return PM_OK;
}

pm_status pm_program_tensor(const pm_port_info *port, const char *text, uint64_t seed, pm_tensor_arg *out)
{
    *out = (pm_tensor_arg){0};
    if (text[0] == '@')
        return file_tensor(port, text + 1, out);
    if (strncmp(text, "random:", 7) == 0)
        return random_tensor(port, text + 7, seed, out);
    return inline_tensor(port, text, out);
}
