// Products of the same rows on a device come together, with the weights they need.
// options: --devices=cpu0,emu0 --passes=assign-devices,layout,dce,siblings
module "m" {
  symbol B in [1, 8]
  entry main(%x: f32[B, 4], %v: f32[2, 4], %late: i32[3]) -> (o: %o, r: %r, g: %g, h: %h) {
    // CHECK: entry main
    // CHECK: %q = linear(%x, %wq) on emu0
    // CHECK-NEXT: %wk = const
    // CHECK-NEXT: %k = linear(%x, %wk) on emu0
    // CHECK-NEXT: %scales = const
    // CHECK-NEXT: %codes = const
    // CHECK-NEXT: %deq = dequantize(%codes, %scales)
    // CHECK-NEXT: %c = linear(%x, %deq) on emu0
    // CHECK-NEXT: %n = neg(%q)
    %wq = const {value = [1, 2, 3, 4, 5, 6, 7, 8]} : f32[2, 4]
    %q = linear(%x, %wq)
    %n = neg(%q)
    %wk = const {value = [1, 2, 3, 4]} : f32[1, 4]
    %codes = const {value = splat(33)} : u8[4, 2]
    %k = linear(%x, %wk)
    %m = mul(%n, %k)
    %scales = const {value = [1, 2, 3, 4]} : f32[4, 1]
    %deq = dequantize(%codes, %scales) {k = 4}
    %c = linear(%x, %deq)
    // a weight that is computed is not there earlier, nor are other rows the same
    // CHECK: %w = neg(%v)
    // CHECK: %r = linear(%x, %w)
    // CHECK: %y = linear(%n4, %wq)
    %w = neg(%v)
    %r = linear(%x, %w)
    %n4 = concat(%m, %n) {axis = 1}
    %y = linear(%n4, %wq)
    %sum = add(%c, %n4)
    %o = concat(%sum, %y) {axis = 1}
    // of experts: those of the same offsets
    // CHECK: %g = grouped_linear(%x, %e, %offsets) on emu0
    // CHECK-NEXT: %up = grouped_linear(%x, %e, %offsets) on emu0
    // CHECK-NEXT: %shifted
    // CHECK: %other = cast(%shifted)
    // CHECK-NEXT: grouped_linear(%x, %e, %other) on emu0
    %offsets = cast(%late) {to = i32}
    %e = const {value = splat(0.5)} : f32[2, 4, 4]
    %g = grouped_linear(%x, %e, %offsets)
    %up = grouped_linear(%x, %e, %offsets)
    %shifted = neg(%late)
    %other = cast(%shifted) {to = i32}
    %p = grouped_linear(%x, %e, %other)
    %h = add(%up, %p)
  }
}
