// Ops of constants are computed; views of constants are constants; what repeats a number stays.
// options: --passes=fold,dce
module "m" {
  symbol B in [1, 8]
  entry main(%x: f32[B, 4], %k: i64[B]) -> (a: %a, b: %b, c: %c, d: %d, e: %e, f: %f, g: %g, h: %h) {
    %two = const {value = [2, 3, 4, 5]} : f32[4]
    %half = const {value = [0.5]} : f32[]
    // CHECK: %a1 = const {value = [2.5, 3.5, 4.5, 5.5]} : f32[4]
    // CHECK: %a = add(%x, %a1)
    %a1 = add(%two, %half)
    %a = add(%x, %a1)
    // a chain goes in one run
    // CHECK: const {value = [-2.5]} : f32[]
    // CHECK: %b = mul(%x
    %axis = cast(%half) {to = f32}
    %b1 = reduce_max(%two) {axes = [0], keepdims = false}
    %b2 = mul(%b1, %axis)
    %b3 = neg(%b2)
    %b = mul(%x, %b3)
    // parts of a constant
    // CHECK: const {value = [4, 5]} : f32[2, 1]
    %c0, %c1 = split(%two) : f32[2], f32[2]
    %s = const {value = [2, 1]} : i64[2]
    %c2 = reshape(%c1, %s)
    %w = const {value = [1, 1, 1, 1, 2, 2, 2, 2]} : f32[2, 4]
    %c = linear(%x, %w)
    %d = matmul(%c, %c2)
    // an index out of range is refused when it runs, not here
    // CHECK: %e = gather(%two, %{{.*}})
    %nine = const {value = [9]} : i64[]
    %e = gather(%two, %nine)
    // CHECK: %{{.*}} = expand(%half, %{{.*}}) : f32[100, 4]
    // CHECK: %g = const {value = splat(1.5)} : f32[100, 4]
    %wide = const {value = [100, 4]} : i64[2]
    %f = expand(%half, %wide)
    %one = const {value = [1]} : f32[]
    %g = add(%f, %one)
    // a matrix that a product reads turned stays: packing turns it
    // CHECK: %{{.*}} = transpose(%{{.*}}) {perm = [1, 0]}
    // CHECK: %h = linear(
    %turned = const {value = [1, 1, 1, 1, 2, 2, 2, 2]} : f32[4, 2]
    %w2 = transpose(%turned) {perm = [1, 0]}
    %h = linear(%x, %w2)
  }
}
