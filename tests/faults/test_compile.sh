#!/usr/bin/env bash
# Fault injection on whole compilations: test_compile.sh SHIM PIMOEC SOURCE_FOLDER [--all]
# The calls that pimoec itself makes fail (--any-caller of run.sh would reach into LLVM, which ends the process when it
# has no memory). Few of the possible places by default; --all takes an hour.
set -euo pipefail
shim=$1 pimoec=$2 source=$3 how=${4:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/out"
cd "$folder"
run() { # kinds modes dense growth
    [ "$how" != --all ] || set -- "$1" "once from" 200 16
    "$source/tests/faults/run.sh" --shim "$shim" --kinds "$1" --modes "$2" --dense "$3" --growth "$4" \
        --output "$folder/out/model" -- "$pimoec" -q -O1 "$source/samples/unlike-experts/model.json" -o "$folder/out/model" |
        tee -a "$folder/log"
}
run malloc once 9 2
run malloc from 3 1
run "open read write mmap sync rename" once 4 3
for kind in malloc open read write mmap sync rename; do
    grep -q "^$kind, once: [1-9]" "$folder/log" || { echo "no $kind was made to fail" >&2; exit 1; }
done
# what says that we are at fault would be wrong here
[ -z "$(ls pimoe-bug* 2>/dev/null)" ] || { echo "a report of a bug was written" >&2; exit 1; }
