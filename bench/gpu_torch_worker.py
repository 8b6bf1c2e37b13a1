"""The other side of gpu-vs-torch: the same checkpoint in Hugging Face transformers, in bf16, on one device.

gpu_torch_worker.py CHECKPOINT DEVICE   answers lines of JSON on standard input, one each:
  {"do": "logits", "ids": [...], "dtype": "bfloat16"|"float32"}
  {"do": "load", "experts": "eager"|"grouped_mm"|..., "compile": bool}      the model that the next two are about
  {"do": "prefill", "ids": [...], "batch": B, "repeat": N}                  seconds of each
  {"do": "decode", "past": P, "batch": B, "n": N}                           seconds of each of N tokens after P
An answer with "error" says why there is none.
"""
import json
import os
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache, StaticCache

WARM_UP = 3


class Worker:
    def __init__(self, folder, device):
        torch.set_grad_enabled(False)
        self.folder, self.device, self.models, self.static = folder, torch.device(device), {}, None

    def info(self):
        on_gpu = self.device.type == "cuda"
        return {"torch": torch.__version__, "transformers": transformers.__version__,
                "device": torch.cuda.get_device_name(self.device) if on_gpu else "cpu"}

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def model_of(self, experts, dtype):
        if (experts, dtype) not in self.models:
            model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=dtype, experts_implementation=experts)
            self.models[experts, dtype] = model.to(self.device).eval()
        return self.models[experts, dtype]

    def logits(self, ids, dtype):
        model = self.model_of("eager", getattr(torch, dtype))
        out = model(input_ids=torch.tensor([ids], device=self.device)).logits[0].float().cpu()
        if dtype == "float32":
            del self.models["eager", torch.float32]
        return out.flatten().tolist()

    def load(self, experts, compile):
        self.model = self.model_of(experts, torch.bfloat16)
        self.call = torch.compile(self.model, mode="reduce-overhead", dynamic=False) if compile else self.model
        self.compiled = compile
        return {}

    def cache(self, room):
        if not self.compiled:
            return DynamicCache(config=self.model.config)
        return StaticCache(config=self.model.config, max_cache_len=room)

    def run(self, call, ids, past, room):
        """The best next tokens; ids: [batch, tokens], the first of them at position `past` of the cache."""
        at = torch.arange(past, past + ids.shape[1], device=self.device)
        out = call(input_ids=ids, past_key_values=room, use_cache=True, logits_to_keep=1, position_ids=at[None], cache_position=at)
        return out.logits[:, -1].argmax(-1, keepdim=True)

    def timed(self, call, *what):
        self.wait()
        start = time.perf_counter()
        token = self.run(call, *what)
        self.wait()
        return token.clone(), time.perf_counter() - start

    def prefill(self, ids, batch, repeat):
        rows = torch.tensor([ids] * batch, device=self.device)
        room = (len(ids) + 255) // 256 * 256
        return [self.timed(self.call, rows, 0, self.cache(room))[1] for _ in range(repeat + WARM_UP)][WARM_UP:]

    def decode(self, past, batch, n):
        ids = torch.arange(batch * past, device=self.device).reshape(batch, past) * 17 % (self.model.config.vocab_size - 3) + 3
        cache = self.cache((past + n + WARM_UP + 255) // 256 * 256)
        token = self.run(self.model, ids, 0, cache)  # the prompt, not compiled
        times = []
        for i in range(n + WARM_UP):
            token, took = self.timed(self.call, token, past + i, cache)
            times.append(took)
        return times[WARM_UP:]


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    worker = Worker(*sys.argv[1:])
    print(json.dumps(worker.info()), file=answers, flush=True)
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            answer = getattr(worker, ask.pop("do"))(**ask)
        except Exception as error:  # whatever a library of another version says: the row tells
            answer = {"error": f"{type(error).__name__}: {error}"[:400]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
