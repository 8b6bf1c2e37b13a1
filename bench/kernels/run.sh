#!/bin/sh
# Builds bench_kernels for this CPU and runs it: bench/kernels/run.sh [threads [rounds [substring of a name]]]
# VARIANT=vw8, vw16 or vw16bf16 (default: the best that the CPU has).
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-$root/build/bench}
has() { grep -qw "$1" /proc/cpuinfo; }
if [ -z "${VARIANT:-}" ]; then
    if has avx512_bf16; then VARIANT=vw16bf16; elif has avx512bw; then VARIANT=vw16; else VARIANT=vw8; fi
fi
case $VARIANT in
vw8) flags="-DPM_VW=8 -march=x86-64-v3" ;;
vw16) flags="-DPM_VW=16 -march=x86-64-v4 -mprefer-vector-width=512" ;;
vw16bf16) flags="-DPM_VW=16 -DPM_BF16=1 -march=x86-64-v4 -mavx512bf16 -mprefer-vector-width=512" ;;
*) echo "VARIANT must be vw8, vw16 or vw16bf16" >&2; exit 2 ;;
esac
mkdir -p "$build"
# shellcheck disable=SC2086
${CLANG:-clang-22} -std=gnu11 -O3 -ffp-contract=off -fno-math-errno $flags -D_GNU_SOURCE -I"$root" \
    "$root/bench/kernels/bench_kernels.c" -o "$build/bench_kernels_$VARIANT" -lpthread
"$build/bench_kernels_$VARIANT" "$@"
