// Weights of few bits are packed as they are: never folded, of all experts at once; views are seen through.
// options: --passes=lower-experts,fold,cse,layout,fuse,dce
module "m" {
  symbol T in [1, 8]
  symbol n dynamic in [0, 16] <= 2*T
  entry main(%x: f32[T, 32], %s: f32[T, 3]) -> (y: %y, z: %z, f: %f) {
    // CHECK-DAG: %[[CODES:[0-9]+]] = dequantize(%codes, %scales) {k = 32, block = 16} : f32[3, 8, 32]
    // CHECK-DAG: pack(%[[CODES]]) {panel = 16, group = "codes", bits = 4, block = 16, scale = 1} : f32[3, 8, 32]{panel=16, pair=1, ways=1, bits=4, block=16, scale=1, zero=0, floats=0}
    // CHECK-DAG: grouped_linear(
    %codes = const {value = splat(19)} : u8[3, 8, 16]
    %scales = const {value = splat(0.5)} : f16[3, 8, 2]
    %i, %v = route(%s) {top_k = 2}
    %y = experts(%x, %i, %v, %codes, %scales) {experts = 3, top_k = 2} regions {
      (%rows: f32[n, 32], %c: u8[8, 16], %f: f16[8, 2]) -> (%o) {
        %w = dequantize(%c, %f) {k = 32, block = 16}
        %o = linear(%rows, %w)
      }
    }
    // floats of 8 bits
    // CHECK-DAG: %fw = dequantize(%floats, %blocks) {k = 32, bits = 8, block = 16, format = "e4m3"} : f32[24, 32]
    // CHECK-DAG: pack(%fw) {panel = 32, bits = 8, block = 16, scale = 2, floats = 1} : f32[24, 32]{panel=32, pair=1, ways=1, bits=8, block=16, scale=2, zero=0, floats=1}
    %floats = const {value = splat(56)} : u8[24, 32]
    %blocks = const {value = splat(0.5)} : bf16[24, 2]
    %fw = dequantize(%floats, %blocks) {k = 32, bits = 8, block = 16, format = "e4m3"}
    %f = linear(%x, %fw)
    // a slice of every second row stays one: too large to be copied
    // CHECK: %view = slice(%large, {{.*}}) : f32[600, 32]
    // CHECK: pack(%view) {panel = 64} : f32[600, 32]{panel=64, pair=1, ways=1}
    %large = const {value = splat(0.25)} : f32[1200, 32]
    %first = const {value = [0]} : i64[1]
    %end = const {value = [1200]} : i64[1]
    %step = const {value = [2]} : i64[1]
    %view = slice(%large, %first, %end, %first, %step)
    %z = linear(%x, %view)
  }
}
