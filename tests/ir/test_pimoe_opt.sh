#!/bin/bash
# pimoe-opt as a user types it. usage: test_pimoe_opt.sh PIMOE-OPT SOURCE WORK
set -uo pipefail
opt=$1 source=$2 work=$3
rm -rf "$work" && mkdir -p "$work" && cd "$work" || exit 1
failed=0
fail() {
    echo "FAILED: $*" >&2
    failed=1
}
# refuse CODE WORDS ARGUMENTS...
refuse() {
    local want=$1 words=$2 code=0
    shift 2
    "$opt" "$@" >out 2>err </dev/null || code=$?
    [ "$code" -eq "$want" ] || fail "$*: exit code $code, not $want"
    grep -qF -- "$words" err || fail "$*: stderr lacks '$words': $(head -n 3 err)"
    [ ! -s out ] || fail "$*: something on stdout"
}
cat >small.pm <<'END'
module "small" {
  symbol B in [1, 8]
  entry main(%x: f32[B, 4]) -> (y: %c) {
    %one = const {value = [1]} : f32[]
    %a = mul(%x, %one)
    %b = neg(%a)
    %b2 = neg(%a)
    %c = add(%b, %b2)
  }
}
END
# standard input and file give the same; nothing is run unless asked for
"$opt" small.pm >a.pm || fail "small.pm"
sed 's/small.pm/<stdin>/' a.pm >b.pm
"$opt" <small.pm | sed 's/small.pm/<stdin>/' | cmp - b.pm || fail "standard input"
"$opt" - <small.pm | cmp - b.pm || fail "-"
grep -q 'mul(' a.pm || fail "a pass ran unasked"
"$opt" small.pm -o c.pm && cmp a.pm c.pm || fail "-o"
# printing, limits, times
"$opt" small.pm --passes=canonicalise,cse,dce --print-ir-before=cse --print-ir-after=canonicalise,dce \
    >out 2>err || fail "printing"
[ "$(grep '^// ----' err | tr '\n' ' ')" = "// ---- after canonicalise ---- // ---- before cse ---- // ---- after dce ---- " ] ||
    fail "printed: $(grep '^// ----' err)"
[ "$("$opt" small.pm -O1 --print-ir-all 2>&1 >out | grep -c '^// ----')" -eq \
    $(($("$opt" small.pm -O1 --time-passes 2>&1 >out | grep -c ' ms ') * 2 - 2)) ] || fail "--print-ir-all"
[ "$("$opt" small.pm --passes=canonicalise,fold,cse --print-ir-changed 2>&1 >out | grep '^// ----' | tr '\n' ' ')" = \
    "// ---- after canonicalise ---- // ---- after cse ---- " ] || fail "--print-ir-changed"
"$opt" small.pm --passes=canonicalise,cse --stop-after=canonicalise | grep -c 'neg(' | grep -qx 2 || fail "--stop-after"
"$opt" small.pm --passes=canonicalise,cse --pass-limit=0 | cmp - a.pm || fail "--pass-limit"
"$opt" small.pm --passes=cse --stats 2>&1 >out | grep -q '1  cse: merged' || fail "--stats"
# dumped files go on where they were left
"$opt" small.pm -O3 --dump-dir=dump >whole.pm || fail "--dump-dir"
last=$(basename dump/*plan-memory.pm .pm)
[ "${last%%-*}" -ge 10 ] || fail "dumped: $(ls dump)"
cmp "dump/$last.pm" whole.pm || fail "the last dump is not the result"
for file in dump/*.pm; do
    "$opt" "$file" | cmp - "$file" || fail "$file is not read back as it is"
done
"$opt" dump/06-fold.pm --passes=branches,hit-loops,unroll,captures,extents,canonicalise,fold,canonicalise,shapes,cse,dce | cmp - dump/17-dce.pm || fail "going on from 06-fold.pm"
# usage
refuse 2 "did you mean 'canonicalise'?" small.pm --passes=canonicalize
refuse 2 "--print-ir-after=fuze: there is no such pass; did you mean 'fuse'?" small.pm --print-ir-after=fuze
refuse 2 "did you mean '--passes'?" small.pm --pases=cse
refuse 2 "both say which passes run" small.pm --passes=cse -O2
refuse 2 "one FILE at a time" small.pm other.pm
refuse 3 "can't open 'absent.pm'" absent.pm
printf 'module "m" {\n  entry main(%%x: f32[4]) -> (y: %%y) {\n    %%y = negg(%%x)\n  }\n}\n' >wrong.pm
refuse 1 "wrong.pm:3:" wrong.pm
refuse 3 "absent/x.pm" small.pm -o absent/x.pm
: >file
refuse 3 "file/00-input.pm can't be written" small.pm --dump-dir=file
# the page about passes is made from the table
"$opt" --list-passes --markdown | cmp - "$source/docs/passes.md" ||
    fail "docs/passes.md is old: pimoe-opt --list-passes --markdown >docs/passes.md"
exit $failed
