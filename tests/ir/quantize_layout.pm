// Products in bf16: one cast for all that read a value, weights packed in pairs.
// options: --passes=quantize,layout,dce --quantize=bf16
module "m" {
  symbol B in [1, 8]
  entry main(%x: f32[B, 4]) -> (y: %y, z: %z) {
    // CHECK: %[[X:[0-9]+]] = cast(%x) {to = bf16}
    // CHECK-NOT: cast(
    // CHECK: %[[W:[0-9]+]] = pack(%w) {panel = 16, pair = 2, elem = bf16} : bf16[2, 4]{panel=16, pair=2, ways=1}
    // CHECK: %y = linear(%[[X]], %[[W]]) {compute = bf16} : f32[B, 2]
    %w = const {value = [1, 2, 3, 4, 5, 6, 7, 8]} : f32[2, 4]
    %y = linear(%x, %w)
    // CHECK: pack(%v) {panel = 64, pair = 2, elem = bf16, trans = true}
    // CHECK: %z = linear(%[[X]], %{{[0-9]+}}) {compute = bf16} : f32[B, 40]
    %v = const {value = splat(0.25)} : f32[4, 40]
    %u = transpose(%v) {perm = [1, 0]}
    %z = linear(%x, %u)
  }
  // attention keeps its operands: devices round them where there are units for it
  entry attend(%q: f32[1, 3, 8], %k: f32[1, 5, 8]) -> (y: %y) {
    // CHECK: %y = sdpa(%q, %k, %k) {heads = 2, kv_heads = 2, scale = 1, compute = bf16} : f32[1, 3, 8]
    %y = sdpa(%q, %k, %k) {heads = 2, kv_heads = 2, scale = 1.0}
  }
  // a cast that comes later is not one that the product could read
  entry early(%x: f32[B, 4]) -> (y: %y, c: %c) {
    // CHECK: %[[OWN:[0-9]+]] = cast(%x) {to = bf16}
    // CHECK: %y = linear(%[[OWN]],
    // CHECK: %c = cast(%x) {to = bf16}
    %w = const {value = [1, 2, 3, 4, 5, 6, 7, 8]} : f32[2, 4]
    %y = linear(%x, %w)
    %c = cast(%x) {to = bf16}
  }
}
