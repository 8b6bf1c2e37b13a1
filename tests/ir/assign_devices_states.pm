// A state lives where all ops that use it can run, in every entry; what is placed by hand decides, and states that one op
// uses live together.
// options: --devices=cpu0,emu0,emu1 --passes=assign-devices,transfers
module "m" {
  // CHECK: state "plain" : f32[2, 3, 3] on emu0
  state "plain" : f32[2, 3, 3]
  // CHECK: state "kept" : f32[2, 3, 3]{{$}}
  state "kept" : f32[2, 3, 3]
  // CHECK: state "placed" : f32[2, 3, 3] on emu1
  state "placed" : f32[2, 3, 3]
  // CHECK: state "friend" : f32[2, 3, 3] on emu1
  state "friend" : f32[2, 3, 3]
  entry first(%x: f32[2, 3, 3], %p: f32[2, 3, 3] state "plain", %k: f32[2, 3, 3] state "kept", %q: f32[2, 3, 3] state "placed", %f: f32[2, 3, 3] state "friend")
      -> (y: %y, p: %p1 state "plain", k: %k1 state "kept", q: %q1 state "placed", f: %f1 state "friend") {
    %w = const {value = splat(0.5)} : f32[3, 1, 4]
    // CHECK: causal_conv(%p, %{{[0-9]+}}, %w) on emu0
    %p1, %a = causal_conv(%p, %x, %w)
    // CHECK: causal_conv(%k, %x, %w) : f32
    // CHECK: %[[B:[0-9]+]] "b" = transfer(%b) on emu0
    %k1, %b = causal_conv(%k, %x, %w)
    // CHECK: causal_conv(%q, %{{[0-9]+}}, %w) on emu1
    %q1, %c = causal_conv(%q, %x, %w) on emu1
    // CHECK: %[[C:[0-9]+]] "c" = transfer(%c) on emu0
    // CHECK: causal_conv(%f, %q1, %w) on emu1
    %f1, %d = causal_conv(%f, %q1, %w)
    // CHECK: add(%a, %[[B]]) on emu0
    %ab = add(%a, %b)
    // CHECK: add({{.*}}, %[[C]]) on emu0
    %abc = add(%ab, %c)
    %y = add(%abc, %d)
  }
  entry second(%c: bool[], %k: f32[2, 3, 3] state "kept") -> (z: %z, k: %k state "kept") {
    // control flow reads it: so it lies on the host in the other entry, too
    %z = if(%c, %k) regions {
      (%u: f32[2, 3, 3]) -> (%v) {
        %v = relu(%u)
      }
      (%u: f32[2, 3, 3]) -> (%v) {
        %v = neg(%u)
      }
    }
  }
}
