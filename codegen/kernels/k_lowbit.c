/* Products with weights of few bits: the instances of gemm_lowbit.h. */
#include "codegen/kernels/vec.h"

#if PM_VW == 16
#define PM_NARROW 16
#define PM_MIDDLE 32
#define PM_WIDE 64
#else
#define PM_NARROW 8
#define PM_MIDDLE 16
#define PM_WIDE 32
#endif

#define PM_T_NAME q2
#define PM_T_BITS 2
#define PM_T_FLOATS 0
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_NARROW
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME q2
#define PM_T_BITS 2
#define PM_T_FLOATS 0
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_MIDDLE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME q2
#define PM_T_BITS 2
#define PM_T_FLOATS 0
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_WIDE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME q4
#define PM_T_BITS 4
#define PM_T_FLOATS 0
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_NARROW
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME q4
#define PM_T_BITS 4
#define PM_T_FLOATS 0
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_MIDDLE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME q4
#define PM_T_BITS 4
#define PM_T_FLOATS 0
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_WIDE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME q8
#define PM_T_BITS 8
#define PM_T_FLOATS 0
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_NARROW
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME q8
#define PM_T_BITS 8
#define PM_T_FLOATS 0
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_MIDDLE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME q8
#define PM_T_BITS 8
#define PM_T_FLOATS 0
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_WIDE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME e2m1
#define PM_T_BITS 4
#define PM_T_FLOATS 1
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_NARROW
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME e2m1
#define PM_T_BITS 4
#define PM_T_FLOATS 1
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_MIDDLE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME e2m1
#define PM_T_BITS 4
#define PM_T_FLOATS 1
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_WIDE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME e4m3
#define PM_T_BITS 8
#define PM_T_FLOATS 1
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_NARROW
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME e4m3
#define PM_T_BITS 8
#define PM_T_FLOATS 1
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_MIDDLE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME e4m3
#define PM_T_BITS 8
#define PM_T_FLOATS 1
#define PM_T_A float
#define PM_T_W uint8_t
#define PM_T_PANEL PM_WIDE
#include "codegen/kernels/gemm_instance.h"
