#!/bin/bash
# Extents that the compiler takes to be equal (pass extents) are compared when the program runs.
# usage: test_extents.sh BIN SOURCE WORK
set -euo pipefail
pimoec=$1/pimoec source=$2 work=$3
mkdir -p "$work"
cd "$work"
"$pimoec" "$source/tests/ir/extents.pm" -o extents
run() { # run CODE MESSAGE INPUTS...
    local want=$1 message=$2 code=0
    shift 2
    ./extents "$@" >out.txt 2>err.txt || code=$?
    if [ "$code" -ne "$want" ] || ! grep -qF -- "$message" out.txt err.txt; then
        echo "extents $*: exit code $code, expected $want and '$message'; found:" >&2
        cat out.txt err.txt >&2
        exit 1
    fi
}
x=(--in x=random:2x3x8 --in mask=random:2x5x1)
run 0 'v: f32[8, 6] =' "${x[@]}" --in y=random:2x3x8 --in flags=1,1,1,1,1,1
run 2 'y: dimension 0 is 1, but B is 2 elsewhere' "${x[@]}" --in y=random:1x3x8 --in flags=1,1,1,1,1,1
# six flags, one of which isn't set: nonzero finds 5 of the 6 that the sum needs
run 1 'extents.pm:' "${x[@]}" --in y=random:2x3x8 --in flags=1,1,0,1,1,1
