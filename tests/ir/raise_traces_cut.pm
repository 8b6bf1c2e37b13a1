// A trace that visits as many experts as its example hit can't be right: an error with advice.
// options: --passes=raise-traces
// fails: 1
module "m" {
  symbol T in [0, inf]
  symbol n dynamic in [0, 4] <= 4
  entry main(%scores: f32[T, 4]) -> (y: %a) {
    // CHECK: the router chooses among 4 experts, but the graph visits just 3
    // CHECK: the router is here; export again
    %k = const {value = [2]} : i64[1]
    %w, %idx = topk(%scores, %k)
    %depth = const {value = [4]} : i64[]
    %values = const {value = [0, 1]} : i64[2]
    %mask = onehot(%idx, %depth, %values)
    %by_expert = transpose(%mask) {perm = [2, 1, 0]}
    %counts = reduce_sum(%by_expert) {axes = [1, 2], keepdims = false}
    %none = const {value = [0]} : i64[]
    %hit = less(%none, %counts)
    %list = nonzero(%hit) : i64[1, n]
    %sizes = const {value = [1, 1, 1]} : i64[3]
    %a, %b, %c = split(%list, %sizes) {axis = 1}
  }
}
