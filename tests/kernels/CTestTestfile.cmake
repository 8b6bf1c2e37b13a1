# CMake generated Testfile for 
# Source directory: /tmp/w/k/cm/tests/kernels
# Build directory: /tmp/w/k/cm/tests/kernels
# 
# This file includes the relevant testing commands required for 
# testing this directory and lists subdirectories to be tested as well.
add_test([=[kernels.test_attention_vw8]=] "/tmp/w/k/cm/tests/kernels/test_attention_vw8")
set_tests_properties([=[kernels.test_attention_vw8]=] PROPERTIES  SKIP_RETURN_CODE "77" TIMEOUT "120" _BACKTRACE_TRIPLES "/tmp/w/k/cm/tests/kernels/CMakeLists.txt;38;add_test;/tmp/w/k/cm/tests/kernels/CMakeLists.txt;43;pm_kernel_tests;/tmp/w/k/cm/tests/kernels/CMakeLists.txt;0;")
add_test([=[kernels.test_products_vw8]=] "/tmp/w/k/cm/tests/kernels/test_products_vw8")
set_tests_properties([=[kernels.test_products_vw8]=] PROPERTIES  SKIP_RETURN_CODE "77" TIMEOUT "120" _BACKTRACE_TRIPLES "/tmp/w/k/cm/tests/kernels/CMakeLists.txt;38;add_test;/tmp/w/k/cm/tests/kernels/CMakeLists.txt;43;pm_kernel_tests;/tmp/w/k/cm/tests/kernels/CMakeLists.txt;0;")
add_test([=[kernels.test_attention_vw16]=] "/tmp/w/k/cm/tests/kernels/test_attention_vw16")
set_tests_properties([=[kernels.test_attention_vw16]=] PROPERTIES  SKIP_RETURN_CODE "77" TIMEOUT "120" _BACKTRACE_TRIPLES "/tmp/w/k/cm/tests/kernels/CMakeLists.txt;38;add_test;/tmp/w/k/cm/tests/kernels/CMakeLists.txt;44;pm_kernel_tests;/tmp/w/k/cm/tests/kernels/CMakeLists.txt;0;")
add_test([=[kernels.test_products_vw16]=] "/tmp/w/k/cm/tests/kernels/test_products_vw16")
set_tests_properties([=[kernels.test_products_vw16]=] PROPERTIES  SKIP_RETURN_CODE "77" TIMEOUT "120" _BACKTRACE_TRIPLES "/tmp/w/k/cm/tests/kernels/CMakeLists.txt;38;add_test;/tmp/w/k/cm/tests/kernels/CMakeLists.txt;44;pm_kernel_tests;/tmp/w/k/cm/tests/kernels/CMakeLists.txt;0;")
add_test([=[kernels.test_attention_vw16bf16]=] "/tmp/w/k/cm/tests/kernels/test_attention_vw16bf16")
set_tests_properties([=[kernels.test_attention_vw16bf16]=] PROPERTIES  SKIP_RETURN_CODE "77" TIMEOUT "120" _BACKTRACE_TRIPLES "/tmp/w/k/cm/tests/kernels/CMakeLists.txt;38;add_test;/tmp/w/k/cm/tests/kernels/CMakeLists.txt;45;pm_kernel_tests;/tmp/w/k/cm/tests/kernels/CMakeLists.txt;0;")
add_test([=[kernels.test_products_vw16bf16]=] "/tmp/w/k/cm/tests/kernels/test_products_vw16bf16")
set_tests_properties([=[kernels.test_products_vw16bf16]=] PROPERTIES  SKIP_RETURN_CODE "77" TIMEOUT "120" _BACKTRACE_TRIPLES "/tmp/w/k/cm/tests/kernels/CMakeLists.txt;38;add_test;/tmp/w/k/cm/tests/kernels/CMakeLists.txt;45;pm_kernel_tests;/tmp/w/k/cm/tests/kernels/CMakeLists.txt;0;")
