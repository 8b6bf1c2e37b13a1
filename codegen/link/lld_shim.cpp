#include "codegen/link/lld_shim.h"

#include <cstring>
#include <string>
#include <vector>

#include "lld/Common/CommonLinkerContext.h"
#include "lld/Common/Driver.h"
#include "llvm/Object/ArchiveWriter.h"
#include "llvm/Support/raw_ostream.h"

LLD_HAS_DRIVER(elf)

static void copy_message(const std::string &text, char *message, size_t size)
{
    if (size == 0)
        return;
    size_t n = text.size() < size - 1 ? text.size() : size - 1;
    std::memcpy(message, text.data(), n);
    message[n] = '\0';
}

int pm_lld_link(const char *const *argv, size_t argc, char *message, size_t size)
{
    std::string words;
    llvm::raw_string_ostream out(words);
    bool ok = lld::elf::link(llvm::ArrayRef<const char *>(argv, argc), out, out, false, false);
    lld::CommonLinkerContext::destroy();
    copy_message(words, message, size);
    return ok;
}

int pm_archive_write(const char *path, const char *const *member_paths, size_t n, char *message,
                     size_t size)
{
    std::vector<llvm::NewArchiveMember> members;
    for (size_t i = 0; i < n; i++) {
        auto member = llvm::NewArchiveMember::getFile(member_paths[i], /*Deterministic=*/true);
        if (!member) {
            copy_message(llvm::toString(member.takeError()), message, size);
            return 0;
        }
        members.push_back(std::move(*member));
    }
    llvm::Error error =
        llvm::writeArchive(path, members, llvm::SymtabWritingMode::NormalSymtab,
                           llvm::object::Archive::K_GNU, /*Deterministic=*/true, /*Thin=*/false);
    if (!error)
        return 1;
    copy_message(llvm::toString(std::move(error)), message, size);
    return 0;
}
