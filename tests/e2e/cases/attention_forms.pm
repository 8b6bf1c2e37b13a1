// attention to whole tensors and caches that grow, in all layouts; masks with rows that see nothing
module "attention_forms" {
  symbol B in [1, 3]
  symbol T in [1, 9]
  symbol S in [9, 70]
  entry main(%q: f32[B, T, 48], %q4: f32[B, 4, T, 12], %k: f32[B, S, 24], %k4: f32[B, 2, S, 12], %v: f32[B, 2, S, 5], %new: f32[B, T, 10], %m: f32[1, 4, T, S], %sinks: f32[4], %n: f32[B]) -> (a: %a, b: %b, c: %c, d: %d, e: %e, f: %f, g: %g) {
    %a = sdpa(%q, %k, %v) {heads = 4, kv_heads = 2, scale = 0.3, right = 0}
    %half = const {value = [0.5]} : f32[]
    %seen = less(%m, %half)
    %b = sdpa(%q4, %k4, %v, %seen, _, _, %sinks) {heads = 4, kv_heads = 2, scale = 0.3, softcap = 2.5}
    // the second query sees nothing, the first only what the lowest number is added to
    %inf = const {value = [-inf]} : f32[]
    %low = const {value = [-3.4028235e38]} : f32[]
    %zero = const {value = [0]} : i64[]
    %one = const {value = [1]} : i64[]
    %count = dims [T] : i64[1]
    %none = const {value = []} : i64[0]
    %end = reshape(%count, %none)
    %rows = range(%zero, %end, %one)
    %column = dims [1, 1, T, 1] : i64[4]
    %row = reshape(%rows, %column)
    %first = equal(%row, %zero)
    %second = equal(%row, %one)
    %m1 = where(%first, %low, %m)
    %m2 = where(%second, %inf, %m1)
    %at = const {value = [3]} : i64[1]
    %c = sdpa(%q4, %k, %v, %m2, %at) {heads = 4, kv_heads = 2, scale = 0.3, left = 20}
    %d = sdpa(%q, %k4, %v, %m2) {heads = 4, kv_heads = 2, scale = 0.3, unseen = "nan"}
    // lengths and positions of each sequence
    %n0 = mul(%n, %half)
    %n1 = cast(%n0) {to = i64}
    %n2 = mul(%n1, %n1)
    %three = const {value = [3]} : i64[]
    %total = min(%n2, %three)
    %e = sdpa(%q, %k, %v, _, %total, %total) {heads = 4, kv_heads = 2, scale = 0.3, left = 2, right = 1}
    %length = dims [S + 3] : i64[1]
    %f = kv_append(%new, %total, %length, %v)
    %more = dims [T + 3] : i64[1]
    %apart = dims [B, 2, T, 5] : i64[4]
    %new4 = reshape(%new, %apart)
    %g = kv_append(%new4, %total, %more)
  }
}
