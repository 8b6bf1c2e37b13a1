#!/bin/bash
# Programs for an emulated GPU say what those for the CPU say. usage: emu_models.sh PIMOEC SAMPLES
set -euo pipefail
pimoec=$1 samples=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# numbers MODEL INPUT…: results agree within 1e-5; $options are those of pimoec
options=
numbers() {
    local model=$1
    shift
    # shellcheck disable=SC2086 # none, or one option
    "$pimoec" "$model" -q --verify=each $options -o "$work/cpu"
    # shellcheck disable=SC2086
    "$pimoec" "$model" -q --verify=each $options --target=emu -o "$work/gpu"
    "$work/cpu" "$@" >"$work/cpu.txt"
    "$work/gpu" "$@" >"$work/gpu.txt"
    paste -d ' ' <(tr -s ' :=,[]' '\n' <"$work/cpu.txt") <(tr -s ' :=,[]' '\n' <"$work/gpu.txt") |
        awk -v model="$model" '
            $1 + 0 == $1 { d = $1 - $2; if (d < 0) d = -d; if (d > 1e-5 * (1 + ($1 < 0 ? -$1 : $1))) bad++; n++; next }
            $1 != $2 { bad++ }
            END { if (bad || !n) { print model ": " bad " of " n " numbers differ"; exit 1 } }'
}
numbers "$samples/digits/digits.onnx" --in pixels=random:5x64
numbers "$samples/unlike-experts/model.json" --in x=random:7x4
numbers "$(dirname "$0")/moves_and_codes.pm" --in x=random:7x40
numbers "$(dirname "$0")/moves_and_codes.pm" --in x=random:1x40
numbers "$(dirname "$0")/matrices.pm" --in x=random:70x40
numbers "$(dirname "$0")/matrices.pm" --in x=random:1x40
numbers "$(dirname "$0")/same_rows.pm" --in x=random:1x16
grep -aq pm_cu_products_few "$work/gpu" || { echo "same_rows: each product has a launch of its own" >&2; exit 1; }
numbers "$(dirname "$0")/same_rows.pm" --in x=random:7x16
numbers "$(dirname "$0")/same_rows.pm" --in x=random:70x16

for rows in 1 5; do
    numbers "$(dirname "$0")/row_groups.pm" --in x=random:${rows}x300 --in y=random:${rows}x300
done
options=--quantize=bf16
numbers "$(dirname "$0")/short_factors.pm" --in x=random:150x24
grep -aq pm_cu_product_wgmma "$work/gpu" || { echo "short_factors: no product by warpgroups" >&2; exit 1; }
PIMOE_WGMMA=0 numbers "$(dirname "$0")/short_factors.pm" --in x=random:150x24
options=

# products by tiles are told to be such (11: with PM_RT_KERNEL_PRODUCT), for libraries to make; those of few rows aren't
kernels=$("$pimoec" "$samples/digits/digits.onnx" -q --target=emu --emit=llvm -o - | grep '^@pm_device_table')
for kernel in "i32 11, ptr @pm_cu_product_f32" "i32 3, ptr @pm_cu_product_few"; do
    grep -q "$kernel" <<<"$kernels" || { echo "digits: no '$kernel'" >&2; exit 1; }
done

# the language model writes the same text, with caches on the device; experts, or some of them, may stay on the CPU
"$pimoec" "$samples/classics" -q --verify=each -o "$work/cpu"
want=$("$work/cpu" "Once upon a time" -n 6 --temperature 0)
for place in "" --place=experts@cpu0 --place=attention@cpu0 --place=layers.0.0@cpu0,layers.0.5@cpu0,layers.2@cpu0; do
    # shellcheck disable=SC2086 # none, or one option
    "$pimoec" "$samples/classics" -q --verify=each --target=emu $place -o "$work/gpu"
    got=$("$work/gpu" "Once upon a time" -n 6 --temperature 0)
    [ "$got" = "$want" ] || { echo "classics $place: '$got', not '$want'" >&2; exit 1; }
done

# two GPUs: experts of one layer on both and on the CPU, attention apart from its layers
"$pimoec" "$samples/classics" -q --verify=each --target=emu:2 -o "$work/gpu" \
    --place=layers.0.0@emu1,layers.0.1@cpu0,layers.1@cpu0,layers.2@emu1,attention@emu1
got=$("$work/gpu" "Once upon a time" -n 6 --temperature 0)
[ "$got" = "$want" ] || { echo "classics on two GPUs: '$got', not '$want'" >&2; exit 1; }

# for both: with its device, and without
"$pimoec" "$samples/classics" -q --verify=each --target=native --target=emu -o "$work/both"
for devices in all none; do
    got=$(PIMOE_DEVICES=$devices "$work/both" "Once upon a time" -n 6 --temperature 0)
    [ "$got" = "$want" ] || { echo "classics for CPU and GPU, devices: $devices: '$got', not '$want'" >&2; exit 1; }
done

# in bf16, more rows than are few, on tensor cores of both kinds
prompt="Once upon a time there was a king who had three sons and a daughter, and he was very old indeed and wanted to rest"
"$pimoec" "$samples/classics" -q --quantize=bf16 --target=emu -o "$work/gpu"
want=$(PIMOE_WGMMA=0 "$work/gpu" "$prompt" -n 4 --temperature 0)
got=$("$work/gpu" "$prompt" -n 4 --temperature 0)
[ "$got" = "$want" ] || { echo "classics in bf16 by warpgroups: '$got', not '$want'" >&2; exit 1; }
