// stacked results: of a known trip count, of one that data decides, of slices whose extent data decides, of no rounds
module "control_scanned" {
  symbol N in [0, 9]
  symbol r dynamic in [0, inf]
  symbol k dynamic in [0, inf] <= N
  symbol c dynamic in [0, inf]
  symbol w dynamic in [0, inf]
  symbol z dynamic in [0, inf]
  entry main(%x: f32[N, 4], %n: i64[], %v: i64[N]) -> (a: %a, b: %b, s: %s, d: %d, e: %e, f: %f) {
    %three = const {value = [3]} : i64[]
    %trips = add(%n, %three)
    %yes = const {value = [true]} : bool[]
    %no = const {value = [false]} : bool[]
    %zero = const {value = [0]} : f32[]
    // as many as there are rows: known before
    %rows = dims[N]
    %nil = const {value = []} : i64[0]
    %t = reshape(%rows, %nil)
    %s, %a = loop(%t, %yes, %zero, %x) {carried = 1, scanned = 1} : f32[], f32[N, 4] regions {
      (%i: i64[], %go: bool[], %acc: f32[], %m: f32[N, 4]) -> (%go, %next, %row2) {
        %row = gather(%m, %i) : f32[4]
        %row2 = add(%row, %row)
        %sum = reduce_sum(%row2) {axes = [0], keepdims = false}
        %next = add(%acc, %sum)
      }
    }
    %b, %d = loop(%trips, %yes, %v) {carried = 0, scanned = 2} : i64[r, 1, k], i64[r] regions {
      (%i: i64[], %go: bool[], %u: i64[N]) -> (%go, %nz, %i) {
        %nz = nonzero(%u) : i64[1, c]
      }
    }
    %e, %f = loop(%trips, %no, %v) {carried = 0, scanned = 2} : i64[w, 1, z], i64[w] regions {
      (%i: i64[], %go: bool[], %u: i64[N]) -> (%go, %nz, %i) {
        %nz = nonzero(%u) : i64[1, c]
      }
    }
  }
}
