"""Writes the small Nemotron-H checkpoint of tests/data/checkpoints, with the logits of its reference implementation.

Usage: python make_nemotron_h.py OUTDIR      needs `numpy`, `torch` and `transformers`
"""

import sys

import numpy as np
import torch
from transformers import NemotronHConfig, NemotronHForCausalLM

MIXERS = ["linear_attention", "moe", "full_attention", "mlp", "linear_attention", "moe"]


def randomise(model):
    for name, p in list(model.named_parameters()) + list(model.named_buffers()):
        if p.dtype != torch.float32:
            continue
        if "norm" in name and name.endswith("weight"):
            p.copy_(1 + 0.2 * torch.randn_like(p))
        elif name.endswith("A_log"):
            p.copy_(torch.rand_like(p) * 1.5)
        elif "correction_bias" in name:
            p.copy_(0.3 * torch.randn_like(p))
        else:
            p.copy_(torch.randn_like(p) * (0.2 if p.dim() > 1 else 0.3))


@torch.no_grad()
def main(out):
    torch.manual_seed(7)
    config = NemotronHConfig(
        vocab_size=128, hidden_size=32, layer_types=MIXERS, num_hidden_layers=len(MIXERS), num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        max_position_embeddings=256, intermediate_size=40, ssm_state_size=8, mamba_num_heads=8, mamba_head_dim=8, n_groups=2, conv_kernel=4, expand=2,
        chunk_size=8, n_routed_experts=8, moe_intermediate_size=12, moe_shared_expert_intermediate_size=16, moe_latent_size=16, num_experts_per_tok=3,
        routed_scaling_factor=2.5, n_group=2, topk_group=1)
    model = NemotronHForCausalLM(config).eval()
    randomise(model)
    model.save_pretrained(out)
    generator, reference = torch.Generator().manual_seed(3), {}
    for suffix, shape in (("", (1, 12)), ("_b", (2, 9))):
        ids = torch.randint(3, 128, shape, generator=generator)
        reference["input_ids" + suffix] = ids.numpy()
        reference["logits" + suffix] = model(ids).logits.numpy()
    ids = torch.tensor(reference["input_ids"])
    for _ in range(8):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    reference["greedy"] = ids[:, 12:].numpy()
    np.savez(out + "/reference.npz", **reference)


main(sys.argv[1])
