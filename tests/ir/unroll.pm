// Known branches are taken; loops over the parts of a constant, and small ones, become plain ops.
// options: --passes=unroll,fold,dce
module "m" {
  symbol T in [1, 8]
  symbol u in [0, inf]
  symbol n dynamic in [0, 3] <= 3
  symbol k dynamic in [0, inf] <= T
  entry main(%x: f32[T, 2], %u: i64[u], %q: bool[]) -> (a: %a, b: %b, c: %c, d: %d) {
    // CHECK-NOT: loop(
    // CHECK-NOT: if(
    // each round has its own weight
    // CHECK: %[[W0:[a-z0-9]+]] = const {value = [1, 2, 3, 4]} : f32[2, 2]
    // CHECK: %[[Y0:[a-z0-9]+]] = matmul(%x, %[[W0]]) : f32[T, 2]
    // CHECK: %[[A0:[a-z0-9]+]] = add(%x, %[[Y0]])
    // CHECK: %[[W1:[a-z0-9]+]] "we" = const {value = [5, 6, 7, 8]} : f32[2, 2]
    // CHECK: %[[Y1:[a-z0-9]+]] "y" = matmul(%[[A0]], %[[W1]]) : f32[T, 2]
    // CHECK: add(%[[A0]], %[[Y1]])
    %two = const {value = [2]} : i64[]
    %yes = const {value = [true]} : bool[]
    %a = loop(%two, %yes, %x) {carried = 1} : f32[T, 2] regions {
      (%i: i64[], %go: bool[], %s: f32[T, 2]) -> (%go, %t) {
        %w = const {value = [1, 2, 3, 4, 5, 6, 7, 8]} : f32[2, 2, 2]
        %we = gather(%w, %i) : f32[2, 2]
        %y = matmul(%s, %we) : f32[T, 2]
        %t = add(%s, %y) : f32[T, 2]
      }
    }
    // slices are stacked
    // CHECK: %b = const {value = [0, 1]} : i64[2]
    %b = loop(%two, %yes) {carried = 0, scanned = 1} : i64[2] regions {
      (%i: i64[], %go: bool[]) -> (%go, %i) {
      }
    }
    // what was found while it ran is known: the branch's own extent
    // CHECK: exp(%x) : f32[T, 2]
    // CHECK-NEXT: neg({{.*}}) : f32[T, 2]
    %r = if(%yes, %x) : f32[k, 2] regions {
      (%p: f32[T, 2]) -> (%e) {
        %e = exp(%p) : f32[T, 2]
      }
      (%p: f32[T, 2]) -> (%g) {
        %z = const {value = [0]} : i64[1]
        %g = gather(%p, %z) : f32[1, 2]
      }
    }
    %c = neg(%r) : f32[k, 2]
    // rounds find extents of their own
    // CHECK: nonzero({{.*}}) : i64[1, [[N0:[a-z0-9_]+]]]
    // CHECK-NOT: nonzero({{.*}}) : i64[1, [[N0]]]
    // CHECK: nonzero(
    %zero = const {value = [0]} : i64[]
    %d = loop(%two, %yes, %zero, %u) {carried = 1} : i64[] regions {
      (%i: i64[], %go: bool[], %s: i64[], %v: i64[u]) -> (%go, %t) {
        %h = equal(%v, %i) : bool[u]
        %nz = nonzero(%h) : i64[1, n]
        %sum = reduce_sum(%nz) {axes = [0, 1], keepdims = false} : i64[]
        %t = add(%s, %sum) : i64[]
      }
    }
  }
}
