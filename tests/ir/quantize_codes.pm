// Codes of few bits: a device multiplies them in bf16 by rounding both factors; the host has nothing for that.
// options: --devices=cpu0,emu0 --passes=assign-devices,quantize,layout,dce --quantize=bf16
module "m" {
  symbol B in [1, 8]
  entry main(%x: f32[B, 8]) -> (y: %y) {
    %codes = const {value = splat(33)} : u8[4, 4]
    %scales = const {value = [1, 2, 3, 4]} : f32[4, 1]
    %w = dequantize(%codes, %scales) {k = 8}
    // CHECK: %[[X:[0-9]+]] = cast(%x) {to = bf16} on emu0
    // CHECK: linear(%[[X]], %w) {compute = bf16} on emu0 : f32[B, 4]
    %y = linear(%x, %w)
  }
}
