# Empty dependencies file for test_products_vw16bf16.
# This may be replaced when dependencies are built.
