// Extents that a broadcast, a product or a reshape makes equal are one expression; what an op finds at run time
// too. A broadcast against an extent that is at most 1 says nothing.
// options: --passes=extents
module "m" {
  symbol B in [0, inf]
  symbol B2 in [0, inf]
  symbol T in [0, inf]
  symbol P in [0, inf]
  // CHECK: entry main(%x: f32[B, T, 8], %y: f32[B, T, 8], %mask: f32[B, P, 1], %flags: bool[B*T])
  entry main(%x: f32[B, T, 8], %y: f32[B2, T, 8], %mask: f32[B, P, 1], %flags: bool[B*T]) -> (z: %z, u: %u, v: %v) {
    // CHECK: %sum = add(%x, %y) : f32[B, T, 8]
    %sum = add(%x, %y)
    // CHECK: %late = slice({{.*}}) : f32[B, T, 1]
    %shape = shape(%x) {start = 1, end = 2}
    %zero = const {value = [0]} : i64[1]
    %one = const {value = [1]} : i64[1]
    %minus = sub(%zero, %shape)
    %far = const {value = [9223372036854775807]} : i64[1]
    %late = slice(%mask, %minus, %far, %one)
    // CHECK: %z = mul(%sum, %late) : f32[B, T, 8]
    %z = mul(%sum, %late)
    // CHECK: %where = nonzero(%flags) : i64[1, [[N:n[_0-9]*]]]
    // CHECK: %u = add(%where, %first) : i64[1, [[N]]]
    %where = nonzero(%flags)
    %first = slice(%where, %zero, %one, %one)
    %u = add(%where, %first)
    // CHECK: %found = nonzero(%flags) : i64[1, B*T]
    %found = nonzero(%flags)
    %n = const {value = [8, -1]} : i64[2]
    %flat = reshape(%z, %n)
    %row = cast(%found) {to = f32}
    // CHECK: %v = add(%flat, %row) : f32[8, B*T]
    %v = add(%flat, %row)
  }
}
