// What devices do in kernels of their own and samples have none of: products of codes of few bits and of 16, and moves of elements.
// Compiled for the CPU and for the emulated device by emu_models.sh, which compares the numbers.
module "moves_and_codes" {
  symbol T in [1, 64]
  entry main(%x: f32[T, 40]) -> (a: %a, b: %b, c: %c, d: %d, e: %e, f: %f, fp8: %fp8, g: %g, h: %h, filled: %filled, last: %last, half: %half, turned: %turned) {
    %codes4 = const {value = hex("82b70eee7f1a5039bef07ec2347f066ed08f5dc7512447e3404300026b6e545594a065685d64c4980bb8d4544a8721a99a01ad219eb59cf6a15ef6f15a1d830bb7ce09d6bbc004e7175c643c7decb0b580ec37bc9712dd2e6aaeb94bae8d2f9fa29c5a284c9ef7521829cf1079b080e9d74a1c10fcab6a42")} : u8[6, 20]
    %scales = const {value = hex("046d763f652b033ea8043cbf87014b3fe07d30be509029bfe90c82bed1e861bf728422be51b437bfd210583f5195763ed55229bfeed0353d56966b3f065fc13e43acbabe3b63e7be0e1975bda8c04d3f7d5e46bf65e4243f3c0e823d2d2624bf67d15f3f24503c3f46c723bf265585bcceb0f83c1005c53d")} : f32[6, 5]
    %zeros = const {value = hex("b820b6119cba8ff88796ae5b05f280a68ced")} : u8[6, 3]
    %w4 = dequantize(%codes4, %scales, %zeros) {k = 40, block = 8}
    %a = linear(%x, %w4)
    %codes8 = const {value = hex("93b6b28cb0d1b358e6baab485565b9f49028d557d79a8a0e6451e15c705c15f173541b4438a25cf76312d4eeb3c2246879bf00b3cf8ed13abf129a3097ad96b442d6d1bdef4850c3f465442eb300c337a648a6c0dbdd73fc95f5c2c451859afe80d40aa39dfb9249f40c3ee37d961445c806f58c7cf2127dfa894f9296fcf33c08409990ac970dedb3b843120181e9376107dbdaf6c5f3c86497ee219b01dd92f19f4954f4fea94ed9182375882b200daadb23cff9193f3e70384495e04c5d5ed352226d1637c2248f1d3ccc4405dd2ea1fafab4bf1c46964d947086207882914478bee8c75b4309ae2b122e3fe87ac7")} : u8[6, 40]
    %scale8 = const {value = [0.01, -0.02, 0.015, 0.01, 0.005, -0.01]} : f32[6, 1]
    %w8 = dequantize(%codes8, %scale8) {k = 40, bits = 8}
    %b = linear(%x, %w8)
    %small = const {value = hex("1b4ddb723b2afb6c47c0b57894aab2c5c145b797ddb9126e5cca203112105f676414faf6b200daf099dba5eeec33624f5124bfc5f04d82388e52927810f610b0bca11e0be9f14f3ca695e87a5311660c7628cdba9f5eefb99022ef537b596a16dc8a03ec1fe7d2561711b3302479fb2ff11b7c19fecb1e18")} : u8[6, 20]
    %powers = const {value = splat(126)} : u8[6, 5]
    %w2 = dequantize(%small, %powers) {k = 40, block = 8, format = "e2m1"}
    %c = linear(%x, %w2)
    // no NaN among these
    %codesf = const {value = hex("8b30d57aa045ea10b55a80254aef15ba5f852acf749a3fe40a2fd4799f44e90fb459fe24c96e14b95e8429ce73993ee309ae53789e43e80eb358fd23c86d93385d8328cd72983de208ad52f71d42e70db257fc22c76c9237dc0227cc71973ce107ac51f61cc1660cb156fb21c66b9136db01a64b70963be006ab50f51bc0658b3055fa20c56a9035da00a54aef153adf05aa4ff41abf648a2fd4791fc4698f34d97ea449ee14b95e04a94ef319be63892ed3789e43688e33d87da348ed13b85d83284df218bd62882dd2779d42e70d32d77ca247ec12b75c8227cc7117bc61872cd1769c41e60cb1567ba146eb11b65b")} : u8[6, 40]
    %blocksf = const {value = hex("0000c03c0000c83c0000d03c0000d8bc0000e03c0000e83c0000f03c0000f83c0000003d0000043d0000083d00000c3d0000103d0000143d0000183d00001c3d0000203d0000243d")} : f32[6, 3]
    %wf = dequantize(%codesf, %blocksf) {k = 40, bits = 8, block = 16, format = "e4m3"}
    %fp8 = linear(%x, %wf)
    // rows of whole blocks: 48 codes for 40 factors
    %codes_filled = const {value = hex("82b70eee7f1a5039bef07ec2347f066ed08f5dc7512447e3404300026b6e545594a065685d64c4980bb8d4544a8721a99a01ad219eb59cf6a15ef6f15a1d830bb7ce09d6bbc004e7175c643c7decb0b580ec37bc9712dd2e6aaeb94bae8d2f9fa29c5a284c9ef7521829cf1079b080e9d74a1c10fcab6a4243d33656debe4c1ed79648e856e8f9a2f58c95f0ce4b39c1")} : u8[6, 24]
    %scales_filled = const {value = hex("65e4243f3c0e823d2d2624bf67d15f3f24503c3f46c723bf265585bcceb0f83c1005c53d2c1bb93b34b05fbf221e173fb1c393befa2a333ecd6d6ebfd2f6c6be95f3f23dd058ac3e")} : f32[6, 3]
    %w_filled = dequantize(%codes_filled, %scales_filled) {k = 40, block = 16}
    %filled = linear(%x, %w_filled)
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
    // factors that have 16 bits already: as they are, and turned
    %short = cast(%x) {to = f16}
    %w16 = const {value = hex("a3b596b9d434d7ba982c4cb412bb9d2366bb3fb0e2ba8cbad5b03b3905ba6eb814342a3bef309db29f3b41bbbc39bcb6b1b91eba21b60f391cb93931723415b41c2effba0cbbb4b8c635a2b0f3b57a31fead68b6b6385e3618b8c330732a013a5837c9b6af3b1cba3db11d3891b9a7a55fbb62353c38ac30023af6b540360a321d319bad71391d3ba1aa413507bb7336b534e43b2739e5b64fb36635a4bbe7ac50b920ba0fbb4b38eeb90ab8fbb2f139b6ba81ae542e223a1c39d33917b76cb185b4263a533b96b92eb94ab844b8b3a7b43198b7efbb30b12fb43f30403b1936ee278733a33523bb643a7b38fe39c438e3b277b258ba4c3401bbecbaa9b867b91eb529bbffbb94b960ba5db498bbfd394d33a0b9eeb7e2b459b409ba9539e43b5aac23a8a0ba5dba09b587b743396bb9a1bb373b3c2ba8b9872d91bb322ba83bd0394736a5b744b454b95a382c2c773873b56eb8fc38c23ba439e6381839ad375fb884289fb489bb8ebb0fb7b5b729364e3bc1aefe3acf3b483b55b479b85fb8dab8bbb8f133683a723941a9e534cb38a5ba24358e3a84380138a0a925b9a0385cb5d0388c3babb250b2263b323748b9f8b995b97a3ae738a9b93939af3b0835c9b43a2ee7b9c6bb893bca34ce2af03a3cb0f3393839a0b8f1b7a0b627b88831b3b72fb1e7b98f3aaeb45bad5631783a14b1af3ac11a132c052ab3bbaaaf12b9f0bbc9383eb9c9aa35373b2f92b5b328192f8c384dbab82f06b823b75b38e623e72f29389a3a44af3433b0213a262b361aae432c9fa9103b6036063a133bb1b79e2f183b7139ceb90eba69afd7ba26b8d4ba6c358b385a3a87b9ea362135b6b9203a7b3b7db83d3b83b286a6d73b52396bb962b0fd2726b5deb8cfb51c37b0bbeb2e9fafb6bb64b5ee334726f9bac33b9d388c3b53ba80b75ebb773859b7edb9fab0953a1b39b9b79cb9b53a85306a3692ba14bb0636c8b0d7ba033b4d34d338a9bab339efbace39ebad26b5cb2ed43a")} : f16[9, 40]
    %half = linear(%short, %w16) {compute = f16}
    %wide = cast(%short) {to = f32}
    %v16 = const {value = hex("6eb7efb9e42a2fb840ba6bb932bbc6b804b63db62738b9b6ce0927b9e5b4b6bbfcb7c1bb7537892ef8b876aaf43a4dba1a3957b01ea15b39d8b2d9220236b83b09b551399d365a3419b2e1b421bbecb9debab537d2b763b9a6ba7639ee397535fab620b89fb631ad7bb9efae94b7633b903b072e17b8733b18b697b4fcbb93b37eaaa91dc9b8d920ecbb8cb790ba6eb255bba4bb44b646b87a31792b02380b35e936113a12b390b5c13b9cb92c3795344dbb5d39453a13347c37ff38c5b9152a7a205c39e03839396131493ada35303652b880bbdfb975b452ba60397e2f17340a34c8357ba5f2bbc338f237161e812c1935f1ba9437eeb7cfba81b75737b7b8ad379d3b32a284b360a9e13546387d339234c3baa4b9e0b7c83742b65630cdbb08bb66b7813526369f35b1b63c2886ac4fac1bba4c3ad0b8a63bfb3ab8bb40ad1e397d3b78ae67b7a5b8213ba1b83731bbb9292a3e3be1b920397a24313a82364cb85d3a19a79abbf1bb40a44dae56b6c0b9feb4e3b57239f9bb03386d3914bad33ad1366d3abab617b4dbb2fb3bb53175b49bb032b73abb5fba5b39dcb6f83a03b87fb79d25f6b80eb44c3b263afe3830349d3a0d3b4d2e073735bb6f374aae0b38a034d7b637bbd43af7b91fab01b579b6a6379f3badb7fe3460b6562fc3b253b96ab9adb87f3afd9d7bb8803af23b68aec4b9ecb88cba0fb58bba2db8bcb77530323afd3795b183b1302ae1b32db502bb1fb77c3bfcb9f41e2634ce398bb854b706b86ab2eeae433b9439f739a7bb")} : f16[40, 7]
    %vt = transpose(%v16) {perm = [1, 0]}
    %vwide = cast(%vt) {to = f32}
    %turned = linear(%wide, %vwide)
  }
}
