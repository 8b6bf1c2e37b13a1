// What nobody uses goes, in regions as well; what finds an extent that others mention stays.
// options: --passes=dce
module "m" {
  symbol B in [1, 8]
  symbol n dynamic in [0, 32] <= 4*B
  symbol k dynamic in [0, 32] <= 4*B
  entry main(%x: f32[B, 4], %c: bool[]) -> (y: %y, z: %z) {
    // CHECK-NOT: exp
    // CHECK-NOT: neg
    %a = exp(%x)
    %b = neg(%a)
    // CHECK: nonzero(%x) : i64[2, n]
    // CHECK-NOT: nonzero
    %found = nonzero(%x) : i64[2, n]
    %lost = nonzero(%x) : i64[2, k]
    %shape = dims [n, 2] : i64[2]
    %one = const {value = [1]} : f32[]
    // CHECK: %y = fill
    %y = fill(%shape, %one) : f32[n, 2]
    // CHECK: = if(
    // CHECK-NOT: tanh
    // CHECK: abs
    %z = if(%c, %x) : f32[B, 4] regions {
      (%v: f32[B, 4]) -> (%r) {
        %unused = tanh(%v)
        %r = abs(%v)
      }
      (%v: f32[B, 4]) -> (%v) {
      }
    }
  }
}
