"""What PyTorch reaches in the shapes that gpu-bench times: one JSON object on standard output.

gpu_torch_kernels.py [cuda|cpu]   (cpu: small shapes, to try the script)
Exit code 77: there is no torch, or no GPU for it.
"""
import json
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit(77)

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cuda"
if DEVICE == "cuda" and not torch.cuda.is_available():
    sys.exit(77)
ROUNDS, ROUND_SECONDS = (15, 2e-3) if DEVICE == "cuda" else (2, 0)
POOL = 1 << 29 if DEVICE == "cuda" else 1 << 20  # bytes of weights that take turns, more than caches hold


def seconds(run, times):
    if DEVICE != "cuda":
        start = time.perf_counter()
        for i in range(times):
            run(i)
        return (time.perf_counter() - start) / times
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for i in range(times):
        run(i)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3 / times


def measure(run):
    """Best and middle seconds of the rounds."""
    seconds(run, 2)
    times = max(1, min(400, int(ROUND_SECONDS / seconds(run, 2))))
    found = [seconds(run, times) for _ in range(ROUNDS)]
    return min(found), statistics.median(found)


def randn(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, device=DEVICE, dtype=dtype)


def copies(*shape, dtype=torch.bfloat16):
    size = torch.empty(0, dtype=dtype).element_size()
    for n in shape:
        size *= n
    return [randn(*shape, dtype=dtype) for _ in range(max(1, min(64, POOL // size)))]


def product(rows, n, k, dtype):
    x, w = randn(rows, k, dtype=dtype), copies(n, k, dtype=dtype)
    return lambda i: F.linear(x, w[i % len(w)])


def grouped(rows, n, k, experts):
    x, w = randn(rows, k), copies(experts, n, k)
    ends = torch.tensor([rows * (e + 1) // experts for e in range(experts)], device=DEVICE, dtype=torch.int32)
    name = "grouped_mm" if hasattr(F, "grouped_mm") else "_grouped_mm"
    call = getattr(F, name, None) or getattr(torch, name)
    return lambda i: call(x, w[i % len(w)].transpose(-2, -1), offs=ends)


def attention(batch, t, keys, dtype):
    q, k, v = randn(batch, 32, t, 128, dtype=dtype), randn(batch, 8, keys, 128, dtype=dtype), randn(batch, 8, keys, 128, dtype=dtype)
    return lambda i: F.scaled_dot_product_attention(q, k, v, is_causal=t > 1, enable_gqa=True)


def norm(rows, n):
    x, w = randn(rows, n, dtype=torch.float32), randn(n, dtype=torch.float32)
    return lambda i: F.rms_norm(x, (n,), w, 1e-5)


def cases(small):
    """(name, function, operations, bytes)"""
    top, many = (64, 32) if small else (4096, 4096)
    for n in (top // 4, top // 2, top):
        yield f"grouped bf16, 8 experts: {many} x {n} x {n}", lambda n=n: grouped(many, n, n, 8), 2 * many * n * n, 0
    yield f"bf16: {many} x {top} x {top}", lambda: product(many, top, top, torch.bfloat16), 2 * many * top * top, 0
    for rows in (1, 8):
        yield (f"decode, bf16: {rows} x {top} x {top}", lambda rows=rows: product(rows, top, top, torch.bfloat16),
               2 * rows * top * top, 2 * top * top)
    yield f"decode, f32: 1 x {top} x {top}", lambda: product(1, top, top, torch.float32), 2 * top * top, 4 * top * top
    keys = 64 if small else 8192
    for dtype, size in ((torch.bfloat16, 2), (torch.float32, 4)):
        yield f"attention, decode, {size} bytes: 1 x 1 to {keys}", lambda d=dtype: attention(1, 1, keys, d), 0, 2 * 8 * 128 * keys * size
    t = 16 if small else 2048
    yield f"attention, prefill, bf16: 1 x {t} to {t}", lambda: attention(1, t, t, torch.bfloat16), 2 * 32 * 128 * t * (t + 1), 0
    yield f"rms norm: {2 * top} x {top}", lambda: norm(2 * top, top), 0, 2 * 2 * top * top * 4


def main():
    rows = []
    torch.set_grad_enabled(False)
    for name, make, operations, size in cases(DEVICE != "cuda"):
        try:
            best, middle = measure(make())
        except Exception as error:  # another version's torch, say: the row tells
            rows.append({"name": name, "error": f"{type(error).__name__}: {error}"[:300]})
            continue
        row = {"name": name, "best_us": best * 1e6, "median_us": middle * 1e6}
        if operations:
            row["tflops"] = operations / middle * 1e-12
        if size:
            row["gbytes_per_second"] = size / middle * 1e-9
        rows.append(row)
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
    json.dump({"version": torch.__version__, "rows": rows}, sys.stdout)
    print()


main()
