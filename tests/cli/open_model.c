/// Opens the shared library of a model with dlopen and runs it; nothing of the model's API is linked in.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "pm/runtime.h"

#define LOAD(name) load(library, #name, &api_##name)

static int load(void *library, const char *name, void *where)
{
    void *symbol = dlsym(library, name);
    memcpy(where, &symbol, sizeof symbol);
    if (!symbol)
        fprintf(stderr, "no %s\n", name);
    return symbol != NULL;
}

int main(int argc, char **argv)
{
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    const pm_rt_model *code = dlsym(library, "pm_model_answer");
    pm_status (*api_pm_model_open)(const pm_rt_model *, const pm_model_options *, pm_model **);
    pm_status (*api_pm_session_create)(pm_model *, const pm_session_options *, pm_session **);
    pm_status (*api_pm_session_run)(pm_session *, int, const pm_tensor_arg *, int, pm_tensor_arg *, int);
    void (*api_pm_session_destroy)(pm_session *);
    void (*api_pm_model_close)(pm_model *);
    if (!code || !LOAD(pm_model_open) || !LOAD(pm_session_create) || !LOAD(pm_session_run) ||
        !LOAD(pm_session_destroy) || !LOAD(pm_model_close))
        return 1;
    pm_model *model;
    pm_session *session;
    float x[4] = {0, 1, 12, 12}, y = 0;
    pm_tensor_arg in = {.data = x, .size = sizeof x, .rank = 2, .dims = {1, 4}}, out = {.data = &y, .size = sizeof y};
    if (api_pm_model_open(code, NULL, &model) != PM_OK || api_pm_session_create(model, NULL, &session) != PM_OK ||
        api_pm_session_run(session, 0, &in, 1, &out, 1) != PM_OK)
        return 1;
    printf("%g\n", (double)y);
    api_pm_session_destroy(session);
    api_pm_model_close(model);
    dlclose(library);
    return y != 144;
}
