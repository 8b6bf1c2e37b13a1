// Models as JSON graphs: what is refused, where, and with which words.

#include "tests/hostile/hostile.h"

#include <sys/stat.h>

#include "frontend/frontend.h"

#define BAD PM_ERR_INVALID
#define NO PM_ERR_UNSUPPORTED

#define HEAD "{\"pimoe\": 1, \"name\": \"m\", \"symbols\": {\"N\": [1, 8]},\n"
#define X "\"inputs\": [{\"name\": \"x\", \"type\": \"f32\", \"dims\": [\"N\", 4]}],\n"
#define NODES(nodes) "\"nodes\": [" nodes "],\n"
#define Y "\"outputs\": [\"y\"]}\n"
#define RELU "{\"op\": \"relu\", \"in\": [\"x\"], \"out\": [\"y\"]}"
#define CONSTANT(text)                                                                             \
    HEAD X "\"constants\": {\"c\": " text                                                          \
           "},\n" NODES("{\"op\": \"add\", \"in\": [\"x\", \"c\"], \"out\": [\"y\"]}") Y

static const struct {
    const char *text;
    int status;
    const char *error;
} cases[] = {
    // the document
    {"", BAD, "m.json:1:1: error: expected a value, found the end of the document"},
    {"[]", BAD, "m.json:1:1: error: not a JSON graph: expected an object with the key 'pimoe'"},
    {"{\"pimoe\": 2}", NO, "m.json:1:11: error: version 2 of the format; this compiler reads 1"},
    {"{\"pimoe\": 1e99}", BAD,
     "m.json:1:11: error: 'pimoe' must be a 64-bit integer, found 9.9999999999999997e+98"},
    {"{\"pimoe\": \"1\"}", BAD, "m.json:1:11: error: 'pimoe' must be an integer, found a string"},
    {"\xef\xbb\xbf{\"pimoe\": 1}", BAD,
     "m.json:1:1: error: the document begins with a byte-order mark"},
    {HEAD X NODES(RELU) Y "{}", BAD,
     "m.json:5:1: error: expected the end of the document, found '{'"},
    {HEAD X NODES(RELU) "\"outputs\": [\"y\"], \"outputs\": [\"y\"]}", BAD,
     "m.json:4:19: error: the key 'outputs' occurs twice"},
    {HEAD X NODES(RELU) "\"output\": [\"y\"]}", BAD,
     "m.json:4:11: error: unknown key 'output'; did you mean 'outputs'?"},
    {HEAD X NODES(RELU) "\"name\\u0000\": 1}", BAD,
     "m.json:4:6: error: a string may not hold U+0000"},
    {HEAD "\"inputs\": [{\"name\": \"\\ud800\"}]}", BAD,
     "m.json:2:22: error: \\ud800 is half of a surrogate pair without the other half"},
    {HEAD "\"inputs\": [{\"name\": \"\xc0\x80\"}]}", BAD,
     "m.json:2:22: error: invalid UTF-8 in a string (byte 0xc0)"},
    {HEAD X Y, BAD, "m.json:1:1: error: the key 'nodes' is missing"},
    {HEAD X NODES("") Y, BAD,
     "m.json:4:13: error: no value 'y' before this node; did you mean 'x'?"},
    // symbols and inputs
    {"{\"pimoe\": 1, \"symbols\": {\"N\": [4, 2]},\n" X NODES(RELU) Y, BAD,
     "m.json:1:31: error: a symbol's range must be [lowest, highest]"},
    {"{\"pimoe\": 1, \"symbols\": {\"N\": [-1, 2]},\n" X NODES(RELU) Y, BAD,
     "m.json:1:31: error: a symbol's range must be [lowest, highest]"},
    {"{\"pimoe\": 1, \"symbols\": {\"N\": [1, 9007199254740993123456]},\n" X NODES(RELU) Y, BAD,
     "m.json:1:31: error: a symbol's range must be [lowest, highest]"},
    {"{\"pimoe\": 1, \"symbols\": {\"\": [1, 2]},\n" X NODES(RELU) Y, BAD,
     "m.json:1:30: error: a symbol needs a name"},
    {"{\"pimoe\": 1, \"symbols\": [],\n" X NODES(RELU) Y, BAD,
     "m.json:1:25: error: 'symbols' must be an object"},
    {HEAD "\"inputs\": [{\"name\": \"x\", \"type\": \"f32\", \"dims\": [\"M\", 4]}],\n" NODES(RELU)
         Y,
     BAD, "m.json:2:50: error: the symbol 'M' isn't in 'symbols'"},
    {HEAD "\"inputs\": [{\"name\": \"x\", \"type\": \"f31\", \"dims\": [4]}],\n" NODES(RELU) Y, BAD,
     "m.json:2:34: error: unknown element type 'f31'"},
    {HEAD "\"inputs\": [{\"name\": \"x\", \"type\": \"f32\", \"dims\": [-4]}],\n" NODES(RELU) Y,
     BAD, "m.json:2:50: error: an extent must be an integer from 0 on, or a symbol"},
    {HEAD "\"inputs\": [{\"name\": \"x\", \"type\": \"f32\", \"dims\": [4.5]}],\n" NODES(RELU) Y,
     BAD, "m.json:2:50: error: an extent must be an integer from 0 on, or a symbol"},
    {HEAD
     "\"inputs\": [{\"name\": \"x\", \"type\": \"f32\", \"dims\": [1,1,1,1,1,1,1,1,1]}],\n" NODES(
         RELU) Y,
     NO, "m.json:2:49: error: more than 8 dims"},
    {HEAD "\"inputs\": [{\"name\": \"x\", \"type\": \"f32\", \"dims\": [4611686018427387904, "
          "8]}],\n" NODES(RELU) Y,
     NO,
     "m.json:3:11: node 'y' (relu): error: relu: result 0, f32[4611686018427387904, 8], is too "
     "large"},
    {HEAD "\"inputs\": [{\"name\": \"\", \"type\": \"f32\", \"dims\": [4]}],\n" NODES(RELU) Y, BAD,
     "m.json:2:21: error: a value needs a name"},
    {HEAD "\"inputs\": [{\"name\": \"x\", \"type\": \"f32\", \"dims\": [4]}, {\"name\": \"x\", "
          "\"type\": \"f32\", \"dims\": [4]}],\n" NODES(RELU) Y,
     BAD, "m.json:2:64: error: the name 'x' is taken"},
    {HEAD "\"inputs\": {},\n" NODES(RELU) Y, BAD, "m.json:2:11: error: 'inputs' must be a list"},
    // nodes: names, order, arity, attributes
    {HEAD X NODES("{\"op\": \"rellu\", \"in\": [\"x\"], \"out\": [\"y\"]}") Y, BAD,
     "m.json:3:18: error: unknown op 'rellu'; did you mean 'relu'?"},
    {HEAD X NODES("{\"op\": \"relu\", \"in\": [\"z\"], \"out\": [\"y\"]}") Y, BAD,
     "m.json:3:33: error: no value 'z' before this node; did you mean 'x'?"},
    {HEAD X NODES("{\"op\": \"relu\", \"in\": [\"y\"], \"out\": [\"y\"]}") Y, BAD,
     "m.json:3:33: error: no value 'y' before this node; did you mean 'x'?"},
    {HEAD X NODES("{\"op\": \"relu\", \"in\": [\"x\"], \"out\": [\"x\"]}") Y, BAD,
     "m.json:3:47: error: the name 'x' is taken"},
    {HEAD X NODES(RELU "," RELU) Y, BAD, "m.json:3:89: error: the name 'y' is taken"},
    {HEAD X NODES("{\"op\": \"relu\", \"in\": [], \"out\": [\"y\"]}") Y, BAD,
     "m.json:3:11: node 'y' (relu): error: relu takes 1 operands, found 0"},
    {HEAD X NODES("{\"op\": \"relu\", \"in\": [\"x\", \"x\"], \"out\": [\"y\"]}") Y, BAD,
     "m.json:3:11: node 'y' (relu): error: relu takes 1 operands, found 2"},
    {HEAD X NODES("{\"op\": \"relu\", \"in\": [\"x\"], \"out\": [\"y\", \"z\"]}") Y, BAD,
     "m.json:3:11: node 'y' (relu): error: relu takes 1 results, found 2"},
    {HEAD X NODES("{\"op\": \"relu\", \"in\": [null], \"out\": [\"y\"]}") Y, BAD,
     "m.json:3:11: node 'y' (relu): error: operand 0 of relu is missing"},
    {HEAD X NODES("{\"op\": \"relu\", \"in\": \"x\", \"out\": [\"y\"]}") Y, BAD,
     "m.json:3:32: error: 'in' must be a list of values"},
    {HEAD X NODES("{\"op\": \"relu\", \"in\": [\"x\"]}") Y, BAD,
     "m.json:3:11: error: the key 'out' is missing"},
    {HEAD X NODES("\"relu\"") Y, BAD, "m.json:3:11: error: a node must be an object"},
    {HEAD X NODES("{\"op\": \"const\", \"in\": [], \"out\": [\"y\"]}") Y, BAD,
     "m.json:3:18: error: the op 'const' can't be written as a node; use 'constants'"},
    {HEAD X NODES(
         "{\"op\": \"softmax\", \"in\": [\"x\"], \"out\": [\"y\"], \"attrs\": {\"axes\": 1}}") Y,
     BAD, "m.json:3:74: error: softmax has no attribute 'axes'; did you mean 'axis'?"},
    {HEAD X NODES(
         "{\"op\": \"softmax\", \"in\": [\"x\"], \"out\": [\"y\"], \"attrs\": {\"axis\": 7}}") Y,
     BAD, "m.json:3:11: node 'y' (softmax): error: softmax: axis is 7, must be in [-2, 1]"},
    {HEAD X NODES(
         "{\"op\": \"softmax\", \"in\": [\"x\"], \"out\": [\"y\"], \"attrs\": {\"axis\": 1.5}}") Y,
     BAD, "m.json:3:74: error: the attribute 'axis' must be of kind i64"},
    {HEAD X NODES("{\"op\": \"softmax\", \"in\": [\"x\"], \"out\": [\"y\"], \"attrs\": []}") Y, BAD,
     "m.json:3:65: error: 'attrs' must be an object"},
    {HEAD X NODES("{\"op\": \"relu\", \"in\": [\"x\"], \"out\": [\"y\"], \"regions\": [{}]}") Y,
     BAD, "m.json:3:11: node 'y' (relu): error: relu takes 0 regions, found 1"},
    {HEAD X NODES(RELU) "\"outputs\": [\"q\"]}", BAD,
     "m.json:4:13: error: no value 'q' before this node; did you mean 'x'?"},
    {HEAD X NODES(RELU) "\"outputs\": [1]}", BAD,
     "m.json:4:13: error: expected the name of a value"},
    // constants
    {CONSTANT("3"), BAD, "m.json:3:20: error: a constant must be an object"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4]}"), BAD,
     "m.json:3:20: error: a constant has one of 'values', 'file', 'checkpoint'"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"values\": [1, 2, 3]}"), BAD,
     "m.json:3:59: error: found 3 values, the extents make 4"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"values\": [1, 2, 3, 1e99]}"), BAD,
     "m.json:3:69: error: too large for f32"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"values\": [1, 2, 3, \"x\"]}"), BAD,
     "m.json:3:69: error: expected a number, \"inf\", \"-inf\" or \"nan\""},
    {CONSTANT("{\"type\": \"u8\", \"dims\": [4], \"values\": [1, 2, 3, 256]}"), BAD,
     "m.json:3:68: error: expected an integer of type u8"},
    {CONSTANT("{\"type\": \"bool\", \"dims\": [4], \"values\": [1, 2, 3, 4]}"), BAD,
     "m.json:3:61: error: expected true or false"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4294967296, 4294967296], \"values\": [1]}"), BAD,
     "m.json:3:44: error: the product of the extents overflows"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4611686018427387904], \"values\": [1]}"), BAD,
     "m.json:3:44: error: the size in bytes overflows"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [\"N\"], \"values\": [1]}"), BAD,
     "m.json:3:45: error: the extents of a constant must be integers"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"../w.bin\"}"), BAD,
     "m.json:3:57: error: '../w.bin' leaves the folder ''"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"/etc/passwd\"}"), BAD,
     "m.json:3:57: error: '/etc/passwd' is an absolute path, expected one beneath ''"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"link\"}"), BAD,
     "m.json:3:57: error: 'link' goes through a symbolic link, which a model may not name"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"hard\"}"), BAD,
     "m.json:3:57: error: 'hard' has 2 hard links, expected a file with one name"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"sub/link/w.bin\"}"), BAD,
     "m.json:3:57: error: 'sub/link/w.bin' goes through a symbolic link, which a model may not "
     "name"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"pipe\"}"), BAD,
     "m.json:3:57: error: 'pipe' is a special file, expected a regular file"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"sub\"}"), BAD,
     "m.json:3:57: error: 'sub' is a folder, expected a regular file"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"nowhere\"}"), PM_ERR_IO,
     "m.json:3:57: error: can't open 'nowhere': No such file or directory"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"\"}"), BAD,
     "m.json:3:57: error: the name of the file is empty"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"w.bin\", \"offset\": 20}"), BAD,
     "m.json:3:20: error: 16 bytes at 20 reach beyond the file's 32"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"w.bin\", \"offset\": -4}"), BAD,
     "m.json:3:20: error: 16 bytes at -4 reach beyond the file's 32"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"w.bin\", \"offset\": "
              "9223372036854775807}"),
     BAD, "m.json:3:20: error: 16 bytes at 9223372036854775807 reach beyond the file's 32"},
    {CONSTANT("{\"type\": \"f32\", \"dims\": [4], \"file\": \"w.bin\", \"values\": [1]}"), BAD,
     "m.json:3:20: error: a constant has one of 'values', 'file', 'checkpoint'"},
    {CONSTANT("{\"checkpoint\": \"..\", \"tensor\": \"a\"}"), BAD,
     "m.json:3:35: error: '../config.json' leaves the folder ''"},
    {CONSTANT("{\"checkpoint\": \"/tmp\", \"tensor\": \"a\"}"), BAD,
     "m.json:3:35: error: '/tmp/config.json' is an absolute path, expected one beneath ''"},
    {CONSTANT("{\"checkpoint\": \"sub\", \"tensor\": \"a\"}"), PM_ERR_IO,
     "m.json:3:35: error: can't open 'sub/config.json': No such file or directory"},
};

START_TEST(test_case)
{
    char *outside = pm_arena_printf(arena, "%s", path_of("w.bin"));
    write_file("w.bin", "0123456789abcdef0123456789abcdef", 32);
    write_file("other.bin", "0123456789abcdef0123456789abcdef", 32);
    ck_assert_int_eq(symlink(outside, path_of("link")), 0);
    ck_assert_int_eq(link(path_of("other.bin"), path_of("hard")), 0);
    ck_assert_int_eq(mkfifo(path_of("pipe"), 0600), 0);
    ck_assert_int_eq(mkdir(path_of("sub"), 0700), 0);
    ck_assert_int_eq(symlink("..", path_of("sub/link")), 0);
    write_file("m.json", cases[_i].text, strlen(cases[_i].text));
    pm_module *module;
    pm_status status = pm_json_graph_load(arena, diag, path_of("m.json"), &module);
    ck_assert_ptr_null(module);
    expect_refused(status, cases[_i].status, cases[_i].error);
}
END_TEST

START_TEST(test_good)
{
    static const char text[] = HEAD X NODES(RELU) Y;
    pm_module *module;
    write_file("m.json", text, sizeof text - 1);
    ck_assert_int_eq(pm_json_graph_load(arena, diag, path_of("m.json"), &module), PM_OK);
}
END_TEST

/// `before` + n times `part` + `after` as the model.
static pm_status load_repeated(const char *before, const char *part, size_t n, const char *after)
{
    size_t size = strlen(part), at = strlen(before);
    char *text = malloc(at + size * n + strlen(after) + 1);
    memcpy(text, before, at);
    for (size_t i = 0; i < n; i++, at += size)
        memcpy(text + at, part, size);
    strcpy(text + at, after);
    write_file("m.json", text, strlen(text));
    free(text);
    pm_module *module;
    return pm_json_graph_load(arena, diag, path_of("m.json"), &module);
}

/// Bombs: deep, wide, long. Each ends at once.
START_TEST(test_bombs)
{
    static const struct {
        const char *before, *part, *after, *error;
        size_t n;
        int status;
    } bombs[] = {
        {"", "[", "", "m.json:1:65: error: nested deeper than 64 levels", 1000000, BAD},
        {"{\"pimoe\": 1, \"name\": ", "{\"a\":", "",
         "m.json:1:337: error: nested deeper than 64 levels", 1000000, BAD},
        {HEAD X "\"nodes\": [",
         "{\"op\": \"if\", \"in\": [\"x\"], \"out\": [\"y\"], \"regions\": [{\"nodes\": [", "",
         "m.json:3:1008: error: nested deeper than 64 levels", 100000, BAD},
        {HEAD X "\"constants\": {\"c\": {\"type\": \"f32\", \"dims\": [5000000], \"values\": [0",
         ",0", "]}},\n" NODES("{\"op\": \"add\", \"in\": [\"x\", \"c\"], \"out\": [\"y\"]}") Y,
         "m.json:3:65: error: more than 4194304 values in place; use a file", 4999999, NO},
        {HEAD X NODES(RELU) "\"outputs\": [\"", "y", "\"]}",
         "m.json:4:13: error: no value "
         "'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy' before this node",
         5000000, BAD},
    };
    for (size_t i = 0; i < PM_COUNT(bombs); i++) {
        diag = pm_diag_create(arena);
        pm_status status =
            load_repeated(bombs[i].before, bombs[i].part, bombs[i].n, bombs[i].after);
        expect_refused(status, bombs[i].status, bombs[i].error);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostile JSON graphs");
    TCase *tests = tcase_create("json_graph");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_good);
    tcase_add_loop_test(tests, test_case, 0, (int)PM_COUNT(cases));
    tcase_add_test(tests, test_bombs);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
