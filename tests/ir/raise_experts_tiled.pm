// Form F: the tokens tiled for all experts, batched products, a sum over the experts of the dense weights.
// options: --passes=raise-experts,dce
module "m" {
  symbol T in [0, inf]
  entry main(%x: f32[T, 4], %scores: f32[T, 3]) -> (y: %y) {
    // CHECK: experts(%x, %{{.*}}, %w, %{{.*}}, %wall) {experts = 3, top_k = 2, name = "layers.0"}
    // CHECK: linear(%rows, %{{.*}}, %{{.*}})
    // CHECK-NOT: tile(
    %k = const {value = [2]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %zero = const {value = [0]} : f32[]
    %s0 = dims [T, 3] : i64[2]
    %none = expand(%zero, %s0)
    %dense = scatter_elements(%none, %idx, %w) {axis = 1}
    %times = const {value = [3, 1]} : i64[2]
    %tiled = tile(%x, %times)
    %s1 = dims [3, T, 4] : i64[3]
    %xs = reshape(%tiled, %s1)
    %wall = const {value = splat(0.5)} : f32[3, 4, 6]
    %bias = const {value = splat(0.125)} : f32[3, 1, 6]
    %p = matmul(%xs, %wall)
    %q = add(%p, %bias)
    %by_expert = transpose(%dense) {perm = [1, 0]}
    %s2 = dims [3, T, 1] : i64[3]
    %wc = reshape(%by_expert, %s2)
    %z = mul(%q, %wc)
    %y = reduce_sum(%z) {axes = [0], keepdims = false}
  }
}
