#!/bin/bash
# What the artifacts of compile_samples.sh are made of: check_artifacts.sh OUT CC CXX
set -euo pipefail
out=$1 cc=$2 cxx=$3 here=$(cd "$(dirname "$0")" && pwd)
failures=0
fail()
{
    echo "FAIL: $*" >&2
    failures=$((failures + 1))
}

# ---- the same bytes from two compilations ----
cmp "$out/classics" "$out/twin/classics" || fail "two compilations differ"
cmp "$out/lib/libtwice.a" "$out/twin/libtwice.a" || fail "two compilations of a library differ"

# ---- libc and libm alone, nothing to strip, small ----
for file in "$out/classics" "$out/classics.so"; do
    needed=$(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort | tr '\n' ' ')
    [[ $needed == "libc.so.6 libm.so.6 " ]] || fail "$file needs $needed"
    readelf -S --wide "$file" | grep -q '\.symtab\|\.debug' && fail "$file is not stripped"
    # the trailer is the last 56 bytes; it begins with the payload's size
    payload=$(tail -c 56 "$file" | od -An -t u8 -N 8 | tr -d ' ')
    code=$(($(stat -c %s "$file") - payload))
    echo "$(basename "$file"): $code bytes of code, $payload of weights"
    [[ $code -gt 10000 && $code -le $((400 * 1024)) ]] || fail "$file has $code bytes without weights"
done

# ---- --bench on the inputs it is given ----
"$out/classics" --bench --entry prefill --in input_ids=774,310,260 --in past=0 --repeat 2 --json |
    grep -q '"entry": "prefill", "repeat": 2' || fail "--bench with --in"
"$out/classics" --bench --entry prefill --in ids=1 2>/dev/null && fail "--bench takes an input that is none"

# ---- text forms ----
contains() # FILE TEXT
{
    grep -q -e "$2" "$out/$1" || fail "$1 has no $2"
}
contains classics.ir '^module "classics" {'
contains classics.ir 'entry decode(.*plan(arena = '
contains classics.mlir 'func'
contains classics.llvm '^define'
contains classics.asm 'pm_model_classics:'

# ---- object and static library, linked with a C program by the header beside them ----
"$cc" -x c -std=c99 -Wall -Wextra -Werror -fsyntax-only "$out/obj/classics.h" || fail "the header in C"
"$cxx" -x c++ -Wall -Wextra -Werror -fsyntax-only "$out/obj/classics.h" 2>&1 || fail "the header in C++"
prompt=(774 310 260 1116 281 344 285 78 90 827)
want=$("$out/classics" "It was a dark and stormy night" -n 12 --temperature 0 --json |
    sed -n 's/.*"tokens": \[\([0-9, ]*\)\].*/\1/p')
[[ -n $want ]] || fail "the program wrote no tokens"
for kind in obj lib; do
    [[ $kind == obj ]] && what="$out/obj/classics.o" || what="$out/lib/libclassics.a"
    "$cc" -std=c11 -O1 -Wall -Wextra -Werror -I"$out/$kind" "$here/embed_main.c" "$what" -lm -pthread \
        -o "$out/$kind/embed" || { fail "$what does not link"; continue; }
    got=$("$out/$kind/embed" 12 "${prompt[@]}") || fail "$kind/embed ended with $?"
    [[ $got == "$want" ]] || fail "$kind/embed wrote $got, not $want"
done

# ---- two libraries in one program ----
"$cc" -std=c11 -O1 -Wall -Wextra -Werror -I"$out/lib" "$here/embed_two.c" "$out/lib/libclassics.a" \
    "$out/lib/libtwice.a" -lm -pthread -o "$out/lib/embed_two" && "$out/lib/embed_two" ||
    fail "two libraries in one program"
[[ $failures == 0 ]]
