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
# an extent of an input that must be a constant, or 1
cat >fits.pm <<'EOF'
module "fits" {
  symbol N in [0, inf]
  symbol K in [0, inf]
  entry main(%x: f32[N], %y: f32[5], %u: f32[2, K], %w: f32[3, 4]) -> (sum: %1, product: %2) {
    %1 = add(%x, %y) : f32[5]
    %2 = matmul(%u, %w) : f32[2, 4]
  }
}
EOF
"$pimoec" fits.pm -o extents
y=(--in y=1,2,3,4,5 --in w=random:3x4)
run 0 'sum: f32[5] = 2 3 4 5 6' "${y[@]}" --in x=1 --in u=random:2x3
run 0 'sum: f32[5] = 2 4 6 8 10' "${y[@]}" --in x=1,2,3,4,5 --in u=random:2x3
run 1 'fits.pm:5' "${y[@]}" --in x=1,2,3 --in u=random:2x3
run 1 'fits.pm:5' "${y[@]}" --in x=1,2,3,4,5,6 --in u=random:2x3
run 1 'fits.pm:6' "${y[@]}" --in x=1 --in u=random:2x5
run 1 'fits.pm:6' "${y[@]}" --in x=1 --in u=random:2x2
# two ops that find one extent
"$pimoec" "$source/tests/ir/extents_found_twice.pm" --verify=each -o extents
run 0 'sum: i64[1, 2] = 1 4' --in x=1,0,2 --in y=0,3,4,0
run 1 'extents_found_twice.pm:' --in x=1,0,2 --in y=0,3,4,1
