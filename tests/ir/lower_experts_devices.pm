// Experts of one layer on two devices: each device sorts the choices by its own experts, behind which the others' rows
// come; what those become is zero, and the parts are added up. The host's experts come last.
// options: --devices=cpu0,emu0 --passes=lower-experts,canonicalise,fold,dce
module "m" {
  symbol M in [1, 64]
  symbol n0 dynamic in [0, 128] <= 2*M
  entry main(%x: f32[M, 4], %i: i32[M, 2], %v: f32[M, 2]) -> (y: %y) {
    // CHECK: %[[TABLE:[0-9]+]] = const {value = [0, 2, 1]} : i32[3]
    // CHECK: %[[IDS:[0-9]+]] = gather(%[[TABLE]], %i) on emu0 : i32[M, 2]
    // CHECK: %[[T:[0-9]+]], %[[O:[0-9]+]], %[[S:[0-9]+]] = expert_order(%[[IDS]]) {experts = 3} on emu0
    // CHECK: linear
    // CHECK: where(
    // CHECK: %[[EMU:[0-9]+]] = combine(
    // CHECK: const {value = [1, 0, 1]} : i32[3]
    // CHECK: expert_order(%{{[0-9]+}}) {experts = 2} on cpu0
    // CHECK: %[[CPU:[0-9]+]] = combine(
    // CHECK: add(%[[EMU]], %[[CPU]]) on emu0
    %w = const {value = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24]} : f32[3, 2, 4]
    %y = experts(%x, %i, %v, %w) {experts = 3, top_k = 2, devices = "emu0,cpu0,emu0"} regions {
      (%rows: f32[n0, 4], %we: f32[2, 4]) -> (%o) {
        %h = linear(%rows, %we)
        %o = silu(%h)
      }
    }
  }
}
