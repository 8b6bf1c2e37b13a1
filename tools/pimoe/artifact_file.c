#include "tools/pimoe/artifact_file.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

enum { AR_HEADER = 60 };

typedef struct span {
    const uint8_t *bytes;
    uint64_t size;
} span;

/// The section of that name in an ELF file of 64 bits; size 0 when there is none or the file is damaged.
static span elf_section(span file, const char *name)
{
    const span none = {0};
    Elf64_Ehdr head;
    if (file.size < sizeof head || memcmp(file.bytes, ELFMAG, SELFMAG) != 0 || file.bytes[EI_CLASS] != ELFCLASS64)
        return none;
    memcpy(&head, file.bytes, sizeof head);
    uint64_t table = (uint64_t)head.e_shnum * sizeof(Elf64_Shdr);
    if (head.e_shentsize != sizeof(Elf64_Shdr) || head.e_shoff > file.size || table > file.size - head.e_shoff ||
        head.e_shstrndx >= head.e_shnum)
        return none;
    Elf64_Shdr strings, s;
    memcpy(&strings, file.bytes + head.e_shoff + head.e_shstrndx * sizeof s, sizeof s);
    if (strings.sh_offset > file.size || strings.sh_size > file.size - strings.sh_offset)
        return none;
    for (uint32_t i = 0; i < head.e_shnum; i++) {
        memcpy(&s, file.bytes + head.e_shoff + i * sizeof s, sizeof s);
        size_t n = strlen(name) + 1;
        if (s.sh_name >= strings.sh_size || strings.sh_size - s.sh_name < n ||
            memcmp(file.bytes + strings.sh_offset + s.sh_name, name, n) != 0)
            continue;
        if (s.sh_type == SHT_NOBITS || s.sh_offset > file.size || s.sh_size > file.size - s.sh_offset)
            return none;
        return (span){file.bytes + s.sh_offset, s.sh_size};
    }
    return none;
}

/// The payload section of the first member of a static library that has one.
static span archive_payload(span file)
{
    uint64_t at = 8;
    while (at <= file.size && file.size - at >= AR_HEADER) {
        char digits[11] = "";
        memcpy(digits, file.bytes + at + 48, 10);
        uint64_t size = strtoull(digits, NULL, 10);
        at += AR_HEADER;
        if (size > file.size - at)
            break;
        span found = elf_section((span){file.bytes + at, size}, ".lrodata.pm_payload");
        if (found.size)
            return found;
        at += size + (size & 1);
    }
    return (span){0};
}

static uint16_t elf_type(span file)
{
    Elf64_Ehdr head;
    if (file.size < sizeof head)
        return ET_NONE;
    memcpy(&head, file.bytes, sizeof head);
    return head.e_type;
}

/// What was appended to an executable or a shared library.
static span tail_payload(span file)
{
    pm_artifact_trailer t;
    if (file.size < sizeof t)
        return (span){0};
    memcpy(&t, file.bytes + file.size - sizeof t, sizeof t);
    if (t.magic != PM_ARTIFACT_MAGIC || t.payload_size > file.size || t.payload_size < sizeof t)
        return (span){0};
    return (span){file.bytes + file.size - t.payload_size, t.payload_size};
}

pm_status pm_artifact_open(pm_arena *arena, pm_diag *diag, const char *path, bool verify, pm_artifact **out)
{
    pm_file *file;
    pm_loc loc = {.file = path};
    *out = NULL;
    PM_TRY(pm_file_open(arena, diag, path, &file));
    PM_TRY(pm_file_map(arena, diag, file));
    pm_artifact *a = PM_NEW(arena, pm_artifact);
    span whole = {file->data, file->size}, payload;
    a->file_size = file->size;
    if (whole.size >= 8 && memcmp(whole.bytes, "!<arch>\n", 8) == 0) {
        a->kind = "static library";
        payload = archive_payload(whole);
    } else if (elf_type(whole) == ET_REL) {
        a->kind = "object";
        payload = elf_section(whole, ".lrodata.pm_payload");
    } else {
        a->kind = elf_section(whole, ".interp").size ? "executable" : "shared library";
        payload = tail_payload(whole);
    }
    if (!payload.size)
        return pm_error(diag, &loc, PM_ERR_INVALID, "this %s carries no weights of a model: it was not made by pimoec, "
                        "or was stripped or cut", a->kind);
    // an object's section may hold padding behind the trailer: none is written, so the end is the trailer
    const uint8_t *bytes = payload.bytes;
    if ((uintptr_t)bytes % 16 != 0) { // inside of a static library anything may be unaligned
        uint8_t *copy = pm_arena_alloc(arena, payload.size, 64);
        memcpy(copy, bytes, payload.size);
        bytes = copy;
    }
    pm_status status = pm_payload_check(bytes, payload.size, &a->model, verify);
    if (status != PM_OK)
        return pm_error(diag, &loc, status, "%s", pm_last_error());
    *out = a;
    return PM_OK;
}
