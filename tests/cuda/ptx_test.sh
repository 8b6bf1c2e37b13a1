#!/bin/sh
# usage: ptx_test.sh PTX_OF_MODEL CHIP MODEL...
# Every dispatch of the models becomes PTX that ptxas takes. Exit code 77: NVIDIA's toolkit isn't there.
set -eu
tool=$1 chip=$2
shift 2
ptxas=ptxas
for root in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda; do
    [ -n "$root" ] && [ -x "$root/bin/ptxas" ] && ptxas=$root/bin/ptxas && break
done
command -v "$ptxas" > /dev/null || { echo "skipped: no ptxas"; exit 77; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for model in "$@"; do
    status=0
    "$tool" "$model" "$chip" "$out/model.ptx" || status=$?
    [ $status = 0 ] || exit $status
    "$ptxas" -arch="$chip" "$out/model.ptx" -o "$out/model.cubin"
    [ -s "$out/model.cubin" ]
done
