// Experts that differ in a shape alone: the second one's weights lie along the row. Only the run can tell that they do not fit.
// options: --passes=raise-experts,dce
module "m" {
  symbol T in [0, inf]
  symbol n dynamic in [0, inf] <= 2*T
  symbol n_1 dynamic in [0, inf] <= 2*T
  entry main(%x: f32[T, 4], %scores: f32[T, 2]) -> (y: %y) {
    // CHECK-NOT: experts(
    // CHECK: scatter_nd
    %k = const {value = [2]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %zero = const {value = [0]} : f32[]
    %shape = dims [T, 4] : i64[2]
    %acc = expand(%zero, %shape)
    %idx3s = dims [T, 2, 1] : i64[3]
    %idx3 = reshape(%idx, %idx3s)
    %ids = const {value = [0, 1]} : i64[2]
    %mask = equal(%idx3, %ids)
    %by_expert = transpose(%mask) {perm = [2, 1, 0]}
    %e0 = const {value = [0]} : i64[]
    %e1 = const {value = [1]} : i64[]
    %c0 = const {value = [0]} : i64[1]
    %c1 = const {value = [1]} : i64[1]
    %c2 = const {value = [2]} : i64[1]
    %m0 = gather(%by_expert, %e0)
    %p0 = nonzero(%m0) : i64[2, n]
    %q0 = transpose(%p0) {perm = [1, 0]}
    %choice0 = slice(%q0, %c0, %c1, %c1)
    %token0 = slice(%q0, %c1, %c2, %c1)
    %x0 = gather_nd(%x, %token0)
    %wa = const {value = splat(0.5)} : f32[4, 4]
    %y0 = linear(%x0, %wa)
    %at0 = concat(%token0, %choice0) {axis = 1}
    %w0 = gather_nd(%w, %at0)
    %n1 = dims [n, 1] : i64[2]
    %w0c = reshape(%w0, %n1)
    %z0 = mul(%y0, %w0c)
    %a0 = scatter_nd(%acc, %token0, %z0) {reduction = "add"}
    %m1 = gather(%by_expert, %e1)
    %p1 = nonzero(%m1) : i64[2, n_1]
    %q1 = transpose(%p1) {perm = [1, 0]}
    %choice1 = slice(%q1, %c0, %c1, %c1)
    %token1 = slice(%q1, %c1, %c2, %c1)
    %x1 = gather_nd(%x, %token1)
    %wb = const {value = splat(0.25)} : f32[4, 4]
    %y1 = linear(%x1, %wb)
    %at1 = concat(%token1, %choice1) {axis = 1}
    %w1 = gather_nd(%w, %at1)
    %n2 = dims [1, n_1] : i64[2]
    %w1c = reshape(%w1, %n2)
    %z1 = mul(%y1, %w1c)
    %y = scatter_nd(%a0, %token1, %z1) {reduction = "add"}
  }
}
