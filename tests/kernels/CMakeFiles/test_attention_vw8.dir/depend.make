# Empty dependencies file for test_attention_vw8.
# This may be replaced when dependencies are built.
