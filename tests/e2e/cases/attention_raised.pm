// attention spelled out: what the pass makes of it is the same, rows that see nothing included
module "attention_raised" {
  symbol B in [1, 3]
  symbol T in [1, 9]
  symbol S in [2, 70]
  entry main(%q0: f32[B, T, 32], %k0: f32[B, S, 16], %v0: f32[B, S, 16], %m: f32[B, 1, T, S], %sinks: f32[1, 4, 1, 1]) -> (a: %a, b: %b, c: %c, d: %d) {
    %qs = dims [B, T, 4, 8] : i64[4]
    %q1 = reshape(%q0, %qs)
    %q = transpose(%q1) {perm = [0, 2, 1, 3]}
    %ks = dims [B, S, 2, 8] : i64[4]
    %k1 = reshape(%k0, %ks)
    %k2 = transpose(%k1) {perm = [0, 2, 1, 3]}
    %one = dims [B, 2, 1, S, 8] : i64[5]
    %two = dims [B, 2, 2, S, 8] : i64[5]
    %all = dims [B, 4, S, 8] : i64[4]
    %k3 = reshape(%k2, %one)
    %k4 = expand(%k3, %two)
    %k = reshape(%k4, %all)
    %v1 = reshape(%v0, %ks)
    %v2 = transpose(%v1) {perm = [0, 2, 1, 3]}
    %v3 = reshape(%v2, %one)
    %v4 = expand(%v3, %two)
    %v = reshape(%v4, %all)
    %c0 = const {value = [0.35]} : f32[]
    %inf = const {value = [-inf]} : f32[]
    %low = const {value = [-3.4028235e38]} : f32[]
    %half = const {value = [0.5]} : f32[]
    %zero = const {value = [0]} : f32[]
    // rows whose first element is large see nothing
    %begin = const {value = [0]} : i64[1]
    %end = const {value = [1]} : i64[1]
    %last = const {value = [3]} : i64[1]
    %m0 = slice(%m, %begin, %end, %last)
    %sees = less(%m0, %half)
    %seen0 = less(%m, %half)
    %seen = and(%sees, %seen0)
    %s0 = matmul(%q, %k) {trans_b = true}
    %s1 = mul(%s0, %c0)
    %s2 = where(%seen, %s1, %inf)
    %w = softmax(%s2)
    %a0 = matmul(%w, %v)
    %a1 = transpose(%a0) {perm = [0, 2, 1, 3]}
    %as = dims [B, T, 32] : i64[3]
    %a = reshape(%a1, %as)
    // the lowest number added: a row of it alone is a mean
    %bias = where(%seen, %zero, %low)
    %q5 = mul(%q, %half)
    %k5 = mul(%k, %half)
    %kt = transpose(%k5) {perm = [0, 1, 3, 2]}
    %b0 = matmul(%q5, %kt)
    %b1 = add(%b0, %bias)
    %b2 = softmax(%b1)
    %b = matmul(%b2, %v)
    // a guard
    %c2 = where(%seen, %b0, %inf)
    %c3 = softmax(%c2)
    %c4 = isnan(%c3)
    %c5 = where(%c4, %zero, %c3)
    %c = matmul(%c5, %v)
    // sinks
    %column = dims [B, 4, T, 1] : i64[4]
    %sink = expand(%sinks, %column)
    %d0 = add(%s1, %bias)
    %d1 = concat(%d0, %sink) {axis = 3}
    %d2 = softmax(%d1)
    %minus = const {value = [-1]} : i64[1]
    %d3 = slice(%d2, %begin, %minus, %last)
    %d = matmul(%d3, %v)
  }
}
