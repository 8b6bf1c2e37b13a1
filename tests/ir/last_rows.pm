// Only the caches need all tokens; the rest is computed for the last one.
// options: --passes=last-rows,dce
module "m" {
  symbol B in [1, 8]
  symbol T in [1, 64]
  state "kept" : f32[B, T, 4]
  entry main(%x: f32[B, T, 4], %past: i64[B]) -> (y: %y, kept: %k) {
    %w = const {value = splat(0.5)} : f32[4, 4]
    // CHECK: %k = linear(%x, %w) : f32[B, T, 4]
    %k = linear(%x, %w)
    // CHECK: %[[K:[0-9]+]] = last_rows(%k) : f32[B, 1, 4]
    // CHECK: %[[X:[0-9]+]] = last_rows(%x) : f32[B, 1, 4]
    // CHECK: %a = add(%[[K]], %[[X]]) : f32[B, 1, 4]
    %a = add(%k, %x)
    // CHECK: %l = linear(%a, %w) : f32[B, 1, 4]
    %l = linear(%a, %w)
    // CHECK-NOT: = last_rows(
    // CHECK: %y = relu(%l) : f32[B, 1, 4]
    %r = last_rows(%l)
    %y = relu(%r)
  }
}
