#!/usr/bin/env python3
"""Small checkpoints of many families, with logits of the reference implementation (transformers), for tests.

    make_checkpoint_cases.py [--out DIR] [--folder DIR] [NAME...]

Weights are not stored: NAME.txt says "name center spread dims...", and element i of a tensor is
    center + spread * u,    u = the top 24 bits of splitmix64(fnv1a64(name) + i) as a number in [-1, 1)
computed in float32. tests/unit/test_made_checkpoints.c makes the same numbers. Whole folders, with weights, go into --folder.
"""
import argparse
import json
import math
import pathlib
import tempfile

import numpy as np

OUT = pathlib.Path(__file__).parents[1] / "data" / "checkpoints" / "made"
SMALL = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
             bos_token_id=1, eos_token_id=2, pad_token_id=0)
V3 = dict(n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=1, moe_intermediate_size=12, intermediate_size=24, first_k_dense_replace=1)
LATENT = dict(num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=12)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
MIX = dict(num_local_experts=6, num_experts_per_tok=2, intermediate_size=16)
TWO = dict(layer_types=["sliding_attention", "full_attention"], sliding_window=5)

# name: (model_type, what differs from SMALL, lengths of the two inputs)
CASES = {
    "granitemoeshared": ("granitemoeshared", dict(MIX, shared_intermediate_size=20, attention_multiplier=0.25, embedding_multiplier=1.5,
                                                  residual_multiplier=0.6, logits_scaling=2.0)),
    "phimoe": ("phimoe", dict(MIX, attention_bias=True, lm_head_bias=True)),
    "mixtral-longrope": ("mixtral", dict(MIX, head_dim=8, rope_parameters=dict(
        rope_type="longrope", rope_theta=10000.0, original_max_position_embeddings=16, short_factor=[1.0, 1.1, 1.5, 2.0],
        long_factor=[1.0, 2.0, 4.0, 8.0]))),
    "phimoe-longrope": ("phimoe", dict(MIX, rope_parameters=dict(
        rope_type="longrope", rope_theta=10000.0, original_max_position_embeddings=64, short_factor=[1.0, 1.1, 1.5, 2.0],
        long_factor=[1.0, 2.0, 4.0, 8.0], short_mscale=1.1, long_mscale=1.3, factor=4.0))),
    "glm4_moe": ("glm4_moe", dict(V3, head_dim=8, n_group=1, topk_group=1, routed_scaling_factor=1.5, use_qk_norm=True, attention_bias=True,
                                  rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5))),
    "solar_open": ("solar_open", dict({k: v for k, v in V3.items() if k != "first_k_dense_replace"}, head_dim=8, n_group=2, topk_group=1, routed_scaling_factor=1.4)),
    "dots1": ("dots1", dict(V3, head_dim=8, n_group=2, topk_group=2, norm_topk_prob=True, routed_scaling_factor=2.0, **TWO)),
    "exaone_moe": ("exaone_moe", dict(V3, num_experts=8, num_shared_experts=1, head_dim=8, mlp_layer_types=["dense", "sparse"], **TWO)),
    "ernie4_5_moe": ("ernie4_5_moe", dict(moe_num_experts=8, moe_k=3, moe_num_shared_experts=2, moe_intermediate_size=12, intermediate_size=24,
                                          moe_layer_start_index=1, use_bias=True)),
    "mellum": ("mellum", dict(num_experts=8, num_experts_per_tok=3, moe_intermediate_size=12, intermediate_size=24, head_dim=8, **TWO, rope_parameters={
        "full_attention": YARN, "sliding_attention": dict(rope_type="default", rope_theta=1000.0)})),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", dict(num_experts=6, moe_topk=2, intermediate_size=20, head_dim=8, rope_parameters=dict(
        rope_type="dynamic", rope_theta=10000.0, alpha=50.0, factor=1.0))),
    "minimax_m2": ("minimax_m2", dict(MIX, head_dim=8, rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5))),
    "mixtral-linear": ("mixtral", dict(MIX, rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0))),
    "qwen3_moe-llama3": ("qwen3_moe", dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=12, intermediate_size=24, head_dim=8,
                                           norm_topk_prob=True, rope_parameters=LLAMA3)),
    "qwen2_moe-yarn": ("qwen2_moe", dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=12, intermediate_size=24,
                                         shared_expert_intermediate_size=20, rope_parameters=dict(YARN, beta_fast=16.0, attention_factor=1.25))),
    "olmoe-clipped": ("olmoe", dict(num_experts=6, num_experts_per_tok=2, intermediate_size=16, clip_qkv=0.5)),
    "flex_olmo": ("flex_olmo", dict(num_experts=6, num_experts_per_tok=2, intermediate_size=16)),
    "deepseek_v2": ("deepseek_v2", dict(V3, **LATENT, n_group=4, topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=4.0,
                                        n_shared_experts=2, rope_parameters=dict(YARN, mscale=0.7, mscale_all_dim=0.5))),
    "deepseek_v2-lite": ("deepseek_v2", dict(V3, **dict(LATENT, q_lora_rank=None), topk_method="greedy")),
    "deepseek_v3": ("deepseek_v3", dict(V3, **LATENT, n_group=4, topk_group=2, rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=1.0))),
    "kimi_k2": ("deepseek_v3", dict(V3, **LATENT, n_group=1, topk_group=1, routed_scaling_factor=2.827, rope_interleave=False)),
    "glm4_moe_lite": ("glm4_moe_lite", dict(V3, **LATENT, n_group=1, topk_group=1, mlp_layer_types=["dense", "sparse"])),
    "longcat_flash": ("longcat_flash", dict(LATENT, num_layers=1, n_routed_experts=6, zero_expert_num=3, moe_topk=3, expert_ffn_hidden_size=12,
                                            ffn_hidden_size=24, head_dim=8, qk_head_dim=16)),
    "aria_text": ("aria_text", dict(moe_num_experts=6, moe_topk=2, moe_num_shared_experts=2, intermediate_size=12, head_dim=8)),
    "afmoe": ("afmoe", dict(num_hidden_layers=3, num_experts=8, num_experts_per_tok=3, num_shared_experts=1, moe_intermediate_size=12, intermediate_size=24,
                            num_dense_layers=1, head_dim=8, mup_enabled=True, route_scale=1.5, sliding_window=5,
                            layer_types=["sliding_attention", "sliding_attention", "full_attention"])),
    "cohere2_moe": ("cohere2_moe", dict(num_experts=6, num_experts_per_tok=2, num_shared_experts=1, intermediate_size=16, head_dim=8, logit_scale=0.25,
                                        mlp_layer_types=["dense", "sparse"], prefix_dense_intermediate_size=20, **TWO)),
    "cohere2_moe-softmax": ("cohere2_moe", dict(num_experts=6, num_experts_per_tok=2, num_shared_experts=1, intermediate_size=16, head_dim=8,
                                                rms_norm_eps=1e-5, expert_selection_fn="softmax", shared_expert_combination_strategy="sum", **TWO)),
    "dbrx": ("dbrx", dict(d_model=32, n_heads=4, n_layers=2, max_seq_len=256, attn_config=dict(kv_n_heads=2, clip_qkv=0.5, rope_theta=10000.0),
                          ffn_config=dict(ffn_hidden_size=16, moe_num_experts=6, moe_top_k=2, hidden_size=32))),
    "gpt_oss": ("gpt_oss", dict(MIX, head_dim=8, **TWO, swiglu_limit=0.5, rope_parameters=dict(YARN, truncate=False, beta_fast=32.0, beta_slow=1.0))),
    "llama4_text": ("llama4_text", dict(MIX, num_experts_per_tok=1, num_hidden_layers=4, intermediate_size_mlp=24, head_dim=8, attention_chunk_size=8,
                                        floor_scale=4, interleave_moe_layer_step=2, no_rope_layers=[1, 1, 1, 0])),
    "mimo_v2_flash": ("mimo_v2_flash", dict(V3, num_hidden_layers=3, head_dim=12, v_head_dim=8, sliding_window=5, routed_scaling_factor=1.5,
                                            layer_types=["full_attention", "sliding_attention", "sliding_attention"],
                                            mlp_layer_types=["dense", "sparse", "sparse"])),
    "gemma4_text": ("gemma4_text", dict(num_experts=6, top_k_experts=2, moe_intermediate_size=12, intermediate_size=24, enable_moe_block=True, head_dim=8,
                                        global_head_dim=16, num_global_key_value_heads=1, attention_k_eq_v=True, hidden_size_per_layer_input=0,
                                        vocab_size_per_layer_input=64, final_logit_softcapping=20.0, **TWO)),
    "jetmoe": ("jetmoe", dict(MIX, kv_channels=8, num_key_value_heads=2)),
}
LONG = {"mixtral-longrope": (18, 9)}


def splitmix(x):
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def numbers(name, center, spread, dims):
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    n = math.prod(dims)
    with np.errstate(over="ignore"):
        bits = splitmix(np.uint64(seed) + np.arange(n, dtype=np.uint64)) >> np.uint64(40)
    u = bits.astype(np.float32) / np.float32(2**23) - np.float32(1)
    return (np.float32(center) + np.float32(spread) * u).reshape(dims)


def center_and_spread(name, dims):
    if len(dims) == 1 and ("norm" in name or name.endswith("scale") or "scalar" in name):
        return 1, 0.25
    if len(dims) == 1 or "bias" in name:
        return 0, 0.125 if "correction" in name or "expert_bias" in name else 0.25
    return 0, 1.0 if "embed" in name or "wte" in name else 0.375


def make(name, out, whole):
    import torch
    from safetensors.numpy import load_file, save_file
    from transformers import AutoConfig, AutoModelForCausalLM
    torch.manual_seed(0)
    model_type, differs = CASES[name]
    settings = dict(SMALL, **differs)
    if model_type == "dbrx":
        settings = {k: v for k, v in settings.items() if k in differs or "token_id" in k or k == "vocab_size"}
    config = AutoConfig.for_model(model_type, **settings)
    rng = np.random.default_rng(len(name))
    lengths = LONG.get(name, (9, 7))
    ids, ids_b = rng.integers(3, 64, (1, lengths[0])), rng.integers(3, 64, (2, lengths[1]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary if whole is None else whole / name)
        folder.mkdir(parents=True, exist_ok=True)
        AutoModelForCausalLM.from_config(config, attn_implementation="eager").save_pretrained(folder)
        tensors, lines = {}, []
        for key, old in sorted(load_file(folder / "model.safetensors").items()):
            center, spread = center_and_spread(key, old.shape)
            tensors[key] = numbers(key, center, spread, old.shape)
            lines.append(" ".join([key, f"{center:g}", f"{spread:g}", *map(str, old.shape)]))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
        arrays = {"input_ids": ids, "input_ids_b": ids_b}
        with torch.no_grad():
            for suffix, x in (("", ids), ("_b", ids_b)):
                arrays["logits" + suffix] = model(torch.tensor(x)).logits.float().numpy()
            arrays["greedy"] = model.generate(torch.tensor(ids), max_new_tokens=4, do_sample=False, eos_token_id=None,
                                              pad_token_id=0)[:, ids.shape[1]:].numpy()
        text = json.loads((folder / "config.json").read_text())
        for key in ("transformers_version", "dtype", "architectures", "use_cache", "initializer_range", "attention_dropout", "output_router_logits"):
            text.pop(key, None)
        if whole is not None:
            np.savez(folder / "reference.npz", **arrays)
        if out is not None:
            to = out / name
            to.mkdir(parents=True, exist_ok=True)
            (to / "config.json").write_text(json.dumps(text, indent=1) + "\n")
            (to / f"{name}.txt").write_text("\n".join(lines) + "\n")
            np.savez(to / "reference.npz", **arrays)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    out = arguments.out or (OUT if arguments.folder is None else None)
    for name in arguments.names or CASES:
        try:
            make(name, out, arguments.folder)
            print(name, "made")
        except Exception as problem:  # one family that this version doesn't know must not end the others
            print(name, "FAILED", type(problem).__name__, str(problem)[:300])


if __name__ == "__main__":
    main()
