// A program that uses all of base, for the fault-injection runs: reads a JSON file and a file
// beneath a folder, and writes an output file.   fault_target FOLDER OUT

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/containers.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/str.h"

/// Reads `FOLDER/in.json`: {"files": [names beneath FOLDER], "repeat": n}.
static pm_status process(pm_arena *arena, pm_diag *diag, const char *folder, const char *out_path)
{
    pm_file *file;
    const pm_json *root;
    int64_t repeat = 1;
    const char *path = pm_path_join(arena, folder, "in.json");
    PM_TRY(pm_file_open(arena, diag, path, &file));
    PM_TRY(pm_file_map(arena, diag, file));
    PM_TRY(pm_json_parse(arena, diag, path, (const char *)file->data, file->size, &root));
    PM_TRY(pm_json_get_i64(diag, path, root, "repeat", true, &repeat));
    const pm_json *names = pm_json_get(root, "files");

    pm_out_file *out;
    PM_TRY(pm_out_open(arena, diag, out_path, 0644, &out));
    pm_map seen;
    pm_map_init(&seen, arena);
    for (size_t i = 0; names != NULL && i < names->n; i++) {
        pm_loc loc = pm_json_loc(path, &names->items[i]);
        pm_file *part;
        PM_TRY(pm_file_open_beneath(arena, diag, &loc, folder, names->items[i].string, &part));
        char *bytes = pm_arena_alloc(arena, part->size + 1, 1);
        PM_TRY(pm_file_read(diag, part, 0, bytes, part->size));
        PM_TRY(pm_file_map(arena, diag, part));
        pm_map_put_str(&seen, names->items[i].string, bytes);
        char text[PM_HASH_TEXT_SIZE];
        pm_hash_text(pm_hash_bytes(part->data, part->size), text);
        pm_str line = pm_str_new(arena);
        for (int64_t r = 0; r < repeat; r++)
            pm_str_printf(&line, "%s %" PRId64 " %s: %s", text, r, names->items[i].string, bytes);
        fwrite(line.data, 1, line.n, out->stream);
    }
    return pm_out_commit(diag, out);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    jmp_buf on_oom;
    pm_arena *volatile arena = pm_arena_create();
    pm_status status = PM_ERR_NO_MEMORY;
    if (arena != NULL && setjmp(on_oom) == 0) {
        pm_arena_on_oom(arena, &on_oom);
        pm_diag *diag = pm_diag_create(arena);
        status = process(arena, diag, argv[1], argv[2]);
        pm_diag_print(diag, stderr, false);
    } else {
        status = PM_ERR_NO_MEMORY;
        fputs("out of memory\n", stderr);
    }
    pm_arena_destroy(arena);
    return pm_exit_code(status);
}
