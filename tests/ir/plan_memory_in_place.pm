// What an op overwrites: a state in place, of everything else that others see a copy.
// options: --passes=plan-memory
module "m" {
  state "kept" : f32[2, 3, 3]
  entry main(%x: f32[2, 4, 3], %w: f32[3, 1, 4], %given: f32[2, 3, 3], %kept: f32[2, 3, 3] state "kept") -> (a: %a, b: %b, c: %c, d: %d, e: %e, %now state "kept") {
    // CHECK: causal_conv(%kept, %x, %w) : f32[2, 3, 3] @ alias(0)
    %now, %a = causal_conv(%kept, %x, %w)
    // CHECK: [[INPUT:%.*]] = cast(%given)
    // CHECK: causal_conv([[INPUT]], %x, %w)
    %s1, %b = causal_conv(%given, %x, %w)
    // CHECK: %zeros = const
    // CHECK: [[ZEROS:%.*]] = cast(%zeros)
    // CHECK: causal_conv([[ZEROS]], %x, %w)
    %zeros = const {value = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]} : f32[2, 3, 3]
    %s2, %c = causal_conv(%zeros, %x, %w)
    // CHECK: %own = neg(%given)
    // CHECK-NEXT: causal_conv(%own, %x, %w)
    %own = neg(%given)
    %s3, %d = causal_conv(%own, %x, %w)
    // CHECK: %shared = exp(%given)
    // CHECK: [[SHARED:%.*]] = cast(%shared)
    // CHECK: causal_conv([[SHARED]], %x, %w)
    %shared = exp(%given)
    %s4, %y = causal_conv(%shared, %x, %w)
    %sum = reduce_sum(%shared) {axes = [0, 1], keepdims = false}
    %e = add(%y, %sum)
  }
}
