// Transposes and reshapes of each other.
// options: --passes=shapes,canonicalise,dce
module "m" {
  symbol B in [1, 8]
  entry main(%x: f32[B, 4, 6]) -> (a: %a, b: %b, c: %c, d: %d, e: %e) {
    // there and back
    // CHECK: %a = neg(%x)
    %a1 = transpose(%x) {perm = [0, 2, 1]}
    %a2 = transpose(%a1) {perm = [0, 2, 1]}
    %a = neg(%a2)
    // two turns are one
    // CHECK: %[[B:[0-9b]+]]{{.*}} = transpose(%x) {perm = [2, 1, 0]} : f32[6, 4, B]
    // CHECK-NEXT: %b = neg(%[[B]])
    %b1 = transpose(%x) {perm = [1, 2, 0]}
    %b2 = transpose(%b1) {perm = [1, 0, 2]}
    %b = neg(%b2)
    // a reshape of a reshape is one
    // CHECK: reshape(%x, {{.*}} : f32[2*B, 12]
    // CHECK-NEXT: %c = neg
    %s1 = const {value = [-1, 24]} : i64[2]
    %s2 = const {value = [-1, 12]} : i64[2]
    %c1 = reshape(%x, %s1)
    %c2 = reshape(%c1, %s2)
    %c = neg(%c2)
    // back to where it came from
    // CHECK: %d = exp(%x)
    %s3 = const {value = [-1, 4, 6]} : i64[3]
    %d1 = reshape(%x, %s1)
    %d2 = reshape(%d1, %s3)
    %d = exp(%d2)
    // moving an axis of one element moves no bytes
    // CHECK: reshape
    // CHECK-NOT: transpose
    %s4 = const {value = [-1, 1, 24]} : i64[3]
    %e1 = reshape(%x, %s4)
    %e2 = transpose(%e1) {perm = [1, 0, 2]}
    %e = neg(%e2)
  }
}
