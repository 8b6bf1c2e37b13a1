// products whose elements no kernel reads: cast, or computed as a plain product of matrices
module "linear_elements" {
  symbol M in [0, 40]
  entry main(%x: f16[M, 4], %d: f64[M, 4], %e: bf16[M, 4], %f: f32[M, 4]) -> (y: %y, z: %z, q: %q, r: %r) {
    %g = const {value = splat(0.3)} : f16[40, 4]
    %b = const {value = splat(0.125)} : f64[40]
    %y = linear(%x, %g)
    %u = const {value = splat(0.3)} : f64[40, 4]
    %z = linear(%d, %u, %b)
    %v = const {value = splat(0.3)} : bf16[40, 4]
    %q = linear(%e, %v, %b)
    %r = linear(%f, %v) {compute = bf16}
  }
}
