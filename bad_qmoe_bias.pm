module "case" {
  entry main(%x: f32[6, 32] @ input(0), %scores: f32[6, 3] @ input(1)) -> (y: %43) plan(arena = 2496) {
    %fc1_bias = const {value = hex("fa4ae2bdacd84a3fff5c3dbfeb4fa8bfcfdf10bf6cf57f3fd007e9bf634db83f55a601c0687ad13fd233883f3f80413e33e6033e3426aa3f050090bfdc5b08bf"
        "e462b73ff2603a3fd3d84abf3562b23fdeecb7bfbb1968beeea817bf39c5a43e62e15bbf9b621d3fc01c193e92a2bbbf9dd31c40a89f91be25a9243d58af103f"
        "67ae87bf40b8f33e7caa81bf290e93bec764a33f4d8425be0e409dbfcee6933ebdf9713ea1c12a3fe787813e19d9723edc388fbe12badebfa9c83a3febab0540"
        "f52eff3e858932bfc55988bf6766c13e08a8d9bfea870d40083daebf0276e8be4a52973fc072c3bd84d40cbfbd1a303e7259be3e1c148d3feee17a3f16da40bf"
        "766f42bf4a3da23f859d9a3f9f926abe4c4b34be187c68bfcb1571bfad2728c02b0af4ba7ffebb3e16f6943f8bd3923f7229cebe705b8bbfd93fdbbd2f9b6abf"
        "6588ec3eae3cb2bfa4e0d13f4399bbbfd0f0993e7b8f8a3fab5b3b3f2e82143d9d90abbcc89f07bf7ce9213fd011553fa343c93e703facbef54552bf1d675a3e")} : f32[3, 32] @ weight(0) loc("tests/data/onnx/bad_qmoe_bias.onnx" tensor "fc1_bias")
    %fc2 = const {value = hex("61a079f08274f0f313828ccce37549f69b4beadef4c11336f430d31a5a3906c4a36f4a512844e2624e67745d03679da3b7125cf01c3c1fe4dbd024ffabd9fb2f"
        "7500aa6cad8d5e55debc2aa6e9359cb1f81dd7f1e8ee8a460fc58bf058527aebd389c544368001ba2f7202fa8d63fd9e36a4c3770cd65819d7ec5f3b352a791c"
        "eb23a7e5ecd8e356671e888d8cb45453b2d233184fce5a58d272649e5ca929fb36d80c18c1ce92a70f40b166509f43bd264080d4d2a4f14596c8c95f7dfe7a64"
        "1f5d262ee504248e240a07da98e34e7824fdd43c8200ecd4730c9f363ebf7a782a63bce8115218ca45e92b9ff8f9ceb3b4e2089d0efd8742116b026804897731"
        "d9add370a650bf442a4d99022a8ac022a02b77b738ea47a3a1cd4849612519f8388fbca7cf877e3a171833f4a3a5443ca025266a24655ac59199d8bf00cc35b5"
        "aecd17a865317f45c4b38b777d61ef3158e6a9d533651cd88692d08a1fff8f237c068d73f016cbcc0564ec77c4019e67d945b2a873267b6e92deb9c380c1a4df"
        "2decd46ced48c58e49e475c8a80edf6b93aefba153913a284add2093100deaf37cdee9b2236012f16d15a03fbb010471781563730c3046332c2702eddbc8e518"
        "4c5cd67fce76530cdae637f780cf2b58cf606725c3c4a9b062fb9e22dc62b6c423dad91aac3a9c124efb1422e2fe32825643383af2f90eefd5d18c754a2e709f"
        "50748940b051732af152059677c085c75405ac516b263945d431011f730adc0dab016101000e734a80b5ee8ac79ffc6def8bf18897ab0cb0d2949d8a5c8813da"
        "79147e884f73b682a117d0f05a425e8cb8e10f3b95b64306cb412d871d51498d3f9d1aea3bd5126c196d272e824237165838d6b331537a51a0e25c733568190c"
        "85ed699318498008e34c5a15734b07a9ac2f42867dfec37dce587d81d28b913493b7a48c907b116cbd86eb5e2e402274d4c5c655aab1fb78130728afbaef6a42"
        "99cb1d73605c499ddbab528bc21d9de211ffe0eadeabdf1ae6592670a1036928bc9a7ba9f261720bb0ff7d5360ba3bb826e73cd2b91411bf54e6437ac494108c")} : u8[3, 32, 8] loc("tests/data/onnx/bad_qmoe_bias.onnx" tensor "fc2")
    %fc2_scales = const {value = hex("9cd5773da25c8e3de4ae433c99bb783d1862da3c1e5d933d65174c3ca88dd23c927f203d1d34543cf3fc923d09f8283d77ec293d963aac3c79d5903d9a5b443d"
        "45257c3db35f4c3d879cd13cbd608b3dbbed683c8087e23cfe3b563cf86c823d70a18c3d81a84f3d90c2483db00f433c8ffe343d70d23b3dc872a43cb175433d"
        "34070c3d5b140b3d2b45d03c6fa5503dcf482b3da138783d799b483d22108f3df048823d6debb53c48cf803cc9eca43c83de0f3d5611de3c6504293d680b303d"
        "0c795f3d765c2d3d969f853cc00b043d1bd6653d86963c3d3833db3cd37d7c3cd5fa6d3c335b813d4e29cf3cac33473d59d8023dad20653d08bb953cbc8f0e3d"
        "3ac07c3d68a87a3ceff1303de72d873c69318b3d18ed6d3d54dba13c12ee4b3d53cceb3ccf1fc93c993eb83c494e923dccd6ff3cc0f8303d1c8fac3caf5f483c"
        "2fe0613d53a65c3d42eb6c3d5937813dbbdb0f3de575023d38e6a13c63d6643d97d0853c2a62a03cdb58693dfdf2193d62cb563d8a02773d451a403c4314513c")} : f32[3, 32, 1] loc("tests/data/onnx/bad_qmoe_bias.onnx" tensor "fc2_scales")
    %fc2_zeros = const {value = hex("0d070c050204080f0101090e0e0203010a0a090d0806030c00030406090709040900020b03020c0403010104010d030801070401090207090103020b080d0a0c"
        "0f020f0b060a08010f0d04040f01080a0c0e080b0a090b020206010507030908")} : u8[3, 32, 1] loc("tests/data/onnx/bad_qmoe_bias.onnx" tensor "fc2_zeros")
    %0 = const {value = hex("86e4474728eb8be332c96cb26cae1d28d208fc6d86ab4a4ef0c2a33506ad382c3b3670625708f2fb936124ca9d74266712811a28cc8ff796621a0e1be1a6c9fc"
        "d2fdd5b033a6302eb7ef70c8774cb7b9e6095f55aebc4949281e98016cc21e98b366529082affe960b9902fa2d73f407ae68d7f640ef2f1c82df416530320293"
        "9c6c0d6178798c89fb15366934a52291d70f3e74cacebf20973f523b23231f6d4fb6dc02617c1cc64f18cecb07ab2e684d5026ba8d3303e5692ae6b742c32ea0"
        "f3340fdf42dc9e8dc4f144ad3e05dc25df1efc06dc7c1cbe5ed0adec32c571fca3080af580a56befb6ba08c27a282186ac13f2b8002ee2d4ed23460aad4236a7"
        "116e2d308e12a2c359fc675160fbcaa07db7df4926778e6354a8b246979203431eec6312748075aa2e8e5d088d47347601b929be00eacad1bff2e79ef018d32f"
        "ddb0e088e8bc8ae192de549a68806a2dfce9bc2baf9caffc973d967a7d6b2b81e3bc71bfca04e6900c998e42be6eca49df195a0f220ef9acc548224d5e64fc29"
        "29e328b8f30521c487eb95ef0311893612b0c9bada53ba9eefa892145f18e9e2a05f96285f41335f7c54f2713060e01f195bbcd698d7dfc8320c151118aa061e"
        "14ce0d8e8c42ab0d0cbae7e76cfea74dca46041c6054fb2c448c1b22706acba017bf1e417e40689ae4c49f6d77f9823e548447a5ca1efde91bf105f49ba95fed"
        "d42330649c2b97b436fb50a796b9aaa16d1ec9f067fb7305ad026a70e6ff8ae1e066f177d9b927f2343c1d8321e5068910f6e6d0b8d6aaa86f0b80da8a1c05ca"
        "1c10f542962a2e6e4bcc8087bd551c3312a976742077e1f7cdd11eaa2051a614e062154273e9ad62405e3ff3586b3c0ac7908d12c49404a1cc62eb96e5eb45f5"
        "eab78374f76c733cb950ed737afb8c5b0bc034e1a2668b9ec63ed9d76aa295ceaa92bd9df87d032d269ec2db1309d354c29c9d0c96b69ee58225519be779318d"
        "a774886d0ccc15402f0b218e22becc20aa9dbac902c247869f1891405ae062c4ab7e41e1cca81b340f8f74dad900bf51072201ddc4c919105a32273ea08bef86")} : u8[3, 16, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "fold" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %1 = const {value = hex("77c8d23c0901833d8ddf1d3df495613d7e86fe3cf4e28d3d389b463d651a933d3928653d4b88f23c21d92c3d96a89b3caeeaee3c86a2363df0ac873d732a883d"
        "291b8d3d7e3d2e3deae3833dda3b4f3d71158f3dff850b3d930f4c3de2805b3d5fae693df916833d76770d3db693703dfef5573d2e4dd43c29880d3d697b553c"
        "d185c03cc9643a3c33e4973c271a123d57a6643cccfbbe3ceb37643c5464603d581a9c3c17142b3d24b7763d7b20f63cdb6a4e3d825f913d405f583c5058153d"
        "7766053de435653cbbe9963c85c88c3dd464043d41bb7e3d2c78793d7a32e73c8d358b3db916983c6a507a3d3d9e5b3dd332453d6c7c8d3dcacc633d0e5a243d"
        "f1836f3d443adc3cd5f7793daabe523d756d633d35c1043d6e36903d17541a3d546c2a3d6511323deafee93c3712903d78b24e3dc48b333dfd80163d1179393d"
        "b894093dd0cc5f3dcfd24a3dcf162e3d025a813dac7c3b3d02dc823d2c814f3cf25a713d5935843d2c08383d9716263de7548c3dca38a13cfc74d13cf8176c3d")} : f32[3, 16, 2] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "fold" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %2 = const {value = [12, 53, 239, 30, 171, 223, 44, 138, 134, 164, 47, 21, 209, 176, 110, 92, 126, 181, 118, 213, 29, 30, 156, 161, 171, 233, 121, 178, 112, 107, 194, 94, 72, 238, 113, 107, 160, 238, 207, 171, 195, 117, 28, 177, 163, 34, 5, 240]} : u8[3, 16, 1] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "fold" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %3 "fc1_bias" = const {value = [-0.11049457, -0.73970026, -0.56591505, -1.8205509, -2.025777, 1.0640814, 0.12880783, -1.1250006, 1.4327054, -0.792371, -1.4369161, -0.5924214, -0.8589078, 0.14952374, 2.4504158, 0.04020037, -1.0600098, -1.0130153, 1.276513, -1.2285173, 0.23630424, 0.25298998, -0.27973068, 0.72962433, 0.49840513, -1.0652395, -1.7004404, -1.3612375, 1.1821988, -0.55011773, 0.37177616, 0.9800099, -0.75951326, 1.2079321, -0.17606848, -0.9417388, -0.0018618753, 1.16376, -0.40265995, -0.10705537, 0.4619781, 1.639668, 0.30066538, 0.7318675, -0.02094298, 0.63246894, 0.39309415, -0.82137996]} : f32[3, 16] @ weight(0) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %4 = const {value = hex("0cca941900e4fbd049d771fc29d65b604ea1fe1f01b00e462c51d1bc492e4717aebe9a80937ed72378ad03ba71e97ccee02b7747717628f97c46c8d4f3e4a225"
        "b1414edd043fc7b16c379faf40e92722a1069e1d0111ce52e77a533349947e6fa8bf21f4d27c162b405d30156e417475bd6640ae939f9b1eff55a46cd9dc7ac0"
        "51b32617cf54d45eb2a2b6d909e8ba00e976e9e8636b3510d7c7b6106cdb360f52e09b2e8a755a8dad74417aa91dfba9e671a81028bc02674822bcdd2c3d253b"
        "1593090a2f850d0f6f50cb4bc86782cf3157b2d890924e321a1e41eff3c9313045bc2debbbd3751f7dadcbf56fa121e796656c5de732f80ed123ecc669d9e783"
        "978696b06309ecfd55a31a9589667496dd85a8eabbe2086cbb75100276e1a8dddc32c66c7f058df82c813d1cc7b5050f48b8801d7f6cfe03f3ed350bdcba9f37"
        "35bb580c172427146834d9eb6db0650a52d89218fdc9027206549c98c581ed4500a56866a714c314330bc807aa8274dae316d73e9f0828fa63477f4e05078227"
        "afe4f6ce57cabb0e29b9f2ffadf23ec84008f3c756334ee393658a0564e0e41a7c859e4b8280a73f9a179b8131fae9765bd3883091e8dd3331af982d43fd70c3"
        "95a28cb28c9e5b7d05e4b0fc6e83aa5f85e3726fc76fe8cf40c74650b5dc258769cb96ebf61c28f5944d3f0899cd50560c6861fd618769525781995466252226"
        "bf1709adff44635aaf7e61ff1d1b89d2b7c1a7b79d111a87a58dcfb6da7436ab7cf3be918249315f0b3d010a000ae2af80f429aebee88e06df0330efc6788dd5"
        "cef2629448b364618d4a69786de17962381075428060e1e79e1c92777e34b29a0f0edc9e224b4fc6f6debb3fc97f3925d40cee1f18defab248adf466caa7dd61"
        "f9d74a6941173f4140a333ce4920649312929e3c0051fd015c2a5633176e9111da25d6a7b310426261714f355f9762bdc5667cf2b81c613955317a1f26238fcb"
        "ac02558831e212f6c061de08e4b2920aa7693bc9b0433de46227bc0c83b5984ea98dfa37b4ee2891f3668fec08b7dd1452e83cd27786572f11685fda50402576")} : u8[3, 16, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "fold" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %5 = const {value = hex("34c6393c5a43003d5cb97f3d4d910d3dbf72403dcbb0e43cf8aca13caf7b4a3d3813813dcd37883d79c97a3d5aae8d3d11453c3d94bcea3c3e9b123dd2272e3d"
        "9a7d193d17d9053d7afa273d2b7baa3cd3028d3d0356903cc584d43c82cae13c378b103da212e33c4d064a3d3f97f13c2cd2803d06a78c3dc155223d45be883d"
        "8c7c233d0f684b3c5d6e233d1fd0133d09c83f3dbd4c333c0e52ff3c961ba73c2d7c323d26fee23c40d3373d50ee043dd6f7443dc571a23ca8bc483c86eb033d"
        "c078ba3c5a3a343c26a50a3da7f33b3c2f89b73c7aa1493d09538e3d054f5c3d4912933d3ca4903c4cc02a3d4ef7683de8eb893dc251f83c78828e3c10a35e3d"
        "a2868e3dd139883c7efe6f3d8685733df0b0573dc2ae8d3d9aed5c3ddba8833c185f8f3d6ed0833ddb84533d9037923d923bad3c84c7863dc1f2213d9fffdc3c"
        "d6d88c3d142b8f3dc3aab43cc2e75c3d843c943c04daae3cc510203d1570833d80d3903d353c963cb787633d2133863d23754c3def68593d53a5553d3627e33c")} : f32[3, 16, 2] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "fold" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %6 = const {value = [21, 92, 238, 160, 3, 86, 44, 73, 35, 9, 32, 143, 80, 201, 59, 242, 213, 169, 206, 45, 221, 130, 234, 32, 214, 37, 222, 99, 101, 241, 174, 236, 195, 226, 120, 214, 247, 70, 85, 56, 153, 130, 89, 110, 75, 107, 240, 6]} : u8[3, 16, 1] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "fold" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %7 "fc1_bias" = const {value = [0.79236865, -1.3149389, 0.9998386, 1.4398617, 1.636548, 0.18896578, 1.3292909, -0.53265166, 0.72804177, 1.393622, -0.22666065, 0.3218172, 0.61478585, -1.4658988, -0.2844212, 0.56517553, 0.4760151, -0.2872174, -0.1616375, 0.28887028, 0.66701704, 0.23715629, -1.7400534, 2.088618, -0.6974109, 0.3777344, 2.2114205, -0.45402533, -0.09543371, 0.171977, 1.1021762, -0.7533277, 1.2674954, -0.22907494, -0.9081435, -2.6274216, 0.36717603, 1.1470808, -1.088728, -0.9164304, -1.3924768, -1.4656147, 1.0825037, 0.03625696, -0.5297818, 0.83230305, -0.3364215, 0.21328397]} : f32[3, 16] @ weight(0) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %8, %9 = route(%scores) {top_k = 2, device = "cpu0"} : i32[6, 2] @ arena(0), f32[6, 2] @ arena(1536) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %10, %11, %12 = expert_order(%8) {experts = 3} : i32[12] @ arena(1600), i32[4] @ arena(2368), i32[6, 2] @ arena(2432) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %13 = gather_rows(%x, %10) : f32[12, 32] @ arena(0) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %14 = dequantize(%0, %1, %2) {k = 32, block = 16} : f32[3, 16, 32] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %15 = dequantize(%4, %5, %6) {k = 32, block = 16} : f32[3, 16, 32] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %16 = const {value = [0.75]} : f32[] @ weight(0) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %17 = const {value = [1.702]} : f32[] @ weight(0) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %18 = const {value = [-0.75]} : f32[] @ weight(0) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "fold" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %19 = const {value = [1]} : f32[] @ weight(0) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %20 = pack(%14, %15) {panel = 16, group = "experts@0", bits = 4, block = 16, zero = 1} : f32[3, 32, 32]{panel=16, pair=1, ways=2, bits=4, block=16, scale=0, zero=1, e2m1=0} @ weight(0) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "fuse" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %21 = fused(%13, %20, %11, %3, %7, %16, %17, %18, %19) {kind = "grouped_linear"} : f32[12, 16] @ arena(1600) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "fuse" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE")) regions {
      (%22: f32[12, 32], %23: f32[3, 32, 32]{panel=16, pair=1, ways=2, bits=4, block=16, scale=0, zero=1, e2m1=0}, %24: i32[4], %fc1_bias: f32[3, 16], %25 "fc1_bias": f32[3, 16], %26: f32[], %27: f32[], %28: f32[], %29: f32[]) -> (%39) {
        %30 = grouped_linear(%22, %23, %24, %fc1_bias) : f32[12, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
        %31 = grouped_linear(%22, %23, %24, %25) {source = 1} : f32[12, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
        %32 = min(%30, %26) : f32[12, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
        %33 = mul(%32, %27) : f32[12, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
        %34 = sigmoid(%33) : f32[12, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
        %35 = mul(%32, %34) : f32[12, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
        %36 = min(%31, %26) : f32[12, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
        %37 = max(%36, %28) : f32[12, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
        %38 = add(%37, %29) : f32[12, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
        %39 = mul(%35, %38) : f32[12, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
      }
    }
    %40 = dequantize(%fc2, %fc2_scales, %fc2_zeros) {k = 16, block = 16} : f32[3, 32, 16] loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %41 = pack(%40) {panel = 32, group = "experts@0", bits = 4, block = 16, zero = 1} : f32[3, 32, 16]{panel=32, pair=1, ways=1, bits=4, block=16, scale=0, zero=1, e2m1=0} @ weight(0) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "layout" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %42 = grouped_linear(%21, %41, %11, %fc1_bias) : f32[12, 32] @ arena(0) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
    %43 = combine(%42, %12, %9) : f32[6, 32] @ output(0) loc("tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE") by "lower-experts" <- "tests/data/onnx/bad_qmoe_bias.onnx" node "the_node" ("QMoE"))
  }
}
