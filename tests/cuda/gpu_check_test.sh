#!/bin/bash
# gpu_check_test.sh BIN SOURCE FOLDER BUILD: scripts/gpu-check from the bundle to the JSON, on the stand-in for the driver.
# The CPU plays what the templates' tests launch; the sample models are for the emulated device.
# shellcheck disable=SC2154 # cli_lib.sh sets source, work and json
. "$2/tests/cli/cli_lib.sh"
build=$4
expect 0 "$source/scripts/gpu-check" --bundle bundle "$build" --chips emu --list "$build/tests/cuda/gpu-check-fake.list"
[ -x bundle/bin/gpu-probe ] && [ -x bundle/tests/rows ] && [ -s bundle/models/digits.npy ] || { fail "the bundle lacks something"; finish; }

# there is no driver, unless this machine has one of its own
if ! bundle/bin/gpu-probe >/dev/null 2>&1; then
    expect 3 bundle/gpu-check
    says "there is no NVIDIA driver"
    [ ! -e gpu-check.json ] || fail "a JSON without a GPU"
fi

export LD_LIBRARY_PATH=$build/fake-driver${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} PIMOE_GPU_KERNELS=fake
mkdir tools
cat >tools/compute-sanitizer <<'SCRIPT'
#!/bin/sh
[ "$1 $3 $4" = "--tool --error-exitcode 1" ] || exit 9
[ "$2" != "$WRONG_TOOL" ] || { echo "========= ERROR SUMMARY: 1 error"; exit 1; }
echo "========= ERROR SUMMARY: 0 errors"
SCRIPT
chmod +x tools/compute-sanitizer

# everything agrees
expect 0 env PATH="$work/tools:$PATH" WRONG_TOOL='' bundle/gpu-check --out all.json --tiny
claims_of() {
    local file=$1
    shift
    "$json" "$@" <"$file" || fail "$file: $*"
}
n_tests=$(find bundle/tests -type f | wc -l) n_models=$(find bundle/models -name '*.case' | wc -l)
claims_of all.json schema_version=2 ok=true complete=true gpu.arch=sm_90 "#tests=$n_tests" "#models=$n_models" \
    "#sanitizer=$((4 * n_tests))" tests.0.result=ok models.0.result=ok programs.0.figures.repeat=1 \
    kernels.ok=true kernels.complete=true kernels.rows.0.error kernels.rows.0.gbytes_per_second \
    medium.ok=true "medium.rows.decode after 16.ours.median_ms"
! grep -q '"result": "\(failed\|out of time\|skipped\)"' all.json || fail "a row of all.json isn't ok"

# a kernel that does nothing
find bundle/tests -type f ! -name rows -delete
expect 1 env PM_FAKE_SKIP=pm_cu_norm bundle/gpu-check --out kernel.json --only tests
claims_of kernel.json ok=false complete=true "#models=0"
grep -q '"name": "rows", "result": "failed"' kernel.json || fail "the wrong kernel is not in kernel.json"

# models that say something else, and one whose results lack
find bundle/models -name '*.case' ! -name classics.case ! -name digits.case ! -name unlike.case -delete
echo "never written" >bundle/models/classics.txt
cp bundle/models/length.npy bundle/models/unlike.npy
rm bundle/models/digits.npy
expect 1 bundle/gpu-check --out model.json --only models
claims_of model.json ok=false "#models=3" models.0.result=failed models.1.result=failed models.2.result=failed

# what compute-sanitizer finds
expect 1 env PATH="$work/tools:$PATH" WRONG_TOOL=racecheck bundle/gpu-check --out races.json --only sanitizer
claims_of races.json ok=false
grep -q '"name": "racecheck rows", "result": "failed"' races.json || fail "the race is not in races.json"

# no time: nothing runs, and the JSON says so
expect 1 bundle/gpu-check --out late.json --seconds 0 --tiny
claims_of late.json ok=false complete=false "tests.0.result=out of time"
finish
