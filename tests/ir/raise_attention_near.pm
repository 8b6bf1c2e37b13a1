// What isn't quite attention stays as it is.
// options: --passes=raise-attention,dce
module "m" {
  symbol T in [1, 64]
  symbol S in [1, 64]
  // CHECK-NOT: sdpa
  entry masked_and_scaled(%q: f32[2, 4, T, 8], %k: f32[2, 4, S, 8], %v: f32[2, 4, S, 8], %m: f32[T, S]) -> (y: %y) {
    %s0 = matmul(%q, %k) {trans_b = true}
    %s1 = add(%s0, %m)
    %c = const {value = [0.5]} : f32[]
    %s2 = mul(%s1, %c)
    %w = softmax(%s2)
    %y = matmul(%w, %v)
  }
  entry another_score(%q: f32[2, 4, T, 8], %k: f32[2, 4, S, 8], %v: f32[2, 4, S, 8], %seen: bool[T, S]) -> (y: %y) {
    %s0 = matmul(%q, %k) {trans_b = true}
    %f = const {value = [-100]} : f32[]
    %s1 = where(%seen, %s0, %f)
    %w = softmax(%s1)
    %y = matmul(%w, %v)
  }
  entry weights_are_shown(%q: f32[2, 4, T, 8], %k: f32[2, 4, S, 8], %v: f32[2, 4, S, 8]) -> (y: %y, w: %w) {
    %s = matmul(%q, %k) {trans_b = true}
    %w = softmax(%s)
    %y = matmul(%w, %v)
  }
  entry other_axis(%q: f32[2, 4, T, 8], %k: f32[2, 4, S, 8], %v: f32[2, 4, S, 8]) -> (y: %y) {
    %s = matmul(%q, %k) {trans_b = true}
    %w = softmax(%s) {axis = 2}
    %y = matmul(%w, %v)
  }
  entry shared_keys(%q: f32[2, 4, T, 8], %k: f32[2, 1, S, 8], %v: f32[2, 4, S, 8]) -> (y: %y) {
    %s = matmul(%q, %k) {trans_b = true}
    %w = softmax(%s)
    %y = matmul(%w, %v)
  }
  entry other_sinks(%q: f32[2, 4, T, 8], %k: f32[2, 4, S, 8], %v: f32[2, 4, S, 8], %sink: f32[2, 4, T, 1]) -> (y: %y) {
    %s = matmul(%q, %k) {trans_b = true}
    %s1 = concat(%s, %sink) {axis = 3}
    %w0 = softmax(%s1)
    %zero = const {value = [0]} : i64[1]
    %last = const {value = [-1]} : i64[1]
    %three = const {value = [3]} : i64[1]
    %w = slice(%w0, %zero, %last, %three)
    %y = matmul(%w, %v)
  }
  entry broadcast_mask(%q: f32[2, 4, T, 8], %k: f32[2, 4, S, 8], %v: f32[2, 4, S, 8], %m: f32[2, 1, T, 1]) -> (y: %y) {
    %s = matmul(%q, %k) {trans_b = true}
    %s1 = add(%s, %m)
    %w = softmax(%s1)
    %y = matmul(%w, %v)
  }
}
