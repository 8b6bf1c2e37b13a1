#include "tools/cli/progress.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct pm_progress {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    char title[64], step[64];
    int number, n_steps;
    bool done, drawn;
    struct timespec start;
};

static void draw(pm_progress *p)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double seconds = (double)(t.tv_sec - p->start.tv_sec) + (double)(t.tv_nsec - p->start.tv_nsec) * 1e-9;
    fprintf(stderr, "\r\033[K%s [%d/%d] %s, %.1f s", p->title, p->number, p->n_steps, p->step, seconds);
    fflush(stderr);
    p->drawn = true;
}

/// Draws after 0.2 s and then ten times a second: a quick compilation shows nothing.
static void *work(void *arg)
{
    pm_progress *p = arg;
    pthread_mutex_lock(&p->mutex);
    for (bool first = true; !p->done; first = false) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += first ? 200000000 : 100000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&p->wake, &p->mutex, &until);
        if (!p->done && p->number > 0)
            draw(p);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

pm_progress *pm_progress_start(const char *title, bool wanted)
{
    const char *terminal = getenv("TERM");
    if (!wanted || !isatty(2) || (terminal && strcmp(terminal, "dumb") == 0))
        return NULL;
    pm_progress *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    snprintf(p->title, sizeof p->title, "%s", title);
    clock_gettime(CLOCK_MONOTONIC, &p->start);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->wake, NULL);
    if (pthread_create(&p->thread, NULL, work, p) != 0) {
        free(p);
        return NULL;
    }
    return p;
}

void pm_progress_step(void *progress, const char *step, int number, int n_steps)
{
    pm_progress *p = progress;
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    snprintf(p->step, sizeof p->step, "%s", step);
    p->number = number;
    p->n_steps = n_steps;
    pthread_mutex_unlock(&p->mutex);
}

void pm_progress_end(pm_progress *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    p->done = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    pthread_join(p->thread, NULL);
    if (p->drawn)
        fputs("\r\033[K", stderr);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}
