
# Consider dependencies only in project.
set(CMAKE_DEPENDS_IN_PROJECT_ONLY OFF)

# The set of languages for which implicit dependencies are needed:
set(CMAKE_DEPENDS_LANGUAGES
  )

# The set of dependency files which are needed:
set(CMAKE_DEPENDS_DEPENDENCY_FILES
  "/tmp/w/k/cm/tests/kernels/kernel_test.c" "tests/kernels/CMakeFiles/test_products_vw16bf16.dir/kernel_test.c.o" "gcc" "tests/kernels/CMakeFiles/test_products_vw16bf16.dir/kernel_test.c.o.d"
  "/tmp/w/k/cm/tests/kernels/test_products.c" "tests/kernels/CMakeFiles/test_products_vw16bf16.dir/test_products.c.o" "gcc" "tests/kernels/CMakeFiles/test_products_vw16bf16.dir/test_products.c.o.d"
  "" "tests/kernels/kernels_vw16bf16.o" "custom" "tests/kernels/kernels_vw16bf16.o.d"
  )

# Targets to which this target links.
set(CMAKE_TARGET_LINKED_INFO_FILES
  )

# Fortran module output directory.
set(CMAKE_Fortran_TARGET_MODULE_DIR "")
