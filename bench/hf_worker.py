"""The other side of classics-vs-hf: the same model in Hugging Face transformers, on the CPU: not compiled, fp32,
experts as its eager implementation runs them, attention as it chooses by itself (the faster one).

hf_worker.py first MODEL THREADS PROMPT_FILE TOKENS   writes the first token, then the rest, as fast as it can
hf_worker.py serve MODEL THREADS                      answers lines of JSON on standard input, one each
"""
import json
import os
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM


class Model:
    def __init__(self, folder, threads):
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, experts_implementation="eager").eval()

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def run(self, ids, past=None):
        """The best next token, and the cache."""
        out = self.model(input_ids=torch.as_tensor([ids]), past_key_values=past, use_cache=True, logits_to_keep=1)
        return int(out.logits[0, -1].argmax()), out.past_key_values

    def decode(self, ids, n):
        """Greedy: the tokens, and tokens per second of all but the first."""
        token, past = self.run(ids)
        tokens, start = [token], time.perf_counter()
        while len(tokens) < n:
            token, past = self.run([token], past)
            tokens.append(token)
        return tokens, (n - 1) / (time.perf_counter() - start)

    def prefill(self, ids, repeat):
        times = []
        for _ in range(repeat):
            start = time.perf_counter()
            self.run(ids)
            times.append(time.perf_counter() - start)
        return times


def first(folder, threads, prompt, n):
    model = Model(folder, int(threads))
    with open(prompt, encoding="utf-8") as f:
        ids = model.ids(f.read())
    token, past = model.run(ids)
    print(model.tokenizer.decode([token]), end="", flush=True)
    for _ in range(int(n) - 1):
        token, past = model.run([token], past)
        print(model.tokenizer.decode([token]), end="", flush=True)


def serve(folder, threads):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    model = Model(folder, int(threads))
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), file=answers, flush=True)
    for line in sys.stdin:
        ask = json.loads(line)
        if ask["do"] == "ids":
            answer = model.ids(ask["text"])
        elif ask["do"] == "prefill":
            answer = model.prefill(ask["ids"], ask["repeat"])
        else:
            tokens, rate = model.decode(ask["ids"], ask["n"])
            answer = {"tokens": tokens, "rate": rate}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    {"first": first, "serve": serve}[sys.argv[1]](*sys.argv[2:])
