// Experts and routers are placed once for all entries, which share their weights.
// options: --passes=place-experts
module "m" {
  symbol M in [1, 64]
  symbol n0 dynamic in [0, 128] <= 2*M
  symbol n1 dynamic in [0, 128] <= 2*M
  entry first(%x: f32[M, 4]) -> (y: %y) {
    %g = const {value = [1, 2, 3, 4, 5, 6, 7, 8]} : f32[2, 4]
    %w = const {value = splat(0.5)} : f32[2, 4, 4]
    %s = linear(%x, %g)
    // CHECK: route(%s) {top_k = 2, device = "cpu0"}
    %i, %v = route(%s) {top_k = 2}
    // CHECK: experts(%x, %i, %v, %w) {experts = 2, top_k = 2, name = "layer", devices = "cpu0"}
    %y = experts(%x, %i, %v, %w) {experts = 2, top_k = 2, name = "layer"} regions {
      (%rows: f32[n0, 4], %we: f32[4, 4]) -> (%o) {
        %o = linear(%rows, %we)
      }
    }
  }
  // CHECK: entry second
  // CHECK: devices = "cpu0"
  entry second(%x: f32[M, 4]) -> (y: %y) {
    %g = const {value = [1, 2, 3, 4, 5, 6, 7, 8]} : f32[2, 4]
    %w = const {value = splat(0.5)} : f32[2, 4, 4]
    %s = linear(%x, %g)
    %i, %v = route(%s) {top_k = 2}
    %y = experts(%x, %i, %v, %w) {experts = 2, top_k = 2, name = "layer"} regions {
      (%rows: f32[n1, 4], %we: f32[4, 4]) -> (%o) {
        %o = linear(%rows, %we)
      }
    }
  }
}
