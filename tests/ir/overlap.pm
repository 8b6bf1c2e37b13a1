// The host and a device side by side: downloads are asked for behind what makes them, the device's other work goes before
// the host's, which waits; what comes back has memory that nothing else has meanwhile, what is read stays until the host
// has it. What was in a state is asked for before it is overwritten. What needs nothing is made where it is read.
// options: --devices=cpu0,emu0 --passes=overlap,plan-memory
module "m" {
  state "s" : f32[2, 4, 3] on emu0
  entry forward(%x: f32[2, 4], %s: f32[2, 4, 3] state "s", %w: f32[4, 1, 4], %a: f32[2, 4, 4], %past: i64[2]) -> (y: %y, s: %now state "s") {
    // CHECK: %x0 = transfer(%x) on emu0 : f32[2, 4] @ arena(0)
    %x0 = transfer(%x) on emu0
    %p0 = transfer(%past) on emu0
    %a0 = transfer(%a) on emu0
    %w0 = transfer(%w) on emu0
    %half = const {value = splat(0.5)} : f32[4, 4]
    %shape = const {value = [2, 4]} : i64[2]
    // CHECK: %rows = relu(%x0) on emu0 : f32[2, 4] @ arena([[ROWS:[0-9]+]])
    // CHECK-NEXT: %here = transfer(%rows)
    // CHECK-NEXT: %mine = linear(%rows, %half) on emu0
    // CHECK-NEXT: %shared = tanh(%rows) on emu0
    // CHECK-NEXT: %old = transfer(%s)
    // CHECK-NEXT: %first = add(%mine, %shared) on emu0
    // CHECK-NOT: arena([[ROWS]])
    // CHECK: %now, %seen = causal_conv(%s, %a0, %w0, _, %p0) on emu0
    // CHECK-NEXT: %host = relu(%here)
    // CHECK-NEXT: %sum = reduce_sum(%old)
    %rows = relu(%x0) on emu0
    %mine = linear(%rows, %half) on emu0
    %here = transfer(%rows)
    %host = relu(%here)
    // CHECK: %back = transfer(%host) on emu0 : f32[2, 4] @ arena([[BACK:576]])
    %back = transfer(%host) on emu0
    %shared = tanh(%rows) on emu0
    %old = transfer(%s)
    %sum = reduce_sum(%old) {axes = [1, 2], keepdims = true}
    %two = const {value = [2, 1]} : i64[2]
    %flat = reshape(%sum, %two)
    // CHECK: %empty = fill(%shape, %zero) on emu0 : f32[2, 4] @ arena([[ROWS]])
    %zero = const {value = splat(0)} : f32[]
    %empty = fill(%shape, %zero) on emu0
    %there = add(%back, %empty) on emu0
    %first = add(%mine, %shared) on emu0
    %both = add(%first, %there) on emu0
    %now, %seen = causal_conv(%s, %a0, %w0, _, %p0) on emu0
    %down = transfer(%both)
    %y = add(%down, %flat)
  }
}
