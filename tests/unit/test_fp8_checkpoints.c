// frontend/checkpoint: weights in FP8 with scales for blocks, rows or all, as quantization_config names them. Such a
// checkpoint says what the same one says with the weights that the codes stand for.

#include "tests/unit/checkpoint_folders.h"

typedef enum sharing { ALL, ROWS, BLOCKS } sharing;

enum { BLOCK_ROWS = 24, BLOCK_COLUMNS = 16 };

typedef struct form {
    const char *name;   ///< of the made checkpoint
    const char *config; ///< quantization_config
    const char *suffix; ///< of the scales' names
    const char *dtype;  ///< of the scales
    sharing sharing;
} form;

#define COMPRESSED(weights) \
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"float-quantized\", \"ignore\": [\"lm_head\"], \"config_groups\": " \
    "{\"group_0\": {\"targets\": [\"Linear\"], \"input_activations\": {\"num_bits\": 8, \"type\": \"float\", \"dynamic\": true}, " \
    "\"weights\": {\"num_bits\": 8, \"type\": \"float\", " weights "}}}}"
#define FP8 "{\"quant_method\": \"fp8\", \"fmt\": \"e4m3\", \"activation_scheme\": \"dynamic\""

static const form forms[] = {
    {"deepseek_v3", FP8 ", \"weight_block_size\": [24, 16]}", "_scale_inv", "F32", BLOCKS},
    {"glm4_moe", FP8 ", \"weight_block_size\": [24, 16]}", "_scale_inv", "BF16", BLOCKS},
    {"minimax_m2", FP8 ", \"weight_block_size\": [24, 16]}", "_scale_inv", "F8_E8M0", BLOCKS},
    {"mixtral-linear", FP8 "}", "_scale", "F32", ALL},
    {"qwen3_moe-llama3", COMPRESSED("\"strategy\": \"channel\""), "_scale", "BF16", ROWS},
    {"deepseek_v2", COMPRESSED("\"strategy\": \"block\", \"block_structure\": [24, 16]"), "_scale", "F32", BLOCKS},
    {"olmoe-clipped", COMPRESSED("\"strategy\": \"tensor\""), "_scale", "F32", ALL},
    {"llama4_text", "{\"quant_method\": \"fbgemm_fp8\"}", "_scale", "F32", ROWS},
    {"gpt_oss", "{\"quant_method\": \"fbgemm_fp8\"}", "_scale", "F32", ROWS},
    {"aria_text", "{\"quant_method\": \"modelopt\", \"quant_algo\": \"FP8\"}", "_scale", "F16", ALL},
};

/// Sign, four bits of exponent, three of fraction; the NaN don't occur.
static double value_of(uint8_t code)
{
    int e = code >> 3 & 15, f = code & 7;
    double value = e > 0 ? ldexp(1 + f / 8.0, e - 7) : ldexp(f, -9);
    return code & 128 ? -value : value;
}

static bool is_coded(const tensor *t)
{
    return t->rank >= 2 && strstr(t->name, "bias") == NULL && (strstr(t->name, "_proj") != NULL || strstr(t->name, ".experts.") != NULL);
}

/// Scale i, which as the type has it is close to 2^-5; returns its value.
static double put_scale(uint8_t *scales, const char *dtype, size_t i, uint64_t random)
{
    float f = ldexpf(1 + (float)(random % 64) / 64, -6);
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t high = (uint16_t)(bits >> 16), half = (uint16_t)((bits >> 13 & 1023) | 9 << 10);
    if (strcmp(dtype, "F8_E8M0") == 0)
        scales[i] = (uint8_t)(120 + random % 3);
    else if (strcmp(dtype, "F32") == 0)
        memcpy(scales + 4 * i, &f, 4);
    else
        memcpy(scales + 2 * i, strcmp(dtype, "BF16") == 0 ? &high : &half, 2);
    return strcmp(dtype, "F8_E8M0") == 0 ? ldexp(1, (int)(random % 3) - 7) : f;
}

/// Codes and scales in place of `t`, which becomes what they stand for. Stacks are [experts, in, out].
static void encode(const form *f, tensor *t, tensor *codes, tensor *scales)
{
    bool stacked = t->rank == 3;
    size_t size = strcmp(f->dtype, "F32") == 0 ? 4 : strcmp(f->dtype, "F8_E8M0") == 0 ? 1 : 2, n = t->size / 4, count = 1;
    int32_t last = t->rank - 1, rows = stacked ? last : last - 1;
    *codes = *scales = *t;
    codes->dtype = "F8_E4M3";
    codes->size = n;
    scales->dtype = f->dtype;
    scales->name = pm_arena_printf(arena, "%s%s", t->name, f->suffix);
    for (int32_t i = 0; i < t->rank; i++) {
        int64_t block = i == rows ? BLOCK_ROWS : BLOCK_COLUMNS;
        scales->dims[i] = f->sharing == BLOCKS ? (t->dims[i] + block - 1) / block
                          : f->sharing == ROWS && (i == rows || i < last - 1) ? t->dims[i] : 1;
        count *= (size_t)scales->dims[i];
    }
    scales->size = count * size;
    uint64_t seed = 7;
    for (const char *c = t->name; *c != '\0'; c++)
        seed = splitmix(seed + (uint8_t)*c);
    uint8_t *bytes = PM_NEW_ARRAY(arena, uint8_t, n), *factors = PM_NEW_ARRAY(arena, uint8_t, count * size);
    double *wide = PM_NEW_ARRAY(arena, double, count);
    float *values = PM_NEW_ARRAY(arena, float, n);
    for (size_t i = 0; i < count; i++)
        wide[i] = put_scale(factors, f->dtype, i, splitmix(seed ^ i) >> 20);
    for (size_t i = 0; i < n; i++) {
        int64_t at = 0, rest = (int64_t)i, place[3] = {0};
        for (int32_t d = last; d >= 0; rest /= t->dims[d--])
            place[d] = rest % t->dims[d];
        for (int32_t d = 0; d <= last; d++)
            at = at * scales->dims[d] + (scales->dims[d] == 1 ? 0 : f->sharing != BLOCKS ? place[d]
                                         : place[d] / (d == rows ? BLOCK_ROWS : BLOCK_COLUMNS));
        bytes[i] = (uint8_t)(splitmix(seed + i) >> 30);
        bytes[i] ^= (bytes[i] & 127) == 127;
        if (bytes[i] >> 6 & 1)
            bytes[i] &= 0xdf; // smaller
        values[i] = (float)(value_of(bytes[i]) * wide[at]);
    }
    if (f->sharing == ALL && t->rank == 2)
        scales->rank = (int32_t)(seed % 3); // [], [1], [1, 1]
    codes->bytes = bytes;
    scales->bytes = factors;
    t->bytes = (const uint8_t *)values;
}

/// The tensors of `f` with codes; `*plain` with what they stand for.
static tensor_vec coded_tensors(const form *f, tensor_vec *plain)
{
    tensor_vec v = {0};
    *plain = made_tensors(f->name);
    for (size_t i = 0; i < plain->n; i++) {
        tensor codes = plain->data[i], scales;
        if (is_coded(&codes)) {
            encode(f, &plain->data[i], &codes, &scales);
            PM_PUSH(arena, &v, scales);
        }
        PM_PUSH(arena, &v, codes);
    }
    ck_assert_uint_gt(v.n, plain->n);
    tensor activations = v.data[0]; // nobody's business
    activations.name = "model.layers.0.self_attn.q_proj.input_scale";
    PM_PUSH(arena, &v, activations);
    return v;
}

static void write_form_config(const form *f)
{
    replace_in_config(pm_arena_printf(arena, DATA "made/%s/config.json", f->name), "{",
                      pm_arena_printf(arena, "{\"quantization_config\": %s,", f->config));
}

static pm_array logits_of_ids(const pm_module *m, const form *f)
{
    pm_array ids = npz_get(arena, diag, pm_arena_printf(arena, DATA "made/%s/reference.npz", f->name), "input_ids_b");
    return logits_of(m, &ids);
}

START_TEST(test_forms)
{
    const form *f = &forms[_i];
    tensor_vec plain, v = coded_tensors(f, &plain);
    write_tensors(&v);
    write_form_config(f);
    pm_array got = logits_of_ids(load(folder), f);
    write_tensors(&plain);
    replace_in_config(pm_arena_printf(arena, DATA "made/%s/config.json", f->name), NULL, NULL);
    pm_array want = logits_of_ids(load(folder), f);
    ck_assert_int_eq(npz_count(&got), npz_count(&want));
    double d = difference(got.data, want.data, npz_count(&want));
    ck_assert_msg(d < 1e-6, "%s: %g", f->name, d);
}
END_TEST

/// Language parts: quantization_config stands beside text_config.
START_TEST(test_nested)
{
    const form *f = &forms[3];
    tensor_vec plain, v = coded_tensors(f, &plain);
    pm_file *file;
    for (size_t i = 0; i < v.n; i++)
        v.data[i].name = strncmp(v.data[i].name, "model.", 6) == 0
                             ? pm_arena_printf(arena, "model.language_model.%s", v.data[i].name + 6)
                             : v.data[i].name;
    write_tensors(&v);
    ck_assert_int_eq(pm_file_open(arena, diag, DATA "made/mixtral-linear/config.json", &file), PM_OK);
    char *text = pm_arena_alloc(arena, file->size + 1, 1);
    ck_assert_int_eq(pm_file_read(diag, file, 0, text, file->size), PM_OK);
    write_text("config.json", pm_arena_printf(arena, "{\"model_type\": \"pictures\", \"quantization_config\": %s, \"text_config\": %s}",
                                              f->config, text));
    load(folder);
}
END_TEST

#define Q_PROJ "model.layers.0.self_attn.q_a_proj.weight"

/// DeepSeek-V3 in blocks with one thing wrong.
START_TEST(test_bad_scales)
{
    const form *f = &forms[0];
    tensor_vec plain, v = coded_tensors(f, &plain);
    write_form_config(f);
    tensor *scales = find(&v, Q_PROJ "_scale_inv"), good = *scales;
    scales->name = Q_PROJ "_scales";
    write_tensors(&v);
    expect_refused("tensor '" Q_PROJ "' (layer 0: linear): error: is stored as F8_E4M3, and the checkpoint has no scales for it: neither '" Q_PROJ
                   "_scale_inv' nor '" Q_PROJ "_scale'");
    *scales = good;
    scales->dims[0] = 2;
    scales->dims[1] = 1;
    write_tensors(&v);
    expect_refused("tensor '" Q_PROJ "_scale_inv' (layer 0: linear): error: has the shape [2, 1]; the scales of codes [16, 32] must be one for "
                   "all, one for each row, or one for each block of 24 x 16");
    *scales = good;
    scales->rank = 3;
    scales->dims[2] = 1;
    write_tensors(&v);
    expect_refused("has the shape [1, 2, 1]; the scales of codes [16, 32]");
    *scales = good;
    scales->dtype = "I32";
    write_tensors(&v);
    expect_refused("is stored as I32; scales must be F32, BF16, F16 or F8_E8M0");
    *scales = good;
    tensor *codes = find(&v, Q_PROJ);
    codes->dtype = "F8_E5M2";
    write_tensors(&v);
    expect_refused("is stored as F8_E5M2; weights must be F32, BF16, F16, F64, or F8_E4M3 with scales");
    codes->dtype = "F8_E4M3";
    // some experts in codes, others not
    find(&v, "model.layers.1.mlp.experts.2.up_proj.weight")->dtype = "F8_E5M2";
    write_tensors(&v);
    expect_refused("experts.2.up_proj.weight' (layer 1: mlp): error: is stored as F8_E5M2");
}
END_TEST

/// Experts of which some are stored otherwise.
START_TEST(test_unlike_experts)
{
    const form *f = &forms[0];
    tensor_vec plain, v = coded_tensors(f, &plain);
    const char *name = "model.layers.1.mlp.experts.2.up_proj.weight";
    write_form_config(f);
    *find(&v, name) = *find(&plain, name);
    write_tensors(&v);
    expect_refused("is stored as F32, but 'model.layers.1.mlp.experts.0.up_proj.weight' as F8_E4M3");
}
END_TEST

/// What quantization_config says wrong, or of what isn't read.
static const char *const bad_configs[][2] = {
    {FP8 ", \"weight_block_size\": [0, 16]}", "the blocks of scales must be two numbers above 0"},
    {FP8 ", \"weight_block_size\": [16]}", "the blocks of scales must be two numbers above 0"},
    {FP8 ", \"weight_block_size\": \"16\"}", "the blocks of scales must be two numbers above 0"},
    {FP8 "}", "the scales of codes [16, 32] must be one for all, one for each row"},
    {"{\"quant_method\": \"fp8\", \"fmt\": \"e5m2\"}", "the weights are quantised (fp8 as e5m2)"},
    {"{\"quant_method\": \"gptq\"}", "the weights are quantised (gptq)"},
    {"{\"quant_method\": 8}", "the weights are quantised (?)"},
    {"{\"quant_method\": \"modelopt\", \"quant_algo\": \"NVFP4\"}", "the weights are quantised (modelopt, NVFP4)"},
    {"{\"quant_method\": \"compressed-tensors\"}", "compressed-tensors without config_groups"},
    {"{\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"a\": {\"weights\": {\"num_bits\": 4, \"type\": \"int\"}}}}",
     "the weights are quantised (compressed-tensors, int of 4 bits)"},
    {"{\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"a\": {\"weights\": {\"num_bits\": 8, \"type\": \"float\", "
     "\"strategy\": \"group\", \"group_size\": 16}}, \"b\": {\"weights\": {\"num_bits\": 8, \"type\": \"float\", \"strategy\": "
     "\"group\", \"group_size\": 8}}}}",
     "groups of weights with blocks of their own"},
};

START_TEST(test_bad_configs)
{
    form f = forms[0];
    tensor_vec plain, v = coded_tensors(&f, &plain);
    f.config = bad_configs[_i][0];
    write_tensors(&v);
    write_form_config(&f);
    expect_refused(bad_configs[_i][1]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fp8_checkpoints");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, test_forms, 0, (int)PM_COUNT(forms));
    tcase_add_test(tc, test_nested);
    tcase_add_test(tc, test_bad_scales);
    tcase_add_test(tc, test_unlike_experts);
    tcase_add_loop_test(tc, test_bad_configs, 0, (int)PM_COUNT(bad_configs));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? 0 : 1;
}
