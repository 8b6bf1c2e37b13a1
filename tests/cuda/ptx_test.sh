#!/bin/sh
# usage: ptx_test.sh PIMOEC CHIP MODEL...
# All kernels of the models become PTX that ptxas takes, with little memory of a thread's own; and one cubin.
# Exit code 77: NVIDIA's toolkit isn't there.
set -eu
pimoec=$1 chip=$2
most_stack=4096 # of a thread: a GPU holds it for every thread that it can run
shift 2
ptxas=ptxas
for root in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda; do
    [ -n "$root" ] && [ -x "$root/bin/ptxas" ] && ptxas=$root/bin/ptxas && break
done
command -v "$ptxas" > /dev/null || { echo "skipped: no ptxas"; exit 77; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for model in "$@"; do
    "$pimoec" "$model" --target="$chip" --emit=ptx -o "$out/all.ptx"
    # a text for each code
    awk -v to="$out/part" '/^\/\/ ---- code/ {n++} {print > (to n ".ptx")}' "$out/all.ptx"
    for part in "$out"/part*.ptx; do
        "$ptxas" -v -arch="$chip" "$part" -o "$out/part.cubin" 2> "$out/log" || { cat "$out/log"; exit 1; }
        [ -s "$out/part.cubin" ]
        awk -v most=$most_stack '/Compiling entry/ {kernel = $0}
            /bytes stack frame/ && $1 + 0 > most {print kernel ": " $0; bad = 1} END {exit bad}' "$out/log"
    done
    "$pimoec" "$model" --target="$chip" --emit=cubin -o "$out/all.cubin"
    kernels=$(grep -c '\.visible \.entry' "$out/all.ptx")
    [ "$kernels" -gt 0 ] || { echo "$model: no kernel"; exit 1; }
    for name in $(sed -n 's/^\.visible \.entry \([A-Za-z0-9_]*\)(.*/\1/p' "$out/all.ptx"); do
        grep -q "$name" "$out/all.cubin" || { echo "$model: $name is not in the cubin"; exit 1; }
    done
    rm "$out"/part*
    echo "$model: $kernels kernels"
done
