#!/usr/bin/env bash
# Fuzzes: each target for some seconds, from its corpus; then minimises what was found back into the packs.
#   cmake --preset fuzz && cmake --build build/fuzz && tests/fuzz/run.sh [--keep] build/fuzz SECONDS [TARGET...]
# --keep writes the packs anew (at most 150 KB each). Crashes and slow inputs lie in BUILD/fuzz-found/TARGET.
set -eu
keep=0
if [ "${1:-}" = --keep ]; then keep=1; shift; fi
[ $# -ge 2 ] || { sed -n '2,5s/^# *//p' "$0" >&2; exit 2; }
build=$(realpath "$1") seconds=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -eq 0 ]; then
    for source in "$here"/fuzz_*.c; do
        name=$(basename "$source" .c)
        set -- "$@" "${name#fuzz_}"
    done
fi
bad=0
for target in "$@"; do
    program=$build/bin/fuzz_$target
    work=$build/fuzz-corpus/$target found=$build/fuzz-found/$target
    mkdir -p "$work" "$found"
    seeds=()
    [ ! -f "$here/corpus/$target.pack" ] || "$build/bin/corpus_pack" unpack "$here/corpus/$target.pack" "$work"
    [ ! -d "$here/corpus/$target" ] || seeds+=("$here/corpus/$target")
    if ! "$program" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=2560 -max_len=8192 -print_final_stats=1 \
        -artifact_prefix="$found/" "$work" "${seeds[@]}" >"$found/log" 2>&1; then
        echo "$target: failed; see $found"
        bad=1
        continue
    fi
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$found/log") inputs," \
        "$(grep -o 'cov: [0-9]*' "$found/log" | tail -n 1)"
    if [ "$keep" = 1 ]; then
        rm -rf "$work.small"
        mkdir "$work.small"
        "$program" -merge=1 -timeout=25 -rss_limit_mb=2560 "$work.small" "$work" >>"$found/log" 2>&1
        "$build/bin/corpus_pack" pack "$here/corpus/$target.pack" 150000 "$work.small"
    fi
done
exit $bad
