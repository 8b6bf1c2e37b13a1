// without rows argmin is at fault: all workers must leave together, whatever they were about to do
module "fault_before_barriers" {
  symbol N in [0, 40]
  entry main(%x: f32[N, 8], %w: f32[8, 8]) -> (a: %a, y: %y) {
    %a = argmin(%x) {axis = 0, keepdims = false}
    %b = matmul(%x, %w)
    %c = tanh(%b)
    %d = cumsum(%c) {axis = 1}
    %e = matmul(%d, %w)
    %y = cumsum(%e) {axis = 0}
  }
}
