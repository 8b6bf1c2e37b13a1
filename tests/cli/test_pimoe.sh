#!/bin/bash
# pimoe: inspect, check, run, bench, doctor.
. "$(dirname "$0")/cli_lib.sh"
data=$source/tests/data/cli

# inspect: models of each kind, and what isn't one
expect 0 "$pimoe" inspect "$unlike/model.json" --json
claims schema_version=1 ok=true "kind=json graph" moe_layers=1 experts=2 experts_total=2 layers.0.name=question \
    layers.0.top_k=1 layers.0.experts.0.name=length layers.0.experts.0.bytes layers.0.experts.1.hash ops.experts=1 \
    entries.0.inputs.0.shape.0=N symbols.0.name=N
expect 0 "$pimoe" inspect "$source/samples/classics" --json
claims kind=checkpoint moe_layers=4 experts=16 experts_total=64 "#layers=4" "#layers.3.experts=16" \
    layers.0.route.activation=softmax layers.0.alike=true
cp out one
expect 0 "$pimoe" inspect "$source/samples/classics" --json
cmp -s out one || fail "inspect differs from run to run"
expect 0 "$pimoe" inspect "$source/samples/classics" --ops
prints "16 experts, 2 chosen"
expect 0 "$pimoe" inspect small.pm --json
claims kind=ir moe_layers=0
# what raising finds: experts that are spelled out, how they were, what nearly is one, what is odd
expect 0 "$pimoe" inspect "$source/tests/ir/raise_experts_each.pm" --json
claims moe_layers=1 layers.0.n_experts=2 layers.0.top_k=1 layers.0.alike=true layers.0.route.activation=none \
    "layers.0.form=every expert on every token, one by one" layers.0.experts.1.hash "layers.0.experts.0.shapes=f32[4, 4]" \
    "#remarks=0"
expect 0 "$pimoe" inspect "$source/tests/ir/raise_experts_near.pm" --json
claims moe_layers=0 "#remarks=1" remarks.0.kind=near_miss remarks.0.what=experts remarks.0.stopped_op=softmax \
    "remarks.0.message=it mixes rows" "remarks.0.instead=all 2 experts run on every token, of which it chooses 1"
expect 0 "$pimoe" inspect "$source/tests/ir/raise_experts_near.pm"
prints "near miss: experts not raised: matching stopped at softmax"
cat >odd.pm <<'EOF'
module "odd" {
  symbol T in [0, inf]
  symbol n dynamic in [0, inf] <= T
  entry main(%x: f32[T, 2]) -> (y: %y) {
    %router = const {value = [1, 2, 3, 4, 5, 6, 1, 2]} : f32[4, 2]
    %bias = const {value = [0, 0, -inf, 0]} : f32[4]
    %scores = linear(%x, %router)
    %p = softmax(%scores)
    %chosen = add(%p, %bias)
    %k = const {value = [1]} : i64[1]
    %w, %ids = topk(%chosen, %k)
    %i = cast(%ids) {to = i32}
    %a = const {value = [1, 0, 0, 1, 2, 0, 0, 2, 3, 0, 0, 3, 2, 0, 0, 2]} : f32[4, 2, 2]
    %y = experts(%x, %i, %w, %a) {experts = 4, top_k = 1, name = "layer"} regions {
      (%rows: f32[n, 2], %wa: f32[2, 2]) -> (%r) {
        %r = linear(%rows, %wa)
      }
    }
  }
}
EOF
expect 0 "$pimoe" inspect odd.pm --json
claims "#remarks=4" remarks.0.kind=warning remarks.1.kind=warning remarks.2.kind=note remarks.3.kind=near_miss \
    remarks.3.what=router
prints "expert 2 can never be chosen"
prints "experts 0 and 3 always have equal scores"
prints "experts 1 and 3 are equal"
expect 0 "$pimoec" odd.pm --emit=ir -o odd.out --report=odd.json
says "expert 2 can never be chosen"
expect 0 "$pimoec" odd.pm --emit=ir -o odd.out --json
claims ok=true "#warnings=2" warnings.0.code=expert_barred warnings.1.code=router_ties warnings.1.message warnings.1.location
# a check that compiled, and then found that the inputs don't fit
expect 2 "$pimoe" check odd.pm --in="$data/inputs_deflated.npz" --want="$data/expected_deflated.npz" --json
claims pass=false "#warnings=2" warnings.0.code=expert_barred
grep -q '"kind": "note", "message": "layer: experts 1 and 3 are equal"' odd.json || fail "no remark in the report"
expect 0 "$pimoec" odd.pm --emit=ir -o odd.out --report=odd.html
grep -q 'always have equal scores' odd.html || fail "no remark in the report for people"
# where things would go, and as annotations of the model
expect 0 "$pimoe" inspect "$unlike/model.json" --target=native,emu --place=question.1@cpu0 --json
claims ok=true placement.trace=null placement.devices.0.name=cpu0 placement.devices.1.name=emu0 \
    placement.units.0.kind=rest placement.units.0.device=emu0 placement.transfers.0.from=cpu0
expect 0 "$pimoe" inspect "$unlike/model.json" --target=native,emu --place=question.1@cpu0
prints "question: experts 1 on cpu0"
prints "cross for one token"
echo '{"layers": [{"name": "question", "counts": [0, 5]}]}' >trace.json
expect 0 "$pimoe" inspect "$unlike/model.json" --target=native,emu --place=trace:trace.json
prints "choices as in trace.json"
expect 0 "$pimoe" inspect "$source/samples/classics" --target=native,emu --place=layers.1@cpu0,layers.2.3@cpu0
prints "layers.1: experts 0-15 on cpu0"
prints "layers.2: experts 3 on cpu0"
expect 0 "$pimoe" check "$unlike/model.json" --target=native,emu:2 --place=question.1@emu1,router@cpu0
expect 0 "$pimoe" inspect "$unlike/model.json" --target=native,emu:3 --place=question.1@emu2
prints "question: experts 0 on emu0"
prints "experts 1 on emu2"
prints "emu2 -> emu0"
expect 2 "$pimoe" inspect "$unlike/model.json" --target=emu:0
expect 2 "$pimoe" inspect "$unlike/model.json" --target=native:2
says "alone"
expect 1 "$pimoe" inspect "$unlike/model.json" --target=native,emu --sharding=annotated.onnx
says "is no ONNX model"
expect 0 "$pimoe" inspect "$unlike/length.onnx" --target=native,emu --sharding=annotated.onnx
grep -qa emu0 annotated.onnx || fail "no device in annotated.onnx"
expect 0 "$pimoe" inspect annotated.onnx --json
claims ok=true kind=onnx

expect 1 "$pimoe" inspect /bin/true --json
claims ok=false diagnostics.0.code=invalid
expect 3 "$pimoe" inspect nowhere --json
claims ok=false diagnostics.0.code=io
expect 1 "$pimoe" inspect "$0"

# check: files beside the model, named files, deflated ones
expect 0 "$pimoe" check "$unlike/model.json" --json --keep=kept.so
claims schema_version=1 pass=true native=true moe_layers=1 experts=2 error=null cases=1 outputs.answer.pass=true \
    max_abs_diff max_rel_diff compile_ms
silent
[ -s kept.so ] || fail "--keep kept nothing"
expect 0 "$pimoe" check "$unlike/model.json" --in "$data/inputs_deflated.npz" --want "$data/expected_deflated.npz"
prints pass
expect 0 "$pimoe" check "$source/samples/classics" --json --threads 1
claims pass=true moe_layers=4 experts=16 experts_total=64 entry=forward outputs.logits.cases.0.shape.2=2048 \
    reference_dispatches=0
# … a checkpoint's reference also says which experts are chosen, and how greedy decoding goes on
expect 0 "$pimoe" check "$source/tests/data/checkpoints/mixtral" --json
claims pass=true outputs.router_indices_1.pass=true outputs.greedy.pass=true outputs.greedy.cases.0.shape.1=8 \
    outputs.prefill_and_decode.pass=true
LC_ALL=C sed 's/router_indices_0/router_indices_X/g;s/router_indices_1/router_indices_0/g;s/router_indices_X/router_indices_1/g' \
    "$source/tests/data/checkpoints/mixtral/reference.npz" >exchanged.npz
expect 1 "$pimoe" check "$source/tests/data/checkpoints/mixtral" --in exchanged.npz --want exchanged.npz --json
claims pass=false outputs.logits.pass=true outputs.router_indices_0.pass=false outputs.greedy.pass=true
expect 0 "$pimoe" check "$source/samples/classics" --quantize=bf16 --target=x86-64-v3
# what differs, or can't be compared
expect 1 "$pimoe" check "$unlike/model.json" --in "$data/inputs_deflated.npz" --want "$data/expected_wrong.npz" --json
claims pass=false error=null outputs.answer.pass=false outputs.answer.cases.0.differing=1 \
    outputs.answer.cases.0.worst_element=3
expect 0 "$pimoe" check "$unlike/model.json" --in "$data/inputs_deflated.npz" --want "$data/expected_wrong.npz" --atol=1e9
expect 1 "$pimoe" check "$unlike/model.json" --in "$data/inputs_deflated.npz" --want "$data/expected_shape.npz"
prints "DIFFERS"
prints "expected f32[4]"
expect 2 "$pimoe" check "$unlike/model.json" --in "$data/inputs_deflated.npz" --want "$data/expected_name.npz" --json
claims pass=false error.code=usage
expect 2 "$pimoe" check "$unlike/model.json" --in "$data/expected_name.npz" --want "$data/expected_deflated.npz"
says "no array 'x'"
expect 2 "$pimoe" check "$unlike/model.json" --in "$data/inputs_deflated.npz"
says "go together"
expect 2 "$pimoe" check small.pm
says "nothing to compare with"
expect 2 "$pimoe" check "$unlike/model.json" --entry=mian --json
claims error.code=usage pass=false native=false
expect 1 "$pimoe" check "$0" --in "$data/inputs_deflated.npz" --want "$data/expected_deflated.npz" --json
claims pass=false error.code=invalid
# archives that lie: cut at many places, bits flipped, a claim of 4 GB
size=$(stat -c %s "$data/inputs_deflated.npz")
for at in 0 1 30 60 $((size / 2)) $((size - 30)) $((size - 1)); do
    head -c "$at" "$data/inputs_deflated.npz" >cut.npz
    expect 1 "$pimoe" check small.pm --in cut.npz --want "$data/expected_deflated.npz"
    says "cut.npz"
done
cp "$data/inputs_deflated.npz" flipped.npz
printf '\377' | dd of=flipped.npz bs=1 seek=70 conv=notrunc 2>/dev/null
expect 1 "$pimoe" check small.pm --in flipped.npz --want "$data/expected_deflated.npz"
says "damaged"
expect 1 "$pimoe" check small.pm --in "$data/inputs_bomb.npz" --want "$data/expected_deflated.npz"
says "a size that it can't have"

# run: compiled once, then taken from the cache; options go to the executable
expect 0 "$pimoe" run -v "$unlike/model.json" --in x=0,1,6,7
says "compiled now"
prints "= 42"
expect 0 "$pimoe" run -v "$unlike/model.json" --in x=0,1,6,7
says "was compiled before"
prints "= 42"
expect 0 "$pimoe" run "$unlike/model.json" --describe --json
claims model=unlike-experts
expect 0 "$pimoe" run -v --no-cache small.pm --in x=1,-1,2,0
says "compiled now"
prints "2 0 4 0"
expect 2 "$pimoe" run small.pm --no-such-option
cp small.pm other.pm
sed -i 's/\[2, 0/[3, 0/' other.pm
expect 0 "$pimoe" run other.pm --in x=1,-1,2,0
prints "3 0 4 0"
expect 1 env PIMOE_CACHE_DIR=/proc/nothing "$pimoe" run "$0"
expect 0 env PIMOE_CACHE_DIR=/proc/nothing "$pimoe" run small.pm --in x=1,-1,2,0
before=$(ls cache | wc -l)
expect 0 env PIMOE_CACHE_BYTES=1 "$pimoe" run -O1 small.pm --in x=1,-1,2,0
[ "$before" -gt 1 ] && [ "$(ls cache | wc -l)" -eq 1 ] || fail "the cache was not shrunk"

# bench
expect 0 "$pimoe" bench small.pm --repeat=3 --shape N=1,8 --compare
prints "times as fast"
expect 0 "$pimoe" bench small.pm --repeat=3 --shape N=1,8 --format=json --entry=forward
claims schema_version=1 "#rows=2" rows.1.shape=N=8 rows.0.median_ms
expect 0 "$pimoe" bench small.pm other.pm --repeat=3 --format=md --compare
prints "|---|"
expect 0 "$pimoe" bench small.pm --repeat=3 --format=csv
prints "model,entry,shape"
expect 2 "$pimoe" bench small.pm --entry=forwrad
says "did you mean 'forward'"
expect 2 "$pimoe" bench small.pm --shape=M=2
says "no symbol 'M'"

# doctor
expect 0 "$pimoe" doctor
prints "all that is needed is there"
expect 0 "$pimoe" doctor --json
claims schema_version=1 ok=true cpu.cores memory.bytes findings.0.status
finish
