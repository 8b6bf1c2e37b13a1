#include "codegen/cuda/compile_jobs.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>

#include "base/containers.h"

enum { MOST_THREADS = 16, STACK_BYTES = 16 << 20 }; ///< NVRTC recurses deeply

typedef struct job {
    struct job *next, *next_to_do;
    pm_arena *arena; ///< its own: threads share none
    pm_diag *diag;
    pm_status status;
    const pm_cuda_program *program; ///< to compile; NULL: to assemble
    pm_cuda_code *code;
    const char *name, *arch;
    pm_cuda_ptx ptx;
    const uint8_t **cubin;
    size_t *cubin_size;
} job;

struct pm_cuda_jobs {
    pm_arena *arena;
    pm_diag *diag;
    pthread_mutex_t lock;
    pthread_cond_t more; ///< work, or the end of it
    job *first, **end, *next; ///< all; what nobody took yet
    bool closing;
    size_t waiting; ///< threads without work
    size_t n_threads, most_threads;
    pthread_t threads[MOST_THREADS];
};

static size_t usable_processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n > MOST_THREADS ? MOST_THREADS : (size_t)n;
}

static void run(job *j)
{
    jmp_buf out_of_memory;
    if (setjmp(out_of_memory)) {
        j->status = PM_ERR_NO_MEMORY;
        return;
    }
    pm_arena_on_oom(j->arena, &out_of_memory);
    pm_cuda_compiler *compiler = pm_cuda_compiler_new(j->arena, j->diag);
    j->status = j->program ? pm_cuda_compile(compiler, j->program, j->code)
                           : pm_cuda_assemble(compiler, j->name, &j->ptx, 1, j->arch, j->cubin, j->cubin_size);
    pm_arena_on_oom(j->arena, NULL);
}

/// The next one; waits for it until none will come.
static job *take(pm_cuda_jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->waiting++;
    while (!jobs->next && !jobs->closing)
        pthread_cond_wait(&jobs->more, &jobs->lock);
    jobs->waiting--;
    job *j = jobs->next;
    if (j)
        jobs->next = j->next_to_do;
    pthread_mutex_unlock(&jobs->lock);
    return j;
}

static void *work(void *arg)
{
    for (job *j; (j = take(arg)) != NULL;)
        run(j);
    return NULL;
}

static void close_jobs(pm_cuda_jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->closing = true;
    pthread_cond_broadcast(&jobs->more);
    pthread_mutex_unlock(&jobs->lock);
}

static void join(pm_cuda_jobs *jobs)
{
    for (size_t i = 0; i < jobs->n_threads; i++)
        pthread_join(jobs->threads[i], NULL);
    jobs->n_threads = 0;
}

/// With the arena: nobody will ask for what is left.
static void drop(void *arg)
{
    pm_cuda_jobs *jobs = arg;
    pthread_mutex_lock(&jobs->lock);
    jobs->next = NULL;
    pthread_mutex_unlock(&jobs->lock);
    close_jobs(jobs);
    join(jobs);
    for (job *j = jobs->first, *next; j; j = next) {
        next = j->next;
        pm_arena_destroy(j->arena);
    }
    pthread_cond_destroy(&jobs->more);
    pthread_mutex_destroy(&jobs->lock);
}

pm_cuda_jobs *pm_cuda_jobs_new(pm_arena *arena, pm_diag *diag)
{
    pm_cuda_jobs *jobs = PM_NEW(arena, pm_cuda_jobs);
    jobs->arena = arena;
    jobs->diag = diag;
    jobs->end = &jobs->first;
    // The thread that asks has work of its own meanwhile, and helps at the end.
    jobs->most_threads = usable_processors();
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->more, NULL);
    pm_arena_defer(arena, drop, jobs);
    return jobs;
}

/// One more thread. Without it there is as much to do for the others.
static void add_thread(pm_cuda_jobs *jobs)
{
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return;
    if (pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0 &&
        pthread_create(&jobs->threads[jobs->n_threads], &attributes, work, jobs) == 0)
        jobs->n_threads++;
    pthread_attr_destroy(&attributes);
}

/// In front of what waits (what takes long must not come last), or behind it.
static void add(pm_cuda_jobs *jobs, job with, bool hurries)
{
    job *j = PM_NEW(jobs->arena, job);
    *j = with;
    j->arena = pm_arena_create();
    if (!j->arena)
        pm_arena_out_of_memory(jobs->arena);
    j->diag = pm_diag_create(j->arena);
    pthread_mutex_lock(&jobs->lock);
    *jobs->end = j;
    jobs->end = &j->next;
    job **line = &jobs->next;
    while (*line && !hurries)
        line = &(*line)->next_to_do;
    j->next_to_do = *line;
    *line = j;
    bool short_of_hands = jobs->waiting == 0 && jobs->n_threads < jobs->most_threads;
    pthread_cond_signal(&jobs->more);
    pthread_mutex_unlock(&jobs->lock);
    if (short_of_hands)
        add_thread(jobs);
}

void pm_cuda_jobs_compile(pm_cuda_jobs *jobs, const pm_cuda_program *program, pm_cuda_code *out_code)
{
    add(jobs, (job){.program = program, .code = out_code}, false);
}

void pm_cuda_jobs_assemble(pm_cuda_jobs *jobs, const char *name, const pm_cuda_ptx *ptx, const char *arch,
                           const uint8_t **out_cubin, size_t *out_size)
{
    add(jobs, (job){.name = name, .arch = arch, .ptx = *ptx, .cubin = out_cubin, .cubin_size = out_size},
        true);
}

static void tell(pm_diag *diag, const pm_diag *of)
{
    for (size_t i = 0; i < pm_diag_size(of); i++) {
        const pm_diag_entry *e = pm_diag_at(of, i);
        switch (e->severity) {
        case PM_ERROR: (void)pm_error(diag, e->loc, e->code, "%s", e->text); break;
        case PM_WARNING: pm_warning(diag, e->loc, e->kind, "%s", e->text); break;
        case PM_NOTE: pm_note(diag, e->loc, "%s", e->text); break;
        }
    }
}

pm_status pm_cuda_jobs_wait(pm_cuda_jobs *jobs)
{
    pm_status status = PM_OK;
    close_jobs(jobs);
    work(jobs);
    join(jobs);
    for (const job *j = jobs->first; j; j = j->next) {
        tell(jobs->diag, j->diag);
        status = status == PM_OK ? j->status : status;
    }
    return status;
}
