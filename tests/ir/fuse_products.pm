// Epilogues join their product; gate and up share one pack of two sources.
// options: --passes=shapes,layout,fuse,dce
module "m" {
  symbol M in [1, 64]
  entry main(%x: f32[M, 4], %r: f32[M, 40]) -> (y: %y) {
    %g = const {value = splat(0.5)} : f32[40, 4]
    %u = const {value = splat(0.25)} : f32[40, 4]
    // CHECK: %[[W:[0-9]+]] = pack(%g, %u) {{.*}} : f32[80, 4]{panel=64, pair=1, ways=2}
    // CHECK: %y = fused(%x, %[[W]], %r) {kind = "linear"} : f32[M, 40]
    // CHECK: %gate = linear(%x, %{{[0-9]+}}) : f32[M, 40]
    // CHECK: %up = linear(%x, %{{[0-9]+}}) {source = 1} : f32[M, 40]
    // CHECK: silu(%gate)
    // CHECK: mul(
    // CHECK: add(
    %gate = linear(%x, %g)
    %up = linear(%x, %u)
    %s = silu(%gate)
    %h = mul(%s, %up)
    %y = add(%h, %r)
  }
}
