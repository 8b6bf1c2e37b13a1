// What changes nothing goes; what only looks like that stays.
// options: --passes=canonicalise,dce
module "m" {
  symbol B in [1, 8]
  entry main(%x: f32[B, 4], %i: i32[B, 4], %p: bool[B, 4], %h: f16[B]) -> (a: %a, b: %b, c: %c, d: %d, e: %e, f: %f, g: %g, h: %k, n: %n2, s: %s, i: %i2, j: %j, l: %l, m: %m2) {
    %zero = const {value = [0]} : f32[]
    %minus_zero = const {value = [-0]} : f32[]
    %one = const {value = [1]} : f32[]
    %zero_i = const {value = [0]} : i32[]
    %two = const {value = [2]} : f32[]
    // x * 1, 1 * x, x / 1, x - 0, x + -0 are x
    // CHECK-NOT: mul(%x, %one)
    // CHECK: %a = neg(%x)
    %a1 = mul(%x, %one)
    %a2 = div(%a1, %one)
    %a3 = sub(%a2, %zero)
    %a4 = add(%a3, %minus_zero)
    %a = neg(%a4)
    // x + 0 turns -0 into 0, x - -0 and 0 - x too; x * 0 may be NaN
    // CHECK: %b = add(%x, %zero)
    %b = add(%zero, %x)
    // CHECK: %c = sub(%x, %minus_zero)
    %c = sub(%x, %minus_zero)
    // CHECK: %d = mul(%x, %zero)
    %d = mul(%x, %zero)
    // integers have one zero
    // CHECK: %e = neg(%i)
    %e1 = add(%i, %zero_i)
    %e = neg(%e1)
    // CHECK: %f2 = abs(%x)
    %f1 = neg(%x)
    %f2 = abs(%f1)
    %f = abs(%f2)
    // CHECK: %g = where(%p, %two, %x)
    %g1 = not(%p)
    %g = where(%g1, %x, %two)
    // f16 fits into f32, not the other way round
    // CHECK: %k = neg(%h)
    %k1 = cast(%h) {to = f32}
    %k2 = cast(%k1) {to = f16}
    %k = neg(%k2)
    // CHECK: %n1 = cast(%x) {to = f16}
    // CHECK: %n2 = cast(%n1) {to = f32}
    %n1 = cast(%x) {to = f16}
    %n2 = cast(%n1) {to = f32}
    // both ways twice
    // CHECK: %s = exp(%x)
    %s1 = neg(%x)
    %s2 = neg(%s1)
    %s = exp(%s2)
    // constants stand on the right, but not of float min: 0 and -0
    // CHECK: %i2 = mul(%x, %two)
    %i2 = mul(%two, %x)
    // CHECK: %j = min(%zero, %x)
    %j = min(%zero, %x)
    // CHECK: %l = not(%p)
    %l1 = and(%p, %p)
    %l = not(%l1)
    // CHECK: %m1 = relu(%x)
    // CHECK-NOT: relu
    %m1 = relu(%x)
    %m2 = relu(%m1)
  }
}
