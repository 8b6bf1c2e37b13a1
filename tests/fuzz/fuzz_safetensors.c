// The safetensors reader: whatever it accepts lies inside of the file, is as large as its shape
// says, and overlaps nothing. Inputs: 2 bytes, then the header's text, with as many bytes of data
// behind it as the 2 bytes say; or, when both are 0xff, a whole file.

#include "tests/fuzz/fuzz_util.h"

#include "frontend/checkpoint/safetensors.h"
#include "ir/type.h"

static int by_offset(const void *left, const void *right)
{
    const pm_safetensor *a = *(pm_safetensor *const *)left, *b = *(pm_safetensor *const *)right;
    return a->offset != b->offset ? (a->offset < b->offset ? -1 : 1)
           : a->size != b->size   ? (a->size < b->size ? -1 : 1)
                                  : 0;
}

static void check_tensors(pm_arena *arena, const pm_safetensors *set, const pm_file *file)
{
    size_t n = set->tensors.n;
    pm_safetensor **all = PM_NEW_ARRAY(arena, pm_safetensor *, n);
    size_t k = 0;
    for (size_t i = 0; i < set->tensors.n; i++) {
        pm_safetensor *t = set->tensors.entries[i].value;
        check(t->offset <= file->size && t->size <= file->size - t->offset);
        check(pm_safetensors_find(set, t->name) == t);
        check(t->rank >= 0);
        uint64_t count = 1;
        bool is_empty = false;
        for (int32_t d = 0; d < t->rank; d++) {
            check(t->dims[d] >= 0);
            is_empty = is_empty || t->dims[d] == 0;
        }
        for (int32_t d = 0; d < t->rank && !is_empty; d++)
            check(!__builtin_mul_overflow(count, (uint64_t)t->dims[d], &count));
        if (t->elem >= 0)
            check(t->size == (is_empty ? 0 : count) * pm_elem_size((pm_elem)t->elem));
        all[k++] = t;
    }
    qsort(all, k, sizeof(pm_safetensor *), by_offset);
    for (size_t i = 1; i < k; i++)
        check(all[i - 1]->offset + all[i - 1]->size <= all[i]->offset);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t zeros[65535];
    if (size < 2)
        return 0;
    char path[64];
    int fd;
    size_t n_data = data[0] | (size_t)data[1] << 8;
    if (n_data == 0xffff) {
        fd = fuzz_memory_file(data + 2, size - 2, path);
    } else {
        uint64_t header = size - 2;
        fd = fuzz_memory_file(&header, sizeof header, path);
        fuzz_write(fd, data + 2, size - 2);
        fuzz_write(fd, zeros, n_data);
    }
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    pm_file *file;
    check(pm_file_open(arena, diag, path, &file) == PM_OK);
    pm_safetensors set = {.arena = arena, .diag = diag, .path = path};
    pm_map_init(&set.tensors, arena);
    pm_status status = pm_safetensors_add_file(&set, file);
    fuzz_check_outcome(diag, status);
    if (status == PM_OK)
        check_tensors(arena, &set, file);
    pm_arena_destroy(arena);
    close(fd);
    return 0;
}
