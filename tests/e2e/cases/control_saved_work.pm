// branches that only save work: the same when they always run
module "saved_work" {
  symbol T in [0, inf]
  symbol a dynamic in [0, inf] <= 2*T
  symbol b dynamic in [0, inf] <= 2*T
  entry main(%ids: i64[T, 2], %x: f32[T, 4], %acc: f32[T, 4], %l: f32[T, 6], %w: f32[4, 4], %i: i64[T]) -> (r: %r, s: %s, t: %t, u: %u, v: %v) {
    %zero = const {value = [0]} : i64[]
    %e = const {value = [3]} : i64[]
    %mask = equal(%ids, %e) : bool[T, 2]
    %m = cast(%mask) {to = i64} : i64[T, 2]
    %hits = reduce_sum(%m) {axes = [0, 1], keepdims = false} : i64[]
    %any = less(%zero, %hits) : bool[]
    // no rows: nothing is added
    %r = if(%any, %mask, %x, %acc, %w) : f32[T, 4] regions {
      (%k: bool[T, 2], %y: f32[T, 4], %o: f32[T, 4], %q: f32[4, 4]) -> (%n) {
        %nz = nonzero(%k) : i64[2, a]
        %one = const {value = [0]} : i64[]
        %row = gather(%nz, %one) : i64[a]
        %rows = gather(%y, %row) : f32[a, 4]
        %p = matmul(%rows, %q) : f32[a, 4]
        %like = dims[T, 4] : i64[2]
        %nil = const {value = [0]} : f32[1]
        %base = fill(%like, %nil) : f32[T, 4]
        %column = dims[a, 1] : i64[2]
        %at = reshape(%row, %column) : i64[a, 1]
        %sum = scatter_nd(%base, %at, %p) {reduction = "add"} : f32[T, 4]
        %n = add(%o, %sum) : f32[T, 4]
      }
      (%k: bool[T, 2], %y: f32[T, 4], %o: f32[T, 4], %q: f32[4, 4]) -> (%o) {
      }
    }
    // weights of softmax that are all 0
    %f = softmax(%l) : f32[T, 6]
    %g = gather(%f, %e) {axis = 1} : f32[T]
    %top = reduce_max(%g) {axes = [0], keepdims = false} : f32[]
    %z = const {value = [0]} : f32[]
    %some = less(%z, %top) : bool[]
    %s = if(%some, %g, %x, %acc) : f32[T, 4] regions {
      (%h: f32[T], %y: f32[T, 4], %o: f32[T, 4]) -> (%n) {
        %column = dims[T, 1] : i64[2]
        %weight = reshape(%h, %column) : f32[T, 1]
        %th = tanh(%y) : f32[T, 4]
        %part = mul(%th, %weight) : f32[T, 4]
        %n = add(%part, %o) : f32[T, 4]
      }
      (%h: f32[T], %y: f32[T, 4], %o: f32[T, 4]) -> (%o) {
      }
    }
    // the same with weights of any sign
    %gl = gather(%l, %e) {axis = 1} : f32[T]
    %topl = reduce_max(%gl) {axes = [0], keepdims = false} : f32[]
    %somel = less(%z, %topl) : bool[]
    %t = if(%somel, %gl, %x, %acc) : f32[T, 4] regions {
      (%h: f32[T], %y: f32[T, 4], %o: f32[T, 4]) -> (%n) {
        %column = dims[T, 1] : i64[2]
        %weight = reshape(%h, %column) : f32[T, 1]
        %part = mul(%y, %weight) : f32[T, 4]
        %n = add(%part, %o) : f32[T, 4]
      }
      (%h: f32[T], %y: f32[T, 4], %o: f32[T, 4]) -> (%o) {
      }
    }
    // a bias that is added without rows as well
    %u = if(%any, %mask, %x, %acc) : f32[T, 4] regions {
      (%k: bool[T, 2], %y: f32[T, 4], %o: f32[T, 4]) -> (%n) {
        %n = add(%o, %y) : f32[T, 4]
      }
      (%k: bool[T, 2], %y: f32[T, 4], %o: f32[T, 4]) -> (%o) {
      }
    }
    // indices that may be out of range where the branch does not run
    %v = if(%any, %m, %x, %acc, %i) : f32[T, 4] regions {
      (%k: i64[T, 2], %y: f32[T, 4], %o: f32[T, 4], %j: i64[T]) -> (%n) {
        %rows = gather(%y, %j) : f32[T, 4]
        %c = cast(%k) {to = f32} : f32[T, 2]
        %c1 = reduce_sum(%c) {axes = [1]} : f32[T, 1]
        %part = mul(%rows, %c1) : f32[T, 4]
        %n = add(%o, %part) : f32[T, 4]
      }
      (%k: i64[T, 2], %y: f32[T, 4], %o: f32[T, 4], %j: i64[T]) -> (%o) {
      }
    }
  }
}
