#!/bin/bash
# One golden file. usage: golden.sh PIMOE-OPT FILECHECK FILE.pm
# In the file: "// options: …" is what pimoe-opt gets; "// fails: N" expects that exit code, and then the messages
# are checked instead of the IR. The result must be what running nothing on it prints, too (it is read back).
set -euo pipefail
opt=$1 filecheck=$2 file=$3
options=$(sed -n 's|^// options: ||p' "$file")
fails=$(sed -n 's|^// fails: ||p' "$file")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
code=0
# shellcheck disable=SC2086 # several options
NO_COLOR=1 "$opt" "$file" --verify=each $options >"$work/out.pm" 2>"$work/messages" || code=$?
if [ "$code" -ne "${fails:-0}" ]; then
    cat "$work/messages" >&2
    echo "exit code $code, expected ${fails:-0}" >&2
    exit 1
fi
if [ -n "$fails" ]; then
    "$filecheck" "$file" <"$work/messages"
    exit
fi
"$filecheck" "$file" <"$work/out.pm"
"$opt" "$work/out.pm" >"$work/again.pm"
cmp "$work/out.pm" "$work/again.pm"
