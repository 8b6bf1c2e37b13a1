// A template over the rows of all experts, sorted; and their sum.
// options: --passes=lower-experts
module "m" {
  symbol M in [1, 64]
  symbol n0 dynamic in [0, 128] <= 2*M
  entry main(%x: f32[M, 4], %i: i32[M, 2], %v: f32[M, 2]) -> (y: %y) {
    %w = const {value = splat(0.5)} : f32[3, 4, 4]
    // CHECK: %[[T:[0-9]+]], %[[O:[0-9]+]], %[[S:[0-9]+]] = expert_order(%i) {experts = 3} : i32[2*M], i32[4], i32[M, 2]
    // CHECK: %[[R:[0-9]+]] = gather_rows(%x, %[[T]]) : f32[2*M, 4]
    // CHECK: %[[P:[0-9]+]] = grouped_linear(%[[R]], %w, %[[O]]) : f32[2*M, 4]
    // CHECK: %[[G:[0-9]+]] = silu(%[[P]])
    // CHECK: combine(%[[G]], %[[S]], %v) : f32[M, 4]
    // CHECK-NOT: experts(
    %y = experts(%x, %i, %v, %w) {experts = 3, top_k = 2} regions {
      (%rows: f32[n0, 4], %we: f32[4, 4]) -> (%o) {
        %h = linear(%rows, %we)
        %o = silu(%h)
      }
    }
  }
}
