// Groups of loops with sums over rows, whose columns the lanes of a warp share: several at a time and the rest.
// Compiled for the CPU and for the emulated device by emu_models.sh, which compares the numbers.
module "row_groups" {
  symbol T in [1, 64]
  entry main(%x: f32[T, 300], %y: f32[T, 300]) -> (a: %a, n: %n, s: %s, m: %m, l: %l, k: %k) {
    %g16 = const {value = hex("01345b3a693866b865b6fa39eabb2439c1381bac4eb617b7d8b708afa820d92eee3baf38d233d33b8eb870b934334cbb6ebba02753acad3a23343a27679e0ab8d0bbecb82536cab82db4f1bb483987b970b7163a03258e397934bd3789ba442df523f13971b449320dbb31b3aab599b91039b7b3a93bc231b9326a34a53596b9a4af2bb83db274ba7c3b8fb87f3563b6fc393135e5b985391f3b763a7630acb9ecb8d93ab32e1cb9253a88347630ebb3b3b12bb864bb053a21ac192eb1b5053899bb17b484bb09ba793b0c3598b0142af739fcb4c731e135a0b4e4283e388c3a95b9ef3aebbb0c38f838d0b931b10b39c6bb1c34b038a8263a3761b8d3b861b421b9edb42c3bb1301eb550b73c3b1bafb03bf3276b29583ac5372931b2b00d3aa8b1c43ae7ba7bb0ff28373bf8b7e638a635f23626348c3b5bb583b2c1b830bb98b8a63a713934baa43253a90f32193530b6623b5fac193454340fb903bbaab139380b395c3730ba9d3ad5380b3af729a63a41bb84bbadbbe9b706b800b94b3060bbc93158b9b135aabb10b6033bea2cfc380f351733f1b8c3305dbbd4385c3baa3930bb2ab5d3b532ba0d34c238f6b5ce39c138efb945381f3ad8b8b7307134ff3276ba283539342f39db3888b51b37e0394a3a6ab993bbd33491b814301e3bb9b3e9b791ad083562baa4b3dcb933354a39e2b31bb40f2d8fb80bb872b573adb2ba0b380f3169b6c2ba3638e7b9deb9e9b9b3ba813a62b732b65339ad3301b92cb0253afab3c03673ba46376c383639933523b4f9bacf281f38f2b87bb7a02cf237583afdb90db9cb38a0341237f33b073b7d396f38b8b2")} : f16[300]
    %g = cast(%g16) {to = f32}
    %a = add(%x, %y)
    %n = rms_norm(%a, %g) {eps = 1e-5}
    %twice = mul(%x, %a)
    %s = softmax(%twice)
    %m = reduce_max(%twice) {axes = [1], keepdims = true}
    %d = sub(%twice, %m)
    %l = layer_norm(%d, %g, %g) {eps = 1e-5}
    // one column more than a round has
    %from = const {value = [171]} : i64[1]
    %to = const {value = [300]} : i64[1]
    %axis = const {value = [1]} : i64[1]
    %part = slice(%l, %from, %to, %axis)
    %half = tanh(%part)
    %k = reduce_sum(%half) {axes = [1], keepdims = true}
  }
}
