// Known shapes become `dims` or constants, so that what computed them dies.
// options: --passes=shapes,dce
module "m" {
  symbol B in [1, 8]
  symbol T in [1, 100]
  entry main(%x: f32[B, T, 8]) -> (y: %y, z: %z) {
    // CHECK-NOT: shape(
    // CHECK-NOT: gather(
    // CHECK: dims [B*T, 8] : i64[2]
    // CHECK-NEXT: %y = reshape(%x, %{{[0-9]+}}) {allowzero = true} : f32[B*T, 8]
    %s = shape(%x)
    %zero = const {value = [0]} : i64[1]
    %one = const {value = [1]} : i64[1]
    %b = gather(%s, %zero)
    %t = gather(%s, %one)
    %bt = mul(%b, %t)
    %eight = const {value = [8]} : i64[1]
    %to = concat(%bt, %eight) {axis = 0}
    %y = reshape(%x, %to)
    // CHECK: dims [T, T]
    %tt = reshape(%t, %one)
    %z = concat(%tt, %tt) {axis = 0}
  }
}
