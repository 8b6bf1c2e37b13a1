// branches: of other extents, in loops, in each other; a branch that gives what it was given
module "control_branches" {
  symbol N in [0, 9]
  symbol k dynamic in [0, inf] <= N
  symbol j dynamic in [0, inf] <= N
  symbol p dynamic in [0, inf] <= N
  entry main(%x: f32[N, 4], %v: i64[N], %n: i64[]) -> (a: %a, b: %b, c: %acc, d: %d) {
    %two = const {value = [2]} : i64[]
    %c = less(%n, %two)
    %a = if(%c, %x, %v) : f32[k, 4] regions {
      (%y: f32[N, 4], %u: i64[N]) -> (%g) {
        %nz = nonzero(%u) : i64[1, j]
        %d = const {value = [-1]} : i64[1]
        %index = reshape(%nz, %d) : i64[j]
        %g = gather(%y, %index) : f32[j, 4]
      }
      (%y: f32[N, 4], %u: i64[N]) -> (%y) {
      }
    }
    %b = exp(%a) : f32[k, 4]
    %yes = const {value = [true]} : bool[]
    %five = const {value = [5]} : i64[]
    %trips = add(%n, %five)
    %acc, %d = loop(%trips, %yes, %x, %x, %v, %n) {carried = 2} : f32[N, 4], f32[N, 4] regions {
      (%i: i64[], %go: bool[], %s: f32[N, 4], %w: f32[N, 4], %u: i64[N], %m: i64[]) -> (%go, %t, %both) {
        %odd = const {value = [2]} : i64[]
        %rest = mod(%i, %odd)
        %zero = const {value = [0]} : i64[]
        %is = equal(%rest, %zero)
        %t, %both = if(%is, %s, %w, %u, %i) : f32[N, 4], f32[N, 4] regions {
          (%q: f32[N, 4], %o: f32[N, 4], %e: i64[N], %r: i64[]) -> (%new, %o) {
            %hit = equal(%e, %r)
            %nz = nonzero(%hit) : i64[1, p]
            %d = const {value = [-1]} : i64[1]
            %index = reshape(%nz, %d) : i64[p]
            %rows = gather(%q, %index) : f32[p, 4]
            %tw = tanh(%rows)
            %column = const {value = [-1, 1]} : i64[2]
            %places = reshape(%index, %column) : i64[p, 1]
            %new = scatter_nd(%q, %places, %tw) {reduction = "add"}
          }
          (%q: f32[N, 4], %o: f32[N, 4], %e: i64[N], %r: i64[]) -> (%left, %right) {
            %four = const {value = [4]} : i64[]
            %big = less(%four, %r)
            %left, %right = if(%big, %q, %o) : f32[N, 4], f32[N, 4] regions {
              (%h: f32[N, 4], %l: f32[N, 4]) -> (%l, %h) {
              }
              (%h: f32[N, 4], %l: f32[N, 4]) -> (%z, %z) {
                %z = sub(%h, %l)
              }
            }
          }
        }
      }
    }
  }
}
