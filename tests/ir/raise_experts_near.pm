// What only looks like experts stays: a softmax over all tokens within an "expert" mixes its rows.
// options: --passes=raise-experts,dce
module "m" {
  symbol T in [0, inf]
  entry main(%x: f32[T, 4], %scores: f32[T, 2]) -> (y: %y) {
    // CHECK-NOT: experts(
    // CHECK: softmax
    %k = const {value = [1]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %e0 = const {value = [0]} : i64[]
    %e1 = const {value = [1]} : i64[]
    %q0 = equal(%idx, %e0)
    %f0 = cast(%q0) {to = f32}
    %w0 = mul(%f0, %w)
    %wa = const {value = splat(0.5)} : f32[4, 4]
    %y0 = linear(%x, %wa)
    %t0 = softmax(%y0) {axis = 0}
    %z0 = mul(%t0, %w0)
    %q1 = equal(%idx, %e1)
    %f1 = cast(%q1) {to = f32}
    %w1 = mul(%f1, %w)
    %wb = const {value = splat(0.25)} : f32[4, 4]
    %y1 = linear(%x, %wb)
    %t1 = softmax(%y1) {axis = 0}
    %z1 = mul(%t1, %w1)
    %y = add(%z0, %z1)
  }
  // Heads that are as many as experts are no experts; weights of another type than the rows stay in their product.
  // CHECK-LABEL: entry heads
  entry heads(%x: f32[T, 4], %scores: f32[T, 2]) -> (y: %y, w: %w) {
    // CHECK-NOT: experts(
    // CHECK: linear
    %k = const {value = [1]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %all = const {value = splat(0.5)} : bf16[6, 4]
    %rows = linear(%x, %all)
    %cut_shape = dims [T, 2, 3] : i64[3]
    %y = reshape(%rows, %cut_shape)
  }
}
