#!/bin/bash
# Crashes and hangs: of what pimoe check runs, of the compiler; signals.
. "$(dirname "$0")/cli_lib.sh"
shim=$4
data=$source/tests/data/cli

# a compiled model that crashes is a result
expect 70 env LD_PRELOAD="$shim" PIMOE_CRASH=run "$pimoe" check "$unlike/model.json" --json
claims pass=false native=false error.code=crash moe_layers=1 experts=2
grep -q "signal 11" out || fail "the signal is not named"
says "pimoe-bug-"
expect 70 env LD_PRELOAD="$shim" PIMOE_CRASH=run PIMOE_NO_BUG_REPORT=1 "$pimoe" check "$unlike/model.json"
says "signal 11"
expect 1 env LD_PRELOAD="$shim" PIMOE_CRASH=hang "$pimoe" check "$unlike/model.json" --json --timeout=3
claims pass=false error.code=timeout

# a compiler that crashes: code 70, no output, a script that reproduces it, and the model's IR
rm -f pimoe-bug-*
expect 70 env LD_PRELOAD="$shim" PIMOE_CRASH=compile "$pimoec" small.pm -o never
says "This is a bug of ours"
[ ! -e never ] || fail "a crash left an output"
[ -z "$(ls .pimoe-* 2>/dev/null)" ] || fail "a crash left temporary files"
script=$(ls pimoe-bug-*.sh)
expect 0 sh "$script"
[ -s never ] || fail "the script does not repeat the command"
expect 0 "$pimoec" pimoe-bug-*.pm --emit=ir -o -
prints "module"
rm -f pimoe-bug-* never
expect 70 env LD_PRELOAD="$shim" PIMOE_CRASH=compile "$pimoe" check "$unlike/model.json" --json
claims pass=false error.code=crash

# ended by a signal: 128+n, nothing left
env LD_PRELOAD="$shim" PIMOE_CRASH=hang "$pimoe" check "$unlike/model.json" 2>/dev/null &
pid=$!
for _ in $(seq 100); do
    [ -n "$(ls "$TMPDIR"/pimoe-*/checked.so 2>/dev/null)" ] && break
    sleep 0.1
done
kill -TERM $pid
wait $pid
[ $? -eq 143 ] || fail "SIGTERM does not end pimoe check as a signal does"
finish
