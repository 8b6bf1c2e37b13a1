file(REMOVE_RECURSE
  "CMakeFiles/test_attention_vw16bf16.dir/kernel_test.c.o"
  "CMakeFiles/test_attention_vw16bf16.dir/kernel_test.c.o.d"
  "CMakeFiles/test_attention_vw16bf16.dir/test_attention.c.o"
  "CMakeFiles/test_attention_vw16bf16.dir/test_attention.c.o.d"
  "kernels_vw16bf16.o"
  "test_attention_vw16bf16"
  "test_attention_vw16bf16.pdb"
)

# Per-language clean rules from dependency scanning.
foreach(lang C)
  include(CMakeFiles/test_attention_vw16bf16.dir/cmake_clean_${lang}.cmake OPTIONAL)
endforeach()
