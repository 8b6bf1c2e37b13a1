// Each entry once more, for the host alone; states have twins, constants are the same bytes.
// options: --passes=host-twins
module "m" {
  state "k" : f32[2, 4]
  entry main(%x: f32[2, 4], %k: f32[2, 4] state "k") -> (y: %y) {
    %w = const {value = splat(0.5)} : f32[4, 4]
    %y = linear(%x, %w)
  }
  // CHECK: state "k" : f32[2, 4]
  // CHECK: state "k@host" : f32[2, 4]
  // CHECK: entry main(%x: f32[2, 4], %k: f32[2, 4] state "k")
  // CHECK: entry "main@host"(%x: f32[2, 4], %k: f32[2, 4] state "k@host") -> (y: %[[Y:[a-z0-9]+]])
  // CHECK: %[[Y]] = linear(%x
}
