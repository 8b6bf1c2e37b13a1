// Weights that a device has no room for are refused, with the figures.
// options: --passes=place-experts --place=cpu0=150B
// fails: 1
// CHECK: error: the weights take 160 B (160 B of them experts, routers and attention), cpu0 may hold 150 B
module "m" {
  symbol M in [1, 64]
  symbol n0 dynamic in [0, 128] <= 2*M
  symbol n1 dynamic in [0, 128] <= 2*M
  entry first(%x: f32[M, 4]) -> (y: %y) {
    %g = const {value = [1, 2, 3, 4, 5, 6, 7, 8]} : f32[2, 4]
    %w = const {value = splat(0.5)} : f32[2, 4, 4]
    %s = linear(%x, %g)
    %i, %v = route(%s) {top_k = 2}
    %y = experts(%x, %i, %v, %w) {experts = 2, top_k = 2, name = "layer"} regions {
      (%rows: f32[n0, 4], %we: f32[4, 4]) -> (%o) {
        %o = linear(%rows, %we)
      }
    }
  }
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
