/// Tiles of products' templates: rows and columns of the result that a block makes. Kernels and launch plans share them.
#ifndef PM_CU_PRODUCT_SIZES_H
#define PM_CU_PRODUCT_SIZES_H

enum {
    CU_FEW_ROWS = 8, CU_FEW_COLUMNS = 8,
    CU_SIBLINGS = 4, /* products of the same rows that one launch makes (products_few) */
    CU_F32_ROWS = 64, CU_F32_COLUMNS = 64,
    CU_MMA_ROWS = 128, CU_MMA_COLUMNS = 128,
    CU_WGMMA_ROWS = 128, CU_WGMMA_COLUMNS = 256,
};

#endif
