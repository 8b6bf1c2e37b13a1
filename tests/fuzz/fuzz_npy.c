// .npy and .npz, as emitted programs read them and as the tools do: refused with a message, or
// arrays that lie where they say. Both readers agree on what they both accept.

#include "tests/fuzz/fuzz_util.h"

#include "runtime/npy.h"
#include "runtime/rt_internal.h"
#include "tools/pimoe/npz_archive.h"

enum { MAX_ARRAYS = 64 };

static void check_array(const uint8_t *bytes, size_t size, const pm_npy *a)
{
    size_t want = pm_port_elem_size((uint32_t)a->elem);
    check(want > 0 && a->rank >= 0 && a->rank <= PM_TENSOR_MAX_RANK);
    for (int32_t d = 0; d < a->rank; d++) {
        check(a->dims[d] >= 0);
        want *= (size_t)a->dims[d];
    }
    check(a->size == want && memchr(a->name, 0, sizeof a->name) != NULL);
    if (bytes != NULL)
        check(a->data >= bytes && a->data + a->size <= bytes + size);
}

/// Returns the number of arrays, or -1 when the archive is refused.
static int read_stored(const uint8_t *bytes, size_t size)
{
    for (int i = 0; i < MAX_ARRAYS; i++) {
        pm_npy found;
        int is_there;
        if (pm_npz_read(bytes, size, "in.npz", i, &found, &is_there) != PM_OK) {
            check(strlen(pm_last_error()) > 0);
            return -1;
        }
        if (!is_there)
            return i;
        check_array(bytes, size, &found);
    }
    return MAX_ARRAYS;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pm_npy lone;
    memset(&lone, 0, sizeof lone);
    if (pm_npy_read(data, size, "in.npy", &lone) == PM_OK)
        check_array(data, size, &lone);
    read_stored(data, size);

    char path[64];
    int fd = fuzz_memory_file(data, size, path);
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    pm_npz archive;
    pm_status status = pm_npz_open(arena, diag, path, &archive);
    fuzz_check_outcome(diag, status);
    for (size_t i = 0; status == PM_OK && i < archive.arrays.n; i++) {
        const pm_npy *a = &archive.arrays.data[i];
        check_array(NULL, 0, a);
        volatile uint8_t sum = 0;
        for (size_t k = 0; k < a->size; k++)
            sum ^= a->data[k];
    }
    pm_arena_destroy(arena);
    close(fd);
    return 0;
}
