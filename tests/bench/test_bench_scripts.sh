#!/bin/bash
# test_bench_scripts.sh PIMOEC PYTHON CC WORK: the tools under bench/, on a model of a few kilobytes
set -euo pipefail
pimoec=$1 python=$2 cc=$3 work=$4
bench=$(cd "$(dirname "$0")/../../bench" && pwd)
rm -rf "$work"
mkdir -p "$work"
fail()
{
    echo "FAIL: $*" >&2
    exit 1
}

strict=(-std=gnu11 -Wall -Wextra -Wpedantic -Werror -pthread)
"$cc" "${strict[@]}" -O2 "$bench/measure_process.c" -o "$work/measure_process"
for march in x86-64-v3 x86-64-v4 "x86-64-v4 -mavx512bf16"; do
    # shellcheck disable=SC2086
    "$cc" "${strict[@]}" -O2 -march=$march "$bench/calibrate.c" -o "$work/calibrate-unused"
done

# ---- a random checkpoint, in one file and in several: the same program ----
tiny=(--hidden 32 --inner 48 --layers 2 --experts 4 --heads 4 --kv-heads 2 --head-dim 8 --vocab 96)
"$python" "$bench/random_checkpoint.py" "$work/one" "${tiny[@]}" >/dev/null
"$python" "$bench/random_checkpoint.py" "$work/several" "${tiny[@]}" --shard-gb 0.00003 >/dev/null
[[ $(find "$work/several" -name '*.safetensors' | wc -l) -gt 2 ]] || fail "the checkpoint is not in several files"
for kind in one several; do
    "$pimoec" -q "$work/$kind" -o "$work/$kind.out"
    "$work/$kind.out" --entry forward --in input_ids=1,2,3,95 --out logits=@"$work/$kind.npy"
done
cmp "$work/one.npy" "$work/several.npy" || fail "a checkpoint in several files computes something else"

# ---- measure_process: what it runs, how it ended, its memory ----
row=$("$work/measure_process" -o "$work/out" sh -c 'echo text; exit 3')
[[ $(cat "$work/out") == text && $row == *'"exit": 3'* ]] || fail "measure_process: $row"
row=$("$work/measure_process" "$python" -c 'x = bytearray(200 << 20); x[::4096] = b"1" * len(x[::4096])')
peak=$(sed -n 's/.*"peak_mb": \([0-9]*\).*/\1/p' <<<"$row")
[[ $peak -ge 200 && $peak -le 300 ]] || fail "measure_process saw a peak of $peak MB where 200 were taken"

# ---- what the scripts share ----
cd "$bench"
PIMOEC=$pimoec BENCH_WORK=$work PYTHONDONTWRITEBYTECODE=1 "$python" - "$work" <<'PYTHON'
import os, sys
import bench_common, random_checkpoint
work = sys.argv[1]
program, compiler = bench_common.compile_model(os.path.join(work, "one"), "tiny")
assert compiler["peak_mb"] > 1, compiler
code, weights = bench_common.code_bytes(program)
shape = random_checkpoint.arguments(["x", "--hidden", "32", "--inner", "48", "--layers", "2", "--experts", "4", "--heads", "4",
                                     "--kv-heads", "2", "--head-dim", "8", "--vocab", "96"])
stored = sum((rows or 1) * columns * 4 for _, rows, columns, _ in random_checkpoint.tensors(shape))
assert 10000 < code < 400 * 1024 and weights > stored, (code, weights, stored)
all_chosen = random_checkpoint.arguments(["x", "--top-k", "8"])
norms = (2 * all_chosen.layers + 1) * all_chosen.hidden
embedding = (all_chosen.vocab - 1) * all_chosen.hidden
every = sum((rows or 1) * columns for _, rows, columns, _ in random_checkpoint.tensors(all_chosen))
assert random_checkpoint.touched_per_token(all_chosen, 1) == every - norms - embedding
r = bench_common.program_json([program, "--bench", "--entry", "prefill", "--in", "input_ids=1,2,3", "--in", "past=0", "--repeat", "3", "--json"])
assert r["entry"] == "prefill" and r["repeat"] == 3 and r["median_ms"] > 0, r
text = bench_common.table(["a", "bb"], [["ccc", 1]])
assert text == "| a   | bb |\n|-----|----|\n| ccc | 1  |", text
PYTHON
