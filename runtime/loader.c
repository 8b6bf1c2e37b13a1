/// Opening models: find the payload, map it, check it.
#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/device/device.h"
#include "runtime/rt_internal.h"

const char *pm_model_string(const pm_model *model, pm_artifact_string string)
{
    return (const char *)model->manifest_bytes + string.offset;
}

/// State components that the operating system saves (XCR0).
static uint64_t saved_state(void)
{
    uint32_t lo, hi;
    __asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

uint64_t pm_cpu_features(void)
{
    // By cpuid itself: the compiler's helpers live in a library that programs are not linked with.
    uint32_t a, b, c, d, a1 = 0, b7 = 0, c7 = 0, ignored;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    uint64_t state = saved_state(), f = 0;
    __get_cpuid_count(7, 0, &ignored, &b7, &c7, &d);
    __get_cpuid_count(7, 1, &a1, &ignored, &ignored, &d);
    if ((state & 6) != 6)
        return 0;
    f |= b7 & bit_AVX2 ? PM_CPU_AVX2 : 0;
    f |= c & bit_FMA ? PM_CPU_FMA : 0;
    f |= c & bit_F16C ? PM_CPU_F16C : 0;
    f |= b7 & bit_BMI2 ? PM_CPU_BMI2 : 0;
    uint32_t avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL;
    if ((state & 0xe6) == 0xe6 && (b7 & avx512) == avx512) {
        f |= PM_CPU_AVX512;
        f |= c7 & bit_AVX512VNNI ? PM_CPU_AVX512_VNNI : 0;
        f |= a1 & (1u << 5) ? PM_CPU_AVX512_BF16 : 0;
    }
    return f;
}

/// The file that holds the code: the executable itself, or a shared library.
static const char *code_file(const pm_rt_model *code)
{
    // The program headers that the kernel names are those of the executable. (No linker-made symbol
    // tells them apart: a shared library has an __executable_start of its own.) The descriptor may have been copied
    // into a program that is linked with the library; what it points to was not.
    Dl_info library, program;
    const void *headers = (const void *)(uintptr_t)getauxval(AT_PHDR);
    if (dladdr(code->entries, &library) && library.dli_fname && strchr(library.dli_fname, '/') &&
        dladdr(headers, &program) && library.dli_fbase != program.dli_fbase)
        return library.dli_fname;
    return "/proc/self/exe";
}

static pm_status read_trailer(int fd, const char *path, uint64_t size, pm_artifact_trailer *t)
{
    if (size < sizeof *t || pread(fd, t, sizeof *t, (off_t)(size - sizeof *t)) != sizeof *t ||
        t->magic != PM_ARTIFACT_MAGIC)
        return pm_rt_error_set(PM_ERR_INVALID,
                               "%s carries no weights at its end: was it stripped or cut? "
                               "(strip removes them: pimoec's output is stripped already)", path);
    if (t->payload_size > size || t->payload_size < sizeof *t ||
        (size - t->payload_size) % PM_PAYLOAD_ALIGN != 0)
        return pm_rt_error_set(PM_ERR_INVALID, "%s is damaged: its weights are cut", path);
    return PM_OK;
}

static pm_status map_payload(pm_model *m, const char *path, const uint8_t **out_payload,
                             uint64_t *out_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        pm_status status = pm_rt_error_set(PM_ERR_IO, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return status;
    }
    pm_artifact_trailer t;
    pm_status status = read_trailer(fd, path, (uint64_t)st.st_size, &t);
    if (status == PM_OK) {
        off_t at = st.st_size - (off_t)t.payload_size;
        void *p = mmap(NULL, t.payload_size, PROT_READ, MAP_PRIVATE, fd, at);
        if (p == MAP_FAILED) {
            status = pm_rt_error_set(PM_ERR_IO, "%s can't be mapped: %s", path, strerror(errno));
        } else {
            madvise(p, t.payload_size, MADV_HUGEPAGE); // where the file system can
            m->mapping = p;
            m->mapping_size = t.payload_size;
            *out_payload = p;
            *out_size = t.payload_size;
        }
    }
    close(fd);
    return status;
}

/// States live on devices that the code has, and the plan has room for the devices' numbers.
static pm_status check_devices(const pm_model *m)
{
    for (uint32_t i = 0; i < m->manifest->states.n; i++)
        if (m->states[i].device > m->code->n_devices)
            return pm_rt_error_set(PM_ERR_INVALID, "the artifact is damaged: state %s is on a device that the code lacks",
                                   pm_model_string(m, m->states[i].name));
    for (uint32_t i = 0; i < m->manifest->entries.n; i++)
        if (m->code->n_devices > (PM_MAX_PLAN - 2 - (uint64_t)m->entries[i].n_port_dims) / 2)
            return pm_rt_error_set(PM_ERR_INVALID, "the artifact is damaged: entry %s has too many dims",
                                   pm_model_string(m, m->entries[i].name));
    return PM_OK;
}

pm_status pm_model_open(const pm_rt_model *code, const pm_model_options *options, pm_model **out_model)
{
    *out_model = NULL;
    if (code->abi_version != PM_RUNTIME_ABI_VERSION)
        return pm_rt_error_set(PM_ERR_INVALID, "the model's code has ABI version %u, this runtime %d",
                               code->abi_version, PM_RUNTIME_ABI_VERSION);
    pm_model *m = calloc(1, sizeof *m);
    if (!m)
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    m->code = code;
    const uint8_t *payload = code->payload;
    uint64_t size = code->payload_size ? *code->payload_size : 0;
    const char *path = options && options->struct_size >= sizeof *options ? options->path : NULL;
    bool verify = options && options->struct_size >= sizeof *options && options->verify;
    pm_status status = PM_OK;
    if (!payload || path)
        status = map_payload(m, path ? path : code_file(code), &payload, &size);
    if (status == PM_OK)
        status = pm_payload_check(payload, size, m, verify);
    if (status == PM_OK && m->manifest->code_hash != code->code_hash)
        status = pm_rt_error_set(PM_ERR_INVALID, "weights and code are not of one compilation");
    if (status == PM_OK && m->manifest->entries.n != code->n_entries)
        status = pm_rt_error_set(PM_ERR_INVALID, "weights and code have other entries");
    if (status == PM_OK)
        status = check_devices(m);
    if (status == PM_OK && (m->manifest->cpu_features & ~pm_cpu_features()) != 0)
        status = pm_rt_error_set(PM_ERR_UNSUPPORTED,
                                 "this program was compiled for %s, which has instructions that this CPU "
                                 "lacks; compile it with --target=x86-64-v3",
                                 pm_model_string(m, m->manifest->target));
    if (status != PM_OK) {
        pm_model_close(m);
        return status;
    }
    *out_model = m;
    return PM_OK;
}

void pm_model_close(pm_model *model)
{
    if (!model)
        return;
    if (model->devices)
        model->code->devices->ops->sessions->close_model(model);
    if (model->mapping)
        munmap(model->mapping, model->mapping_size);
    free(model);
}

const uint8_t *pm_model_blob(const pm_model *model, const char *key, uint64_t *out_size)
{
    for (uint32_t i = 0; i < model->manifest->blobs.n; i++)
        if (strcmp(pm_model_string(model, model->blobs[i].key), key) == 0) {
            const pm_artifact_section *s = &model->sections[model->blobs[i].section];
            *out_size = s->size;
            return model->payload + s->offset;
        }
    return NULL;
}

const char *pm_model_meta(const pm_model *model, const char *key)
{
    for (uint32_t i = 0; i < model->manifest->metas.n; i++)
        if (strcmp(pm_model_string(model, model->metas[i].key), key) == 0)
            return pm_model_string(model, model->metas[i].value);
    return NULL;
}

int pm_model_entry(const pm_model *model, const char *name)
{
    for (uint32_t i = 0; i < model->n_entries; i++)
        if (strcmp(pm_model_string(model, model->entries[i].name), name) == 0)
            return (int)i;
    return -1;
}

const char *pm_model_entry_name(const pm_model *model, int entry)
{
    if (entry < 0 || (uint32_t)entry >= model->n_entries)
        return NULL;
    return pm_model_string(model, model->entries[entry].name);
}

/// The i-th port of an entry that is no state; NULL past the end.
static const pm_artifact_port *plain_port(const pm_model *m, int entry, bool output, int i)
{
    if (entry < 0 || (uint32_t)entry >= m->n_entries)
        return NULL;
    const pm_artifact_entry *e = &m->entries[entry];
    uint32_t first = output ? e->first_output : e->first_input, n = output ? e->n_outputs : e->n_inputs;
    for (uint32_t k = 0; k < n; k++)
        if (m->ports[first + k].state < 0 && i-- == 0)
            return &m->ports[first + k];
    return NULL;
}

static int count_ports(const pm_model *m, int entry, bool output)
{
    int n = 0;
    while (plain_port(m, entry, output, n))
        n++;
    return n;
}

int pm_model_n_inputs(const pm_model *model, int entry)
{
    return count_ports(model, entry, false);
}

int pm_model_n_outputs(const pm_model *model, int entry)
{
    return count_ports(model, entry, true);
}

static pm_status port_info(const pm_model *m, const pm_artifact_port *p, pm_port_info *out)
{
    if (!p)
        return pm_rt_error_set(PM_ERR_USAGE, "there is no such input or output");
    *out = (pm_port_info){.name = pm_model_string(m, p->name), .elem = (int32_t)p->elem, .rank = (int32_t)p->rank,
                          .elem_size = pm_port_elem_size(p->elem), .data_dependent = p->flags & 1};
    for (uint32_t i = 0; i < p->rank; i++) {
        out->dims[i] = p->dims[i] >= 0 ? p->dims[i] : -1;
        if (p->dims[i] < 0 && p->dims[i] != INT64_MIN)
            out->symbols[i] = pm_model_string(m, m->symbols[-1 - p->dims[i]].name);
    }
    return PM_OK;
}

pm_status pm_model_input(const pm_model *model, int entry, int i, pm_port_info *out_info)
{
    return port_info(model, plain_port(model, entry, false, i), out_info);
}

pm_status pm_model_output(const pm_model *model, int entry, int i, pm_port_info *out_info)
{
    return port_info(model, plain_port(model, entry, true, i), out_info);
}
