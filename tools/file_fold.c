/// Packs a file whose contents repeat over long distances, as artifacts of random weights do that are cut from one block
/// (bench/random_checkpoint.py): pimoe-fold IN OUT; pimoe-fold -d IN OUT brings it back.
///
/// A folded file: magic, size and hash of the whole; then pieces: where the bytes came before and how many there are, or
/// LITERAL, how many, and the bytes. Pieces are found by a rolling hash of WINDOW bytes.
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WINDOW = 1024, SLOTS = 1 << 20, EXECUTABLE = 0755 };
static const uint64_t magic = 0x31444c4f464d50; // "PMFOLD1"
static const uint64_t literal = UINT64_MAX;
static const uint32_t factor = 0x01000193;

typedef struct header {
    uint64_t magic, size, hash;
} header;

typedef struct piece {
    uint64_t from, n;
} piece;

typedef struct folding {
    const uint8_t *bytes;
    uint64_t size;
    FILE *out;
    uint64_t *slots; ///< of aligned windows that were written out: 1 + where; 0: none
} folding;

static _Noreturn void die(const char *what, const char *path)
{
    fprintf(stderr, "error: %s: %s\n", path, what);
    exit(3);
}

static uint64_t hash_of(const uint8_t *bytes, uint64_t n)
{
    uint64_t hash = 0xcbf29ce484222325u, word;
    for (; n >= 8; bytes += 8, n -= 8) {
        memcpy(&word, bytes, 8);
        hash = (hash ^ word) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    for (; n; bytes++, n--)
        hash = (hash ^ *bytes) * 0x100000001b3u;
    return hash;
}

static void put(const folding *f, uint64_t from, uint64_t at, uint64_t n)
{
    piece p = {from, n};
    if (n == 0)
        return;
    if (fwrite(&p, sizeof p, 1, f->out) != 1 || (from == literal && fwrite(f->bytes + at, 1, n, f->out) != n))
        die("can't be written", "the folded file");
}

static uint32_t window_hash(const uint8_t *bytes)
{
    uint32_t hash = 0;
    for (int i = 0; i < WINDOW; i++)
        hash = hash * factor + bytes[i] + 1;
    return hash;
}

static void fold(const folding *f)
{
    uint32_t leaving = 1; // factor to the power of WINDOW - 1, for the byte that leaves the window
    for (int i = 1; i < WINDOW; i++)
        leaving *= factor;
    uint64_t start = 0, at = 0; // start: of the bytes that are not written yet
    uint32_t hash = f->size >= WINDOW ? window_hash(f->bytes) : 0;
    while (at + WINDOW <= f->size) {
        uint64_t *slot = &f->slots[(hash ^ hash >> 12) % SLOTS];
        uint64_t from = *slot - 1;
        if (*slot && from + WINDOW <= at && memcmp(f->bytes + from, f->bytes + at, WINDOW) == 0) {
            uint64_t n = WINDOW;
            while (at > start && from > 0 && f->bytes[from - 1] == f->bytes[at - 1])
                from--, at--, n++;
            while (at + n < f->size && from + n < at && f->bytes[from + n] == f->bytes[at + n])
                n++;
            if (from + n > at)
                n = at - from;
            put(f, literal, start, at - start);
            put(f, from, at, n);
            start = at += n;
            if (at + WINDOW <= f->size)
                hash = window_hash(f->bytes + at);
            continue;
        }
        if (at % WINDOW == 0)
            *slot = at + 1;
        if (at + WINDOW < f->size)
            hash = (hash - (f->bytes[at] + 1) * leaving) * factor + f->bytes[at + WINDOW] + 1;
        at++;
    }
    put(f, literal, start, f->size - start);
}

static void unfold(const uint8_t *bytes, uint64_t size, uint8_t *out, uint64_t out_size, const char *path)
{
    uint64_t at = sizeof(header), to = 0;
    while (to < out_size) {
        piece p;
        if (size - at < sizeof p)
            die("it ends early", path);
        memcpy(&p, bytes + at, sizeof p);
        at += sizeof p;
        bool is_literal = p.from == literal;
        if (p.n == 0 || p.n > out_size - to || (is_literal ? p.n > size - at : p.from > to || p.n > to - p.from))
            die("a piece of it is no piece", path);
        memcpy(out + to, is_literal ? bytes + at : out + p.from, p.n);
        at += is_literal ? p.n : 0;
        to += p.n;
    }
}

static const uint8_t *map_file(const char *path, uint64_t *out_size)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size == 0)
        die("can't be read", path);
    void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        die("can't be mapped", path);
    close(fd);
    *out_size = (uint64_t)st.st_size;
    return bytes;
}

int main(int argc, char **argv)
{
    bool back = argc == 4 && strcmp(argv[1], "-d") == 0;
    if (!back && argc != 3) {
        fputs("usage: pimoe-fold [-d] IN OUT\n", stderr);
        return 2;
    }
    const char *from = argv[argc - 2], *to = argv[argc - 1];
    uint64_t size;
    const uint8_t *bytes = map_file(from, &size);
    header h = {magic, size, 0};
    if (!back) {
        folding f = {bytes, size, fopen(to, "wb"), calloc(SLOTS, sizeof *f.slots)};
        h.hash = hash_of(bytes, size);
        if (!f.out || !f.slots || fwrite(&h, sizeof h, 1, f.out) != 1)
            die("can't be written", to);
        fold(&f);
        if (fclose(f.out) != 0)
            die("can't be written", to);
        free(f.slots);
        return 0;
    }
    if (size < sizeof h)
        die("it is no folded file", from);
    memcpy(&h, bytes, sizeof h);
    if (h.magic != magic || h.size == 0 || h.size > INT64_MAX)
        die("it is no folded file", from);
    int fd = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, EXECUTABLE);
    if (fd < 0 || ftruncate(fd, (off_t)h.size) != 0)
        die("can't be written", to);
    uint8_t *out = mmap(NULL, h.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (out == MAP_FAILED)
        die("can't be mapped", to);
    unfold(bytes, size, out, h.size, from);
    if (hash_of(out, h.size) != h.hash)
        die("it came out otherwise than it went in", from);
    if (munmap(out, h.size) != 0 || close(fd) != 0)
        die("can't be written", to);
    return 0;
}
