#!/usr/bin/env bash
# Runs a command again and again, each time with another call failing, and checks that every failure
# ends cleanly: exit code 0, 1 or 3, no signal, no hang, a message when it failed, no output file
# left (nor a temporary one), and the very same output when it succeeded all the same.
set -u

usage() {
    cat <<'END'
usage: run.sh --shim LIB [options] -- COMMAND...
    run.sh --shim build/lib/libfail_nth.so --output /tmp/x/model -- pimoec digits.onnx -o /tmp/x/model
  --kinds "malloc open …"   kinds of calls, of malloc open read write mmap sync rename (default: all)
  --modes "once from"       once: only the Nth call fails; from: it and all later ones; every: each Nth
  --growth G                a stride of N / G beyond (default 16)
  --dense K                 try N = 1..K one by one, then in growing strides (default 200)
  --max K                   highest N (default 1000000; a run stops when N exceeds the calls made)
  --output FILE             what the command writes; lies in a folder of its own
  --any-caller              count calls from libraries too, not only from the program
  --codes "0 1 3"           allowed exit codes
  --timeout S               seconds per run (default 60)
END
    exit 2
}

shim= output= growth=16 caller=program kinds="malloc open read write mmap sync rename" modes="once from"
dense=200 max=1000000 codes="0 1 3" limit=60
while [ $# -gt 0 ]; do
    case $1 in
    --shim) shim=$2; shift 2 ;;
    --kinds) kinds=$2; shift 2 ;;
    --modes) modes=$2; shift 2 ;;
    --dense) dense=$2; shift 2 ;;
    --growth) growth=$2; shift 2 ;;
    --max) max=$2; shift 2 ;;
    --output) output=$2; shift 2 ;;
    --any-caller) caller=any; shift ;;
    --codes) codes=$2; shift 2 ;;
    --timeout) limit=$2; shift 2 ;;
    --) shift; break ;;
    *) usage ;;
    esac
done
[ -n "$shim" ] && [ -f "$shim" ] && [ $# -gt 0 ] || usage
shim=$(realpath "$shim")

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
n_runs=0 n_bad=0

bad() { # reason
    n_bad=$((n_bad + 1))
    echo "BAD: $kind $mode $n: $1" >&2
    sed 's/^/    /' "$scratch/err" | head -n 5 >&2
}

run() { # environment assignments; sets rc
    rm -f "$scratch/mark"
    [ -n "$output" ] && rm -f "$output"
    timeout -k 5 "$limit" env "$@" "${command[@]}" >"$scratch/out" 2>"$scratch/err" </dev/null
    rc=$?
    n_runs=$((n_runs + 1))
}

check() {
    case " $codes " in
    *" $rc "*) ;;
    *) bad "exit code $rc"; return ;;
    esac
    if [ -n "$output" ]; then
        for left in $(ls -A "$(dirname "$output")"); do
            [ "$left" != "$(basename "$output")" ] || continue
            bad "'$left' is left"
            rm -f "$(dirname "$output")/$left"
        done
        if [ "$rc" -ne 0 ] && [ -e "$output" ]; then
            bad "failed, but left an output file"
        elif [ "$rc" -eq 0 ] && ! cmp -s "$output" "$scratch/want"; then
            bad "succeeded with another output"
        fi
    fi
    if [ "$rc" -ne 0 ] && [ ! -s "$scratch/err" ] && [ "$kind" != write ]; then
        bad "failed without a message" # when writing fails, so may writing the message
    fi
    if [ "$rc" -eq 0 ] && [ "$mode" = once ] && ! cmp -s "$scratch/out" "$scratch/want_out"; then
        bad "succeeded with other text on stdout"
    fi
}

command=("$@")
kind=none mode=none n=0
run PM_NOTHING=1
if [ "$rc" -ne 0 ]; then
    bad "without any failure it ends with exit code $rc"
    exit 1
fi
cp "$scratch/out" "$scratch/want_out"
if [ -n "$output" ]; then
    cp "$output" "$scratch/want" || exit 1
fi

for kind in $kinds; do
    for mode in $modes; do
        n=1 n_hits=0
        while [ "$n" -le "$max" ]; do
            run LD_PRELOAD="$shim" "PM_FAIL_${kind^^}=$n" PM_FAIL_MODE="$mode" \
                PM_FAIL_CALLER="$caller" PM_FAIL_MARK="$scratch/mark"
            check
            [ -e "$scratch/mark" ] || break
            n_hits=$((n_hits + 1))
            if [ "$n" -lt "$dense" ]; then n=$((n + 1)); else n=$((n + 1 + n / growth)); fi
        done
        echo "$kind, $mode: $n_hits failures injected"
        if [ "$n_bad" -ge 20 ]; then
            echo "too many; giving up" >&2
            exit 1
        fi
    done
done

# what must not be noticed at all: interrupted calls, and calls that do less than asked
mode=every
for kind in read write; do
    n=2
    run LD_PRELOAD="$shim" "PM_FAIL_${kind^^}=2" PM_FAIL_MODE=every PM_FAIL_ERRNO=4 \
        PM_FAIL_CALLER="$caller" PM_FAIL_MARK="$scratch/mark"
    [ "$rc" -eq 0 ] || bad "interrupted calls end with exit code $rc"
    check
done
kind=short n=7
run LD_PRELOAD="$shim" PM_SHORT_IO=7
[ "$rc" -eq 0 ] || bad "short reads and writes end with exit code $rc"
check

echo "$n_runs runs, $n_bad bad"
[ "$n_bad" -eq 0 ]
