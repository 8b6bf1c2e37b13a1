# Empty compiler generated dependencies file for test_products_vw16.
# This may be replaced when dependencies are built.
