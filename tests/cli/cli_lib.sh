# What the scripts of this folder share. Each is called with the folder of the tools, the source tree and a folder of
# its own to work in, which is emptied first.
set -uo pipefail
bin=$1 source=$2 work=$3
rm -rf "$work"
mkdir -p "$work"
cd "$work" || exit 1
export PIMOE_CACHE_DIR=$work/cache NO_COLOR=1 TMPDIR=$work/tmp
mkdir -p "$TMPDIR"
pimoec=$bin/pimoec pimoe=$bin/pimoe json=$bin/json_check
unlike=$source/samples/unlike-experts
failures=0

fail() {
    echo "FAILED: $*" >&2
    failures=$((failures + 1))
}
# expect CODE COMMAND...: runs it; its output is left in ./out and ./err
expect() {
    local want=$1 code
    shift
    "$@" >out 2>err </dev/null
    code=$?
    if [ $code -ne "$want" ]; then
        fail "exit code $code, not $want: $*"
        head -c 2000 err >&2
    fi
}
# says TEXT: standard error of the last command holds it;  prints TEXT: standard output does
says() {
    grep -qF -e "$1" err || { fail "stderr lacks: $1"; head -c 1000 err >&2; }
}
prints() {
    grep -qF -e "$1" out || { fail "stdout lacks: $1"; head -c 1000 out >&2; }
}
silent() {
    [ ! -s err ] || { fail "stderr is not empty"; head -c 1000 err >&2; }
}
# claims CLAIM...: standard output of the last command is JSON for which they hold
claims() {
    "$json" "$@" <out || fail "JSON: $*"
}
finish() {
    [ -z "$(ls -A "$TMPDIR")" ] || fail "left in TMPDIR: $(ls -A "$TMPDIR")"
    [ $failures -eq 0 ] || { echo "$failures checks failed" >&2; exit 1; }
    exit 0
}

# a model of some lines that compiles at once: y = max(2x, 0)
cat >small.pm <<'EOF'
module "small" {
  symbol N in [1, 64]
  entry forward(%x: f32[N, 4]) -> (y: %y) {
    %w = const {value = [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2]} : f32[4, 4]
    %h = linear(%x, %w)
    %y = relu(%h)
  }
}
EOF
