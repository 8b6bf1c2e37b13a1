// Routers backwards from the experts: groups, a selection bias, renormalised and scaled.
// options: --passes=raise-router,dce
module "m" {
  symbol T in [0, inf]
  symbol n dynamic in [0, inf] <= 2*T
  entry main(%x: f32[T, 4], %scores: f32[T, 8]) -> (y: %y) {
    // CHECK: %[[I:.*]], %[[W:.*]] = route(%scores, %bias) {top_k = 2, act = "sigmoid"{{.*}}scale = 2.5, groups = 4, keep_groups = 2, group_score = "top2"}
    // CHECK: experts(%x, %[[I]], %[[W]], %we)
    // CHECK-NOT: topk
    %a = sigmoid(%scores)
    %bias = const {value = [0.5, 0, 0.25, 0, 0, 0, 0, 0]} : f32[8]
    %s = add(%a, %bias)
    %by_group = const {value = [-1, 4, 2]} : i64[3]
    %g = reshape(%s, %by_group)
    %two = const {value = [2]} : i64[1]
    %best, %ignored = topk(%g, %two)
    %sums = reduce_sum(%best) {axes = [2], keepdims = false}
    %gv, %gi = topk(%sums, %two)
    %zero = const {value = [0]} : f32[]
    %one = const {value = [1]} : f32[]
    %s4 = dims [T, 4] : i64[2]
    %s2 = dims [T, 2] : i64[2]
    %none = expand(%zero, %s4)
    %ones = expand(%one, %s2)
    %kept = scatter_elements(%none, %gi, %ones) {axis = 1}
    %s41 = dims [T, 4, 1] : i64[3]
    %s42 = dims [T, 4, 2] : i64[3]
    %s8 = dims [T, 8] : i64[2]
    %k3 = reshape(%kept, %s41)
    %ke = expand(%k3, %s42)
    %k8 = reshape(%ke, %s8)
    %mask = cast(%k8) {to = bool}
    %lowest = const {value = [-inf]} : f32[]
    %limited = where(%mask, %s, %lowest)
    %v, %idx = topk(%limited, %two)
    %chosen = gather_elements(%a, %idx) {axis = 1}
    %sum = reduce_sum(%chosen) {axes = [1]}
    %share = div(%chosen, %sum)
    %scale = const {value = [2.5]} : f32[]
    %w = mul(%share, %scale)
    %i = cast(%idx) {to = i32}
    %we = const {value = splat(0.5)} : f32[8, 4, 4]
    %y = experts(%x, %i, %w, %we) {experts = 8, top_k = 2} regions {
      (%rows: f32[n, 4], %m: f32[4, 4]) -> (%o) {
        %o = linear(%rows, %m)
      }
    }
  }
}
