/// Sessions of one model on several threads, each with workers of its own, over a stand-in for code
/// that does what emitted code does: tiles by index, barriers between dispatches, buffers placed
/// during the run, faults. For the thread sanitizer above all; emitted code itself is not
/// instrumented.
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rt_internal.h"

enum { N = 1024, DISPATCHES = 12, CALLS = 40, SESSIONS = 3, WORKERS = 3 };

/// The manifest, as the checks leave it: one entry, "out" [N] and "found" [count] of f32.
static struct {
    pm_artifact_manifest head;
    pm_artifact_entry entry;
    pm_artifact_port ports[3];
    pm_artifact_symbol count;
    char strings[64];
} image;

static void plan(const int64_t *symbols, int64_t *out)
{
    out[0] = N * sizeof(int64_t);
    out[1] = 256;
    out[2] = 1;          // how
    out[3] = N;          // out
    out[4] = symbols[0]; // found
}

/// Each round reads what all workers wrote in the one before.
static void run(pm_rt_call *call, int64_t worker, int64_t n_workers)
{
    int64_t *sums = (int64_t *)call->arena;
    int64_t how = *(const int64_t *)call->inputs[0];
    int64_t begin = N * worker / n_workers, end = N * (worker + 1) / n_workers;
    int64_t *own = (int64_t *)(call->scratch + worker * call->scratch_bytes);
    for (int64_t i = begin; i < end; i++)
        sums[i] = i;
    pm_rt_barrier(call, worker);
    for (int d = 0; d < DISPATCHES; d++) {
        own[0] = 0;
        for (int64_t i = 0; i < N; i++)
            own[0] += sums[i];
        if (how == d)
            pm_rt_fail(call, d); // by all workers: the first wins
        pm_rt_barrier(call, worker);
        if (call->error)
            return;
        for (int64_t i = begin; i < end; i++)
            sums[i] = (own[0] + i) % 1000;
        if (d == 5 && worker == 0) {
            call->symbols[0] = sums[0] % 7 + 1;
            pm_rt_place(call, 0, call->symbols[0] * (int64_t)sizeof(float), d);
        }
        pm_rt_barrier(call, worker);
        if (call->error)
            return;
    }
    for (int64_t i = begin; i < end; i++)
        ((float *)call->outputs[0])[i] = (float)sums[i];
    if (worker == n_workers - 1)
        for (int64_t i = 0; i < call->symbols[0]; i++)
            ((float *)call->dynamic[0])[i] = (float)i;
    pm_rt_barrier(call, worker);
}

static void no_states(const int64_t *symbols, int64_t *out)
{
    (void)symbols;
    (void)out;
}

static const pm_rt_entry entries[] = {{run, plan}};
static const pm_rt_model code = {.abi_version = PM_RUNTIME_ABI_VERSION,
                                 .n_entries = 1,
                                 .entries = entries,
                                 .state_bytes = no_states};

static pm_model model_over_image(void)
{
    strcpy(image.strings, "name");
    uint32_t offset = (uint32_t)(image.strings - (char *)&image);
    pm_artifact_string name = {offset, 4};
    image.head.entries.n = 1;
    image.head.ports.n = 3;
    image.head.symbols.n = 1;
    image.entry = (pm_artifact_entry){name, 0, 1, 1, 2, 1, 3};
    image.ports[0] =
        (pm_artifact_port){.name = name, .elem = 4, .rank = 1, .state = -1, .dims = {1}};
    image.ports[1] = (pm_artifact_port){.name = name, .rank = 1, .state = -1, .dims = {N}};
    image.ports[2] =
        (pm_artifact_port){.name = name, .rank = 1, .state = -1, .flags = 1, .dims = {-1}};
    image.count = (pm_artifact_symbol){.name = name, .hi = 8, .data_dependent = 1};
    return (pm_model){.code = &code,
                      .manifest_bytes = (const uint8_t *)&image,
                      .manifest = &image.head,
                      .n_entries = 1, .entries = &image.entry,
                      .ports = image.ports,
                      .symbols = &image.count};
}

typedef struct job {
    pm_model *model;
    int workers;
    float out[N];
    int64_t n_found;
    const char *fault;
} job;

static void *work(void *arg)
{
    job *j = arg;
    pm_session *session;
    const pm_session_options options = {.struct_size = sizeof options, .threads = j->workers};
    if (pm_session_create(j->model, &options, &session) != PM_OK) {
        j->fault = "no session";
        return NULL;
    }
    for (int call = 0; call < CALLS; call++) {
        int64_t how = call % 4 == 3 ? call % DISPATCHES : -1;
        pm_tensor_arg input = {.data = &how, .size = sizeof how, .rank = 1, .dims = {1}};
        pm_tensor_arg outputs[2] = {{.data = j->out, .size = sizeof j->out}, {.data = NULL}};
        pm_status status = pm_session_run(session, 0, &input, 1, outputs, 2);
        if (status != (how >= 0 ? PM_ERR_INVALID : PM_OK))
            j->fault = "another status";
        if (status == PM_OK) {
            j->n_found = outputs[1].dims[0];
            for (int64_t i = 0; i < j->n_found; i++)
                if (((const float *)outputs[1].data)[i] != (float)i)
                    j->fault = "another content of the placed buffer";
        }
    }
    pm_session_destroy(session);
    return NULL;
}

/// What a loop asks of a dynamic slot: the same again and again, more and more, one piece behind the other.
static void rounds(pm_rt_call *call, int64_t worker, int64_t n_workers)
{
    (void)n_workers;
    if (worker == 0) {
        const uint8_t *first = NULL;
        for (int i = 0; i < 10000; i++) {
            pm_rt_place(call, 0, 4096 - i % 3, 0);
            first = first ? first : call->dynamic[0];
            if (call->dynamic[0] != first)
                pm_rt_fail(call, 1);
            memset(call->dynamic[0], i, 4096 - i % 3);
        }
        call->dynamic[0] = NULL; // another slot, as far as the runtime knows
        for (int64_t i = 0; i < 50000; i++) {
            pm_rt_grow(call, 0, i, sizeof i, 2);
            ((int64_t *)call->dynamic[0])[i] = i;
        }
        for (int64_t i = 0; i < 50000; i++)
            if (((int64_t *)call->dynamic[0])[i] != i)
                pm_rt_fail(call, 2);
        if (*(const int64_t *)call->inputs[0] == 1) // sizes that don't fit
            pm_rt_grow(call, 0, INT64_MAX / 4, 16, 3);
        if (*(const int64_t *)call->inputs[0] == 2)
            pm_rt_place(call, 0, -1, 3);
        call->symbols[0] = 4;
    }
    pm_rt_barrier(call, worker);
}

START_TEST(slots_of_loops)
{
    static const pm_rt_entry looping[] = {{rounds, plan}};
    static const pm_rt_model looping_code = {.abi_version = PM_RUNTIME_ABI_VERSION,
                                             .n_entries = 1,
                                             .entries = looping,
                                             .state_bytes = no_states};
    pm_model model = model_over_image();
    model.code = &looping_code;
    pm_session *session;
    const pm_session_options options = {.struct_size = sizeof options, .threads = 2};
    static float out[N];
    ck_assert_int_eq(pm_session_create(&model, &options, &session), PM_OK);
    for (int64_t how = 0; how < 4; how++) {
        pm_tensor_arg input = {.data = &how, .size = sizeof how, .rank = 1, .dims = {1}};
        pm_tensor_arg outputs[2] = {{.data = out, .size = sizeof out}, {.data = NULL}};
        pm_status status = pm_session_run(session, 0, &input, 1, outputs, 2);
        ck_assert_int_eq(status, how == 1 || how == 2 ? PM_ERR_NO_MEMORY : PM_OK);
    }
    // what grew to 400 KB asked for no more than twice as much, and once as much on the way
    size_t bytes = 0;
    for (const pm_rt_chunk *c = session->chunks; c; c = c->next)
        bytes += c->size;
    ck_assert_uint_le(bytes, 8 << 20);
    pm_session_destroy(session);
}
END_TEST

START_TEST(sessions_side_by_side)
{
    pm_model model = model_over_image();
    static job jobs[SESSIONS * WORKERS];
    for (int round = 0; round < WORKERS; round++) {
        pthread_t threads[SESSIONS];
        for (int i = 0; i < SESSIONS; i++) {
            job *j = &jobs[round * SESSIONS + i];
            *j = (job){.model = &model, .workers = 1 + (round + i) % WORKERS};
            ck_assert_int_eq(pthread_create(&threads[i], NULL, work, j), 0);
        }
        for (int i = 0; i < SESSIONS; i++)
            pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < SESSIONS * WORKERS; i++) {
        ck_assert_msg(jobs[i].fault == NULL, "session %d: %s", i, jobs[i].fault);
        ck_assert_mem_eq(jobs[i].out, jobs[0].out, sizeof jobs[0].out);
        ck_assert_int_ge(jobs[i].n_found, 1);
        ck_assert_int_eq(jobs[i].n_found, jobs[0].n_found);
    }
    ck_assert(jobs[0].out[1] != jobs[0].out[0]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sessions on threads");
    TCase *tests = tcase_create("threads");
    tcase_add_test(tests, sessions_side_by_side);
    tcase_add_test(tests, slots_of_loops);
    tcase_set_timeout(tests, 120);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
