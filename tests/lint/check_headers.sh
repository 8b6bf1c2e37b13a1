#!/bin/bash
# usage: check_headers.sh SOURCE BUILD CC LLVM_INCLUDE
# Every header with an include guard compiles alone. Those of the kernels are for one compiler and one width; the
# build of the kernels sees to them.
set -euo pipefail
source=$1 build=$2 cc=$3 llvm=$4
cd "$source"
unit=$(mktemp --suffix=.c)
trap 'rm -f "$unit"' EXIT
failed=0
while read -r header; do
    grep -qE '^#ifndef PM_.*_H$' "$header" || continue
    echo "#include \"$header\"" >"$unit"
    if ! "$cc" -std=c11 -D_GNU_SOURCE -DPM_VERSION='""' -Wall -Wextra -Wpedantic -Werror -Wno-unused-function \
        -I. -Iinclude -I"$build" -isystem "$llvm" -fsyntax-only "$unit"; then
        echo "$header does not compile alone" >&2
        failed=1
    fi
done < <(find base ir frontend passes codegen runtime include tools tests bench -name '*.h' \
    ! -path 'codegen/kernels/*' ! -path 'codegen/cuda/kernels/*' ! -path 'tests/kernels/*')
exit $failed
