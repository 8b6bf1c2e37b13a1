file(REMOVE_RECURSE
  "CMakeFiles/pm_kernels_bc"
  "kernels_vw16.bc"
  "kernels_vw16.k_attention.bc"
  "kernels_vw16.k_cache.bc"
  "kernels_vw16.k_linear.bc"
  "kernels_vw16.k_math.bc"
  "kernels_vw16.k_matmul.bc"
  "kernels_vw16.k_rope.bc"
  "kernels_vw16.k_rotate.bc"
  "kernels_vw16.k_route.bc"
  "kernels_vw16bf16.bc"
  "kernels_vw16bf16.k_attention.bc"
  "kernels_vw16bf16.k_cache.bc"
  "kernels_vw16bf16.k_linear.bc"
  "kernels_vw16bf16.k_math.bc"
  "kernels_vw16bf16.k_matmul.bc"
  "kernels_vw16bf16.k_rope.bc"
  "kernels_vw16bf16.k_rotate.bc"
  "kernels_vw16bf16.k_route.bc"
  "kernels_vw8.bc"
  "kernels_vw8.k_attention.bc"
  "kernels_vw8.k_cache.bc"
  "kernels_vw8.k_linear.bc"
  "kernels_vw8.k_math.bc"
  "kernels_vw8.k_matmul.bc"
  "kernels_vw8.k_rope.bc"
  "kernels_vw8.k_rotate.bc"
  "kernels_vw8.k_route.bc"
)

# Per-language clean rules from dependency scanning.
foreach(lang )
  include(CMakeFiles/pm_kernels_bc.dir/cmake_clean_${lang}.cmake OPTIONAL)
endforeach()
