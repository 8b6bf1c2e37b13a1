/// Sessions: memory and workers for calls. After the first calls of a size nothing is allocated.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/device/device.h"
#include "runtime/rt_internal.h"

enum { PAGE = 4096, CHUNK = 1 << 20, MAX_THREADS = 256 };

static pm_status no_memory(void)
{
    return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/// Zeroed pages that cost nothing until they are touched.
static void *map_pages(size_t bytes)
{
    void *p = mmap(NULL, bytes ? bytes : PAGE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/// Makes `*memory` at least `bytes` large; the content is lost when it grows.
static bool grow(void *memory_pointer, size_t *have, size_t bytes)
{
    void **memory = memory_pointer;
    bytes = round_up(bytes + 64, PAGE);
    if (*memory && bytes <= *have)
        return true;
    if (*memory)
        munmap(*memory, *have);
    *memory = map_pages(bytes);
    *have = *memory ? bytes : 0;
    return *memory != NULL;
}

/// What sessions do with devices, or NULL. No other way leads there, so that programs without devices don't hold it.
static const pm_rt_device_sessions *device_sessions(const pm_model *m)
{
    return m->code->n_devices ? m->code->devices->ops->sessions : NULL;
}

/// ---- states ---------------------------------------------------------------------------------------------

static int64_t find_symbol(const pm_model *m, const char *name)
{
    for (uint32_t i = 0; i < m->manifest->symbols.n; i++)
        if (strcmp(pm_model_string(m, m->symbols[i].name), name) == 0)
            return i;
    return -1;
}

static void clear_symbols(pm_session *s)
{
    for (uint32_t i = 0; i < s->model->manifest->symbols.n; i++)
        s->symbols[i] = -1;
    int64_t c = find_symbol(s->model, "C");
    if (c >= 0)
        s->symbols[c] = s->context;
}

static pm_status create_states(pm_session *s)
{
    const pm_model *m = s->model;
    uint32_t n = m->manifest->states.n;
    if (n == 0)
        return PM_OK;
    clear_symbols(s);
    int64_t b = find_symbol(m, "B");
    if (b >= 0)
        s->symbols[b] = s->max_batch;
    int64_t *bytes = calloc(n, sizeof *bytes);
    if (!bytes)
        return no_memory();
    m->code->state_bytes(s->symbols, bytes);
    pm_status status = PM_OK;
    for (uint32_t i = 0; i < n && status == PM_OK; i++) {
        s->state_bytes[i] = bytes[i] < 0 ? 0 : round_up((size_t)bytes[i] + 64, PAGE);
        bool elsewhere = bytes[i] >= 0 && m->states[i].device > 0;
        s->states[i] = bytes[i] < 0 || elsewhere ? NULL : map_pages(s->state_bytes[i]);
        if (!s->states[i] && !elsewhere)
            status = pm_rt_error_set(PM_ERR_NO_MEMORY, "there is no room for state %s",
                                     pm_model_string(m, m->states[i].name));
    }
    free(bytes);
    return status;
}

void pm_session_reset(pm_session *session)
{
    for (uint32_t i = 0; i < session->model->manifest->states.n; i++)
        if (session->states[i])
            madvise(session->states[i], session->state_bytes[i], MADV_DONTNEED); // reads as zeros again
    if (session->devices)
        device_sessions(session->model)->reset(session);
}

/// ---- creation -------------------------------------------------------------------------------------------

static int usable_cores(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int)n;
}

static void *table(size_t n, size_t size, bool *ok)
{
    void *p = calloc(n + 1, size);
    *ok = *ok && p;
    return p;
}

static pm_status set_limits(pm_session *s, const pm_session_options *o)
{
    const pm_model *m = s->model;
    int64_t b = find_symbol(m, "B"), c = find_symbol(m, "C");
    int64_t most = c >= 0 ? m->symbols[c].hi : 0, least = c >= 0 ? m->symbols[c].lo : 0;
    s->context = o->context > 0 ? o->context : most;
    s->max_batch = o->max_batch > 0 ? o->max_batch : 1;
    if (c >= 0 && s->context < least)
        s->context = least;
    if (c >= 0 && s->context > most)
        return pm_rt_error_set(PM_ERR_USAGE, "a context of %lld tokens: the model has at most %lld",
                               (long long)s->context, (long long)most);
    if (b >= 0 && s->max_batch > m->symbols[b].hi)
        return pm_rt_error_set(PM_ERR_USAGE, "a batch of %lld: the model has at most %lld",
                               (long long)s->max_batch, (long long)m->symbols[b].hi);
    return PM_OK;
}

/// Without its devices a program runs on the host, if it was compiled for that, too.
static pm_status open_devices(pm_session *s)
{
    const char *without = getenv("PIMOE_DEVICES"); // "none": as if there were no devices
    bool none = s->model->has_twins && without && strcmp(without, "none") == 0;
    pm_status status = none ? PM_ERR_UNSUPPORTED : device_sessions(s->model)->open(s);
    if (status != PM_ERR_UNSUPPORTED || !s->model->has_twins)
        return status;
    if (s->devices)
        device_sessions(s->model)->close(s);
    s->on_host = true;
    return PM_OK;
}

pm_status pm_session_create(pm_model *model, const pm_session_options *options,
                            pm_session **out_session)
{
    *out_session = NULL;
    pm_session_options o = {0};
    if (options && options->struct_size >= sizeof o)
        o = *options;
    if (o.threads < 0 || o.threads > MAX_THREADS)
        return pm_rt_error_set(PM_ERR_USAGE, "%d threads: 1 to %d are possible", o.threads, MAX_THREADS);
    pm_session *s = calloc(1, sizeof *s);
    if (!s)
        return no_memory();
    s->model = model;
    uint32_t inputs = 0, outputs = 0, dynamic = 0;
    for (uint32_t i = 0; i < model->manifest->entries.n; i++) {
        const pm_artifact_entry *e = &model->entries[i];
        inputs = e->n_inputs > inputs ? e->n_inputs : inputs;
        outputs = e->n_outputs > outputs ? e->n_outputs : outputs;
        dynamic = e->n_dynamic > dynamic ? e->n_dynamic : dynamic;
    }
    bool ok = true;
    s->symbols = table(model->manifest->symbols.n, sizeof *s->symbols, &ok);
    s->inputs = table(inputs, sizeof *s->inputs, &ok);
    s->outputs = table(outputs, sizeof *s->outputs, &ok);
    s->states = table(model->manifest->states.n, sizeof *s->states, &ok);
    s->state_bytes = table(model->manifest->states.n, sizeof *s->state_bytes, &ok);
    s->dynamic = table(dynamic, sizeof *s->dynamic, &ok);
    s->own_outputs = table(outputs, sizeof *s->own_outputs, &ok);
    s->own_sizes = table(outputs, sizeof *s->own_sizes, &ok);
    s->plan = table(PM_MAX_PLAN, sizeof *s->plan, &ok);
    s->n_own = outputs;
    pm_status status = ok ? set_limits(s, &o) : no_memory();
    if (status == PM_OK)
        status = create_states(s);
    if (status == PM_OK && device_sessions(model))
        status = open_devices(s);
    if (status == PM_OK && !(s->pool = pm_pool_create(o.threads ? o.threads : usable_cores())))
        status = pm_rt_error_set(PM_ERR_NO_MEMORY, "threads could not be started");
    if (status != PM_OK) {
        pm_session_destroy(s);
        return status;
    }
    *out_session = s;
    return PM_OK;
}

void pm_session_destroy(pm_session *session)
{
    if (!session)
        return;
    pm_pool_destroy(session->pool);
    if (session->devices)
        device_sessions(session->model)->close(session);
    if (session->call.arena)
        munmap(session->call.arena, session->arena_bytes);
    if (session->call.scratch)
        munmap(session->call.scratch, session->scratch_bytes);
    for (uint32_t i = 0; session->states && i < session->model->manifest->states.n; i++)
        if (session->states[i])
            munmap(session->states[i], session->state_bytes[i]);
    for (uint32_t i = 0; session->own_outputs && i < session->n_own; i++)
        if (session->own_outputs[i])
            munmap(session->own_outputs[i], session->own_sizes[i]);
    for (pm_rt_chunk *c = session->chunks, *next; c; c = next) {
        next = c->next;
        munmap(c, c->size);
    }
    free(session->symbols);
    free(session->inputs);
    free(session->outputs);
    free(session->states);
    free(session->state_bytes);
    free(session->dynamic);
    free(session->own_outputs);
    free(session->own_sizes);
    free(session->plan);
    free(session);
}

/// ---- the dynamic region -----------------------------------------------------------------------------------

static void *take(pm_session *s, size_t bytes)
{
    enum { HEAD = 64 };
    for (;;) {
        pm_rt_chunk *c = s->current;
        if (c && c->size - c->used >= bytes) {
            void *p = (uint8_t *)c + c->used;
            c->used += bytes;
            return p;
        }
        if (c && c->next) {
            s->current = c->next;
            s->current->used = HEAD;
            continue;
        }
        size_t size = round_up(bytes + HEAD > CHUNK ? bytes + HEAD : CHUNK, PAGE);
        pm_rt_chunk *fresh = map_pages(size);
        if (!fresh)
            return NULL;
        fresh->size = size;
        fresh->used = HEAD;
        if (c)
            c->next = fresh;
        else
            s->chunks = fresh;
        s->current = fresh;
    }
}

enum { SLOT_HEAD = 64 }; ///< in front of a slot's memory: its size

static size_t slot_size(const uint8_t *slot)
{
    size_t size = 0;
    if (slot)
        memcpy(&size, slot - SLOT_HEAD, sizeof size);
    return size;
}

void pm_rt_place(pm_rt_call *call, int64_t slot, int64_t bytes, int64_t dispatch)
{
    static uint8_t nothing[2 * SLOT_HEAD] __attribute__((aligned(64)));
    pm_session *s = pm_session_of(call);
    size_t had = slot_size(call->dynamic[slot]);
    if (had > 0 && bytes >= 0 && (uint64_t)bytes < had)
        return;
    uint8_t *p = NULL;
    if (bytes >= 0 && bytes <= INT64_MAX / 4) {
        size_t size = round_up((size_t)bytes + 1, 64);
        size = size < 2 * had ? 2 * had : size;
        p = take(s, SLOT_HEAD + size);
        if (p) {
            memcpy(p, &size, sizeof size);
            p += SLOT_HEAD;
        }
    }
    call->dynamic[slot] = p ? p : nothing + SLOT_HEAD;
    int32_t none = 0;
    if (!p && __atomic_compare_exchange_n(&call->found, &none, (int32_t)dispatch + 1, false, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED))
        call->found_kind = PM_RT_ERR_NO_MEMORY;
}

void pm_rt_grow(pm_rt_call *call, int64_t slot, int64_t n, int64_t bytes, int64_t dispatch)
{
    const uint8_t *old = call->dynamic[slot];
    size_t had = slot_size(old);
    int64_t kept, wanted;
    if (bytes < 0 || __builtin_mul_overflow(n, bytes, &kept) || __builtin_add_overflow(kept, bytes, &wanted))
        kept = wanted = -1;
    pm_rt_place(call, slot, wanted, dispatch);
    uint8_t *now = call->dynamic[slot];
    if (kept > 0 && now != old && (uint64_t)kept <= had && slot_size(now) > (uint64_t)kept)
        memcpy(now, old, (size_t)kept);
}

void pm_rt_fail(pm_rt_call *call, int64_t dispatch)
{
    int32_t none = 0;
    if (__atomic_compare_exchange_n(&call->found, &none, (int32_t)dispatch + 1, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED))
        call->found_kind = PM_RT_ERR_DATA;
}

/// ---- calls ----------------------------------------------------------------------------------------------

static pm_status bad_shape(const pm_model *m, const pm_artifact_port *p, uint32_t dim, int64_t want,
                           int64_t found)
{
    return pm_rt_error_set(PM_ERR_USAGE, "%s: dimension %u is %lld, must be %lld",
                           pm_model_string(m, p->name), dim, (long long)found, (long long)want);
}

static pm_status bind_port(pm_session *s, const pm_artifact_port *p, const pm_tensor_arg *arg)
{
    const pm_model *m = s->model;
    const char *name = pm_model_string(m, p->name);
    if (arg->rank != (int32_t)p->rank)
        return pm_rt_error_set(PM_ERR_USAGE, "%s has %d dimensions, must have %u", name, arg->rank, p->rank);
    for (uint32_t i = 0; i < p->rank; i++) {
        int64_t want = p->dims[i], found = arg->dims[i];
        if (found < 0)
            return pm_rt_error_set(PM_ERR_USAGE, "%s: dimension %u is negative", name, i);
        if (want >= 0 && want != found)
            return bad_shape(m, p, i, want, found);
        if (want >= 0 || want == INT64_MIN)
            continue;
        int64_t *symbol = &s->symbols[-1 - want];
        const pm_artifact_symbol *info = &m->symbols[-1 - want];
        if (*symbol >= 0 && *symbol != found)
            return pm_rt_error_set(PM_ERR_USAGE, "%s: dimension %u is %lld, but %s is %lld elsewhere", name, i,
                                   (long long)found, pm_model_string(m, info->name), (long long)*symbol);
        if (found < info->lo || found > info->hi)
            return pm_rt_error_set(PM_ERR_USAGE, "%s: dimension %u (%s) is %lld, must be %lld to %lld", name, i,
                                   pm_model_string(m, info->name), (long long)found, (long long)info->lo,
                                   (long long)info->hi);
        *symbol = found;
    }
    return PM_OK;
}

static pm_status port_bytes(const pm_model *m, const pm_artifact_port *p, const int64_t *dims,
                            size_t *out_bytes)
{
    size_t bytes = pm_port_elem_size(p->elem);
    for (uint32_t i = 0; i < p->rank; i++)
        if (dims[i] < 0 || __builtin_mul_overflow(bytes, (size_t)dims[i], &bytes) || bytes > SIZE_MAX / 4)
            return pm_rt_error_set(PM_ERR_USAGE, "%s is too large", pm_model_string(m, p->name));
    *out_bytes = bytes;
    return PM_OK;
}

static pm_status bind_inputs(pm_session *s, const pm_artifact_entry *e, const pm_tensor_arg *inputs,
                             int n_inputs)
{
    const pm_model *m = s->model;
    int at = 0;
    clear_symbols(s);
    for (uint32_t i = 0; i < e->n_inputs; i++) {
        const pm_artifact_port *p = &m->ports[e->first_input + i];
        if (p->state >= 0) {
            s->inputs[i] = s->states[p->state];
            continue;
        }
        if (at >= n_inputs)
            return pm_rt_error_set(PM_ERR_USAGE, "input %s is missing", pm_model_string(m, p->name));
        const pm_tensor_arg *arg = &inputs[at++];
        PM_TRY(bind_port(s, p, arg));
        size_t bytes;
        PM_TRY(port_bytes(m, p, arg->dims, &bytes));
        if (arg->size < bytes || (bytes && !arg->data))
            return pm_rt_error_set(PM_ERR_USAGE, "%s has %zu bytes, must have %zu", pm_model_string(m, p->name),
                                   arg->size, bytes);
        s->inputs[i] = arg->data;
    }
    if (at != n_inputs)
        return pm_rt_error_set(PM_ERR_USAGE, "%d inputs given, there are %d", n_inputs, at);
    return PM_OK;
}

/// Extents that are expressions must agree with what was given; batch and states must fit.
static pm_status check_plan(pm_session *s, const pm_artifact_entry *e, const pm_tensor_arg *inputs)
{
    const pm_model *m = s->model;
    int64_t b = find_symbol(m, "B");
    if (b >= 0 && m->manifest->states.n && s->symbols[b] > s->max_batch)
        for (uint32_t i = 0; i < e->n_inputs; i++)
            if (m->ports[e->first_input + i].state >= 0)
                return pm_rt_error_set(PM_ERR_USAGE, "a batch of %lld: the session has room for %lld",
                                       (long long)s->symbols[b], (long long)s->max_batch);
    const int64_t *dims = s->plan + 2;
    int at = 0;
    for (uint32_t i = 0; i < e->n_inputs; i++) {
        const pm_artifact_port *p = &m->ports[e->first_input + i];
        for (uint32_t k = 0; p->state < 0 && k < p->rank; k++)
            if (dims[k] != inputs[at].dims[k])
                return bad_shape(m, p, k, dims[k], inputs[at].dims[k]);
        at += p->state < 0;
        dims += p->rank;
    }
    return PM_OK;
}

/// The entry that runs when callers ask for `*entry`.
static pm_status find_entry(const pm_session *s, int *entry)
{
    if (*entry < 0 || (uint32_t)*entry >= s->model->n_entries)
        return pm_rt_error_set(PM_ERR_USAGE, "there is no entry %d", *entry);
    *entry += s->on_host ? (int)s->model->n_entries : 0;
    return PM_OK;
}

static pm_status prepare(pm_session *s, int entry, const pm_tensor_arg *inputs, int n_inputs)
{
    const pm_model *m = s->model;
    PM_TRY(bind_inputs(s, &m->entries[entry], inputs, n_inputs));
    m->code->entries[entry].plan(s->symbols, s->plan);
    return check_plan(s, &m->entries[entry], inputs);
}

/// Where the dims of the outputs begin in the plan.
static const int64_t *output_dims(const pm_session *s, const pm_artifact_entry *e)
{
    const int64_t *dims = s->plan + 2;
    for (uint32_t i = 0; i < e->n_inputs; i++)
        dims += s->model->ports[e->first_input + i].rank;
    return dims;
}

static pm_status set_outputs(pm_session *s, const pm_artifact_entry *e, pm_tensor_arg *outputs, int n_outputs,
                             bool place)
{
    const pm_model *m = s->model;
    const int64_t *dims = output_dims(s, e);
    int at = 0;
    for (uint32_t i = 0; i < e->n_outputs; dims += m->ports[e->first_output + i].rank, i++) {
        const pm_artifact_port *p = &m->ports[e->first_output + i];
        s->outputs[i] = NULL;
        if (p->state >= 0)
            continue;
        if (at >= n_outputs)
            return pm_rt_error_set(PM_ERR_USAGE, "%d outputs given, there are more", n_outputs);
        pm_tensor_arg *arg = &outputs[at++];
        arg->rank = (int32_t)p->rank;
        memcpy(arg->dims, dims, p->rank * sizeof *dims);
        if (!place || (p->flags & 1))
            continue;
        size_t bytes;
        PM_TRY(port_bytes(m, p, dims, &bytes));
        if (!arg->data) {
            if (!grow(&s->own_outputs[i], &s->own_sizes[i], bytes))
                return no_memory();
            arg->data = s->own_outputs[i];
            arg->size = bytes;
        } else if (arg->size < bytes) {
            return pm_rt_error_set(PM_ERR_USAGE, "%s needs %zu bytes, the buffer has %zu",
                                   pm_model_string(m, p->name), bytes, arg->size);
        }
        s->outputs[i] = arg->data;
    }
    if (at != n_outputs)
        return pm_rt_error_set(PM_ERR_USAGE, "%d outputs given, there are %d", n_outputs, at);
    return PM_OK;
}

pm_status pm_session_output_dims(pm_session *session, int entry, const pm_tensor_arg *inputs, int n_inputs,
                                 pm_tensor_arg *outputs, int n_outputs)
{
    PM_TRY(find_entry(session, &entry));
    PM_TRY(prepare(session, entry, inputs, n_inputs));
    return set_outputs(session, &session->model->entries[entry], outputs, n_outputs, false);
}

static pm_status reserve(pm_session *s, const pm_artifact_entry *e)
{
    int64_t arena = s->plan[0], scratch = s->plan[1];
    if (arena < 0 || scratch < 0 || arena > INT64_MAX / 4 || scratch > INT64_MAX / 4 / MAX_THREADS)
        return pm_rt_error_set(PM_ERR_USAGE, "the shapes are too large");
    s->call.scratch_bytes = (int64_t)round_up((size_t)scratch, 64);
    if (!grow(&s->call.arena, &s->arena_bytes, (size_t)arena) ||
        !grow(&s->call.scratch, &s->scratch_bytes,
              (size_t)s->call.scratch_bytes * (size_t)pm_pool_size(s->pool)))
        return no_memory();
    return s->devices ? device_sessions(s->model)->begin(s, s->plan + 2 + e->n_port_dims) : PM_OK;
}

static pm_status call_error(pm_session *s)
{
    const pm_model *m = s->model;
    uint32_t i = (uint32_t)s->call.error - 1;
    const char *where = s->call.error < 0                ? "the end of the call"
                        : i < m->manifest->dispatches.n ? pm_model_string(m, m->dispatches[i].loc)
                                                        : "?";
    if (s->call.error_kind == PM_RT_ERR_NO_MEMORY)
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory at %s", where);
    if (s->call.error_kind == PM_RT_ERR_DEVICE)
        return device_sessions(s->model)->error(s, where);
    return pm_rt_error_set(PM_ERR_INVALID, "a value is out of range (an index, a size, or a division by zero) at %s",
                           where);
}

/// Data-dependent outputs: their place and dims are known now.
static void collect_dynamic(pm_session *s, int entry, pm_tensor_arg *outputs)
{
    const pm_model *m = s->model;
    const pm_artifact_entry *e = &m->entries[entry];
    m->code->entries[entry].plan(s->symbols, s->plan);
    const int64_t *dims = output_dims(s, e);
    int at = 0;
    for (uint32_t i = 0; i < e->n_outputs; i++) {
        const pm_artifact_port *p = &m->ports[e->first_output + i];
        if (p->state < 0) {
            if (p->flags & 1) {
                pm_tensor_arg *arg = &outputs[at];
                memcpy(arg->dims, dims, p->rank * sizeof *dims);
                size_t bytes = 0;
                if (port_bytes(m, p, dims, &bytes) == PM_OK) {
                    arg->data = s->dynamic[p->flags >> 8];
                    arg->size = bytes;
                }
            }
            at++;
        }
        dims += p->rank;
    }
}

pm_status pm_session_run(pm_session *session, int entry, const pm_tensor_arg *inputs, int n_inputs,
                         pm_tensor_arg *outputs, int n_outputs)
{
    pm_session *s = session;
    PM_TRY(find_entry(s, &entry));
    PM_TRY(prepare(s, entry, inputs, n_inputs));
    PM_TRY(set_outputs(s, &s->model->entries[entry], outputs, n_outputs, true));
    PM_TRY(reserve(s, &s->model->entries[entry]));
    s->call.inputs = s->inputs;
    s->call.outputs = s->outputs;
    s->call.states = s->states;
    s->call.dynamic = s->dynamic;
    s->call.weights = s->model->payload;
    s->call.symbols = s->symbols;
    s->call.error = s->call.found = 0;
    s->call.error_kind = s->call.found_kind = 0;
    s->current = s->chunks;
    if (s->current)
        s->current->used = 64;
    if (s->model->entries[entry].n_dynamic)
        memset(s->dynamic, 0, s->model->entries[entry].n_dynamic * sizeof *s->dynamic);
    pm_pool_run(s->pool, s->model->code->entries[entry].run, &s->call);
    if (s->devices)
        device_sessions(s->model)->end(s);
    if (s->call.error)
        return call_error(s);
    collect_dynamic(s, entry, outputs);
    return PM_OK;
}
