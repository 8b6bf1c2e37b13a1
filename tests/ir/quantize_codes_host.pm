// The host multiplies codes of few bits in f32, whatever is asked for.
// options: --passes=quantize,layout,dce --quantize=bf16
module "m" {
  symbol B in [1, 8]
  entry main(%x: f32[B, 8]) -> (y: %y) {
    %codes = const {value = splat(33)} : u8[4, 4]
    %scales = const {value = [1, 2, 3, 4]} : f32[4, 1]
    %w = dequantize(%codes, %scales) {k = 8}
    // CHECK-NOT: bf16
    // CHECK: %y = linear(%x,
    %y = linear(%x, %w)
  }
}
