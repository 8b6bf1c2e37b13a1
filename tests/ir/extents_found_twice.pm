// Two ops that find extents which a third one needs to be equal find one extent: the first says it, what the second
// finds is compared with it.
// options: --passes=extents
module "m" {
  symbol A in [0, inf]
  symbol B in [0, inf]
  entry main(%x: i64[A], %y: i64[B]) -> (sum: %sum) {
    // CHECK: %p = nonzero(%x) : i64[1, [[N:n[_0-9]*]]]
    // CHECK: %q = nonzero(%y) : i64[1, [[N]]]
    // CHECK: %sum = add(%p, %q) : i64[1, [[N]]]
    %p = nonzero(%x)
    %q = nonzero(%y)
    %sum = add(%p, %q)
  }
}
