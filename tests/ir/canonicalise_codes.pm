// Products with codes are `linear`, whichever way around the model has them; others are left.
// options: --passes=canonicalise,dce
module "m" {
  symbol T in [1, 8]
  entry main(%x: f32[T, 32], %h: f16[T, 32]) -> (a: %a, b: %b, c: %c, d: %d, e: %e) {
    %codes = const {value = splat(56)} : u8[24, 32]
    %blocks = const {value = splat(0.5)} : f32[24, 2]
    %w = dequantize(%codes, %blocks) {k = 32, bits = 8, block = 16, format = "e4m3"}
    // CHECK-DAG: %w = dequantize(%codes, %blocks)
    // CHECK-DAG: %a = linear(%x, %w) : f32[T, 24]
    %turned = transpose(%w) {perm = [1, 0]}
    %a = matmul(%x, %turned)
    // CHECK-DAG: %b = linear(%x, %w) : f32[T, 24]
    %b = matmul(%x, %w) {trans_b = true}
    // rounded for the product: packing keeps the codes
    // CHECK-DAG: %c = linear(%h, %w) : f16[T, 24]
    %half = cast(%turned) {to = f16}
    %c = matmul(%h, %half)
    // one scale for all: the codes are turned
    // CHECK-DAG: %[[TURNED:[0-9]+]] = transpose(%straight) {perm = [1, 0]} : u8[24, 32]
    // CHECK-DAG: %[[W:[0-9]+]] = dequantize(%[[TURNED]], %{{[0-9]+}}) {k = 32, bits = 8, format = "e4m3"} : f32[24, 32]
    // CHECK-DAG: %d = linear(%x, %[[W]]) : f32[T, 24]
    %straight = const {value = splat(57)} : u8[32, 24]
    %one = const {value = splat(0.5)} : f32[32, 1]
    %ws = dequantize(%straight, %one) {k = 24, bits = 8, format = "e4m3"}
    %d = matmul(%x, %ws)
    // scales that differ along k
    // CHECK-DAG: %e = matmul(%x, %wo) : f32[T, 24]
    %other = const {value = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8]} : f32[32]
    %shape = const {value = [32, 1]} : i64[2]
    %rows = reshape(%other, %shape)
    %wo = dequantize(%straight, %rows) {k = 24, bits = 8, format = "e4m3"}
    %e = matmul(%x, %wo)
  }
}
