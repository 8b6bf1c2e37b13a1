// Batches that broadcast, one column, turned operands: the same as the interpreter.
module "m" {
  symbol T in [0, 8]
  entry main(%a: f32[T, 1, 3, 5], %b: f32[T, 4, 5, 1], %c: f32[2, 1, 3, 5], %e: f32[1, 4, 5, 7], %f: f32[T, 5, 6], %g: f32[5, 4]) -> (y: %y, z: %z, u: %u) {
    %y = matmul(%a, %b)
    %z = matmul(%c, %e)
    %u = matmul(%f, %g) {trans_a = true}
  }
}
