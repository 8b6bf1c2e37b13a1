// What runs beside the host, and what is brought where. A state lives with the ops that use it; arithmetic of sizes,
// extents that the data decides and control flow stay on the host; views follow what they show.
// options: --devices=cpu0,emu0 --passes=assign-devices,transfers,plan-memory
module "m" {
  symbol B in [1, 8]
  symbol n dynamic in [0, 64] <= 8*B
  // CHECK: state "k" : f32[2, 3, 3] on emu0
  state "k" : f32[2, 3, 3]
  // CHECK: plan(arena = 128, arena emu0 = 448, dynamic = 1)
  // CHECK: %[[X:[0-9]+]] "x" = transfer(%x) on emu0 : f32[2, 3, 3] @ arena(128)
  entry forward(%x: f32[2, 3, 3], %k: f32[2, 3, 3] state "k", %w: f32[3, 1, 4], %c: bool[], %past: i64[2]) -> (y: %y, k: %now state "k", where: %i, z: %z) {
    %half = const {value = splat(0.5)} : f32[3, 3]
    %one = const {value = [1]} : i64[]
    // CHECK: %next = add(%past, %one) : i64[2] @ arena(0)
    // CHECK-NEXT: %[[NEXT:[0-9]+]] "next" = transfer(%next) on emu0
    %next = add(%past, %one)
    // CHECK-NEXT: linear(%[[X]], %half) on emu0
    %a = linear(%x, %half)
    // CHECK-NEXT: relu(%a) on emu0
    %b = relu(%a)
    %shape = const {value = [-1]} : i64[1]
    // CHECK: %flat = reshape(%b, %shape) on emu0 : f32[18] @ alias(0)
    // CHECK-NEXT: %[[FLAT:[0-9]+]] "flat" = transfer(%flat) : f32[18] @ arena(0)
    %flat = reshape(%b, %shape)
    // CHECK-NEXT: nonzero(%[[FLAT]]) : i64[1, n] @ dynamic(0)
    %i = nonzero(%flat) : i64[1, n]
    // CHECK-NEXT: causal_conv(%k, %b, %{{[0-9]+}}, _, %[[NEXT]]) on emu0 : f32[2, 3, 3] @ alias(0)
    %now, %seen = causal_conv(%k, %b, %w, _, %next)
    // CHECK-NEXT: mul(%seen, %b) on emu0
    // CHECK-NEXT: %[[Y:[0-9]+]] "y" = transfer(%y) : f32[2, 3, 3] @ output(0)
    %y = mul(%seen, %b)
    // CHECK-NEXT: if(%c, %[[Y]]) : f32[2, 3, 3] @ output(3)
    %z = if(%c, %y) regions {
      (%u: f32[2, 3, 3]) -> (%v) {
        %v = relu(%u)
      }
      (%u: f32[2, 3, 3]) -> (%v) {
        %v = neg(%u)
      }
    }
  }
  // a constant that a device overwrites is a copy of it there, which must be brought back
  entry overwritten(%x: f32[2, 8, 4], %w: f32[4, 1, 4]) -> (y: %y, kept: %kept) {
    // CHECK: entry overwritten
    // CHECK: %[[COPY:[0-9]+]] = cast(%zeros) {to = f32} on emu0
    // CHECK: %kept, %y = causal_conv(%[[COPY]], %{{[0-9]+}}, %{{[0-9]+}}) on emu0
    // CHECK: "kept" = transfer(%kept) : f32[2, 4, 3] @ output(1)
    %zeros = const {value = splat(0)} : f32[2, 4, 3]
    %kept, %y = causal_conv(%zeros, %x, %w)
  }
}
