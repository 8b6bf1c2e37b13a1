/// The payload as an ELF object: one large read-only section and two symbols. Written as a stream.
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codegen/link/link_files.h"
#include "runtime/artifact_format.h"

enum { SEC_NULL, SEC_PAYLOAD, SEC_SIZE, SEC_SYMTAB, SEC_STRTAB, SEC_SHSTRTAB, SEC_STACK, N_SECTIONS };

static const char section_names[] = "\0.lrodata.pm_payload\0.rodata.pm_size\0.symtab\0.strtab\0.shstrtab\0.note.GNU-stack";

static uint32_t name_offset(int section)
{
    const char *at = section_names;
    for (int i = 0; i < section; i++)
        at += strlen(at) + 1;
    return (uint32_t)(at - section_names);
}

static pm_status failed(pm_module *m, const char *path)
{
    return pm_error(m->diag, NULL, PM_ERR_IO, "%s: %s", path, strerror(errno));
}

static pm_status copy_bytes(pm_module *m, int from, int to, uint64_t size, const char *path)
{
    off_t in = 0;
    while (size > 0) {
        size_t want = size < (1u << 30) ? (size_t)size : 1u << 30;
        ssize_t n = copy_file_range(from, &in, to, NULL, want, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) { // another file system, or an old kernel
            char chunk[1 << 16];
            n = pread(from, chunk, size < sizeof chunk ? (size_t)size : sizeof chunk, in);
            if (n <= 0 || write(to, chunk, (size_t)n) != n)
                return failed(m, path);
            in += n;
        }
        size -= (uint64_t)n;
    }
    return PM_OK;
}

static bool write_at(int fd, uint64_t offset, const void *bytes, size_t size)
{
    return pwrite(fd, bytes, size, (off_t)offset) == (ssize_t)size;
}

pm_status pm_payload_object(pm_module *m, const char *payload_path, const char *symbol,
                            const char *object_path)
{
    int from = open(payload_path, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return failed(m, payload_path);
    int to = open(object_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct stat st;
    if (to < 0 || fstat(from, &st) != 0) {
        close(from);
        return failed(m, object_path);
    }
    uint64_t payload_at = PM_PAYLOAD_ALIGN, size = (uint64_t)st.st_size;
    pm_status status = lseek(to, (off_t)payload_at, SEEK_SET) < 0
                           ? failed(m, object_path)
                           : copy_bytes(m, from, to, size, object_path);
    uint64_t at = (payload_at + size + 15) / 16 * 16;
    char strings[512];
    int n_data = snprintf(strings, sizeof strings, "%cpm_payload_%s", 0, symbol) + 1;
    int n_size = snprintf(strings + n_data, sizeof strings - (size_t)n_data, "pm_payload_size_%s", symbol) + 1;
    size_t strings_size = (size_t)(n_data + n_size);
    Elf64_Sym symbols[3] = {
        {0},
        {.st_name = 1, .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT), .st_other = STV_HIDDEN,
         .st_shndx = SEC_PAYLOAD, .st_size = size},
        {.st_name = (uint32_t)n_data, .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT),
         .st_other = STV_HIDDEN, .st_shndx = SEC_SIZE, .st_size = 8},
    };
    uint64_t size_at = at, symbols_at = at + 16, strings_at = symbols_at + sizeof symbols;
    uint64_t names_at = strings_at + strings_size, headers_at = (names_at + sizeof section_names + 15) / 16 * 16;
    Elf64_Shdr headers[N_SECTIONS] = {
        [SEC_PAYLOAD] = {.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | 0x10000000 /* large */,
                         .sh_offset = payload_at, .sh_size = size, .sh_addralign = PM_PAYLOAD_ALIGN},
        [SEC_SIZE] = {.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC, .sh_offset = size_at,
                      .sh_size = 8, .sh_addralign = 8},
        [SEC_SYMTAB] = {.sh_type = SHT_SYMTAB, .sh_offset = symbols_at, .sh_size = sizeof symbols,
                        .sh_link = SEC_STRTAB, .sh_info = 1, .sh_addralign = 8,
                        .sh_entsize = sizeof(Elf64_Sym)},
        [SEC_STRTAB] = {.sh_type = SHT_STRTAB, .sh_offset = strings_at, .sh_size = strings_size, .sh_addralign = 1},
        [SEC_SHSTRTAB] = {.sh_type = SHT_STRTAB, .sh_offset = names_at, .sh_size = sizeof section_names, .sh_addralign = 1},
        [SEC_STACK] = {.sh_type = SHT_PROGBITS, .sh_offset = names_at, .sh_addralign = 1},
    };
    for (int i = 1; i < N_SECTIONS; i++)
        headers[i].sh_name = name_offset(i);
    Elf64_Ehdr head = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                       .e_type = ET_REL, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
                       .e_shoff = headers_at, .e_ehsize = sizeof head, .e_shentsize = sizeof(Elf64_Shdr),
                       .e_shnum = N_SECTIONS, .e_shstrndx = SEC_SHSTRTAB};
    if (status == PM_OK &&
        !(write_at(to, 0, &head, sizeof head) && write_at(to, size_at, &size, 8) &&
          write_at(to, symbols_at, symbols, sizeof symbols) && write_at(to, strings_at, strings, strings_size) &&
          write_at(to, names_at, section_names, sizeof section_names) &&
          write_at(to, headers_at, headers, sizeof headers)))
        status = failed(m, object_path);
    close(from);
    if (close(to) != 0 && status == PM_OK)
        status = failed(m, object_path);
    return status;
}
