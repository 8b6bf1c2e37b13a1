#!/usr/bin/env bash
# Fault injection on base alone: test_base.sh SHIM FAULT_TARGET
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/in" "$folder/out"
printf '{"repeat": 700, "files": ["a.txt", "sub/b.txt"], "more": {' >"$folder/in/in.json"
for i in $(seq 300); do printf '"key%d": [%d, "\\u00e9"], ' "$i" "$i" >>"$folder/in/in.json"; done
printf '"last": null}}\n' >>"$folder/in/in.json"
mkdir "$folder/in/sub"
seq 5 >"$folder/in/a.txt"
seq 20 >"$folder/in/sub/b.txt"
"$(dirname "$0")/run.sh" --shim "$1" --output "$folder/out/result" -- \
    "$2" "$folder/in" "$folder/out/result" | tee "$folder/log"
# a shim that never hits anything would pass too
for kind in malloc open read write mmap sync rename; do
    grep -q "^$kind, once: [1-9]" "$folder/log" || { echo "no $kind was made to fail" >&2; exit 1; }
done
