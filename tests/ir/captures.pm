// Regions make their own constants, at every depth, and take nothing that they don't use.
// options: --passes=captures,fold,dce
module "m" {
  symbol T in [1, 8]
  entry main(%x: f32[T, 2], %n: i64[], %c: bool[]) -> (a: %a, b: %b) {
    %w = const {value = [1, 2, 3, 4]} : f32[2, 2]
    %yes = const {value = [true]} : bool[]
    // the unchanged value is what it was; weights and the unused value aren't operands any more
    // CHECK: loop(%n, %yes, %x, %x, %c) {carried = 2} : f32[T, 2], f32[T, 2]
    // CHECK: if(%{{.*}}, %{{[a-z0-9]+}}) : f32[T, 2]
    // CHECK-NEXT: (%{{[a-z0-9]+}}: f32[T, 2]) -> (
    // CHECK-NEXT: const {value = [1, 2, 3, 4]}
    // CHECK-NEXT: matmul(
    %a, %same = loop(%n, %yes, %x, %x, %w, %c, %x) {carried = 2} : f32[T, 2], f32[T, 2] regions {
      (%i: i64[], %go: bool[], %s: f32[T, 2], %o: f32[T, 2], %u: f32[2, 2], %d: bool[], %unused: f32[T, 2]) -> (%go, %t, %o) {
        %t = if(%d, %s, %u, %unused) : f32[T, 2] regions {
          (%p: f32[T, 2], %q: f32[2, 2], %r: f32[T, 2]) -> (%y) {
            %y = matmul(%p, %q) : f32[T, 2]
          }
          (%p: f32[T, 2], %q: f32[2, 2], %r: f32[T, 2]) -> (%p) {
          }
        }
      }
    }
    // CHECK: exp(%x)
    %b = exp(%same) : f32[T, 2]
  }
}
