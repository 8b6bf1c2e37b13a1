// Rows put back with what was there: acc[tokens] = acc[tokens] + rows, for the tokens that any choice sends.
// options: --passes=raise-experts,dce
module "m" {
  symbol T in [0, inf]
  symbol n dynamic in [0, inf] <= T
  symbol n_1 dynamic in [0, inf] <= T
  entry main(%x: f32[T, 4], %scores: f32[T, 2]) -> (y: %y) {
    // CHECK: experts({{.*}}) {experts = 2, top_k = 2, name = "layers.0"}
    // CHECK-NOT: scatter_nd
    %k = const {value = [2]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %zero = const {value = [0]} : f32[]
    %shape = dims [T, 4] : i64[2]
    %acc = expand(%zero, %shape)
    %e0 = const {value = [0]} : i64[]
    %is0 = equal(%idx, %e0)
    %one0 = cast(%is0) {to = i64}
    %count0 = reduce_sum(%one0) {axes = [1], keepdims = false}
    %any0 = less(%e0, %count0)
    %p0 = nonzero(%any0) : i64[1, n]
    %n0 = dims [n, 1] : i64[2]
    %t0 = reshape(%p0, %n0)
    %x0 = gather_nd(%x, %t0)
    %wa = const {value = splat(0.5)} : f32[4, 4]
    %y0 = linear(%x0, %wa)
    %f0 = cast(%is0) {to = f32}
    %m0 = mul(%w, %f0)
    %s0 = reduce_sum(%m0) {axes = [1]}
    %w0 = gather_nd(%s0, %t0)
    %z0 = mul(%y0, %w0)
    %old0 = gather_nd(%acc, %t0)
    %new0 = add(%old0, %z0)
    %a0 = scatter_nd(%acc, %t0, %new0)
    %e1 = const {value = [1]} : i64[]
    %is1 = equal(%idx, %e1)
    %one1 = cast(%is1) {to = i64}
    %count1 = reduce_max(%one1) {axes = [1], keepdims = false}
    %any1 = cast(%count1) {to = bool}
    %p1 = nonzero(%any1) : i64[1, n_1]
    %n1 = dims [n_1, 1] : i64[2]
    %t1 = reshape(%p1, %n1)
    %x1 = gather_nd(%x, %t1)
    %wb = const {value = splat(0.25)} : f32[4, 4]
    %y1 = linear(%x1, %wb)
    %f1 = cast(%is1) {to = f32}
    %m1 = mul(%w, %f1)
    %s1 = reduce_sum(%m1) {axes = [1]}
    %w1 = gather_nd(%s1, %t1)
    %z1 = mul(%y1, %w1)
    %old1 = gather_nd(%a0, %t1)
    %new1 = add(%old1, %z1)
    %y = scatter_nd(%a0, %t1, %new1)
  }
}
