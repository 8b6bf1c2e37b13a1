// Attention as exporters write it: heads that are repeated, masks, guards, caps, sinks, scales on either side.
// options: --passes=raise-attention,dce,canonicalise,dce
module "m" {
  symbol B in [1, 8]
  symbol T in [1, 64]
  symbol S in [1, 64]
  // CHECK-LABEL: entry repeated
  entry repeated(%q0: f32[B, T, 32], %k0: f32[B, S, 16], %v0: f32[B, S, 16], %seen: bool[B, 1, T, S]) -> (y: %y) {
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
    %kt = transpose(%k) {perm = [0, 1, 3, 2]}
    %s0 = matmul(%q, %kt)
    %c = const {value = [0.35]} : f32[]
    %s1 = mul(%s0, %c)
    %f = const {value = [-inf]} : f32[]
    %s2 = where(%seen, %s1, %f)
    %w = softmax(%s2)
    // CHECK: sdpa(%q0, %k0, %v0, %seen{{[^)]*}}) {heads = 4, kv_heads = 2, scale = 0.3{{[0-9]*}}, unseen = "nan"} : f32[B, T, 32]
    // CHECK-NOT: matmul
    %y1 = matmul(%w, %v)
    %y2 = transpose(%y1) {perm = [0, 2, 1, 3]}
    %ys = dims [B, T, 32] : i64[3]
    %y = reshape(%y2, %ys)
  }
  // CHECK-LABEL: entry guarded
  entry guarded(%q0: f32[B, 4, T, 8], %k0: f32[B, 4, 8, S], %v: f32[B, 4, S, 6], %m: f32[T, S]) -> (y: %y) {
    %c = const {value = [0.5]} : f32[]
    %q = mul(%q0, %c)
    %k = mul(%k0, %c)
    %s0 = matmul(%q, %k)
    %s1 = add(%m, %s0)
    %w0 = softmax(%s1)
    %nan = isnan(%w0)
    %zero = const {value = [0]} : f32[]
    %w = where(%nan, %zero, %w0)
    // CHECK: [[K:%.*]] = transpose(%k0) {perm = [0, 1, 3, 2]}
    // CHECK: sdpa(%q0, [[K]], %v, %m{{[^)]*}}) {heads = 4, kv_heads = 4, scale = 0.25} : f32[B, 4, T, 6]
    %y = matmul(%w, %v)
  }
  // CHECK-LABEL: entry capped
  entry capped(%q: f32[B, 2, T, 8], %k: f32[B, 2, S, 8], %v: f32[B, 2, S, 8], %sinks: f32[2], %m: f32[B, 1, T, S]) -> (y: %y) {
    %s0 = matmul(%q, %k) {trans_b = true}
    %c = const {value = [20]} : f32[]
    %s1 = div(%s0, %c)
    %s2 = tanh(%s1)
    %s3 = mul(%s2, %c)
    %s4 = add(%s3, %m)
    %one = const {value = [1, 2, 1, 1]} : i64[4]
    %sink0 = reshape(%sinks, %one)
    %shape = dims [B, 2, T, 1] : i64[4]
    %sink = expand(%sink0, %shape)
    %s5 = concat(%s4, %sink) {axis = 3}
    %w0 = softmax(%s5)
    %zero = const {value = [0]} : i64[1]
    %last = const {value = [-1]} : i64[1]
    %three = const {value = [3]} : i64[1]
    %w = slice(%w0, %zero, %last, %three)
    // CHECK: sdpa(%q, %k, %v, %m, _, _, %sinks) {heads = 2, kv_heads = 2, scale = 1, softcap = 2e+01} : f32[B, 2, T, 8]
    %y = matmul(%w, %v)
  }
  // CHECK-LABEL: entry flat
  entry flat(%q: f32[8, T, 8], %k: f32[8, S, 8], %v: f32[8, S, 8], %m: f32[2, 1, T, S]) -> (y: %y) {
    %s0 = matmul(%q, %k) {trans_b = true}
    %apart = dims [2, 4, T, S] : i64[4]
    %s1 = reshape(%s0, %apart)
    %s2 = add(%s1, %m)
    %flat = dims [8, T, S] : i64[3]
    %s3 = reshape(%s2, %flat)
    %w = softmax(%s3)
    // CHECK: sdpa({{.*}}, %m{{[^)]*}}) {heads = 4, kv_heads = 4, scale = 1, unseen = "nan"} : f32[2, 4, T, 8]
    %y = matmul(%w, %v)
  }
}
