// What devices do in kernels of their own and samples have none of: products of codes of few bits, and moves of elements.
// Compiled for the CPU and for the emulated device by emu_models.sh, which compares the numbers.
module "moves_and_codes" {
  symbol T in [1, 64]
  entry main(%x: f32[T, 40]) -> (a: %a, b: %b, c: %c, d: %d, e: %e, f: %f, g: %g, h: %h, last: %last) {
    %codes4 = const {value = hex("82b70eee7f1a5039bef07ec2347f066ed08f5dc7512447e3404300026b6e545594a065685d64c4980bb8d4544a8721a99a01ad219eb59cf6a15ef6f15a1d830bb7ce09d6bbc004e7175c643c7decb0b580ec37bc9712dd2e6aaeb94bae8d2f9fa29c5a284c9ef7521829cf1079b080e9d74a1c10fcab6a42")} : u8[6, 20]
    %scales = const {value = hex("046d763f652b033ea8043cbf87014b3fe07d30be509029bfe90c82bed1e861bf728422be51b437bfd210583f5195763ed55229bfeed0353d56966b3f065fc13e43acbabe3b63e7be0e1975bda8c04d3f7d5e46bf65e4243f3c0e823d2d2624bf67d15f3f24503c3f46c723bf265585bcceb0f83c1005c53d")} : f32[6, 5]
    %zeros = const {value = hex("b820b6119cba8ff88796ae5b05f280a68ced")} : u8[6, 3]
    %w4 = dequantize(%codes4, %scales, %zeros) {k = 40, block = 8}
    %a = linear(%x, %w4)
    %codes8 = const {value = hex("93b6b28cb0d1b358e6baab485565b9f49028d557d79a8a0e6451e15c705c15f173541b4438a25cf76312d4eeb3c2246879bf00b3cf8ed13abf129a3097ad96b442d6d1bdef4850c3f465442eb300c337a648a6c0dbdd73fc95f5c2c451859afe80d40aa39dfb9249f40c3ee37d961445c806f58c7cf2127dfa894f9296fcf33c08409990ac970dedb3b843120181e9376107dbdaf6c5f3c86497ee219b01dd92f19f4954f4fea94ed9182375882b200daadb23cff9193f3e70384495e04c5d5ed352226d1637c2248f1d3ccc4405dd2ea1fafab4bf1c46964d947086207882914478bee8c75b4309ae2b122e3fe87ac7")} : u8[6, 40]
    %scale8 = const {value = hex("88fc403fb80120bd74f4b4be13ca173f7eea70bf2568e63e")} : f32[6, 1]
    %w8 = dequantize(%codes8, %scale8) {k = 40, bits = 8}
    %b = linear(%x, %w8)
    %small = const {value = hex("1b4ddb723b2afb6c47c0b57894aab2c5c145b797ddb9126e5cca203112105f676414faf6b200daf099dba5eeec33624f5124bfc5f04d82388e52927810f610b0bca11e0be9f14f3ca695e87a5311660c7628cdba9f5eefb99022ef537b596a16dc8a03ec1fe7d2561711b3302479fb2ff11b7c19fecb1e18")} : u8[6, 20]
    %powers = const {value = splat(126)} : u8[6, 5]
    %w2 = dequantize(%small, %powers) {k = 40, block = 8, format = "e2m1"}
    %c = linear(%x, %w2)
    // one axis, two axes, from the end, with steps
    %one = const {value = [1]} : i64[1]
    %many = const {value = [1000]} : i64[1]
    %from = const {value = [8, 0]} : i64[2]
    %to = const {value = [40, 1000]} : i64[2]
    %axes = const {value = [1, 0]} : i64[2]
    %steps = const {value = [4, 2]} : i64[2]
    %d = slice(%x, %from, %to, %axes, %steps)
    %back = const {value = [-16]} : i64[1]
    %tail = slice(%x, %back, %many, %one)
    %left, %right = split(%tail) {axis = 1}
    %e = concat(%right, %left, %x) {axis = 1}
    %f = concat(%left, %right) {axis = 0}
    // rows of a table, columns of x
    %table = const {value = hex("8c70fabe587f3dbe56b5c6be9bb665bf19bf6cbfcb78713f762724bf65618d3cc8f847bef43d803dcdce54bf2a94bebecab648bf38c6ab3df7b4573f704a493e25aa363fe23812bf431677bf4d56a23d3587dcbcb845123e1daa7cbe061a803ed00de73e9074533fa101c5be62b9d0bdf61f273f57530dbfb2c444bf1ecdc0be8c2153bfaa780b3f568d233f6f9dbfbe15893dbf110656bf14a302bf64d354bfe41f12be29a91d3eb55c02bfa18a60bfb76acd3e776867bfbfac19bf041edbbe5c4481be598d4dbf03a822be4589bebeb82f013f82b8e53d4ecc4a3fe5cb9d3edaf9043f7b0b193ef0d1ecbdb333223f")} : f32[5, 12]
    %which = const {value = [4, -1, 0, 2]} : i64[4]
    %rows = gather(%table, %which)
    %g = neg(%rows)
    %h = gather(%x, %which) {axis = 1}
    %shape = const {value = [1, -1, 40]} : i64[3]
    %x3 = reshape(%x, %shape)
    %last = last_rows(%x3)
  }
}
