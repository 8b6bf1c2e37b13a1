// What masks rows that no expert here computes isn't an epilogue: there is none where nothing is computed. Anywhere else it is.
// options: --passes=layout,fuse,dce
module "m" {
  symbol R in [1, 64]
  entry main(%x: f32[R, 4], %o: i32[4], %all: i32[3], %mask: bool[R, 1]) -> (y: %y, z: %z) {
    %w = const {value = splat(0.5)} : f32[2, 4, 4]
    %zero = const {value = [0]} : f32[]
    %from = const {value = [0]} : i64[1]
    %to = const {value = [3]} : i64[1]
    %offsets = slice(%o, %from, %to, _, _)
    // CHECK: %[[G:[0-9a-z]+]] = fused({{.*}}) {kind = "grouped_linear"}
    // CHECK-NOT: where
    // CHECK: %y = where(%mask, %[[G]], %zero)
    %p = grouped_linear(%x, %w, %offsets)
    %s = silu(%p)
    %y = where(%mask, %s, %zero)
    // CHECK: %z = fused({{.*}}) {kind = "grouped_linear"}
    // CHECK: where
    %q = grouped_linear(%x, %w, %all)
    %z = where(%mask, %q, %zero)
  }
}
