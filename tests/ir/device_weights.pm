// Beside the host weights stay row by row, as stored where they are; codes of few bits are read where they lie, behind a
// `dequantize` that has no place. Groups are of loops alone, and of one device.
// options: --devices=cpu0,emu0 --passes=assign-devices,quantize,layout,dce,transfers,fuse,dce,plan-memory
module "m" {
  symbol B in [1, 8]
  entry main(%x: f32[B, 8], %e: i32[3], %n: f16[B, 8]) -> (y: %y, u: %u, q: %q, g: %g, o: %o) {
    %w = const {value = splat(0.5)} : f16[4, 8]
    %wide = cast(%w) {to = f32}
    // CHECK: linear(%[[X:[0-9]+]], %w) on emu0 : f32[B, 4] @ arena
    %y = linear(%x, %wide)
    %v = const {value = splat(0.25)} : f32[8, 4]
    %t = transpose(%v) {perm = [1, 0]}
    // CHECK: %[[ROWS:[0-9]+]] = pack(%v) {panel = 1, trans = true} : f32[4, 8] @ weight(0)
    // CHECK: linear(%[[X]], %[[ROWS]]) on emu0
    %a = linear(%x, %t)
    // CHECK: fused(%{{.*}}) on emu0 : f32[B, 4]
    %b = relu(%a)
    %u = neg(%b)
    // CHECK: %codes = const {{.*}} : u8[4, 4] @ weight(0)
    %codes = const {value = splat(33)} : u8[4, 4]
    // CHECK: %scales = const {{.*}} : f32[4, 1] @ weight(0)
    %scales = const {value = [1, 2, 3, 4]} : f32[4, 1]
    // CHECK: %deq = dequantize(%codes, %scales) {k = 8} : f32[4, 8] loc
    %deq = dequantize(%codes, %scales) {k = 8}
    // CHECK: linear(%[[X]], %deq) on emu0
    %q = linear(%x, %deq)
    %p = const {value = splat(0.5)} : f32[8, 4]
    %r = const {value = splat(0.75)} : f32[8, 4]
    %offsets = cast(%e) {to = i32}
    // CHECK: %s = stack(%p, %r) : f32[2, 8, 4] loc
    %s = stack(%p, %r)
    %st = transpose(%s) {perm = [0, 2, 1]}
    // CHECK: %[[EXPERTS:[0-9]+]] = pack(%s) {panel = 1, trans = true} : f32[2, 4, 8] @ weight(0)
    // CHECK: grouped_linear(%[[X]], %[[EXPERTS]], %{{.*}}) on emu0
    %g = grouped_linear(%x, %st, %offsets)
    // factors that were widened to f32 are multiplied as they were
    // CHECK: %[[HALF:[0-9]+]] = pack(%v16) {panel = 1, elem = f16, trans = true} : f16[4, 8]
    // CHECK: linear(%{{[0-9]+}}, %[[HALF]]) {compute = f16} on emu0 : f32[B, 4]
    %v16 = const {value = splat(0.25)} : f16[8, 4]
    %turned = transpose(%v16) {perm = [1, 0]}
    %widened = cast(%n) {to = f32}
    %o = linear(%widened, %turned)
  }
}
