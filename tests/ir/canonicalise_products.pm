// Products with a constant matrix become linear; layout then packs it, turned as it lies.
// options: --passes=canonicalise,fold,canonicalise,dce,layout,dce
module "m" {
  symbol B in [1, 8]
  entry main(%x: f32[B, 3, 4], %y: f32[4, B], %z: f64[B, 4]) -> (a: %a, b: %b, c: %c, d: %d, e: %e, f: %f) {
    // CHECK-DAG: %w = const
    %w = const {value = [1, 2, 3, 4, 5, 6, 7, 8]} : f32[4, 2]
    // CHECK: %[[P:[0-9]+]] = pack(%w) {panel = 16, trans = true} : f32[2, 4]{panel=16
    // CHECK: %a = linear(%x, %[[P]]) : f32[B, 3, 2]
    %a = matmul(%x, %w)
    // turned twice is not turned: [N, K] as linear has it
    // CHECK: %b = linear(%x, %{{[0-9]+}}) : f32[B, 3, 2]
    %v = const {value = [1, 2, 3, 4, 5, 6, 7, 8]} : f32[2, 4]
    %b = matmul(%x, %v) {trans_b = true}
    // Gemm with both turned: x is turned, too
    // CHECK: %[[T:[0-9]+]] = transpose(%y) {perm = [1, 0]} : f32[B, 4]
    // CHECK: %c = linear(%[[T]], %{{[0-9]+}}) : f32[B, 2]
    %c = matmul(%y, %v) {trans_a = true, trans_b = true}
    // through a transpose, and one expert's matrix out of several
    // CHECK: %d = linear
    %t = transpose(%v) {perm = [1, 0]}
    %d = matmul(%x, %t)
    // CHECK: const {value = [9, 1e+01, 11, 12, 13, 14, 15, 16]} : f32[4, 2]
    // CHECK: %e = linear
    %all = const {value = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]} : f32[2, 4, 2]
    %which = const {value = [1]} : i64[]
    %one = gather(%all, %which)
    %e = matmul(%x, %one)
    // f64 would lose bits in panels of f32
    // CHECK: %f = matmul(%z
    %u = const {value = [1, 2, 3, 4]} : f64[4, 1]
    %f = matmul(%z, %u)
  }
}
