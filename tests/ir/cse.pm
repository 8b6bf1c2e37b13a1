// What is computed twice is computed once, in regions as well; what only looks alike is not.
// options: --passes=cse
module "m" {
  symbol B in [1, 8]
  symbol n dynamic in [0, 32] <= 4*B
  symbol k dynamic in [0, 32] <= 4*B
  entry main(%x: f32[B, 4], %y: f32[B, 4], %c: bool[]) -> (a: %a, b: %b, c: %m, d: %n1, e: %n2, f: %i) {
    // CHECK: %one = const
    // CHECK-NOT: %uno
    %one = const {value = [1, 1, 1, 1]} : f32[4]
    %uno = const {value = [1, 1, 1, 1]} : f32[4]
    // of another type
    // CHECK: %row = const
    %row = const {value = [1, 1, 1, 1]} : f32[1, 4]
    // CHECK: %p = add(%x, %y)
    // CHECK-NOT: add(%y, %x)
    %p = add(%x, %y)
    %q = add(%y, %x)
    // CHECK: %s = mul(%p, %one)
    %s = mul(%p, %one)
    %t = mul(%q, %uno)
    // CHECK-NEXT: %u = mul(%p, %row)
    %u = mul(%q, %row)
    // CHECK-NEXT: %a = sub(%s, %s)
    %a = sub(%s, %t)
    // not of floats: 0 and -0
    // CHECK: min(%x, %y)
    // CHECK: min(%y, %x)
    %m1 = min(%x, %y)
    %m2 = min(%y, %x)
    %m = sub(%m1, %m2)
    // other attributes
    // CHECK: softmax(%u) {axis = 1}
    // CHECK: softmax(%u) {axis = 0}
    %b1 = softmax(%u) {axis = 1}
    %b2 = softmax(%u) {axis = 0}
    %b = sub(%b1, %b2)
    // each finds an extent of its own
    // CHECK-COUNT-2: = nonzero(%x)
    %n1 = nonzero(%x) : i64[2, n]
    %n2 = nonzero(%x) : i64[2, k]
    // CHECK: = if(%c, %x)
    // CHECK: %e1 = exp
    // CHECK-NOT: %e2
    // CHECK: add(%e1, %e1)
    %i = if(%c, %x) : f32[B, 4] regions {
      (%z: f32[B, 4]) -> (%r) {
        %e1 = exp(%z)
        %e2 = exp(%z)
        %r = add(%e1, %e2)
      }
      (%z: f32[B, 4]) -> (%r) {
        %r = neg(%z)
      }
    }
  }
}
