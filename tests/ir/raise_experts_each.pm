// Form E: every expert on every token, times its column of the dense weights; a residual stays beside.
// options: --passes=raise-experts,dce
module "m" {
  symbol T in [0, inf]
  entry main(%x: f32[T, 4], %scores: f32[T, 2]) -> (y: %y) {
    // CHECK: experts(%x, %{{.*}}, %w, %{{.*}}) {experts = 2, top_k = 1, name = "layers.0"}
    // CHECK: add(%{{.*}}, %x)
    // CHECK-NOT: linear(%x
    %k = const {value = [1]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %e0 = const {value = [0]} : i64[]
    %e1 = const {value = [1]} : i64[]
    %q0 = equal(%idx, %e0)
    %f0 = cast(%q0) {to = f32}
    %w0 = mul(%f0, %w)
    %wa = const {value = splat(0.5)} : f32[4, 4]
    %y0 = linear(%x, %wa)
    %z0 = mul(%y0, %w0)
    %a0 = add(%x, %z0)
    %q1 = equal(%idx, %e1)
    %f1 = cast(%q1) {to = f32}
    %w1 = mul(%f1, %w)
    %wb = const {value = splat(0.25)} : f32[4, 4]
    %y1 = linear(%x, %wb)
    %z1 = mul(%y1, %w1)
    %y = add(%a0, %z1)
  }
}
