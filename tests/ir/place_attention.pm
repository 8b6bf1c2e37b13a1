// An attention of whole tensors goes where it is put, and the products of its operands with it, through what stands between;
// one in a region runs where the op does that has the region.
// options: --devices=cpu0,emu0 --place=attention@cpu0 --passes=place-experts,assign-devices
module "m" {
  symbol T in [1, 64]
  entry main(%x: f32[1, T, 8], %past: f32[1, 2, 5, 4], %c: bool[]) -> (y: %y, z: %z) {
    // CHECK: %q = linear(%x, %w) :
    // CHECK: %k = linear(%x, %w) :
    // CHECK: %r = neg(%x) on emu0
    // CHECK: %v = linear(%r, %w) :
    // CHECK: %a = sdpa({{.*}}device = "cpu0"} :
    // CHECK: %y = linear(%{{[a-z0-9]+}}, %w) on emu0
    %w = const {value = splat(0.5)} : f32[8, 8]
    %q = linear(%x, %w)
    %k = linear(%x, %w)
    %split = const {value = [1, -1, 2, 4]} : i64[4]
    %k4 = reshape(%k, %split)
    %kt = transpose(%k4) {perm = [0, 2, 1, 3]}
    %keys = concat(%past, %kt) {axis = 2}
    %q4 = reshape(%q, %split)
    %qt = transpose(%q4) {perm = [0, 2, 1, 3]}
    %r = neg(%x)
    %v = linear(%r, %w)
    %v4 = reshape(%v, %split)
    %vt = transpose(%v4) {perm = [0, 2, 1, 3]}
    %values = concat(%past, %vt) {axis = 2}
    %a = sdpa(%qt, %keys, %values) {heads = 2, kv_heads = 2, scale = 0.5}
    %at = transpose(%a) {perm = [0, 2, 1, 3]}
    %back = const {value = [1, -1, 8]} : i64[3]
    %flat = reshape(%at, %back)
    %y = linear(%flat, %w)
    // CHECK: sdpa({{.*}}heads = 1, kv_heads = 1, scale = 1} :
    %z = if(%c, %x) regions {
      (%inner: f32[1, T, 8]) -> (%s) {
        %s = sdpa(%inner, %inner, %inner) {heads = 1, kv_heads = 1, scale = 1.0}
      }
      (%other: f32[1, T, 8]) -> (%other) {
      }
    }
  }
}
