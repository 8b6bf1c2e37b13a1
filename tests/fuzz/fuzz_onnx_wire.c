// The ONNX importer, wire format and meaning: no input may crash it; what it refuses has an error
// that prints, what it accepts is a module that verifies.

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "frontend/frontend.h"
#include "frontend/onnx/onnx_wire.h"
#include "ir/text.h"

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* What the scan has pruned is accepted by the scan again. */
static void check_scan(const uint8_t *data, size_t size)
{
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    pm_onnx_wire wire, again;
    if (pm_onnx_wire_scan(arena, diag, "in.onnx", data, size, &wire) == PM_OK) {
        check(pm_diag_count(diag, PM_ERROR) == 0);
        check(pm_onnx_wire_scan(arena, diag, "again", wire.bytes, wire.size, &again) == PM_OK);
        check(again.n_nodes == wire.n_nodes && again.n_messages == wire.n_messages);
        check(again.size == wire.size);
    } else {
        check(pm_diag_count(diag, PM_ERROR) == 1);
    }
    pm_arena_destroy(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_scan(data, size);
    char path[64];
    int fd = memfd_create("in.onnx", 0);
    check(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    pm_module *module;
    pm_status status = pm_onnx_load(arena, diag, path, &module);
    check((status == PM_OK) == (module != NULL));
    check((status == PM_OK) == (pm_diag_count(diag, PM_ERROR) == 0));
    check(status != PM_ERR_INTERNAL && status != PM_ERR_USAGE);
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    pm_diag_print(diag, out, false);
    if (module)
        check(pm_module_verify(module) == PM_OK);
    fclose(out);
    free(text);
    pm_arena_destroy(arena);
    close(fd);
    return 0;
}
