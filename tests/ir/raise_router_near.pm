// A near miss stays: renormalised scores of which one expert's were changed before.
// options: --passes=raise-router,dce
module "m" {
  symbol T in [0, inf]
  symbol n dynamic in [0, inf] <= 2*T
  entry main(%x: f32[T, 4], %scores: f32[T, 8], %other: f32[T, 8]) -> (y: %y) {
    // CHECK-NOT: = route(
    // CHECK: topk
    %two = const {value = [2]} : i64[1]
    %a = softmax(%scores)
    %b = softmax(%other)
    %v, %idx = topk(%a, %two)
    %w = gather_elements(%b, %idx) {axis = 1}
    %i = cast(%idx) {to = i32}
    %we = const {value = splat(0.5)} : f32[8, 4, 4]
    %y = experts(%x, %i, %w, %we) {experts = 8, top_k = 2} regions {
      (%rows: f32[n, 4], %m: f32[4, 4]) -> (%o) {
        %o = linear(%rows, %m)
      }
    }
  }
}
