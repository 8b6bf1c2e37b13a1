#include "tools/pimoe/check_runner.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/elem.h"
#include "tools/cli/bug_report.h"

pm_status pm_runner_fail(runner *r, pm_status status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->report->message, CHECK_TEXT, fmt, ap);
    va_end(ap);
    return status;
}

void pm_runner_doing(runner *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->report->doing, CHECK_TEXT, fmt, ap);
    va_end(ap);
}

static pm_status open_library(runner *r)
{
    char name[CHECK_NAME];
    const pm_rt_model *code;
    pm_runner_doing(r, "loading the library");
    void *library = dlopen(r->run->library, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return pm_runner_fail(r, PM_ERR_INTERNAL, "%s", dlerror());
    struct {
        const char *name;
        void *where;
    } symbols[] = {
        {"pm_last_error", &r->api.last_error},         {"pm_model_open", &r->api.model_open},
        {"pm_model_entry", &r->api.entry},             {"pm_model_entry_name", &r->api.entry_name},
        {"pm_model_n_inputs", &r->api.n_inputs},       {"pm_model_n_outputs", &r->api.n_outputs},
        {"pm_model_input", &r->api.input},             {"pm_model_output", &r->api.output},
        {"pm_session_create", &r->api.session_create}, {"pm_session_run", &r->api.session_run},
    };
    for (size_t i = 0; i < PM_COUNT(symbols); i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol)
            return pm_runner_fail(r, PM_ERR_INTERNAL, "the library has no %s", symbols[i].name);
        memcpy(symbols[i].where, &symbol, sizeof symbol); // POSIX: functions as void *
    }
    snprintf(name, sizeof name, "pm_model_%s", r->run->symbol);
    code = dlsym(library, name);
    if (!code)
        return pm_runner_fail(r, PM_ERR_INTERNAL, "the library has no %s", name);
    pm_status status = r->api.model_open(code, NULL, &r->model);
    return status == PM_OK ? PM_OK : pm_runner_fail(r, status, "%s", r->api.last_error());
}

static pm_status choose_entry(runner *r)
{
    const char *name = r->run->entry;
    r->entry = r->api.entry(r->model, name ? name : "forward");
    if (r->entry < 0 && !name)
        r->entry = 0;
    const char *found = r->api.entry_name(r->model, r->entry);
    if (!found)
        return pm_runner_fail(r, PM_ERR_USAGE, "the model has no entry '%s'", name ? name : "");
    snprintf(r->report->entry, CHECK_NAME, "%s", found);
    if (r->api.n_inputs(r->model, r->entry) > CHECK_MAX_PORTS || r->api.n_outputs(r->model, r->entry) > CHECK_MAX_PORTS)
        return pm_runner_fail(r, PM_ERR_UNSUPPORTED, "entry %s has more than %d tensors", found, CHECK_MAX_PORTS);
    return PM_OK;
}

const pm_npy *pm_runner_find(const pm_npz *npz, const char *name, const char *suffix)
{
    char whole[512];
    snprintf(whole, sizeof whole, "%s%s", name, suffix);
    const pm_npy *array = pm_npz_find(npz, whole);
    // a lone .npy has no names: it is whatever there is one of
    return array ? array : npz->arrays.n == 1 && !npz->arrays.data[0].name[0] ? &npz->arrays.data[0] : NULL;
}

/// ---- inputs -----------------------------------------------------------------------------------------------

static int64_t integer(const pm_npy *a, int64_t i, bool *out_fits)
{
    *out_fits = true;
    switch (a->elem) {
    case PM_I64: return ((const int64_t *)a->data)[i];
    case PM_I32: return ((const int32_t *)a->data)[i];
    case PM_I16: return ((const int16_t *)a->data)[i];
    case PM_I8: return ((const int8_t *)a->data)[i];
    case PM_U64: *out_fits = ((const uint64_t *)a->data)[i] <= INT64_MAX; return (int64_t)((const uint64_t *)a->data)[i];
    case PM_U32: return ((const uint32_t *)a->data)[i];
    case PM_U16: return ((const uint16_t *)a->data)[i];
    default: return a->data[i];
    }
}

static bool put_integer(int32_t elem, void *data, int64_t i, int64_t v)
{
    switch (elem) {
    case PM_I64: ((int64_t *)data)[i] = v; return true;
    case PM_I32: ((int32_t *)data)[i] = (int32_t)v; return v >= INT32_MIN && v <= INT32_MAX;
    case PM_I16: ((int16_t *)data)[i] = (int16_t)v; return v >= INT16_MIN && v <= INT16_MAX;
    case PM_I8: ((int8_t *)data)[i] = (int8_t)v; return v >= INT8_MIN && v <= INT8_MAX;
    case PM_U64: ((uint64_t *)data)[i] = (uint64_t)v; return v >= 0;
    case PM_U32: ((uint32_t *)data)[i] = (uint32_t)v; return v >= 0 && v <= UINT32_MAX;
    case PM_U16: ((uint16_t *)data)[i] = (uint16_t)v; return v >= 0 && v <= UINT16_MAX;
    case PM_U8: ((uint8_t *)data)[i] = (uint8_t)v; return v >= 0 && v <= UINT8_MAX;
    case PM_BOOL: ((uint8_t *)data)[i] = v != 0; return v == 0 || v == 1;
    default: return false;
    }
}

static bool is_float(int32_t elem)
{
    return elem == PM_F32 || elem == PM_F64 || elem == PM_F16 || elem == PM_BF16;
}

/// Integers of another width are taken over when every value fits; anything else must be what the port says.
pm_status pm_runner_take_input(runner *r, const pm_port_info *port, const pm_npy *a, pm_tensor_arg *out)
{
    *out = (pm_tensor_arg){.data = (void *)(uintptr_t)a->data, .size = a->size, .rank = a->rank};
    memcpy(out->dims, a->dims, sizeof out->dims);
    if (a->elem == port->elem)
        return PM_OK;
    if (is_float(a->elem) || is_float(port->elem))
        return pm_runner_fail(r, PM_ERR_USAGE, "input %s is %s; the array given is %s", port->name, pm_port_elem_name(port->elem),
                    pm_port_elem_name(a->elem));
    int64_t n = 1;
    for (int32_t i = 0; i < a->rank; i++)
        n *= a->dims[i]; // they fit: pm_npy_read checked them against the bytes
    out->size = (size_t)n * port->elem_size;
    out->data = aligned_alloc(64, (out->size + 127) / 64 * 64);
    if (!out->data)
        return pm_runner_fail(r, PM_ERR_NO_MEMORY, "out of memory");
    for (int64_t i = 0; i < n; i++) {
        bool fits;
        int64_t v = integer(a, i, &fits);
        if (!fits || !put_integer(port->elem, out->data, i, v))
            return pm_runner_fail(r, PM_ERR_USAGE, "input %s is %s; value %" PRId64 " of the array given does not fit", port->name,
                        pm_port_elem_name(port->elem), i);
    }
    return PM_OK;
}

static pm_status take_inputs(runner *r, const check_case *c, pm_tensor_arg *inputs)
{
    pm_port_info port;
    for (int i = 0; i < r->api.n_inputs(r->model, r->entry); i++) {
        pm_status status = r->api.input(r->model, r->entry, i, &port);
        if (status != PM_OK)
            return pm_runner_fail(r, status, "%s", r->api.last_error());
        const pm_npy *array = pm_runner_find(c->in, port.name, c->suffix);
        if (!array)
            return pm_runner_fail(r, PM_ERR_USAGE, "%s has no array '%s%s' for the input of that name", c->in->path, port.name,
                        c->suffix);
        PM_TRY(pm_runner_take_input(r, &port, array, &inputs[i]));
    }
    return PM_OK;
}

/// ---- outputs ----------------------------------------------------------------------------------------------

void pm_runner_compare(runner *r, size_t number, const char *name, const pm_npy *want, int32_t elem,
                       const pm_tensor_arg *got)
{
    if (r->report->n_results == r->report->room)
        return;
    check_result *result = &r->report->results[r->report->n_results];
    *result = (check_result){.number = (int)number, .tolerance = pm_tolerance_of(elem, r->run->bf16)};
    snprintf(result->name, CHECK_NAME, "%s", name);
    if (r->run->rtol >= 0)
        result->tolerance.rtol = r->run->rtol;
    if (r->run->atol >= 0)
        result->tolerance.atol = r->run->atol;
    pm_compare(want, elem, got, result->tolerance, &result->c);
    r->report->n_results++;
}

static pm_status compare_outputs(runner *r, size_t number, const pm_tensor_arg *outputs)
{
    const check_case *c = &r->run->cases[number];
    size_t before = r->report->n_results;
    pm_port_info port;
    char names[512] = "";
    for (int i = 0; i < r->api.n_outputs(r->model, r->entry); i++) {
        pm_status status = r->api.output(r->model, r->entry, i, &port);
        if (status != PM_OK)
            return pm_runner_fail(r, status, "%s", r->api.last_error());
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", port.name);
        const pm_npy *want = pm_runner_find(c->want, port.name, c->suffix);
        if (!want || r->report->n_results == r->report->room) {
            r->report->n_uncompared++;
            continue;
        }
        if (strncmp(port.name, CHECK_ROUTER, strlen(CHECK_ROUTER)) == 0)
            PM_TRY(pm_runner_compare_chosen(r, number, port.name, want, &outputs[i]));
        else
            pm_runner_compare(r, number, port.name, want, port.elem, &outputs[i]);
    }
    if (r->report->n_results == before)
        return pm_runner_fail(r, PM_ERR_USAGE, "%s has no array for any output of entry %s (%s)", c->want->path, r->report->entry,
                    names);
    return PM_OK;
}

static pm_status unknown_array(runner *r, const char *path, const char *name)
{
    const char *names[CHECK_MAX_PORTS];
    size_t n = 0;
    pm_port_info port;
    for (int i = 0; i < r->api.n_outputs(r->model, r->entry); i++)
        if (r->api.output(r->model, r->entry, i, &port) == PM_OK)
            names[n++] = port.name;
    const char *near = pm_nearest(name, names, n);
    return pm_runner_fail(r, PM_ERR_USAGE, "%s has an array '%s', but entry %s has no output of that name%s%s%s", path, name,
                r->report->entry, near ? "; is it '" : "", near ? near : "", near ? "'?" : "");
}

/// An expected array that no output has would silently not be compared.
static pm_status check_names(runner *r)
{
    pm_port_info port;
    for (size_t k = 0; r->run->strict && k < r->run->n_cases; k++) {
        const check_case *c = &r->run->cases[k];
        for (size_t a = 0; a < c->want->arrays.n; a++) {
            const char *name = c->want->arrays.data[a].name;
            bool known = !*name || pm_npz_find(c->in, name), suffixed = false; // inputs may stand there, too
            for (size_t s = 0; s < r->run->n_cases; s++) { // x_b belongs to another case of the same file
                const char *suffix = r->run->cases[s].suffix;
                size_t n = strlen(suffix), length = strlen(name);
                suffixed |= n && length > n && strcmp(name + length - n, suffix) == 0;
            }
            for (int i = 0; i < r->api.n_outputs(r->model, r->entry) && !known; i++)
                known = r->api.output(r->model, r->entry, i, &port) == PM_OK && strcmp(port.name, name) == 0;
            if (!known && !suffixed)
                return unknown_array(r, c->want->path, name);
        }
    }
    return PM_OK;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static pm_status run_case(runner *r, size_t number)
{
    const check_case *c = &r->run->cases[number];
    pm_tensor_arg *inputs = calloc(CHECK_MAX_PORTS, sizeof *inputs), *outputs = calloc(CHECK_MAX_PORTS, sizeof *outputs);
    if (!inputs || !outputs) {
        free(inputs);
        free(outputs);
        return pm_runner_fail(r, PM_ERR_NO_MEMORY, "out of memory");
    }
    pm_runner_doing(r, "taking inputs from %s", c->in->path);
    pm_status status = take_inputs(r, c, inputs);
    if (status == PM_OK) {
        pm_runner_doing(r, "running entry %s on %s%s%s", r->report->entry, c->in->path, *c->suffix ? ", arrays *" : "", c->suffix);
        double start = now_ms();
        status = r->api.session_run(r->session, r->entry, inputs, r->api.n_inputs(r->model, r->entry), outputs,
                                    r->api.n_outputs(r->model, r->entry));
        r->report->run_ms += now_ms() - start;
        if (status != PM_OK)
            pm_runner_fail(r, status, "%s", r->api.last_error());
    }
    if (status == PM_OK) {
        pm_runner_doing(r, "comparing with %s", c->want->path);
        status = compare_outputs(r, number, outputs);
    }
    free(inputs);
    free(outputs);
    return status;
}

static pm_status run_all(runner *r)
{
    PM_TRY(open_library(r));
    PM_TRY(choose_entry(r));
    PM_TRY(check_names(r));
    int64_t batch = 1;
    for (size_t i = 0; i < r->run->n_cases; i++) {
        const pm_npy_vec *arrays = &r->run->cases[i].in->arrays;
        for (size_t k = 0; k < arrays->n; k++) // room for the largest batch, where there are states
            if (arrays->data[k].rank > 0 && arrays->data[k].dims[0] > batch && arrays->data[k].dims[0] <= 1024)
                batch = arrays->data[k].dims[0];
    }
    pm_runner_doing(r, "making a session");
    pm_session_options o = {.struct_size = sizeof o, .threads = r->run->threads, .max_batch = batch};
    pm_status status = r->api.session_create(r->model, &o, &r->session);
    if (status != PM_OK) { // the batch may be beyond what the model allows
        o.max_batch = 0;
        status = r->api.session_create(r->model, &o, &r->session);
    }
    if (status != PM_OK)
        return pm_runner_fail(r, status, "%s", r->api.last_error());
    for (size_t i = 0; i < r->run->n_cases; i++)
        PM_TRY(run_case(r, i));
    for (size_t i = 0; i < r->run->n_cases && !r->run->entry; i++)
        PM_TRY(pm_runner_generate(r, i));
    return PM_OK;
}

int pm_check_run(void *arg)
{
    check_run *run = arg;
    runner r = {.run = run, .report = run->report};
    pm_bug_report_off();
    r.report->status = PM_ERR_INTERNAL;
    r.report->status = run_all(&r);
    return 0;
}
