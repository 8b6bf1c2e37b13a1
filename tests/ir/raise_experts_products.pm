// Experts in products: "th,eih->tei" is one product, cut; "tei,ehi->teh" a batched one; "teh,te->th" one with the weights.
// options: --passes=raise-experts,dce
module "m" {
  symbol T in [0, inf]
  entry main(%x: f32[T, 4], %scores: f32[T, 2]) -> (y: %y) {
    // CHECK: experts({{.*}}) {experts = 2, top_k = 1, name = "layers.0"}
    // CHECK-NOT: matmul
    %k = const {value = [1]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %zero = const {value = [0]} : f32[]
    %dense_shape = dims [T, 2] : i64[2]
    %zeros = expand(%zero, %dense_shape)
    %dense = scatter_elements(%zeros, %idx, %w) {axis = 1}
    %all = const {value = splat(0.5)} : f32[6, 4]
    %rows = linear(%x, %all)
    %cut_shape = dims [T, 2, 3] : i64[3]
    %cut = reshape(%rows, %cut_shape)
    %act = silu(%cut)
    %by_expert = transpose(%act) {perm = [1, 0, 2]}
    %down = const {value = splat(0.25)} : f32[2, 4, 3]
    %out = matmul(%by_expert, %down) {trans_b = true}
    %columns = transpose(%out) {perm = [1, 2, 0]}
    %weight_shape = dims [T, 2, 1] : i64[3]
    %weight = reshape(%dense, %weight_shape)
    %sum = matmul(%columns, %weight)
    %y_shape = dims [T, 4] : i64[2]
    %y = reshape(%sum, %y_shape)
  }
}
