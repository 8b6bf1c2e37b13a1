"""Writes the small GPT-OSS checkpoint with MXFP4 experts of tests/data/checkpoints, with the logits of its reference implementation on
the weights that the codes stand for (as transformers decodes them).

Usage: python make_gpt_oss_mxfp4.py OUTDIR      needs `numpy`, `torch`, `safetensors` and `transformers`
"""

import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GptOssConfig, GptOssForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors


def randomise(model):
    for name, p in model.named_parameters():
        p.copy_(1 + 0.2 * torch.randn_like(p) if "norm" in name else torch.randn_like(p) * (0.3 if p.dim() > 1 else 0.4))


@torch.no_grad()
def main(out):
    torch.manual_seed(11)
    # hidden and inner width differ; two blocks in a row of the one, three in the other
    config = GptOssConfig(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=4, max_position_embeddings=256, initial_context_length=64,
        layer_types=["sliding_attention", "full_attention"])
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = GptOssForCausalLM(config).eval().float()
    randomise(model)
    tensors = {}
    for name, p in model.state_dict().items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name] = p.contiguous()
            continue
        experts, k, n = p.shape  # stored [in, out]; codes are rows of the inputs
        blocks = torch.randint(0, 256, (experts, n, k // 32, 16), dtype=torch.uint8)
        scales = torch.randint(122, 126, (experts, n, k // 32), dtype=torch.uint8)
        tensors[name + "_blocks"], tensors[name + "_scales"] = blocks, scales
        p.copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    described = json.loads(config.to_json_string())
    described["quantization_config"] = {"modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"], "quant_method": "mxfp4"}
    (folder / "config.json").write_text(json.dumps(described, indent=1) + "\n")
    generator, reference = torch.Generator().manual_seed(3), {}
    for suffix, shape in (("", (1, 12)), ("_b", (2, 9))):
        ids = torch.randint(3, 96, shape, generator=generator)
        reference["input_ids" + suffix] = ids.numpy()
        reference["logits" + suffix] = model(ids).logits.numpy()
    ids = torch.tensor(reference["input_ids"])
    for _ in range(8):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    reference["greedy"] = ids[:, 12:].numpy()
    np.savez(folder / "reference.npz", **reference)


main(sys.argv[1])
