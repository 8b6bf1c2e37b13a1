// Form B: the weights of the chosen experts gathered, one product for each choice, a sum over the choices.
// options: --passes=raise-experts,dce
module "m" {
  symbol T in [0, inf]
  entry main(%x: f32[T, 4], %scores: f32[T, 3]) -> (y: %y) {
    // CHECK: experts(%{{.*}}, %{{.*}}, %{{.*}}, %wall) {experts = 3, top_k = 2, name = "layers.0"}
    // CHECK: (%rows: f32[{{.*}}, 4], %[[A:.*]]: f32[6, 4])
    // CHECK-NOT: gather(%wall
    %k = const {value = [2]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %wall = const {value = splat(0.5)} : f32[3, 6, 4]
    %own = gather(%wall, %idx)
    %s1 = dims [T, 1, 4, 1] : i64[4]
    %xs = reshape(%x, %s1)
    %p = matmul(%own, %xs)
    %s2 = dims [T, 2, 6] : i64[3]
    %q = reshape(%p, %s2)
    %r = relu(%q)
    %s3 = dims [T, 2, 1] : i64[3]
    %wc = reshape(%w, %s3)
    %z = mul(%r, %wc)
    %y = reduce_sum(%z) {axes = [1], keepdims = false}
  }
}
