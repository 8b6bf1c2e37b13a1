// A row is as wide as there are choices: numbers of tokens, or of choices, along the rows instead of one for each row.
// options: --passes=raise-experts,dce
// CHECK-NOT: experts(
module "m" {
  entry main(%x: f32[2, 4], %scores: f32[2, 3]) -> (a: %a, b: %b) {
    %k = const {value = [2]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %wall = const {value = [1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 0, 2, 0, 1, 0, 1, 1, 3, 1, 1, 2, 1, 1, 4, 1, 1, 2, 1, 1, 3, 1, 1, 1, 1, 2, 1, 1, 2, 3]} : f32[3, 4, 4]
    %choices = const {value = [4]} : i64[1]
    %flat = reshape(%idx, %choices)
    %in_order, %perm = topk(%flat, %choices) {largest = false}
    %two = const {value = [2]} : i64[]
    %token = div(%perm, %two)
    %rows = gather(%x, %token)
    %own = gather(%wall, %in_order)
    %apart = const {value = [4, 1, 4]} : i64[3]
    %r3 = reshape(%rows, %apart)
    %p3 = matmul(%r3, %own)
    %whole = const {value = [4, 4]} : i64[2]
    %p = reshape(%p3, %whole)
    %column_s = const {value = [4, 1]} : i64[2]
    %shares = reshape(%w, %column_s)
    %share = gather(%shares, %perm)
    %z = mul(%p, %share)
    %row_s = const {value = [1, 4]} : i64[2]
    %token_row = reshape(%token, %row_s)
    %across = expand(%token_row, %whole)
    %zero = const {value = [0]} : f32[]
    %table = const {value = [2, 4]} : i64[2]
    %zeros = expand(%zero, %table)
    %a = scatter_elements(%zeros, %across, %z) {axis = 0, reduction = "add"}
    %perm_row = reshape(%perm, %row_s)
    %perm_across = expand(%perm_row, %whole)
    %none = expand(%zero, %whole)
    %b0 = scatter_elements(%none, %perm_across, %p) {axis = 0, reduction = "add"}
    %three = const {value = [2, 2, 4]} : i64[3]
    %b1 = reshape(%b0, %three)
    %weights_s = const {value = [2, 2, 1]} : i64[3]
    %weights = reshape(%w, %weights_s)
    %b2 = mul(%b1, %weights)
    %b = reduce_sum(%b2) {axes = [1], keepdims = false}
  }
}
