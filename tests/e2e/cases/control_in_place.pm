// what a region overwrites is its own: the caller's value, a carried one and one used later stay what they were
module "control_in_place" {
  symbol rounds dynamic in [0, inf]
  entry main(%cache: f32[1, 4, 16, 2], %v: f32[1, 1, 8], %q: f32[1, 1, 8], %n: i64[], %c: bool[]) -> (a: %a, b: %b, s: %s, d: %d, e: %e, f: %f, u: %u) {
    %twice = add(%cache, %cache)
    %zero = const {value = [0]} : i64[1]
    %a = if(%c, %cache, %v, %zero, %twice) : f32[1, 4, 16, 2] regions {
      (%p: f32[1, 4, 16, 2], %w: f32[1, 1, 8], %at: i64[1], %t: f32[1, 4, 16, 2]) -> (%r) {
        %r1 = cache_value(%p, %w, %at) : f32[1, 4, 16, 2]
        %r = add(%r1, %p) : f32[1, 4, 16, 2]
      }
      (%p: f32[1, 4, 16, 2], %w: f32[1, 1, 8], %at: i64[1], %t: f32[1, 4, 16, 2]) -> (%r) {
        %r = cache_value(%t, %w, %at) : f32[1, 4, 16, 2]
      }
    }
    %yes = const {value = [true]} : bool[]
    %four = const {value = [4]} : i64[]
    %trips = add(%n, %four)
    %b, %s = loop(%trips, %yes, %twice, %q) {carried = 1, scanned = 1} : f32[1, 4, 16, 2], f32[rounds, 1, 4, 16, 2] regions {
      (%i: i64[], %go: bool[], %acc: f32[1, 4, 16, 2], %w: f32[1, 1, 8]) -> (%go, %r, %acc2) {
        %one = const {value = [1]} : i64[1]
        %at = reshape(%i, %one) : i64[1]
        %r = cache_value(%acc, %w, %at) : f32[1, 4, 16, 2]
        %acc2 = neg(%r) : f32[1, 4, 16, 2]
      }
    }
    %d = exp(%twice)
    // taken and unrolled: what they overwrite is still needed
    %e = if(%yes, %twice, %v, %zero) : f32[1, 4, 16, 2] regions {
      (%p: f32[1, 4, 16, 2], %w: f32[1, 1, 8], %at: i64[1]) -> (%r) {
        %r1 = cache_value(%p, %w, %at) : f32[1, 4, 16, 2]
        %r = add(%r1, %p) : f32[1, 4, 16, 2]
      }
      (%p: f32[1, 4, 16, 2], %w: f32[1, 1, 8], %at: i64[1]) -> (%p) {
      }
    }
    %two = const {value = [2]} : i64[]
    %f, %u = loop(%two, %yes, %twice, %q) {carried = 1, scanned = 1} : f32[1, 4, 16, 2], f32[2, 1, 4, 16, 2] regions {
      (%i: i64[], %go: bool[], %acc: f32[1, 4, 16, 2], %w: f32[1, 1, 8]) -> (%go, %r, %acc) {
        %one = const {value = [1]} : i64[1]
        %at = reshape(%i, %one) : i64[1]
        %r = cache_value(%acc, %w, %at) : f32[1, 4, 16, 2]
      }
    }
  }
}
