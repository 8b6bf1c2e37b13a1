
# Consider dependencies only in project.
set(CMAKE_DEPENDS_IN_PROJECT_ONLY OFF)

# The set of languages for which implicit dependencies are needed:
set(CMAKE_DEPENDS_LANGUAGES
  )

# The set of dependency files which are needed:
set(CMAKE_DEPENDS_DEPENDENCY_FILES
  "" "codegen/kernels/kernels_vw16.k_attention.bc" "custom" "codegen/kernels/kernels_vw16.k_attention.bc.d"
  "" "codegen/kernels/kernels_vw16.k_cache.bc" "custom" "codegen/kernels/kernels_vw16.k_cache.bc.d"
  "" "codegen/kernels/kernels_vw16.k_linear.bc" "custom" "codegen/kernels/kernels_vw16.k_linear.bc.d"
  "" "codegen/kernels/kernels_vw16.k_math.bc" "custom" "codegen/kernels/kernels_vw16.k_math.bc.d"
  "" "codegen/kernels/kernels_vw16.k_matmul.bc" "custom" "codegen/kernels/kernels_vw16.k_matmul.bc.d"
  "" "codegen/kernels/kernels_vw16.k_rope.bc" "custom" "codegen/kernels/kernels_vw16.k_rope.bc.d"
  "" "codegen/kernels/kernels_vw16.k_rotate.bc" "custom" "codegen/kernels/kernels_vw16.k_rotate.bc.d"
  "" "codegen/kernels/kernels_vw16.k_route.bc" "custom" "codegen/kernels/kernels_vw16.k_route.bc.d"
  "" "codegen/kernels/kernels_vw16bf16.k_attention.bc" "custom" "codegen/kernels/kernels_vw16bf16.k_attention.bc.d"
  "" "codegen/kernels/kernels_vw16bf16.k_cache.bc" "custom" "codegen/kernels/kernels_vw16bf16.k_cache.bc.d"
  "" "codegen/kernels/kernels_vw16bf16.k_linear.bc" "custom" "codegen/kernels/kernels_vw16bf16.k_linear.bc.d"
  "" "codegen/kernels/kernels_vw16bf16.k_math.bc" "custom" "codegen/kernels/kernels_vw16bf16.k_math.bc.d"
  "" "codegen/kernels/kernels_vw16bf16.k_matmul.bc" "custom" "codegen/kernels/kernels_vw16bf16.k_matmul.bc.d"
  "" "codegen/kernels/kernels_vw16bf16.k_rope.bc" "custom" "codegen/kernels/kernels_vw16bf16.k_rope.bc.d"
  "" "codegen/kernels/kernels_vw16bf16.k_rotate.bc" "custom" "codegen/kernels/kernels_vw16bf16.k_rotate.bc.d"
  "" "codegen/kernels/kernels_vw16bf16.k_route.bc" "custom" "codegen/kernels/kernels_vw16bf16.k_route.bc.d"
  "" "codegen/kernels/kernels_vw8.k_attention.bc" "custom" "codegen/kernels/kernels_vw8.k_attention.bc.d"
  "" "codegen/kernels/kernels_vw8.k_cache.bc" "custom" "codegen/kernels/kernels_vw8.k_cache.bc.d"
  "" "codegen/kernels/kernels_vw8.k_linear.bc" "custom" "codegen/kernels/kernels_vw8.k_linear.bc.d"
  "" "codegen/kernels/kernels_vw8.k_math.bc" "custom" "codegen/kernels/kernels_vw8.k_math.bc.d"
  "" "codegen/kernels/kernels_vw8.k_matmul.bc" "custom" "codegen/kernels/kernels_vw8.k_matmul.bc.d"
  "" "codegen/kernels/kernels_vw8.k_rope.bc" "custom" "codegen/kernels/kernels_vw8.k_rope.bc.d"
  "" "codegen/kernels/kernels_vw8.k_rotate.bc" "custom" "codegen/kernels/kernels_vw8.k_rotate.bc.d"
  "" "codegen/kernels/kernels_vw8.k_route.bc" "custom" "codegen/kernels/kernels_vw8.k_route.bc.d"
  )

# Targets to which this target links.
set(CMAKE_TARGET_LINKED_INFO_FILES
  )

# Fortran module output directory.
set(CMAKE_Fortran_TARGET_MODULE_DIR "")
