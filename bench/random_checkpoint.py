#!/usr/bin/env python3
"""Writes a checkpoint with random weights, as a folder; of any size, in little memory.

random_checkpoint.py OUT [--family mixtral|qwen3_moe] [--hidden D] [--inner F] [--layers L] [--experts E] [--top-k K] [--heads H] [--kv-heads N]
                     [--head-dim N] [--vocab V] [--positions P] [--dtype F32|BF16] [--shard-gb N] [--block BITS]

The weights have the scale of a fresh model (1/sqrt of the width they sum over), so that activations stay in range.
Every tensor is cut from one block of 2^BITS random numbers at places of its own: no two are alike. No tokenizer.
"""
import argparse
import array
import json
import os
import random
import struct

# names of a layer's router and experts: gate, up, down
NAMES = {"mixtral": ("block_sparse_moe.gate", "block_sparse_moe.experts", "w1", "w3", "w2"),
         "qwen3_moe": ("mlp.gate", "mlp.experts", "gate_proj", "up_proj", "down_proj")}


def tensors(a):
    """(name, rows, columns, standard deviation; None: all ones)"""
    q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    wide, inner = a.hidden ** -0.5, a.inner ** -0.5
    router, experts, gate, up, down = NAMES[a.family]
    yield "model.embed_tokens.weight", a.vocab, a.hidden, 1.0
    for l in range(a.layers):
        at = f"model.layers.{l}."
        yield at + "input_layernorm.weight", 0, a.hidden, None
        yield at + "self_attn.q_proj.weight", q, a.hidden, wide
        yield at + "self_attn.k_proj.weight", kv, a.hidden, wide
        yield at + "self_attn.v_proj.weight", kv, a.hidden, wide
        yield at + "self_attn.o_proj.weight", a.hidden, q, q ** -0.5
        if a.family == "qwen3_moe":
            yield at + "self_attn.q_norm.weight", 0, a.head_dim, None
            yield at + "self_attn.k_norm.weight", 0, a.head_dim, None
        yield at + "post_attention_layernorm.weight", 0, a.hidden, None
        yield at + f"{router}.weight", a.experts, a.hidden, wide
        for e in range(a.experts):
            expert = at + f"{experts}.{e}."
            yield expert + f"{gate}.weight", a.inner, a.hidden, wide
            yield expert + f"{up}.weight", a.inner, a.hidden, wide
            yield expert + f"{down}.weight", a.hidden, a.inner, inner
    yield "model.norm.weight", 0, a.hidden, None
    yield "lm_head.weight", a.vocab, a.hidden, wide


def encode(numbers, dtype):
    raw = array.array("f", numbers)
    if dtype == "F32":
        return raw.tobytes()
    halves = array.array("H", raw.tobytes())  # the high half of each number, on this little-endian machine
    return halves[1::2].tobytes()


class Source:
    """Random bytes of a standard deviation."""
    def __init__(self, dtype, seed, bits):
        self.random, self.dtype, self.size = random.Random(seed), dtype, 4 if dtype == "F32" else 2
        self.length, self.chunk = 1 << bits, 1 << (bits - 2)  # of the block and of what is cut from it, in numbers
        gauss = [self.random.gauss(0, 1) for _ in range(self.length)]
        self.base, self.blocks = gauss, {}

    def write(self, file, n, deviation):
        if deviation is None:
            file.write(encode([1.0] * n, self.dtype))
            return
        if deviation not in self.blocks:
            self.blocks[deviation] = memoryview(encode([x * deviation for x in self.base], self.dtype))
        block = self.blocks[deviation]
        while n > 0:
            take = min(n, self.chunk)
            at = self.random.randrange(self.length - take + 1)
            file.write(block[at * self.size:(at + take) * self.size])
            n -= take


def write_shard(path, items, source):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, rows, columns, _ in items:
        size = (rows or 1) * columns * source.size
        header[name] = {"dtype": source.dtype, "shape": [rows, columns] if rows else [columns], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, rows, columns, deviation in items:
            source.write(f, (rows or 1) * columns, deviation)
    return offset


def write(out, a):
    os.makedirs(out, exist_ok=True)
    config = {
        "model_type": a.family, "hidden_size": a.hidden, "intermediate_size": a.inner, "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads, "num_key_value_heads": a.kv_heads, "head_dim": a.head_dim, "num_experts_per_tok": a.top_k,
        "vocab_size": a.vocab, "max_position_embeddings": a.positions, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "sliding_window": None, "tie_word_embeddings": False,
        "dtype": "float32" if a.dtype == "F32" else "bfloat16"}
    if a.family == "mixtral":
        config.update(architectures=["MixtralForCausalLM"], num_local_experts=a.experts)
    else:
        config.update(architectures=["Qwen3MoeForCausalLM"], num_experts=a.experts, moe_intermediate_size=a.inner,
                      norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[], attention_bias=False, use_sliding_window=False)
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f, indent=1)
    source = Source(a.dtype, a.seed, a.block)
    shards, size = [[]], 0
    for item in tensors(a):
        bytes_ = (item[1] or 1) * item[2] * source.size
        if size + bytes_ > a.shard_gb * 1e9 and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append(item)
        size += bytes_
    names = ["model.safetensors"] if len(shards) == 1 else [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    total = sum(write_shard(os.path.join(out, name), items, source) for name, items in zip(names, shards))
    if len(shards) > 1:
        where = {item[0]: name for name, items in zip(names, shards) for item in items}
        with open(os.path.join(out, "model.safetensors.index.json"), "w", encoding="utf-8") as f:
            json.dump({"metadata": {"total_size": total}, "weight_map": where}, f)
    return total


def arguments(argv=None):
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("out")
    parse.add_argument("--family", choices=list(NAMES), default="mixtral")
    for name, default in (("hidden", 1024), ("inner", 2816), ("layers", 4), ("experts", 8), ("top-k", 2), ("heads", 16), ("kv-heads", 4),
                          ("head-dim", 64), ("vocab", 8192), ("positions", 1024), ("seed", 1), ("block", 20)):
        parse.add_argument("--" + name, type=int, default=default)
    parse.add_argument("--dtype", choices=["F32", "BF16"], default="F32")
    parse.add_argument("--shard-gb", type=float, default=1000)
    return parse.parse_args(argv)


def touched_per_token(a, size):
    """Bytes of weights that one token of decoding reads: attention, router, its experts, the head, a row of the embedding."""
    per_layer = a.hidden * a.head_dim * (2 * a.heads + 2 * a.kv_heads) + a.hidden * a.experts + a.top_k * 3 * a.hidden * a.inner
    return size * (a.layers * per_layer + a.vocab * a.hidden + a.hidden)


def prefill_flops(a, n):
    """Of n tokens read at once, what must be computed: products of the chosen experts and causal attention. Of the last layer only
    keys and values are needed of all tokens; its other rows, and the head, of the last token alone."""
    key_value = a.hidden * a.head_dim * 2 * a.kv_heads
    per_layer = a.hidden * a.head_dim * 2 * a.heads + key_value + a.hidden * a.experts + a.top_k * 3 * a.hidden * a.inner
    of_score = 4 * a.heads * a.head_dim
    all_tokens = (a.layers - 1) * (2 * n * per_layer + of_score * (n * (n + 1) // 2)) + 2 * n * key_value
    return all_tokens + 2 * (per_layer - key_value) + of_score * n + 2 * a.vocab * a.hidden


if __name__ == "__main__":
    options = arguments()
    print(write(options.out, options), "bytes of weights")
