"""Writes the small DeepSeek-V3 checkpoint with weights in FP8, in blocks of 32 x 32, of tests/data/checkpoints, with the logits of its
reference implementation on the weights that the codes stand for.

Usage: python make_deepseek_fp8.py OUTDIR      needs `numpy`, `torch`, `safetensors` and `transformers`
"""

import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

BLOCK = 32


def randomise(model):
    for name, p in model.named_parameters():
        p.copy_(1 + 0.2 * torch.randn_like(p) if "norm" in name else torch.randn_like(p) * 0.15)
    for name, b in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            b.copy_(torch.randn_like(b) * 0.1)


def encode(w, tensors, name):
    """Codes and scales of a matrix; returns what they stand for."""
    rows, columns = (-(-n // BLOCK) for n in w.shape)
    padded = torch.zeros(rows * BLOCK, columns * BLOCK)
    padded[: w.shape[0], : w.shape[1]] = w
    most = padded.reshape(rows, BLOCK, columns, BLOCK).abs().amax((1, 3))
    scales = most / 448
    spread = scales.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[: w.shape[0], : w.shape[1]]
    codes = (w / spread).to(torch.float8_e4m3fn)
    tensors[name], tensors[name + "_scale_inv"] = codes.contiguous(), scales.contiguous()
    return codes.float() * spread


@torch.no_grad()
def main(out):
    torch.manual_seed(12)
    # extents that blocks don't fill, and cuts of fused projections that fall within them
    config = DeepseekV3Config(
        vocab_size=128, hidden_size=64, intermediate_size=80, moe_intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, n_routed_experts=6, num_experts_per_tok=2, n_shared_experts=1, n_group=2, topk_group=1, q_lora_rank=48,
        kv_lora_rank=40, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=12, first_k_dense_replace=1, max_position_embeddings=256,
        routed_scaling_factor=1.5, pad_token_id=None)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = DeepseekV3ForCausalLM(config).eval().float()
    randomise(model)
    tensors = {}
    for name, p in model.state_dict().items():
        if ".experts." in name:  # stored one by one
            halves = [("gate_proj", 0), ("up_proj", 1)] if "gate_up" in name else [("down_proj", 0)]
            at = name.rsplit(".", 1)[0]
            for e in range(p.shape[0]):
                n = p.shape[1] // len(halves)
                for half, i in halves:
                    p[e, i * n : (i + 1) * n] = encode(p[e, i * n : (i + 1) * n], tensors, f"{at}.{e}.{half}.weight")
        elif "proj" in name and p.dim() == 2:
            p.copy_(encode(p, tensors, name))
        else:
            p.copy_(p.bfloat16().float())
            tensors[name] = (p if "bias" in name else p.bfloat16()).contiguous()
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    described = json.loads(config.to_json_string())
    described["quantization_config"] = {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    (folder / "config.json").write_text(json.dumps(described, indent=1) + "\n")
    generator, reference = torch.Generator().manual_seed(3), {}
    for suffix, shape in (("", (1, 12)), ("_b", (2, 9))):
        ids = torch.randint(3, 128, shape, generator=generator)
        reference["input_ids" + suffix] = ids.numpy()
        reference["logits" + suffix] = model(ids).logits.numpy()
    ids = torch.tensor(reference["input_ids"])
    for _ in range(8):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    reference["greedy"] = ids[:, 12:].numpy()
    np.savez(folder / "reference.npz", **reference)


main(sys.argv[1])
