// Places: the caller's buffers, weights, and an arena whose slots are used again.
// options: --passes=plan-memory
module "m" {
  symbol B in [1, 8]
  // CHECK: entry main{{.*}} plan(arena = 128*{{.*}})
  entry main(%x: f32[B, 4]) -> (y: %y) {
    // CHECK: %w = const {{.*}} : f32[4] @ weight(0)
    %w = const {value = [1, 2, 3, 4]} : f32[4]
    // CHECK: exp(%x) : f32[B, 4] @ arena(0)
    %a = exp(%x)
    // CHECK: mul(%a, %w) : f32[B, 4] @ arena([[SECOND:.*]]) loc
    %b = mul(%a, %w)
    // CHECK: tanh(%b) : f32[B, 4] @ arena(0)
    %c = tanh(%b)
    // CHECK: %y = neg(%c) : f32[B, 4] @ output(0)
    %y = neg(%c)
  }
}
