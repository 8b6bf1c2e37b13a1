// What looks like the rows of all experts that come together, and isn't: rows at another expert's places, or at their
// tokens in a table of choices; an accumulator that isn't zeros; one mask for two, an expert twice,
// ones where an expert isn't chosen, a mask along an axis of the row; pieces in another order; rows that replace one
// another at their tokens.
// options: --passes=raise-experts,dce
// CHECK-NOT: experts(
module "m" {
  symbol T in [0, inf]
  symbol n dynamic in [0, inf] <= 2*T
  symbol n_1 dynamic in [0, inf] <= 2*T
  symbol c dynamic in [0, inf] <= 2*T
  entry main(%x: f32[T, 3], %scores: f32[T, 2]) -> (a: %a, b: %b, c: %c, d: %d, e: %e, f: %f, g: %g, h: %h, i: %i) {
    %k = const {value = [2]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %w0 = const {value = [0.5, 1, 2, 0.25, -1, 3, 1, 1, 4]} : f32[3, 3]
    %w1 = const {value = [2, 0.5, -1, 1, 0.75, 0.25, 3, -2, 1]} : f32[3, 3]
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
    %hit0 = equal(%flat, %e0)
    %hit1 = equal(%flat, %e1)
    %p0 = nonzero(%hit0) : i64[1, n]
    %p1 = nonzero(%hit1) : i64[1, n_1]
    %at0 = transpose(%p0) {perm = [1, 0]}
    %at1 = transpose(%p1) {perm = [1, 0]}
    %r0 = gather_nd(%xs, %at0)
    %r1 = gather_nd(%xs, %at1)
    %y0 = linear(%r0, %w0)
    %y1 = linear(%r1, %w1)
    // both experts' rows of the first's tokens
    %y1_0 = linear(%r0, %w1)
    %zero = const {value = [0]} : f32[]
    %zeros = expand(%zero, %two)
    %a0 = scatter_nd(%zeros, %at0, %y0) {reduction = "add"}
    %a1 = scatter_nd(%a0, %at0, %y1_0) {reduction = "add"}
    %a2 = reshape(%a1, %three)
    %a3 = mul(%a2, %share)
    %a = reduce_sum(%a3) {axes = [1], keepdims = false}
    // an accumulator of something
    %b0 = scatter_nd(%xs, %at0, %y0) {reduction = "add"}
    %b1 = scatter_nd(%b0, %at1, %y1) {reduction = "add"}
    %b2 = reshape(%b1, %three)
    %b3 = mul(%b2, %share)
    %b = reduce_sum(%b3) {axes = [1], keepdims = false}
    // at the numbers of tokens, of a table of choices
    %slow = const {value = [2]} : i64[]
    %t0 = div(%at0, %slow)
    %t1 = div(%at1, %slow)
    %c0 = scatter_nd(%zeros, %t0, %y0) {reduction = "add"}
    %c1 = scatter_nd(%c0, %t1, %y1) {reduction = "add"}
    %c2 = reshape(%c1, %three)
    %c3 = mul(%c2, %share)
    %c = reduce_sum(%c3) {axes = [1], keepdims = false}
    // both of the first's choices; the first's rows twice
    %column_s = dims [2*T, 1] : i64[2]
    %column0 = reshape(%hit0, %column_s)
    %column1 = reshape(%hit1, %column_s)
    %v0 = linear(%xs, %w0)
    %v1 = linear(%xs, %w1)
    %d0 = where(%column0, %v0, %zero)
    %d1 = where(%column0, %v1, %zero)
    %d2 = add(%d0, %d1)
    %d3 = reshape(%d2, %three)
    %d4 = mul(%d3, %share)
    %d = reduce_sum(%d4) {axes = [1], keepdims = false}
    %e2 = where(%column1, %v1, %zero)
    %e3 = add(%d0, %e2)
    %e4 = add(%e3, %d0)
    %e5 = reshape(%e4, %three)
    %e6 = mul(%e5, %share)
    %e = reduce_sum(%e6) {axes = [1], keepdims = false}
    // where an expert isn't chosen: one, not zero
    %one_f = const {value = [1]} : f32[]
    %f0 = where(%column0, %v0, %one_f)
    %f1 = where(%column1, %v1, %zero)
    %f2 = add(%f0, %f1)
    %f3 = reshape(%f2, %three)
    %f4 = mul(%f3, %share)
    %f = reduce_sum(%f4) {axes = [1], keepdims = false}
    // halves of a row, of which each choice takes its own
    %w6 = const {value = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]} : f32[6, 3]
    %w7 = const {value = [1, 0, 3, 0, 5, 0, 7, 0, 9, 0, 2, 0, 4, 0, 6, 0, 8, 0]} : f32[6, 3]
    %u0 = linear(%x, %w6)
    %u1 = linear(%x, %w7)
    %h0 = reshape(%u0, %three)
    %h1 = reshape(%u1, %three)
    %mask0 = reshape(%hit0, %share_s)
    %mask1 = reshape(%hit1, %share_s)
    %g0 = where(%mask0, %h0, %zero)
    %g1 = where(%mask1, %h1, %zero)
    %g2 = add(%g0, %g1)
    %g3 = mul(%g2, %share)
    %g = reduce_sum(%g3) {axes = [1], keepdims = false}
    // sorted rows, put back in the order of the experts
    %in_order, %perm = topk(%flat, %choices) {largest = false}
    %counts0 = const {value = [0, 0]} : i64[2]
    %one = const {value = [1]} : i64[]
    %ones = expand(%one, %choices)
    %counts = scatter_elements(%counts0, %flat, %ones) {axis = 0, reduction = "add"}
    %sorted = gather(%xs, %perm)
    %s0, %s1 = split(%sorted, %counts) {axis = 0} : f32[c, 3], f32[2*T - c, 3]
    %z0 = linear(%s0, %w0)
    %z1 = linear(%s1, %w1)
    %back = concat(%z1, %z0) {axis = 0}
    %column = reshape(%perm, %column_s)
    %i0 = scatter_nd(%zeros, %column, %back)
    %i1 = reshape(%i0, %three)
    %i2 = mul(%i1, %share)
    %h = reduce_sum(%i2) {axes = [1], keepdims = false}
    // sorted rows that replace one another at their tokens
    %by_choice = reshape(%w, %column_s)
    %weights = gather(%by_choice, %perm)
    %front = concat(%z0, %z1) {axis = 0}
    %weighed = mul(%front, %weights)
    %token = div(%perm, %slow)
    %token_column = reshape(%token, %column_s)
    %wide = dims [T, 3] : i64[2]
    %none = expand(%zero, %wide)
    %i = scatter_nd(%none, %token_column, %weighed)
  }
}
