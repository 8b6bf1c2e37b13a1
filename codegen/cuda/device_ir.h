/// What C kernels and references call and no GPU library has.
#ifndef PM_CODEGEN_CUDA_DEVICE_IR_H
#define PM_CODEGEN_CUDA_DEVICE_IR_H

// The C kernels' one instruction of x86: element i mod 8 of a table for each lane, as a tree of selections (an array
// would lie in memory).
#define PM_SPLAT(to, i)                                                                                                \
    "  %" to " = shufflevector <8 x float> %table, <8 x float> poison, <8 x i32> <i32 " i ", i32 " i ", i32 " i        \
    ", i32 " i ", i32 " i ", i32 " i ", i32 " i ", i32 " i ">\n"
#define PM_BIT(to, value)                                                                                              \
    "  %" to "i = and <8 x i32> %i, splat (i32 " value ")\n"                                                           \
    "  %" to " = icmp ne <8 x i32> %" to "i, zeroinitializer\n"
#define PM_PICK(to, bit, high, low)                                                                                    \
    "  %" to " = select <8 x i1> %" bit ", <8 x float> %" high ", <8 x float> %" low "\n"

static const char pm_device_ir[] =
    "define linkonce_odr <8 x float> @pm_gpu_look_up(<8 x float> %table, <8 x i32> %i) {\n"
    PM_SPLAT("t0", "0") PM_SPLAT("t1", "1") PM_SPLAT("t2", "2") PM_SPLAT("t3", "3")
    PM_SPLAT("t4", "4") PM_SPLAT("t5", "5") PM_SPLAT("t6", "6") PM_SPLAT("t7", "7")
    PM_BIT("one", "1") PM_BIT("two", "2") PM_BIT("four", "4")
    PM_PICK("a0", "one", "t1", "t0") PM_PICK("a1", "one", "t3", "t2")
    PM_PICK("a2", "one", "t5", "t4") PM_PICK("a3", "one", "t7", "t6")
    PM_PICK("b0", "two", "a1", "a0") PM_PICK("b1", "two", "a3", "a2") PM_PICK("c", "four", "b1", "b0")
    "  ret <8 x float> %c\n"
    "}\n"
    "define linkonce_odr i32 @strcmp(ptr %a, ptr %b) {\n"
    "  br label %next\n"
    "next:\n"
    "  %i = phi i64 [ 0, %0 ], [ %j, %same ]\n"
    "  %pa = getelementptr i8, ptr %a, i64 %i\n"
    "  %pb = getelementptr i8, ptr %b, i64 %i\n"
    "  %ca = load i8, ptr %pa\n"
    "  %cb = load i8, ptr %pb\n"
    "  %equal = icmp eq i8 %ca, %cb\n"
    "  %more = icmp ne i8 %ca, 0\n"
    "  %on = and i1 %equal, %more\n"
    "  br i1 %on, label %same, label %done\n"
    "same:\n"
    "  %j = add i64 %i, 1\n"
    "  br label %next\n"
    "done:\n"
    "  %xa = zext i8 %ca to i32\n"
    "  %xb = zext i8 %cb to i32\n"
    "  %d = sub i32 %xa, %xb\n"
    "  ret i32 %d\n"
    "}\n"
    // Lanes of a warp, all of which are there.
    "declare float @llvm.nvvm.shfl.sync.bfly.f32(i32, float, i32, i32)\n"
    "declare i32 @llvm.nvvm.shfl.sync.bfly.i32(i32, i32, i32, i32)\n"
    "define linkonce_odr float @pm_dev_shfl_xor_f32(float %x, i32 %lanes) {\n"
    "  %y = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %x, i32 %lanes, i32 31)\n"
    "  ret float %y\n"
    "}\n"
    "define linkonce_odr i32 @pm_dev_shfl_xor_i32(i32 %x, i32 %lanes) {\n"
    "  %y = call i32 @llvm.nvvm.shfl.sync.bfly.i32(i32 -1, i32 %x, i32 %lanes, i32 31)\n"
    "  ret i32 %y\n"
    "}\n";

#undef PM_SPLAT
#undef PM_BIT
#undef PM_PICK

#endif
