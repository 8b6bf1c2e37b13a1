// Rows and columns: a reshape that keeps the last extent is nothing; what others use is an output; what is smaller than
// the space of the group stays outside when somebody else wants it.
// options: --passes=shapes,fuse,dce
module "m" {
  symbol B in [1, 8]
  symbol T in [1, 64]
  entry main(%x: f32[B, T, 8], %y: f32[B, T, 8], %v: f32[8]) -> (n: %n, s: %s, w: %w) {
    %shape = dims [B*T, 8] : i64[2]
    %scale = const {value = splat(2)} : f32[8]
    // CHECK: %w = neg(%v)
    %w = neg(%v)
    // CHECK: %s, %[[N:[0-9a-z]+]] = fused(%x, %y, %w, %scale)
    // CHECK: add(
    // CHECK: mul(
    // CHECK: rms_norm(
    %sum = add(%x, %y)
    %s = mul(%sum, %w)
    %norm = rms_norm(%s, %scale) {eps = 0.001}
    // CHECK: reshape(
    %n = reshape(%norm, %shape) {allowzero = true}
  }
}
