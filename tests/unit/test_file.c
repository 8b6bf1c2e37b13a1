// base/file: opening safely, reading, and writing so that a failure leaves nothing behind.

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/containers.h"
#include "base/file.h"

static pm_arena *arena;
static pm_diag *diag;
static char folder[] = "/tmp/pm_test_file_XXXXXX";

static const char *in_folder(const char *name)
{
    return pm_path_join(arena, folder, name);
}

static void write_text(const char *name, const char *text)
{
    FILE *out = fopen(in_folder(name), "wb");
    ck_assert_ptr_nonnull(out);
    ck_assert_int_ge(fputs(text, out), 0);
    ck_assert_int_eq(fclose(out), 0);
}

static void setup(void)
{
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
    strcpy(folder, "/tmp/pm_test_file_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_tree(void)
{
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

static void teardown(void)
{
    pm_arena_destroy(arena);
    remove_tree();
}

/// Names in the folder, `.` and `..` not counted.
static int n_files(void)
{
    DIR *dir = opendir(folder);
    int n = -2;
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static int n_open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static const char *last_text(void)
{
    return pm_diag_at(diag, pm_diag_size(diag) - 1)->text;
}

START_TEST(test_open_map_read)
{
    write_text("a", "hello file");
    pm_file *file;
    ck_assert_int_eq(pm_file_open(arena, diag, in_folder("a"), &file), PM_OK);
    ck_assert_uint_eq(file->size, 10);
    ck_assert_ptr_null(file->data);
    ck_assert_int_eq(pm_file_map(arena, diag, file), PM_OK);
    ck_assert_mem_eq(file->data, "hello file", 10);
    const uint8_t *mapped = file->data;
    ck_assert_int_eq(pm_file_map(arena, diag, file), PM_OK);
    ck_assert_ptr_eq(file->data, mapped);
    char bytes[5] = {0};
    ck_assert_int_eq(pm_file_read(diag, file, 6, bytes, 4), PM_OK);
    ck_assert_str_eq(bytes, "file");
    ck_assert_int_eq(pm_file_read(diag, file, 10, bytes, 0), PM_OK);
    ck_assert_int_eq(pm_file_read(diag, file, 7, bytes, 4), PM_ERR_INVALID);
    ck_assert_str_eq(last_text(), "4 bytes at 7 end beyond the file's 10 bytes");
    ck_assert_int_eq(pm_file_read(diag, file, UINT64_MAX, bytes, 4), PM_ERR_INVALID);
    ck_assert_int_eq(truncate(in_folder("a"), 3), 0);
    ck_assert_int_eq(pm_file_read(diag, file, 2, bytes, 4), PM_ERR_IO);
}
END_TEST

START_TEST(test_empty_file_maps)
{
    write_text("empty", "");
    pm_file *file;
    ck_assert_int_eq(pm_file_open(arena, diag, in_folder("empty"), &file), PM_OK);
    ck_assert_int_eq(pm_file_map(arena, diag, file), PM_OK);
    ck_assert_uint_eq(file->size, 0);
    ck_assert_ptr_nonnull(file->data);
}
END_TEST

START_TEST(test_open_refuses)
{
    pm_file *file = (pm_file *)arena;
    ck_assert_int_eq(pm_file_open(arena, diag, in_folder("absent"), &file), PM_ERR_IO);
    ck_assert_ptr_null(file);
    ck_assert_ptr_nonnull(strstr(last_text(), "No such file"));
    ck_assert_int_eq(pm_file_open(arena, diag, folder, &file), PM_ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(last_text(), "is a folder"));
    ck_assert_int_eq(mkfifo(in_folder("fifo"), 0600), 0); // must not wait for a writer
    ck_assert_int_eq(pm_file_open(arena, diag, in_folder("fifo"), &file), PM_ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(last_text(), "is a special file"));
    ck_assert_int_eq(pm_file_open(arena, diag, "/dev/zero", &file), PM_ERR_INVALID);
    ck_assert_int_eq(pm_file_open(arena, diag, "", &file), PM_ERR_IO);
}
END_TEST

START_TEST(test_arena_closes_files)
{
    write_text("a", "x");
    int before = n_open_descriptors();
    pm_arena *inner = pm_arena_create();
    pm_file *file;
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(pm_file_open(inner, diag, in_folder("a"), &file), PM_OK);
        ck_assert_int_eq(pm_file_map(inner, diag, file), PM_OK);
        ck_assert_int_eq(pm_file_open(inner, diag, folder, &file), PM_ERR_INVALID);
        ck_assert_int_eq(pm_file_open_beneath(inner, diag, NULL, folder, "a", &file), PM_OK);
        ck_assert_int_eq(pm_file_open_beneath(inner, diag, NULL, folder, "b", &file), PM_ERR_IO);
    }
    pm_arena_destroy(inner);
    ck_assert_int_eq(n_open_descriptors(), before);
}
END_TEST

/// The cases of external data, with openat2 and without.
static void check_beneath(void)
{
    pm_loc loc = {.file = "m.onnx", .what = "tensor", .name = "w"};
    mkdir(in_folder("model"), 0700);
    mkdir(in_folder("model/sub"), 0700);
    write_text("outside", "secret");
    write_text("model/w.bin", "weights");
    write_text("model/sub/w.bin", "weights");
    write_text("model/hard", "x");
    ck_assert_int_eq(link(in_folder("model/hard"), in_folder("hard2")), 0);
    ck_assert_int_eq(symlink("w.bin", in_folder("model/link")), 0);
    ck_assert_int_eq(symlink("sub", in_folder("model/sublink")), 0);
    ck_assert_int_eq(symlink("..", in_folder("model/uplink")), 0);
    ck_assert_int_eq(mkfifo(in_folder("model/fifo"), 0600), 0);

    const char *dir = in_folder("model");
    pm_file *file;
    static const char *const good[] = {"w.bin", "sub/w.bin", "./w.bin", "sub//w.bin"};
    for (size_t i = 0; i < PM_COUNT(good); i++) {
        ck_assert_msg(pm_file_open_beneath(arena, diag, &loc, dir, good[i], &file) == PM_OK, "%s",
                      good[i]);
        ck_assert_uint_eq(file->size, 7);
    }
    static const struct {
        const char *name;
        pm_status status;
        const char *text;
    } bad[] = {
        {"../outside", PM_ERR_INVALID, "leaves the folder"},
        {"sub/../../outside", PM_ERR_INVALID, "leaves the folder"},
        {"..", PM_ERR_INVALID, "leaves the folder"},
        {"/etc/passwd", PM_ERR_INVALID, "absolute path"},
        {"link", PM_ERR_INVALID, "symbolic link"},
        {"uplink/outside", PM_ERR_INVALID, NULL},
        {"sublink/w.bin", PM_ERR_INVALID, NULL},
        {"hard", PM_ERR_INVALID, "has 2 hard links"},
        {"fifo", PM_ERR_INVALID, "special file"},
        {"sub", PM_ERR_INVALID, "is a folder"},
        {".", PM_ERR_INVALID, "is a folder"},
        {"", PM_ERR_INVALID, "is empty"},
        {"absent", PM_ERR_IO, "No such file"},
        {"w.bin/x", PM_ERR_IO, NULL},
    };
    for (size_t i = 0; i < PM_COUNT(bad); i++) {
        file = (pm_file *)arena;
        pm_status status = pm_file_open_beneath(arena, diag, &loc, dir, bad[i].name, &file);
        ck_assert_msg(status == bad[i].status, "%s: status %d", bad[i].name, status);
        ck_assert_ptr_null(file);
        ck_assert_msg(bad[i].text == NULL || strstr(last_text(), bad[i].text) != NULL, "%s: %s",
                      bad[i].name, last_text());
        ck_assert_str_eq(pm_diag_at(diag, pm_diag_size(diag) - 1)->loc->name, "w");
    }
    char deep[5000];
    memset(deep, 'a', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    ck_assert_int_eq(pm_file_open_beneath(arena, diag, &loc, dir, deep, &file), PM_ERR_IO);
    // the user's own folder may be a link
    ck_assert_int_eq(symlink("model", in_folder("alias")), 0);
    ck_assert_int_eq(pm_file_open_beneath(arena, diag, &loc, in_folder("alias"), "w.bin", &file),
                     PM_OK);
}

START_TEST(test_beneath)
{
    check_beneath();
}
END_TEST

START_TEST(test_beneath_without_openat2)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = PM_COUNT(code), .filter = code};
    // in a process of its own, since the filter stays
    pid_t child = fork();
    if (child == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
            _exit(77);
        int before = n_open_descriptors();
        check_beneath();
        pm_arena_destroy(arena);
        _exit(n_open_descriptors() == before ? 0 : 1);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert_msg(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77, "failed in the child");
}
END_TEST

static pm_out_file *open_out(pm_arena *owner, const char *name)
{
    pm_out_file *out;
    ck_assert_int_eq(pm_out_open(owner, diag, in_folder(name), 0755, &out), PM_OK);
    return out;
}

static void check_content(const char *name, const char *text)
{
    pm_file *file;
    ck_assert_int_eq(pm_file_open(arena, diag, in_folder(name), &file), PM_OK);
    ck_assert_int_eq(pm_file_map(arena, diag, file), PM_OK);
    ck_assert_uint_eq(file->size, strlen(text));
    ck_assert_mem_eq(file->data, text, strlen(text));
}

START_TEST(test_commit)
{
    umask(022);
    write_text("out", "old");
    pm_out_file *out = open_out(arena, "out");
    fputs("new ", out->stream);
    check_content("out", "old"); // the target is untouched until the end
    ck_assert_int_eq(fflush(out->stream), 0);
    ck_assert_int_eq(write(out->fd, "text", 4), 4);
    ck_assert_int_eq(ftell(out->stream), 8);
    ck_assert_int_eq(fseek(out->stream, 0, SEEK_SET), 0);
    fputs("NEW", out->stream);
    ck_assert_int_eq(pm_out_commit(diag, out), PM_OK);
    check_content("out", "NEW text");
    ck_assert_int_eq(n_files(), 1);
    struct stat info;
    ck_assert_int_eq(stat(in_folder("out"), &info), 0);
    ck_assert_int_eq(info.st_mode & 0777, 0755);
}
END_TEST

START_TEST(test_uncommitted_leaves_nothing)
{
    int before = n_open_descriptors();
    pm_arena *inner = pm_arena_create();
    for (int i = 0; i < 5; i++)
        fputs("half", open_out(inner, "out")->stream);
    ck_assert_int_eq(n_files(), 5);
    pm_arena_destroy(inner);
    ck_assert_int_eq(n_files(), 0);
    ck_assert_int_eq(n_open_descriptors(), before);
}
END_TEST

START_TEST(test_out_refuses)
{
    pm_out_file *out = (pm_out_file *)arena;
    ck_assert_int_eq(pm_out_open(arena, diag, folder, 0644, &out), PM_ERR_IO);
    ck_assert_ptr_null(out);
    ck_assert_int_eq(pm_out_open(arena, diag, in_folder("no/such"), 0644, &out), PM_ERR_IO);
    ck_assert_int_eq(pm_out_open(arena, diag, "", 0644, &out), PM_ERR_USAGE);
    ck_assert_int_eq(n_files(), 0);
}
END_TEST

START_TEST(test_devices_are_written_directly)
{
    pm_out_file *out;
    ck_assert_int_eq(pm_out_open(arena, diag, "/dev/null", 0644, &out), PM_OK);
    fputs("text", out->stream);
    ck_assert_int_eq(pm_out_commit(diag, out), PM_OK);
    struct stat info;
    ck_assert_int_eq(stat("/dev/null", &info), 0);
    ck_assert(S_ISCHR(info.st_mode));
    if (stat("/dev/full", &info) != 0)
        return;
    ck_assert_int_eq(pm_out_open(arena, diag, "/dev/full", 0644, &out), PM_OK);
    fputs("text", out->stream);
    ck_assert_int_eq(pm_out_commit(diag, out), PM_ERR_IO);
    ck_assert_str_eq(last_text(), "can't write '/dev/full': No space left on device");
}
END_TEST

START_TEST(test_full_disk)
{
    write_text("out", "old");
    pm_out_file *out = open_out(arena, "out");
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {.rlim_cur = 100000, .rlim_max = RLIM_INFINITY}, former;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &former), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int i = 0; i < 100000; i++)
        fputs("0123456789", out->stream);
    pm_status status = pm_out_commit(diag, out);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &former), 0);
    ck_assert_int_eq(status, PM_ERR_IO);
    ck_assert_ptr_nonnull(strstr(last_text(), "File too large"));
    check_content("out", "old");
    ck_assert_int_eq(n_files(), 1);
}
END_TEST

START_TEST(test_signals_clean_up)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGABRT};
    for (size_t i = 0; i < PM_COUNT(signals); i++) {
        pid_t child = fork();
        if (child == 0) {
            signal(signals[i], SIG_DFL);
            pm_out_clean_on_signals();
            open_out(arena, "one");
            pm_out_file *done = open_out(arena, "two");
            if (pm_out_commit(diag, done) != PM_OK || n_files() != 2)
                _exit(1);
            raise(signals[i]);
            _exit(0);
        }
        int status = 0;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == signals[i]);
        ck_assert_int_eq(n_files(), 1); // only what was committed
    }
}
END_TEST

START_TEST(test_target_appears_while_written)
{
    pm_out_file *out = open_out(arena, "out");
    mkdir(in_folder("out"), 0700); // so that the rename fails
    ck_assert_int_eq(pm_out_commit(diag, out), PM_ERR_IO);
    ck_assert_int_eq(n_files(), 1);
}
END_TEST

START_TEST(test_paths)
{
    static const struct {
        const char *path, *dir;
    } cases[] = {{"a", "."},      {"a/b", "a"},   {"/a", "/"},       {"/", "/"},
                 {"a/b/", "a/b"}, {"a//b", "a"},  {"", "."},         {"//x", "/"},
                 {"./a", "."},    {"../a", ".."}, {"/a/b/c", "/a/b"}};
    for (size_t i = 0; i < PM_COUNT(cases); i++)
        ck_assert_str_eq(pm_path_dir(arena, cases[i].path), cases[i].dir);
    ck_assert_str_eq(pm_path_join(arena, "a", "b"), "a/b");
    ck_assert_str_eq(pm_path_join(arena, "a/", "b"), "a/b");
    ck_assert_str_eq(pm_path_join(arena, "a", "/b"), "/b");
    ck_assert_str_eq(pm_path_join(arena, "", "b"), "b");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file");
    TCase *tests = tcase_create("file");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_open_map_read);
    tcase_add_test(tests, test_empty_file_maps);
    tcase_add_test(tests, test_open_refuses);
    tcase_add_test(tests, test_arena_closes_files);
    tcase_add_test(tests, test_beneath);
    tcase_add_test(tests, test_beneath_without_openat2);
    tcase_add_test(tests, test_commit);
    tcase_add_test(tests, test_uncommitted_leaves_nothing);
    tcase_add_test(tests, test_out_refuses);
    tcase_add_test(tests, test_devices_are_written_directly);
    tcase_add_test(tests, test_full_disk);
    tcase_add_test(tests, test_signals_clean_up);
    tcase_add_test(tests, test_target_appears_while_written);
    tcase_add_test(tests, test_paths);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? 0 : 1;
}
