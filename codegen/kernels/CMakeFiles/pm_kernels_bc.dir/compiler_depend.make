# Empty custom commands generated dependencies file for pm_kernels_bc.
# This may be replaced when dependencies are built.
