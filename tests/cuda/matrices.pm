// Products of matrices on devices: batches that broadcast, turned operands, vectors, many rows and few.
// Compiled for the CPU and for the emulated device by emu_models.sh, which compares the numbers.
module "matrices" {
  symbol T in [1, 80]
  entry main(%x: f32[T, 40]) -> (a: %a, b: %b, c: %c, d: %d, e: %e, f: %f, g: %g, h: %h, i: %i, j: %j) {
    %shape4 = const {value = [-1, 2, 4, 5]} : i64[4]
    %q = reshape(%x, %shape4)
    %a = matmul(%q, %q) {trans_b = true}
    %b = matmul(%a, %q)
    %c = matmul(%q, %q) {trans_a = true}
    // all rows meet one matrix
    %w = const {value = hex("8c70fabe587f3dbe56b5c6be9bb665bf19bf6cbfcb78713f762724bf65618d3cc8f847bef43d803dcdce54bf2a94bebecab648bf38c6ab3df7b4573f")} : f32[5, 3]
    %d = matmul(%q, %w)
    // two extents that broadcast against each other
    %shape5 = const {value = [-1, 2, 1, 4, 5]} : i64[5]
    %shape6 = const {value = [-1, 1, 8, 5, 1]} : i64[5]
    %u = reshape(%x, %shape5)
    %v = reshape(%x, %shape6)
    %e = matmul(%u, %v)
    %five = const {value = hex("704a493e25aa363fe23812bf431677bf4d56a23d")} : f32[5]
    %four = const {value = hex("3587dcbcb845123e1daa7cbe061a803e")} : f32[4]
    %f = matmul(%q, %five)
    %g = matmul(%four, %q)
    %h = matmul(%x, %x) {trans_b = true}
    %i = matmul(%x, %x) {trans_a = true}
    %j = matmul(%h, %x)
  }
}
