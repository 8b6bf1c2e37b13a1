# CMake generated Testfile for 
# Source directory: /tmp/w/k/cm/codegen/kernels
# Build directory: /tmp/w/k/cm/codegen/kernels
# 
# This file includes the relevant testing commands required for 
# testing this directory and lists subdirectories to be tested as well.
