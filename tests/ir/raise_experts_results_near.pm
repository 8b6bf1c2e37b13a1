// What looks like each choice's pick of its expert's result, and isn't: the next expert, the tokens from behind, a row
// of experts and tokens that is read as tokens and experts.
// options: --passes=raise-experts
// CHECK-NOT: experts(
module "m" {
  symbol T in [0, inf]
  entry main(%x: f32[T, 4], %scores: f32[T, 3]) -> (a: %a, b: %b, c: %c) {
    %k = const {value = [2]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %s = dims [T, 2, 1] : i64[3]
    %share = reshape(%w, %s)
    %ids = reshape(%idx, %s)
    %w0 = const {value = splat(0.5)} : f32[4, 4]
    %w1 = const {value = splat(0.25)} : f32[4, 4]
    %w2 = const {value = splat(0.125)} : f32[4, 4]
    %y0 = linear(%x, %w0)
    %y1 = linear(%x, %w1)
    %y2 = linear(%x, %w2)
    %s1 = dims [T, 1, 4] : i64[3]
    %r0 = reshape(%y0, %s1)
    %r1 = reshape(%y1, %s1)
    %r2 = reshape(%y2, %s1)
    %stack = concat(%r0, %r1, %r2) {axis = 1}
    %wall = stack(%w0, %w1, %w2)
    %s2 = dims [1, T, 4] : i64[3]
    %xs = reshape(%x, %s2)
    %batched = matmul(%xs, %wall)
    %zero = const {value = [0]} : i64[]
    %one = const {value = [1]} : i64[]
    %none = const {value = []} : i64[0]
    %t = dims [T] : i64[1]
    %n = reshape(%t, %none)
    %numbers = range(%zero, %n, %one)
    %s3 = dims [T, 1] : i64[2]
    %column = reshape(%numbers, %s3)
    %s4 = dims [T, 2] : i64[2]
    %wide = expand(%column, %s4)
    %token = reshape(%wide, %s)
    %s5 = dims [T, 2, 4] : i64[3]
    %three = const {value = [3]} : i64[]
    %more = add(%ids, %one)
    %next = mod(%more, %three)
    %spread = expand(%next, %s5)
    %picked_a = gather_elements(%stack, %spread) {axis = 1}
    %az = mul(%picked_a, %share)
    %a = reduce_sum(%az) {axes = [1], keepdims = false}
    %last = sub(%t, %one)
    %behind = sub(%last, %token)
    %places = concat(%behind, %ids) {axis = 2}
    %picked_b = gather_nd(%stack, %places)
    %bz = mul(%picked_b, %share)
    %b = reduce_sum(%bz) {axes = [1], keepdims = false}
    %before = mul(%column, %three)
    %at = add(%before, %idx)
    %s6 = dims [3*T, 4] : i64[2]
    %flat = reshape(%batched, %s6)
    %picked_c = gather(%flat, %at)
    %cz = mul(%picked_c, %share)
    %c = reduce_sum(%cz) {axes = [1], keepdims = false}
  }
}
