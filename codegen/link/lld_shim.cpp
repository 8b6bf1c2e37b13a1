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

using new_members = std::vector<llvm::NewArchiveMember>;

static llvm::Error add_members(new_members &all, const llvm::object::Archive &archive,
                               llvm::StringRef but_for)
{
    llvm::Error error = llvm::Error::success();
    for (const llvm::object::Archive::Child &child : archive.children(error)) {
        auto name = child.getName();
        if (!name)
            return name.takeError();
        if (name->starts_with(but_for))
            continue;
        auto member = llvm::NewArchiveMember::getOldMember(child, /*Deterministic=*/true);
        if (!member)
            return member.takeError();
        all.push_back(std::move(*member));
    }
    return error;
}

static llvm::Error write_archive(const char *path, const pm_archive_member *members, size_t n,
                                 const char *more, const char *but_for)
{
    new_members all;
    for (size_t i = 0; i < n; i++) {
        auto member = llvm::NewArchiveMember::getFile(members[i].path, /*Deterministic=*/true);
        if (!member)
            return member.takeError();
        member->MemberName = members[i].name;
        all.push_back(std::move(*member));
    }
    auto bytes = llvm::MemoryBuffer::getFile(more);
    if (!bytes)
        return llvm::errorCodeToError(bytes.getError());
    auto archive = llvm::object::Archive::create((*bytes)->getMemBufferRef());
    if (!archive)
        return archive.takeError();
    if (llvm::Error error = add_members(all, **archive, but_for))
        return error;
    return llvm::writeArchive(path, all, llvm::SymtabWritingMode::NormalSymtab,
                              llvm::object::Archive::K_GNU, /*Deterministic=*/true, /*Thin=*/false);
}

int pm_archive_write(const char *path, const pm_archive_member *members, size_t n, const char *more,
                     const char *but_for, char *message, size_t size)
{
    llvm::Error error = write_archive(path, members, n, more, but_for);
    if (!error)
        return 1;
    copy_message(llvm::toString(std::move(error)), message, size);
    return 0;
}
