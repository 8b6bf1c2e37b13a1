/* Products with packed weights: the instances of gemm_template.h. */
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

#define PM_T_NAME f32
#define PM_T_KIND PM_KIND_F32
#define PM_T_A float
#define PM_T_W float
#define PM_T_PANEL PM_NARROW
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME f32
#define PM_T_KIND PM_KIND_F32
#define PM_T_A float
#define PM_T_W float
#define PM_T_PANEL PM_MIDDLE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME f32
#define PM_T_KIND PM_KIND_F32
#define PM_T_A float
#define PM_T_W float
#define PM_T_PANEL PM_WIDE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME b16
#define PM_T_KIND PM_KIND_B16
#define PM_T_A float
#define PM_T_W uint16_t
#define PM_T_PANEL PM_NARROW
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME b16
#define PM_T_KIND PM_KIND_B16
#define PM_T_A float
#define PM_T_W uint16_t
#define PM_T_PANEL PM_MIDDLE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME b16
#define PM_T_KIND PM_KIND_B16
#define PM_T_A float
#define PM_T_W uint16_t
#define PM_T_PANEL PM_WIDE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME dot
#define PM_T_KIND PM_KIND_DOT
#define PM_T_A uint16_t
#define PM_T_W uint16_t
#define PM_T_PANEL PM_NARROW
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME dot
#define PM_T_KIND PM_KIND_DOT
#define PM_T_A uint16_t
#define PM_T_W uint16_t
#define PM_T_PANEL PM_MIDDLE
#include "codegen/kernels/gemm_instance.h"

#define PM_T_NAME dot
#define PM_T_KIND PM_KIND_DOT
#define PM_T_A uint16_t
#define PM_T_W uint16_t
#define PM_T_PANEL PM_WIDE
#include "codegen/kernels/gemm_instance.h"
