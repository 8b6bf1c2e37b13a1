// frontend/checkpoint: many families against the reference implementation, with weights that are made here
// from the names of the tensors; language parts of larger models, and families that no recipe reads.

#include "tests/unit/checkpoint_folders.h"

static void make_checkpoint(const char *name)
{
    tensor_vec v = made_tensors(name);
    write_tensors(&v);
    replace_in_config(pm_arena_printf(arena, DATA "made/%s/config.json", name), NULL, NULL);
}

static const char *const made[] = {
    "afmoe", "aria_text", "cohere2_moe", "cohere2_moe-softmax", "dbrx", "deepseek_v2", "deepseek_v2-lite",
    "deepseek_v3", "dots1", "ernie4_5_moe", "exaone_moe", "flex_olmo", "gemma4_text", "glm4_moe",
    "glm4_moe_lite", "gpt_oss", "granitemoeshared", "hunyuan_v1_moe", "jetmoe", "kimi_k2", "llama4_text",
    "longcat_flash", "mellum", "mimo_v2_flash", "minimax_m2", "mixtral-linear", "mixtral-longrope",
    "olmoe-clipped", "phimoe", "phimoe-longrope", "qwen2_moe-yarn", "qwen3_moe-llama3", "solar_open"};

START_TEST(test_made)
{
    const char *reference = pm_arena_printf(arena, DATA "made/%s/reference.npz", made[_i]);
    make_checkpoint(made[_i]);
    pm_module *m = load(folder);
    expect_logits(m, reference, "input_ids", "logits");
    expect_logits(m, reference, "input_ids_b", "logits_b");
}
END_TEST

/// Greedy decoding with the caches goes on as the reference implementation does.
START_TEST(test_made_greedy)
{
    const char *reference = pm_arena_printf(arena, DATA "made/%s/reference.npz", made[_i]);
    make_checkpoint(made[_i]);
    pm_module *m = load(folder);
    pm_array ids = npz_get(arena, diag, reference, "input_ids");
    pm_array want = npz_get(arena, diag, reference, "greedy");
    session s = start(m, 1, 48);
    // In two pieces: the second sees the caches. With longrope, keys of a piece within the original context
    // are turned otherwise than those of the whole, which goes beyond it.
    int64_t half = strstr(made[_i], "longrope") != NULL ? 0 : ids.dims[1] / 2;
    if (half > 0)
        step(&s, "prefill", ids.data, half);
    pm_array logits = step(&s, "prefill", (int64_t *)ids.data + half, ids.dims[1] - half);
    for (int64_t i = 0; i < npz_count(&want); i++) {
        const float *row = logits.data;
        int64_t best = 0;
        for (int64_t v = 1; v < logits.dims[1]; v++)
            best = row[v] > row[best] ? v : best;
        ck_assert_int_eq(best, ((int64_t *)want.data)[i]);
        logits = step(&s, "decode", &best, 1);
    }
}
END_TEST

/// The language part of a model with others, under both of the names that are in use.
START_TEST(test_nested)
{
    static const char *const above[][2] = {{"language_model.model.", "language_model.lm_head.weight"},
                                           {"model.language_model.", "lm_head.weight"}};
    tensor_vec v = read_tensors("mixtral");
    tensor picture = v.data[0];
    pm_file *file;
    for (size_t i = 0; i < v.n; i++) {
        bool is_model = strncmp(v.data[i].name, "model.", 6) == 0;
        v.data[i].name = is_model ? pm_arena_printf(arena, "%s%s", above[_i][0], v.data[i].name + 6)
                                  : above[_i][1];
    }
    picture.name = "vision_tower.patch.weight";
    PM_PUSH(arena, &v, picture);
    write_tensors(&v);
    ck_assert_int_eq(pm_file_open(arena, diag, DATA "mixtral/config.json", &file), PM_OK);
    char *text = pm_arena_alloc(arena, file->size + 1, 1);
    ck_assert_int_eq(pm_file_read(diag, file, 0, text, file->size), PM_OK);
    write_text("config.json", pm_arena_printf(arena, "{\"model_type\": \"pictures\", \"text_config\": %s}", text));
    pm_module *m = load(folder);
    ck_assert_str_eq(pm_map_get_str(&m->meta, "part_of"), "pictures");
    expect_logits(m, DATA "mixtral/reference.npz", "input_ids", "logits");
}
END_TEST

/// A family without a recipe: the nearest one, and what it lacks.
START_TEST(test_unknown_family)
{
    tensor_vec v = read_tensors("olmoe");
    tensor extra = *find(&v, "model.norm.weight");
    extra.name = "model.layers.1.self_attn.warp.weight";
    PM_PUSH(arena, &v, extra);
    write_tensors(&v);
    write_config("olmoe", "\"model_type\": \"olmoe\"", "\"model_type\": \"brandnew\", \"warp_factor\": 9");
    expect_refused("no recipe for models of type 'brandnew'");
    const char *all = messages();
    ck_assert_msg(strstr(all, "nearest by its tensors is the recipe 'olmoe'") != NULL, "%s", all);
    ck_assert_msg(strstr(all, "no place in it: model.layers.N.self_attn.warp.weight") != NULL, "%s", all);
    ck_assert_msg(strstr(all, "doesn't read: warp_factor\n") != NULL, "%s", all);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("made_checkpoints");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 300);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, test_made, 0, (int)PM_COUNT(made));
    tcase_add_loop_test(tc, test_made_greedy, 0, (int)PM_COUNT(made));
    tcase_add_loop_test(tc, test_nested, 0, 2);
    tcase_add_test(tc, test_unknown_family);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? 0 : 1;
}
