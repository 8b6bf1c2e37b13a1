// weights that apply to the experts' inputs: a template, and unlike experts
module "scaled_input" {
  symbol N in [0, 20]
  symbol r dynamic in [0, 40] <= 2*N
  symbol r0 dynamic in [0, 40] <= 2*N
  symbol r1 dynamic in [0, 40] <= 2*N
  symbol r2 dynamic in [0, 40] <= 2*N
  entry main(%x: f32[N, 4]) -> (y: %y, z: %z) {
    %w = const {value = [1, 0, 0, 0.5, 0, 1, 0.5, 0, 0.25, 0, 1, 1]} : f32[3, 4]
    %scores = linear(%x, %w)
    %expert, %weight = route(%scores) {top_k = 2, act = "sigmoid", weigh = "as_is"}
    %up = const {value = [1, 2, 3, 4, -1, 1, 0.5, 0.5, 0, 0, 1, 2, 3, 1, 1, -1, -2, 0.25, 1, 0, 1, 0, 1, 0]} : f32[3, 2, 4]
    %down = const {value = [1, 2, 3, 4, -1, 1, 0.5, 0.5, 0, 0, 1, 2, 3, 1, 1, -1, -2, 0.25, 1, 0, 1, 0, 1, 0]} : f32[3, 4, 2]
    %y = experts(%x, %expert, %weight, %up, %down) {experts = 3, top_k = 2, apply = "input"} : f32[N, 4] regions {
      (%rows: f32[r, 4], %u: f32[2, 4], %d: f32[4, 2]) -> (%o) {
        %a = linear(%rows, %u)
        %b = silu(%a)
        %o = linear(%b, %d)
      }
    }
    %z = experts(%x, %expert, %weight) {experts = 3, top_k = 2, apply = "input"} : f32[N, 4] regions {
      (%rows: f32[r0, 4]) -> (%o) {
        %o = neg(%rows)
      }
      (%rows: f32[r1, 4]) -> (%rows) {
      }
      (%rows: f32[r2, 4]) -> (%o) {
        %o = add(%rows, %rows)
      }
    }
  }
}
