# Empty dependencies file for test_attention_vw16.
# This may be replaced when dependencies are built.
