#!/bin/bash
# Man pages and completion are as the option tables have them, and completion completes.
. "$(dirname "$0")/cli_lib.sh"
"$source/tools/cli/update-docs.sh" "$bin/pimoe-cli-docs" "$work" || fail "they can't be made"
for file in docs/man/pimoec.1 docs/man/pimoe.1 docs/man/pimoe-opt.1 tools/completion/pimoe.bash \
    tools/completion/_pimoec tools/completion/_pimoe tools/completion/_pimoe-opt; do
    cmp -s "$file" "$source/$file" || fail "$file is old: cmake --build build --target cli-docs"
done
if command -v groff >/dev/null; then
    for page in pimoec pimoe pimoe-opt; do
        groff -man -Tutf8 -ww -Kutf8 "docs/man/$page.1" >page.txt 2>warnings.txt
        [ ! -s warnings.txt ] || fail "$page.1: $(head -n 3 warnings.txt)"
    done
fi
# every option of --help is in the man page
"$bin/pimoec" --help | grep -oE '^  (-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+' | while read -r option; do
    grep -qF -- "${option//-/\\-}" docs/man/pimoec.1 || echo "$option"
done >missing
[ ! -s missing ] || fail "not in pimoec.1: $(cat missing)"

. tools/completion/pimoe.bash
complete_words() { # complete_words FUNCTION WORD...: the last word is under the cursor
    local function=$1
    shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    $function
    printf '%s ' "${COMPREPLY[@]}"
}
[ "$(complete_words _pimoec pimoec --em)" = "--emit " ] || fail "pimoec --em"
[ "$(complete_words _pimoec pimoec --emit = sh)" = "shared " ] || fail "pimoec --emit=sh"
[ "$(complete_words _pimoec pimoec --emit =)" = "exe obj lib shared header ir mlir llvm asm ptx cubin " ] || fail "pimoec --emit="
[ "$(complete_words _pimoec pimoec --emit sh)" = "shared " ] || fail "pimoec --emit sh"
[ "$(complete_words _pimoec pimoec smal)" = "small.pm " ] || fail "pimoec smal"
[ "$(complete_words _pimoe_opt pimoe-opt --pas)" = "--passes --pass-limit " ] || fail "pimoe-opt --pas"
[ "$(complete_words _pimoe pimoe che)" = "check " ] || fail "pimoe che"
[ "$(complete_words _pimoe pimoe check --rt)" = "--rtol " ] || fail "pimoe check --rt"
[ "$(complete_words _pimoe pimoe bench --format = m)" = "md " ] || fail "pimoe bench --format=m"
if command -v zsh >/dev/null; then
    zsh -n tools/completion/_pimoec tools/completion/_pimoe || fail "zsh can't read its completion"
fi
finish
