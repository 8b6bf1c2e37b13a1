// A loop over the experts that some row chose goes over all; one whose rounds do something for others stays.
// options: --passes=hit-loops
module "m" {
  symbol T in [0, inf]
  symbol n dynamic in [0, inf] <= 4
  symbol a dynamic in [0, inf] <= 2*T
  symbol b dynamic in [0, inf] <= 2*T
  symbol c dynamic in [0, inf] <= 2*T
  entry main(%ids: i64[T, 2], %x: f32[T, 4], %acc: f32[T, 4]) -> (r: %r, s: %s, t: %t) {
    %depth = const {value = [4]} : i64[]
    %bits = const {value = [0, 1]} : i64[2]
    %hot = onehot(%ids, %depth, %bits) : i64[T, 2, 4]
    %mask = transpose(%hot) {perm = [2, 1, 0]} : i64[4, 2, T]
    %sum = reduce_sum(%mask) {axes = [1, 2], keepdims = false} : i64[4]
    %zero = const {value = [0]} : i64[]
    %hits = less(%zero, %sum) : bool[4]
    %nz = nonzero(%hits) : i64[1, n]
    %ls = shape(%nz) : i64[2]
    %one = const {value = [1]} : i64[]
    %trips = gather(%ls, %one) : i64[]
    %yes = const {value = [true]} : bool[]
    // CHECK: %[[E:[0-9]+]] = const {value = [4]} : i64[]
    // CHECK: %r = loop(%[[E]], %yes, %acc,
    // CHECK-NEXT: (%[[I:[0-9a-z]+]]: i64[],
    // CHECK: reshape(%[[I]]
    %r = loop(%trips, %yes, %acc, %nz, %mask, %x) {carried = 1} : f32[T, 4] regions {
      (%i: i64[], %go: bool[], %o: f32[T, 4], %list: i64[1, n], %m: i64[4, 2, T], %y: f32[T, 4]) -> (%go, %p) {
        %e1 = gather(%list, %i) {axis = 1} : i64[1]
        %nil = const {value = []} : i64[0]
        %e = reshape(%e1, %nil) : i64[]
        %me = gather(%m, %e) : i64[2, T]
        %w = nonzero(%me) : i64[2, a]
        %k = const {value = [1]} : i64[]
        %row = gather(%w, %k) : i64[a]
        %rows = gather(%y, %row) : f32[a, 4]
        %column = dims[a, 1] : i64[2]
        %at = reshape(%row, %column) : i64[a, 1]
        %p = scatter_nd(%o, %at, %rows) {reduction = "add"} : f32[T, 4]
      }
    }
    // the same by comparing
    // CHECK: %s = loop(%{{[0-9]+}}, %yes, %acc,
    %s = loop(%trips, %yes, %acc, %nz, %ids, %x) {carried = 1} : f32[T, 4] regions {
      (%i: i64[], %go: bool[], %o: f32[T, 4], %list: i64[1, n], %m: i64[T, 2], %y: f32[T, 4]) -> (%go, %p) {
        %e = gather(%list, %i) {axis = 1} : i64[1]
        %me = equal(%m, %e) : bool[T, 2]
        %w = nonzero(%me) : i64[2, b]
        %k = const {value = [0]} : i64[]
        %row = gather(%w, %k) : i64[b]
        %rows = gather(%y, %row) : f32[b, 4]
        %column = dims[b, 1] : i64[2]
        %at = reshape(%row, %column) : i64[b, 1]
        %p = scatter_nd(%o, %at, %rows) {reduction = "add"} : f32[T, 4]
      }
    }
    // each round adds something
    // CHECK: %t = loop(%trips, %yes, %acc,
    %t = loop(%trips, %yes, %acc, %nz, %mask, %x) {carried = 1} : f32[T, 4] regions {
      (%i: i64[], %go: bool[], %o: f32[T, 4], %list: i64[1, n], %m: i64[4, 2, T], %y: f32[T, 4]) -> (%go, %p) {
        %e = gather(%list, %i) {axis = 1} : i64[1]
        %f = cast(%e) {to = f32} : f32[1]
        %q = mul(%y, %f) : f32[T, 4]
        %p = add(%o, %q) : f32[T, 4]
      }
    }
  }
}
