#!/bin/bash
# Damaged archives and artifacts, thousands of each.
. "$(dirname "$0")/cli_lib.sh"
data=$source/tests/data/cli
expect 0 "$bin/hostile_files" npz "$data/inputs_deflated.npz" "$unlike/inputs.npz"
cat out
mkdir obj
expect 0 "$pimoec" -O1 small.pm -o small
expect 0 "$pimoec" -O1 small.pm --emit=lib -o libsmall.a
expect 0 "$pimoec" -O1 small.pm --emit=obj -o small.o
expect 0 "$bin/hostile_files" artifact small libsmall.a small.o
cat out
# what inspect and the program itself say of cut and stripped ones
expect 0 cp small stripped
if command -v strip >/dev/null; then
    strip stripped
    expect 1 "$pimoe" inspect stripped
    says "stripped"
    expect 1 ./stripped --describe
    says "stripped"
fi
finish
