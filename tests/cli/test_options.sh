#!/bin/bash
# Options of pimoec and pimoe: what is accepted, refused, and said.
. "$(dirname "$0")/cli_lib.sh"

# help begins with examples, on stdout, and names every option
for tool in "$pimoec" "$pimoe" "$pimoe inspect" "$pimoe check" "$pimoe run" "$pimoe bench" "$pimoe doctor"; do
    expect 0 $tool --help
    silent
    [ "$(head -n 1 out)" = Examples: ] || fail "$tool --help does not begin with examples"
done
expect 0 "$pimoec" --help
for word in exe obj lib shared header ir mlir llvm asm native x86-64-v3 x86-64-v4 bf16 --emit --target --quantize \
    --calibrate --entry --place --report --dump-dir --time-passes -O --json -q -v -o 70; do
    prints "$word"
done
expect 0 "$pimoec" --version
prints "pimoec 0"
expect 0 "$pimoe" --version

# usage errors: code 2, the word, the nearest right one, nothing on stdout
refuse() { # refuse TEXT ARGS...: of pimoec
    local text=$1
    shift
    expect 2 "$pimoec" "$@"
    says "$text"
    [ ! -s out ] || fail "stdout is not empty: $*"
}
refuse "a MODEL is missing"
refuse "did you mean '--emit'" --emti=exe small.pm
refuse "did you mean '--quantize'" small.pm --quantise=bf16
refuse "Try 'pimoec --help'" --nothing
refuse "did you mean 'shared'" --emit=shard small.pm
refuse "there are: exe obj lib" --emit=foo small.pm
refuse "--emit needs a KIND" small.pm --emit
refuse "--json takes no value" small.pm --json=yes
refuse "did you mean 'znver4'" small.pm --target=znver44
refuse "x86-64-v3, x86-64-v4" small.pm --target=pdp11
refuse "name one, as in --target=sm_90a" small.pm --emit=ptx
refuse "one CPU at a time" small.pm --target=x86-64-v3 --target=x86-64-v4
refuse "there are: none, bf16" small.pm --quantize=int8
refuse "there are: none, bf16" small.pm --quantize=bf61
refuse "not there yet" small.pm --calibrate=x.npz
refuse "there is no device" small.pm --place=expert0@gpu0
refuse "-O: there is no LEVEL '4'" small.pm -O4
refuse "contradict" small.pm -q -v
refuse "both say which passes run" small.pm -O2 --passes=dce
refuse "was given twice" small.pm --emit=ir --emit=asm
refuse "can't go to standard output" small.pm -o -
refuse "both want standard output" small.pm --emit=ir -o - --json
refuse "use --emit=ir" small.pm --stop-after=dce
refuse "use --emit=ir" small.pm --pass-limit=1
refuse "whole number" small.pm --emit=ir --pass-limit=many
refuse "there is no such pass" small.pm --emit=ir --stop-after=dec
refuse "did you mean 'dce'" small.pm --print-ir-after=dcee --emit=ir -o x.pm
refuse "there is no such pass" small.pm --passes=nothing --emit=ir -o x.pm
refuse "ends in .html or .json" small.pm --report=x.txt
refuse "is no name in C" small.pm --emit=obj --symbol=2x
refuse "names the model in a library" small.pm --symbol=x
refuse "did you mean 'forward'" small.pm --entry=forwrad
refuse "one MODEL at a time" small.pm other.pm
refuse "there is no WHEN 'always'" small.pm --verify=always

# the model at fault: 1, with its place; I/O: 3
printf 'module "x" {\n  entry main(%%x: f32[2]) -> (y: %%y) {\n    %%y = rellu(%%x)\n  }\n}\n' >bad.pm
expect 1 "$pimoec" bad.pm -o x
says "bad.pm:3:"
says "relu"
[ ! -e x ] || fail "an output was left by a failed compilation"
expect 1 "$pimoec" bad.pm -o x --json
claims schema_version=1 ok=false diagnostics.0.severity=error diagnostics.0.code=invalid diagnostics.0.location
silent
expect 3 "$pimoec" nowhere.onnx
expect 3 "$pimoec" nowhere.onnx --json
claims ok=false diagnostics.0.code=io
expect 3 "$pimoec" small.pm -o no/such/folder/x
expect 1 "$pimoec" "$0" -o x
expect 3 bash -c "'$pimoec' small.pm --emit=ir -o - >/dev/full"

# options that look inside
expect 0 "$pimoec" small.pm --emit=ir -o - --pass-limit=0
prints "linear(%x"
cp out first.pm
expect 0 "$pimoec" first.pm --emit=ir -o - --pass-limit=0
cmp -s out first.pm || fail "--emit=ir does not read back as itself"
expect 0 "$pimoec" small.pm --emit=ir -o x.pm --print-ir-after=all --time-passes --stats --verify=each --dump-dir=dump
says "module"
[ -n "$(ls dump)" ] || fail "--dump-dir left nothing"
expect 0 "$pimoec" small.pm --emit=ir -o x.pm --print-ir-before=dce --print-ir-changed --stop-after=dce
expect 0 "$pimoec" small.pm --passes=dce --emit=ir -o x.pm

# pimoe: commands
expect 2 "$pimoe"
says "COMMAND is missing"
expect 2 "$pimoe" inspekt small.pm
says "did you mean 'inspect'"
expect 2 "$pimoe" check small.pm --rtol=-1
says "not negative"
expect 2 "$pimoe" check small.pm --tol=1
says "did you mean '--rtol'"
expect 2 "$pimoe" doctor now
says "takes no arguments"
expect 2 "$pimoe" bench small.pm --json --format=csv
says "contradict"
expect 2 "$pimoe" bench small.pm --shape=N
says "SYMBOL=N"
expect 2 "$pimoe" run --quantize=int4 small.pm
finish
