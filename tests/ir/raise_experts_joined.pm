// The rows of all experts come together, one for each choice, before their weights: written to their places, replaced
// or added; cut from the order of the experts and written back from it; or added up, each times the mask of its own
// choices. Sorted rows may also be added at their tokens.
// options: --passes=raise-experts,dce
module "m" {
  symbol T in [0, inf]
  symbol n dynamic in [0, inf] <= 2*T
  symbol n_1 dynamic in [0, inf] <= 2*T
  symbol n_2 dynamic in [0, inf] <= 2*T
  symbol c dynamic in [0, inf] <= 2*T
  symbol c_1 dynamic in [0, inf] <= 2*T
  entry main(%x: f32[T, 3], %scores: f32[T, 3]) -> (a: %a, b: %b, c: %c, d: %d, e: %e, f: %f) {
    %k = const {value = [2]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %w0 = const {value = [0.5, 1, 2, 0.25, -1, 3, 1, 1, 4]} : f32[3, 3]
    %w1 = const {value = [2, 0.5, -1, 1, 0.75, 0.25, 3, -2, 1]} : f32[3, 3]
    %w2 = const {value = [-1, 2, 0.5, 0.5, 0.5, 2, 1, -3, 1]} : f32[3, 3]
    %bias = const {value = [0.5, 0.25, 0.125]} : f32[3]
    %choices = dims [2*T] : i64[1]
    %flat = reshape(%idx, %choices)
    %apart = dims [T, 1, 3] : i64[3]
    %three = dims [T, 2, 3] : i64[3]
    %two = dims [2*T, 3] : i64[2]
    %share_s = dims [T, 2, 1] : i64[3]
    %share = reshape(%w, %share_s)
    %x1 = reshape(%x, %apart)
    %x2 = expand(%x1, %three)
    %xs = reshape(%x2, %two)
    %e0 = const {value = [0]} : i64[]
    %e1 = const {value = [1]} : i64[]
    %e2 = const {value = [2]} : i64[]
    %hit0 = equal(%flat, %e0)
    %hit1 = equal(%flat, %e1)
    %hit2 = equal(%flat, %e2)
    %p0 = nonzero(%hit0) : i64[1, n]
    %p1 = nonzero(%hit1) : i64[1, n_1]
    %p2 = nonzero(%hit2) : i64[1, n_2]
    %at0 = transpose(%p0) {perm = [1, 0]}
    %at1 = transpose(%p1) {perm = [1, 0]}
    %at2 = transpose(%p2) {perm = [1, 0]}
    %r0 = gather_nd(%xs, %at0)
    %r1 = gather_nd(%xs, %at1)
    %r2 = gather_nd(%xs, %at2)
    %y0 = linear(%r0, %w0)
    %y1 = linear(%r1, %w1)
    %y2 = linear(%r2, %w2)
    // CHECK: %a = experts(%{{.*}}, {{.*}}) {experts = 3, top_k = 2, name = "layers.0"}
    // CHECK: linear(%rows, %{{.*}})
    %a0 = scatter_nd(%xs, %at1, %y1)
    %a1 = scatter_nd(%a0, %at0, %y0)
    %a2 = scatter_nd(%a1, %at2, %y2)
    %a3 = add(%a2, %bias)
    %a4 = reshape(%a3, %three)
    %a5 = mul(%a4, %share)
    %a = reduce_sum(%a5) {axes = [1], keepdims = false}
    // CHECK: %b = experts(%{{.*}}, {{.*}}) {experts = 3, top_k = 2, name = "layers.1"}
    %zero = const {value = [0]} : f32[]
    %zeros = expand(%zero, %two)
    %wide0 = dims [n, 3] : i64[2]
    %wide1 = dims [n_1, 3] : i64[2]
    %wide2 = dims [n_2, 3] : i64[2]
    %spread0 = expand(%at0, %wide0)
    %spread1 = expand(%at1, %wide1)
    %spread2 = expand(%at2, %wide2)
    %b0 = scatter_elements(%zeros, %spread0, %y0) {axis = 0, reduction = "add"}
    %b1 = scatter_elements(%b0, %spread1, %y1) {axis = 0}
    %b2 = scatter_elements(%b1, %spread2, %y2) {axis = 0, reduction = "add"}
    %b3 = silu(%b2)
    %b4 = reshape(%b3, %three)
    %b5 = mul(%b4, %share)
    %b = reduce_sum(%b5) {axes = [1], keepdims = false}
    // CHECK: %c = experts(%{{.*}}, {{.*}}) {experts = 3, top_k = 2, name = "layers.2"}
    %in_order, %perm = topk(%flat, %choices) {largest = false}
    %counts0 = const {value = [0, 0, 0]} : i64[3]
    %one = const {value = [1]} : i64[]
    %ones = expand(%one, %choices)
    %counts = scatter_elements(%counts0, %flat, %ones) {axis = 0, reduction = "add"}
    %sorted = gather(%xs, %perm)
    %s0, %s1, %s2 = split(%sorted, %counts) {axis = 0} : f32[c, 3], f32[c_1, 3], f32[2*T - c - c_1, 3]
    %z0 = linear(%s0, %w0)
    %z1 = linear(%s1, %w1)
    %z2 = linear(%s2, %w2)
    %z = concat(%z0, %z1, %z2) {axis = 0} : f32[2*T, 3]
    %column_s = dims [2*T, 1] : i64[2]
    %column = reshape(%perm, %column_s)
    %c0 = scatter_nd(%xs, %column, %z)
    %c1 = reshape(%c0, %three)
    %c2 = mul(%c1, %share)
    %c = reduce_sum(%c2) {axes = [1], keepdims = false}
    // CHECK: %d = experts(%{{.*}}, {{.*}}) {experts = 3, top_k = 2, name = "layers.3"}
    %v0 = linear(%xs, %w0)
    %v1 = linear(%xs, %w1)
    %v2 = linear(%xs, %w2)
    %hit_column0 = reshape(%hit0, %column_s)
    %hit_column1 = reshape(%hit1, %column_s)
    %hit_column2 = reshape(%hit2, %column_s)
    %m0 = cast(%hit_column0) {to = f32}
    %m1 = cast(%hit_column1) {to = f32}
    %d0 = mul(%v0, %m0)
    %d1 = mul(%m1, %v1)
    %d2 = where(%hit_column2, %v2, %zero)
    %d3 = add(%d0, %zeros)
    %d4 = add(%d1, %d3)
    %d5 = add(%d2, %d4)
    %d6 = add(%d5, %bias)
    %d7 = reshape(%d6, %three)
    %d8 = mul(%d7, %share)
    %d = reduce_sum(%d8) {axes = [1], keepdims = false}
    // CHECK: experts(%{{.*}}, {{.*}}) {experts = 3, top_k = 2, name = "layers.4"}
    // CHECK: %e = add(
    %by_choice = reshape(%w, %column_s)
    %weights = gather(%by_choice, %perm)
    %e3 = mul(%z, %weights)
    %slow = const {value = [2]} : i64[]
    %token = div(%perm, %slow)
    %token_column = reshape(%token, %column_s)
    %token_wide = expand(%token_column, %two)
    %e = scatter_elements(%x, %token_wide, %e3) {axis = 0, reduction = "add"}
    // CHECK: %f = experts(%{{.*}}, {{.*}}) {experts = 3, top_k = 2, name = "layers.5"}
    %zero_i = const {value = [0]} : i64[]
    %none = const {value = []} : i64[0]
    %end = reshape(%choices, %none)
    %numbers = range(%zero_i, %end, %one)
    %of_token = div(%numbers, %slow)
    %repeated = gather(%x, %of_token)
    %f0 = linear(%repeated, %w0)
    %f1 = linear(%repeated, %w1)
    %f2 = linear(%repeated, %w2)
    %f3 = where(%hit_column0, %f0, %zero)
    %f4 = where(%hit_column1, %f1, %zero)
    %f5 = where(%hit_column2, %f2, %zero)
    %f6 = add(%f3, %f4)
    %f7 = add(%f6, %f5)
    %f8 = reshape(%f7, %three)
    %f9 = mul(%f8, %share)
    %f = reduce_sum(%f9) {axes = [1], keepdims = false}
    // CHECK-NOT: scatter
    // CHECK-NOT: topk
  }
}
