#!/bin/sh
# usage: kept_objects_test.sh PIMOEC SAMPLES
# A program for a GPU that was compiled before is taken from the cache, byte for byte; what is damaged there, or of other
# options, is made anew. Exit code 77: NVIDIA's toolkit isn't there.
set -eu
pimoec=$1 model=$2/digits/digits.onnx
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIMOE_CACHE_DIR="$work/cache"
made() { # made FILE OPTION...
    out=$1
    shift
    "$pimoec" "$model" -q -o "$work/$out" "$@"
}
objects() {
    find "$work/cache/objects" -type f 2>/dev/null | wc -l
}
is() {
    [ "$(objects)" -eq "$1" ] || { echo "$(objects) objects are kept, not $1: $2"; exit 1; }
}
made cpu --target=x86-64-v3
is 0 "for a CPU alone"
if ! "$pimoec" "$model" -q --target=sm_80 --emit=ptx -o "$work/ptx" 2>"$work/err"; then
    grep -q toolkit "$work/err" && exit 77
    cat "$work/err"
    exit 1
fi
is 0 "for other forms than objects"
made first --target=x86-64-v3,sm_80
is 1 "for the first"
kept=$(find "$work/cache/objects" -type f)
cp "$kept" "$work/kept"
touch -d '2 days ago' "$kept" "$work/old"
made again --target=x86-64-v3,sm_80
cmp "$work/first" "$work/again"
is 1 "for the same again"
[ "$kept" -nt "$work/old" ] || { echo "what was kept isn't used"; exit 1; }
made other --target=x86-64-v3,sm_80 -O1
is 2 "for other options"

# damaged: made, and kept, anew
head -c 5000 "$work/kept" >"$kept"
made damaged --target=x86-64-v3,sm_80
cmp "$work/first" "$work/damaged"
cmp "$work/kept" "$kept"
# kernels made otherwise, by another toolkit: none of them are kept, so they are compiled, to the same
rm -r "$work/cache/kernels"
made kernels --target=x86-64-v3,sm_80
cmp "$work/first" "$work/kernels"
# nowhere to keep anything
PIMOE_CACHE_DIR=/proc/none made nowhere --target=x86-64-v3,sm_80
cmp "$work/first" "$work/nowhere"
