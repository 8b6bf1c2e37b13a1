#!/bin/bash
# Every kind of output, used as a user would: executables run, objects and libraries linked with a C program against
# the generated header, the shared library opened.
. "$(dirname "$0")/cli_lib.sh"
here=$source/tests/cli
cc=${CC:-cc}
warnings="-std=c11 -O1 -Wall -Wextra -Wpedantic -Werror"

# one executable, for other targets too
expect 0 "$pimoec" "$unlike/model.json" -o answer -v --report=report.json
says "dispatches"
expect 0 ./answer --in x=0,1,6,7
prints "= 42"
needs=$(ldd answer | grep -vE 'libc\.so|libm\.so|ld-linux|vdso')
[ -z "$needs" ] || fail "the executable needs more than libc and libm: $needs"
"$json" schema_version=1 moe_layers=1 experts=2 layers.0.alike=false layers.0.experts.1.name=product emit=exe \
    ms.codegen entries.0.inputs.0.name=x <report.json || fail "report.json"
expect 0 "$pimoec" "$unlike/model.json" --target=x86-64-v3 -o answer-v3 --report=report.html --json
claims ok=true output=answer-v3 emit=exe moe_layers=1 experts=2 entries=1 ms.total
grep -q "<h2>Dispatches</h2>" report.html || fail "report.html"
expect 0 ./answer-v3 --in x=0,1,6,7
prints "= 42"
if grep -q avx512vl /proc/cpuinfo && grep -q avx512dq /proc/cpuinfo; then
    expect 0 "$pimoec" "$unlike/model.json" --target=x86-64-v4 -q -o answer-v4
    silent
    expect 0 ./answer-v4 --in x=0,1,6,7
    prints "= 42"
fi

# the same bytes twice
expect 0 "$pimoec" "$unlike/model.json" -o again
cmp -s answer again || fail "two compilations differ"

# a C program with the object and with the library
mkdir obj lib shared
expect 0 "$pimoec" "$unlike/model.json" --emit=obj -o obj/answer.o
expect 0 "$cc" $warnings -Iobj "$here/use_model.c" obj/answer.o -lm -lpthread -o use-obj
expect 0 ./use-obj
prints "42 5"
expect 0 "$pimoec" "$unlike/model.json" --emit=lib -o lib/libanswer.a
expect 0 "$cc" $warnings -Ilib "$here/use_model.c" -Llib -lanswer -lm -lpthread -o use-lib
expect 0 ./use-lib
prints "42 5"
cmp -s obj/answer.h lib/answer.h || fail "obj and lib have other headers"
expect 0 "$pimoec" "$unlike/model.json" --emit=header -o answer.h
cmp -s answer.h lib/answer.h || fail "--emit=header is another header"
if command -v c++ >/dev/null; then
    echo '#include "answer.h"' >header.cpp
    expect 0 c++ -std=c++17 -Wall -Wextra -Werror -I. -fsyntax-only header.cpp
fi

# the shared library, opened and linked
expect 0 "$pimoec" "$unlike/model.json" --emit=shared -o shared/libanswer.so
expect 0 "$cc" $warnings -I"$source/include" "$here/open_model.c" -ldl -o open-model
expect 0 ./open-model "$work/shared/libanswer.so"
prints 144
expect 0 "$cc" $warnings -Ishared "$here/use_model.c" -Lshared -lanswer -lm -Wl,-rpath,"$work/shared" -o use-shared
expect 0 ./use-shared
prints "42 5"

# inspect reads them all
for file in answer obj/answer.o lib/libanswer.a shared/libanswer.so; do
    expect 0 "$pimoe" inspect "$file" --json
    claims ok=true name=unlike-experts entries.0.outputs.0.name=answer
    expect 0 "$pimoe" inspect "$file"
    prints "entry main"
done

# text, on standard output
for kind in ir mlir llvm asm header; do
    expect 0 "$pimoec" "$unlike/model.json" --emit=$kind -o -
    silent
    [ -s out ] || fail "--emit=$kind wrote nothing"
    cp out text.$kind
done
grep -q '^module "' text.ir || fail "no IR"
grep -q 'unlike_experts_open' text.header || fail "no header"
[ ! -e - ] || fail "a file named - was made"
grep -q 'func' text.mlir || fail "no MLIR"
grep -q '^define' text.llvm || fail "no LLVM IR"
grep -q '\.globl.*pm_model' text.asm || fail "no assembly"

# names when none is given
cp small.pm default.pm
for pair in exe: obj:.o lib:.a shared:.so header:.h mlir:.mlir llvm:.ll asm:.s; do
    kind=${pair%%:*} name=default${pair#*:}
    case $kind in lib | shared) name=lib$name ;; esac
    expect 0 "$pimoec" default.pm --emit=$kind
    [ -f "$name" ] || fail "--emit=$kind wrote no $name"
done
cmp -s small.pm default.pm || fail "the model was overwritten"
expect 0 "$pimoec" default.pm --emit=ir
cmp -s small.pm default.pm || fail "--emit=ir overwrote the model"
finish
