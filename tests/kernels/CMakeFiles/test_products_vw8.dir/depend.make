# Empty dependencies file for test_products_vw8.
# This may be replaced when dependencies are built.
