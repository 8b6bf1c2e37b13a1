// values that a loop carries: exchanged, grown, unchanged, of a trip count and a condition that data decides
module "control_carried" {
  symbol N in [0, 9]
  symbol g dynamic in [0, inf]
  symbol h dynamic in [0, inf]
  symbol r dynamic in [0, inf]
  symbol k dynamic in [0, inf]
  entry main(%x: f32[N, 4], %y: f32[N, 4], %n: i64[], %limit: f32[]) -> (a: %a, b: %b, c: %c, d: %d, e: %e, t: %t) {
    %one = const {value = [1]} : i64[]
    %five = const {value = [5]} : i64[]
    %trips = add(%n, %five)
    %zero = const {value = [0]} : f32[1]
    %yes = const {value = [true]} : bool[]
    %a, %b, %c, %d, %e = loop(%trips, %yes, %x, %y, %zero, %y, %one, %limit) {carried = 5} : f32[N, 4], f32[N, 4], f32[g], f32[N, 4], i64[] regions {
      (%i: i64[], %go: bool[], %p: f32[N, 4], %q: f32[N, 4], %s: f32[h], %same: f32[N, 4], %count: i64[], %m: f32[]) -> (%on, %q, %p2, %longer, %same, %next) {
        %p2 = add(%p, %same)
        %f = cast(%i) {to = f32}
        %dim = const {value = [1]} : i64[1]
        %f1 = reshape(%f, %dim)
        %longer = concat(%s, %f1) {axis = 0} : f32[h + 1]
        %sum = reduce_sum(%longer) {axes = [0], keepdims = false}
        %step = const {value = [1]} : i64[]
        %next = add(%count, %step)
        %bound = const {value = [20]} : f32[]
        %most = add(%bound, %m)
        %on = less(%sum, %most)
      }
    }
    %t = reduce_sum(%c) {axes = [0], keepdims = true}
  }
}
