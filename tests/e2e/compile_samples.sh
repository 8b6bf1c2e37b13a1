#!/bin/bash
# Makes the artifacts that the end-to-end tests share: compile_samples.sh PIMOEC SAMPLES OUT PART
# Parts are made side by side (one ctest fixture each).
set -euo pipefail
pimoec=$1 samples=$2 out=$3 part=$4
mkdir -p "$out"
classics() # OUT options
{
    local name=$1
    shift
    "$pimoec" -q --verify=each "$samples/classics" -o "$out/$name" --symbol=classics "$@"
}
case $part in
exe)
    "$pimoec" -q --verify=each "$samples/classics" -o "$out/classics"
    # its twin is made from another working directory, at another time
    mkdir -p "$out/twin"
    (cd "$out/twin" && "$pimoec" -q --verify=each "$samples/classics" -o classics)
    ;;
shared)
    classics classics.so --emit=shared
    classics classics-v3.so --emit=shared --target=x86-64-v3
    classics classics-v4.so --emit=shared --target=x86-64-v4 --entry=forward
    "$pimoec" -q --verify=each "$(dirname "$0")/twice.pm" -o "$out/twice.so" --emit=shared
    "$pimoec" -q --verify=each "$samples/unlike-experts/model.json" -o "$out/unlike.so" --symbol=unlike --emit=shared
    ;;
bf16)
    "$pimoec" -q --verify=each "$samples/classics" -o "$out/classics-bf16" --quantize=bf16 --entry=forward
    ;;
checkpoints)
    for family in lfm2_moe granitemoehybrid qwen3_next jamba deepseek_v3_fp8 switch_transformers; do
        "$pimoec" -q --verify=each "$samples/../tests/data/checkpoints/$family" -o "$out/checkpoint-$family.so" --symbol=checkpoint --emit=shared
    done
    ;;
onnx)
    # the weights of the ONNX form are those of the checkpoint; they are not kept twice
    mkdir -p "$out/onnx"
    cp "$samples/classics/onnx/model.onnx" "$out/onnx/"
    test -e "$out/onnx/model.onnx.data" ||
        python3 "$(dirname "$0")/../tools/classics_onnx_data.py" "$samples/classics" "$out/onnx/model.onnx.data"
    "$pimoec" -q --verify=each "$out/onnx/model.onnx" -o "$out/classics-onnx.so" --symbol=classics --emit=shared
    ;;
forms)
    mkdir -p "$out/obj" "$out/lib" "$out/twin"
    classics obj/classics.o --emit=obj --entry=forward
    classics lib/libclassics.a --emit=lib --entry=forward
    # two models in one program
    "$pimoec" -q --verify=each "$(dirname "$0")/twice.pm" -o "$out/lib/libtwice.a" --emit=lib
    "$pimoec" -q --verify=each "$(dirname "$0")/twice.pm" -o "$out/twin/libtwice.a" --emit=lib
    for form in ir mlir llvm asm header; do
        "$pimoec" -q --verify=each "$samples/classics" -o "$out/classics.$form" --emit=$form --entry=decode
    done
    ;;
*)
    echo "compile_samples.sh: what is $part?" >&2
    exit 2
    ;;
esac
