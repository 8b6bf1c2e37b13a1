// extents of 0, 1 and odd sizes through reductions, norms, products and data movement
module "no_rows" {
  symbol N in [0, 37]
  symbol M in [0, 9]
  entry main(%x: f32[N, 5], %y: f32[M, N], %z: f32[N]) -> (a: %a, b: %b, c: %c, d: %d, e: %e, f: %f, g: %g, h: %h) {
    %a = matmul(%y, %x)
    %b = reduce_sum(%x) {axes = [0]}
    %c = softmax(%y) {axis = 1}
    %d = reduce_max(%y) {axes = [0, 1], keepdims = false}
    %e = transpose(%y) {perm = [1, 0]}
    %f = concat(%x, %x) {axis = 0}
    %zz = mul(%z, %z)
    %r = relu(%y)
    %g = add(%r, %zz)
    %n = nonzero(%z)
    %h = cast(%n) {to = f32}
  }
}
