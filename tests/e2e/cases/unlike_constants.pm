// experts with constants and extents of their own rows
module "unlike_constants" {
  symbol N in [0, 40]
  symbol n0 dynamic in [0, 40] <= N
  symbol n1 dynamic in [0, 40] <= N
  entry main(%x: f32[N, 4]) -> (y: %y) {
    %w = const {value = [1, 0, 0, 0.5, 0, 1, 0.5, 0]} : f32[2, 4]
    %scores = linear(%x, %w)
    %expert, %weight = route(%scores) {top_k = 1, act = "sigmoid", weigh = "as_is"}
    %y = experts(%x, %expert, %weight) {experts = 2, top_k = 1} : f32[N, 4] regions {
      (%rows: f32[n0, 4]) -> (%o) {
        %c = const {value = [1, 2, 3, 4]} : f32[4]
        %o = mul(%rows, %c)
      }
      (%rows: f32[n1, 4]) -> (%o) {
        %flat = const {value = [-1, 2, 2]} : i64[3]
        %three = reshape(%rows, %flat)
        %r = neg(%three)
        %s = dims [n1, 4]
        %o = reshape(%r, %s)
      }
    }
  }
}
