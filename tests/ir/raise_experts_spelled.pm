// Sums over experts in disguise: stacked and reduced; rows updated in place (out[rows] = out[rows] + y).
// options: --passes=raise-experts,dce
module "m" {
  symbol T in [0, inf]
  symbol n dynamic in [0, inf] <= T
  symbol n_1 dynamic in [0, inf] <= T
  entry stacked(%x: f32[T, 4], %scores: f32[T, 2]) -> (y: %y) {
    // CHECK: entry stacked
    // CHECK: experts(%x, %{{.*}}) {experts = 2, top_k = 1, name = "layers.0"}
    // CHECK-NOT: concat
    // CHECK-NOT: reduce_sum
    %k = const {value = [1]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %zero = const {value = splat(0)} : f32[1]
    %shape = dims [T, 2]
    %zeros = fill(%shape, %zero)
    %dense = scatter_elements(%zeros, %idx, %w) {axis = 1}
    %wa = const {value = splat(0.5)} : f32[4, 4]
    %wb = const {value = splat(0.25)} : f32[4, 4]
    %ya = linear(%x, %wa)
    %yb = linear(%x, %wb)
    %apart = dims [T, 1, 4]
    %ra = reshape(%ya, %apart)
    %rb = reshape(%yb, %apart)
    %stack = concat(%ra, %rb) {axis = 1}
    %column = dims [T, 2, 1]
    %weights = reshape(%dense, %column)
    %product = mul(%stack, %weights)
    %y = reduce_sum(%product) {axes = [1], keepdims = false}
  }
  entry updated(%x: f32[T, 4], %scores: f32[T, 2]) -> (y: %y) {
    // CHECK: entry updated
    // CHECK: experts(%x, %{{.*}}) {experts = 2, top_k = 1, name = "layers.0"}
    // CHECK-NOT: scatter_nd
    %k = const {value = [1]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %zero = const {value = splat(0)} : f32[1]
    %shape = dims [T, 4]
    %out = fill(%shape, %zero)
    %first = const {value = [0]} : i64[1]
    %one = const {value = [1]} : i64[1]
    %two = const {value = [2]} : i64[1]
    %e0 = const {value = [0]} : i64[]
    %q0 = equal(%idx, %e0)
    %z0 = nonzero(%q0) : i64[2, n]
    %p0 = transpose(%z0) {perm = [1, 0]}
    %t0 = slice(%p0, %first, %one, %one)
    %wa = const {value = splat(0.5)} : f32[4, 4]
    %x0 = gather_nd(%x, %t0)
    %y0 = linear(%x0, %wa)
    %w0 = gather_nd(%w, %p0)
    %s0 = dims [n, 1]
    %c0 = reshape(%w0, %s0)
    %r0 = mul(%c0, %y0)
    %o0 = gather_nd(%out, %t0)
    %a0 = add(%o0, %r0)
    %out0 = scatter_nd(%out, %t0, %a0)
    %e1 = const {value = [1]} : i64[]
    %q1 = equal(%idx, %e1)
    %z1 = nonzero(%q1) : i64[2, n_1]
    %p1 = transpose(%z1) {perm = [1, 0]}
    %t1 = slice(%p1, %first, %one, %one)
    %wb = const {value = splat(0.25)} : f32[4, 4]
    %x1 = gather_nd(%x, %t1)
    %y1 = linear(%x1, %wb)
    %w1 = gather_nd(%w, %p1)
    %s1 = dims [n_1, 1]
    %c1 = reshape(%w1, %s1)
    %r1 = mul(%c1, %y1)
    %o1 = gather_nd(%out0, %t1)
    %a1 = add(%o1, %r1)
    %y = scatter_nd(%out0, %t1, %a1)
  }
}
