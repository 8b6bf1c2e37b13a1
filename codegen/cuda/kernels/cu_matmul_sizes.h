/// Tiles of matrix products: kernels and launch plans share them.
#ifndef PM_CU_MATMUL_SIZES_H
#define PM_CU_MATMUL_SIZES_H

enum { CU_MATMUL_ROWS = 64, CU_MATMUL_COLUMNS = 64, CU_MATMUL_FEW_ROWS = 8, CU_MATMUL_FEW_COLUMNS = 32 };
enum { CU_MATMUL_BATCH = 4 }; ///< extents of batches, at most

#endif
