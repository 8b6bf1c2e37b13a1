// Ops that run as reference, each worker on its share of the leading axes.
module "m" {
  symbol B in [0, 4]
  symbol T in [1, 6]
  entry main(%x: f32[B, 3, T, 8]) -> (a: %a, b: %b, c: %c, d: %d, e: %e, f: %f, g: %g, h: %h, i: %i, j: %j, k: %k) {
    %two = const {value = [2]} : i64[1]
    %v, %at = topk(%x, %two)
    %a = argmax(%x) {axis = -1, keepdims = false}
    %b = cumsum(%x) {axis = 3, reverse = true}
    %c = concat(%x, %v) {axis = -1}
    %d = gather_elements(%x, %at) {axis = 3}
    %e = scatter_elements(%x, %at, %v) {axis = 3, reduction = "add"}
    %f = gather(%x, %two) {axis = 3}
    %depth = const {value = [8]} : i64[]
    %values = const {value = [0, 1]} : f32[2]
    %g = onehot(%at, %depth, %values)
    %h = trilu(%x)
    %start = const {value = [-3]} : i64[1]
    %end = const {value = [100]} : i64[1]
    %axes = const {value = [-1]} : i64[1]
    %i = slice(%x, %start, %end, %axes)
    %wide = cast(%at) {to = i64}
    %j = mod(%wide, %depth)
    %p, %q = split(%x) {axis = 3}
    %k = sub(%p, %q)
  }
}
