// The rows of a weight are those of several constants: views of a stack, whole and cut across its parts.
module "linear_stacked" {
  symbol M in [0, 40]
  entry main(%x: f32[M, 4], %z: f32[M, 50]) -> (y: %y, r: %r) {
    %a = const {value = splat(0.25)} : f32[20, 4]
    %b = const {value = splat(-1.5)} : f32[20, 4]
    %c = const {value = splat(3)} : f32[20, 4]
    %s = stack(%a, %b, %c)
    %rows = const {value = [60, 4]} : i64[2]
    %w = reshape(%s, %rows)
    %y = linear(%x, %w)
    %from = const {value = [7]} : i64[1]
    %to = const {value = [57]} : i64[1]
    %axis = const {value = [0]} : i64[1]
    %some = slice(%w, %from, %to, %axis)
    %turned = transpose(%some) {perm = [1, 0]}
    %r = linear(%z, %turned)
  }
}
