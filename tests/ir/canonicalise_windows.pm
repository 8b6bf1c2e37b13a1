// A convolution whose windows lie side by side is a product; softmax along another axis goes through the last.
// options: --passes=canonicalise,fold,dce
module "m" {
  symbol B in [0, 8]
  entry main(%x: f32[B, 3, 8, 6], %s: f32[B, 4, 5]) -> (y: %y, z: %z, p: %p, q: %q) {
    %w = const {value = splat(0.5)} : f32[10, 3, 4, 2]
    %bias = const {value = splat(1)} : f32[10]
    // CHECK: reshape({{.*}}) {allowzero = true} : f32[B, 3, 2, 4, 3, 2]
    // CHECK: transpose({{.*}}) {perm = [0, 2, 4, 1, 3, 5]} : f32[B, 2, 3, 3, 4, 2]
    // CHECK: reshape({{.*}}) {allowzero = true} : f32[B, 2, 3, 24]
    // CHECK: linear({{.*}}) : f32[B, 2, 3, 10]
    // CHECK: %y = transpose({{.*}}) {perm = [0, 3, 1, 2]} : f32[B, 10, 2, 3]
    %y = conv(%x, %w, %bias) {strides = [4, 2]}
    // CHECK: %z = conv(
    %z = conv(%x, %w, %bias) {strides = [4, 1]}
    // CHECK: transpose({{.*}}) {perm = [0, 2, 1]} : f32[B, 5, 4]
    // CHECK: softmax({{.*}}) : f32[B, 5, 4]
    // CHECK: %p = transpose({{.*}}) {perm = [0, 2, 1]} : f32[B, 4, 5]
    %p = softmax(%s) {axis = 1}
    // CHECK-NOT: sub(
    // CHECK: %q = softmax(%s) {axis = 2}
    %most = reduce_max(%s) {axes = [-1]}
    %shifted = sub(%s, %most)
    %q = softmax(%shifted)
  }
}
