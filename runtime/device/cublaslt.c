#include "runtime/device/cublaslt.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "runtime/rt_internal.h"

static struct {
    pthread_mutex_t lock;
    bool ready;
    pm_cublaslt functions;
} library = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const struct {
    const char *name;
    size_t offset; ///< in pm_cublaslt
} symbols[] = {
#define X(result, name, parameters) {#name, offsetof(pm_cublaslt, name)},
    PM_LT_FUNCTIONS(X)
#undef X
};

/// Its functions hold on to one another: it stays open.
static pm_status load(const char *where)
{
    static const char *const usual[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so",
                                        "/usr/local/cuda/lib64/libcublasLt.so"};
    void *opened = where ? dlopen(where, RTLD_NOW | RTLD_LOCAL) : NULL;
    for (size_t i = 0; i < sizeof usual / sizeof *usual && !where && !opened; i++)
        opened = dlopen(usual[i], RTLD_NOW | RTLD_LOCAL);
    if (!opened)
        return pm_rt_error_set(PM_ERR_UNSUPPORTED, "there is no cuBLASLt (%s)", dlerror());
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *function = dlsym(opened, symbols[i].name);
        if (!function) {
            dlclose(opened);
            return pm_rt_error_set(PM_ERR_UNSUPPORTED, "cuBLASLt has no %s: 12 or later will do", symbols[i].name);
        }
        memcpy((char *)&library.functions + symbols[i].offset, &function, sizeof function);
    }
    library.ready = true;
    return PM_OK;
}

pm_status pm_lt_load(const char *where, const pm_cublaslt **out)
{
    pthread_mutex_lock(&library.lock);
    pm_status status = library.ready ? PM_OK : load(where);
    pthread_mutex_unlock(&library.lock);
    *out = status == PM_OK ? &library.functions : NULL;
    return status;
}

/// ---- products -----------------------------------------------------------------------------------------------

static pm_status told(const pm_lt *lt, const char *doing, lt_status result)
{
    return result == 0 ? PM_OK
                       : pm_rt_error_set(PM_ERR_UNSUPPORTED, "cuBLASLt: %s: %s", doing,
                                         lt->functions->cublasLtGetStatusName(result));
}

static pm_status prefer(const pm_lt *lt, unsigned int attribute, const void *value, size_t size)
{
    return told(lt, "a preference",
                lt->functions->cublasLtMatmulPreferenceSetAttribute(lt->preference, attribute, value, size));
}

/// Partial sums, if there are any, stay in f32.
static pm_status make_preference(pm_lt *lt)
{
    const uint64_t workspace = PM_LT_WORKSPACE;
    const uint32_t reductions = PM_LT_IN_COMPUTE_TYPE, aligned = PM_LT_ALIGNED;
    PM_TRY(told(lt, "a preference", lt->functions->cublasLtMatmulPreferenceCreate(&lt->preference)));
    PM_TRY(prefer(lt, PM_LT_MOST_WORKSPACE, &workspace, sizeof workspace));
    PM_TRY(prefer(lt, PM_LT_REDUCTIONS, &reductions, sizeof reductions));
    for (unsigned int a = PM_LT_ALIGNMENT_A; a <= PM_LT_ALIGNMENT_D; a++)
        PM_TRY(prefer(lt, a, &aligned, sizeof aligned));
    return PM_OK;
}

pm_status pm_lt_open(const char *where, pm_lt *out)
{
    *out = (pm_lt){0};
    PM_TRY(pm_lt_load(where, &out->functions));
    pm_status status = told(out, "opening", out->functions->cublasLtCreate(&out->handle));
    if (status == PM_OK)
        status = make_preference(out);
    if (status != PM_OK)
        pm_lt_close(out);
    return status;
}

void pm_lt_close(pm_lt *lt)
{
    if (lt->preference)
        lt->functions->cublasLtMatmulPreferenceDestroy(lt->preference);
    if (lt->handle)
        lt->functions->cublasLtDestroy(lt->handle);
    *lt = (pm_lt){0};
}

void pm_lt_drop(const pm_lt *lt, pm_lt_product *p)
{
    const lt_layout layouts[] = {p->w, p->x, p->y};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i])
            lt->functions->cublasLtMatrixLayoutDestroy(layouts[i]);
    if (p->desc)
        lt->functions->cublasLtMatmulDescDestroy(p->desc);
    *p = (pm_lt_product){0};
}

static pm_status set(const pm_lt *lt, const pm_lt_product *p, unsigned int attribute, const void *value, size_t size)
{
    return told(lt, "a product", lt->functions->cublasLtMatmulDescSetAttribute(p->desc, attribute, value, size));
}

/// The library's matrices have columns one behind the other: to it y^T = w x^T, where w is stored transposed.
static pm_status describe(const pm_lt *lt, const pm_lt_shape *s, const pm_lt_operands *o, pm_lt_product *p)
{
    const pm_cublaslt *f = lt->functions;
    const int32_t transposed = PM_LT_TRANSPOSED;
    const uint32_t adds_bias = PM_LT_ADDS_BIAS;
    PM_TRY(told(lt, "a product", f->cublasLtMatmulDescCreate(&p->desc, PM_LT_COMPUTE_32F, PM_LT_REAL_32F)));
    PM_TRY(set(lt, p, PM_LT_TRANSA, &transposed, sizeof transposed));
    if (s->bias) {
        PM_TRY(set(lt, p, PM_LT_EPILOGUE, &adds_bias, sizeof adds_bias));
        PM_TRY(set(lt, p, PM_LT_BIAS_POINTER, &o->bias, sizeof o->bias));
    }
    PM_TRY(told(lt, "a matrix", f->cublasLtMatrixLayoutCreate(&p->w, s->factors, s->k, s->n, (int64_t)s->k)));
    PM_TRY(told(lt, "a matrix", f->cublasLtMatrixLayoutCreate(&p->x, s->factors, s->k, s->rows, (int64_t)s->k)));
    return told(lt, "a matrix", f->cublasLtMatrixLayoutCreate(&p->y, s->result, s->n, s->rows, (int64_t)s->n));
}

/// The algorithm that the library thinks best.
static pm_status choose(const pm_lt *lt, pm_lt_product *p)
{
    int n = 0;
    PM_TRY(told(lt, "an algorithm",
                lt->functions->cublasLtMatmulAlgoGetHeuristic(lt->handle, p->desc, p->w, p->x, p->y, p->y, lt->preference, 1,
                                                              (lt_choice *)&p->choice, &n)));
    if (n < 1)
        return pm_rt_error_set(PM_ERR_UNSUPPORTED, "cuBLASLt: it has no algorithm for this product");
    PM_TRY(told(lt, "an algorithm", p->choice.state));
    if (p->choice.workspaceSize > PM_LT_WORKSPACE)
        return pm_rt_error_set(PM_ERR_UNSUPPORTED, "cuBLASLt: it wants more memory than it was promised");
    return PM_OK;
}

pm_status pm_lt_prepare(const pm_lt *lt, const pm_lt_shape *shape, const pm_lt_operands *operands, pm_lt_product *out)
{
    *out = (pm_lt_product){0};
    pm_status status = describe(lt, shape, operands, out);
    if (status == PM_OK)
        status = choose(lt, out);
    if (status != PM_OK)
        pm_lt_drop(lt, out);
    return status;
}

pm_status pm_lt_run(const pm_lt *lt, const pm_lt_product *p, const pm_lt_operands *o, void *workspace, cu_stream stream)
{
    static const float one = 1, zero = 0;
    if (o->bias)
        PM_TRY(set(lt, p, PM_LT_BIAS_POINTER, &o->bias, sizeof o->bias));
    return told(lt, "a product",
                lt->functions->cublasLtMatmul(lt->handle, p->desc, &one, o->w, p->w, o->x, p->x, &zero, o->y, p->y, o->y,
                                              p->y, (const lt_algorithm *)&p->choice.algo, workspace, PM_LT_WORKSPACE,
                                              stream));
}
