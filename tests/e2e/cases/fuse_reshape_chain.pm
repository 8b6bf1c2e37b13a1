// both reshapes of the group's value are used outside of it
module "fuse_reshape_chain" {
  symbol B in [1, 8]
  symbol T in [1, 8]
  entry main(%x: f32[B, T, 8], %w: f32[8, 8]) -> (y: %y, z: %z) {
    %s1 = dims [1, B*T, 8]
    %s2 = dims [B*T, 8]
    %a = add(%x, %x)
    %b = neg(%a)
    %c = reshape(%b, %s1)
    %d = reshape(%c, %s2)
    %y = matmul(%c, %w)
    %z = matmul(%d, %w)
  }
}
