// The ONNX importer against models that are at fault: each ends in one diagnostic that names its
// place. The models are made by tests/tools/make_onnx_cases.py.

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/containers.h"
#include "frontend/frontend.h"

#define DATA PM_SOURCE_DIR "/tests/data/onnx"

/// `text` is the whole first line of what is printed, without the name of the file before it.
typedef struct bad_case {
    const char *name;
    enum { INVALID = PM_ERR_INVALID, UNSUPPORTED = PM_ERR_UNSUPPORTED, IO = PM_ERR_IO } status;
    const char *text;
} bad_case;

/* clang-format off */
static const bad_case cases[] = {
    {"attr_missing", INVALID,
     "node 'the_node' (Concat): error: attribute 'axis' is missing"},
    {"attr_ref_outside", INVALID,
     "node 'the_node' (Softmax): error: attribute 'axis' refers to attribute 'a' of a "
     "function, but is in none"},
    {"attr_twice", INVALID,
     "node 'the_node' (Concat): error: attribute 'axis' is given twice"},
    {"attr_type", INVALID,
     "node 'the_node' (Concat): error: attribute 'axis' is FLOAT, must be INT"},
    {"attr_unknown", UNSUPPORTED,
     "node 'the_node' (Concat): error: unknown attribute 'axes'; did you mean 'axis'?"},
    {"axes_at_run_time", UNSUPPORTED,
     "node 'the_node' (ReduceSum): error: axes are computed when the model runs; they must be "
     "known before"},
    {"axis_range", INVALID,
     "node 'the_node' (Softmax): error: softmax: axis is 2, must be in [-2, 1]"},
    {"cast_to", UNSUPPORTED,
     "node 'the_node' (Cast): error: attribute 'to': element type 99 (unknown) is not "
     "supported"},
    {"constant_string", UNSUPPORTED,
     "node 'the_node' (Constant): error: 'value_string' is not supported"},
    {"constant_two", INVALID,
     "node 'the_node' (Constant): error: has 2 values, must have one"},
    {"cycle", INVALID,
     "node 'first' (Add): error: depends on its own output (a cycle)"},
    {"dangling", INVALID,
     "node 'the_node' (Add): error: 'weihgt' is used, but nothing defines it; did you mean "
     "'weight'?"},
    {"dangling_output", INVALID,
     "output 'y': error: 'y' is used, but nothing defines it; did you mean 'x'?"},
    {"duplicate_initializer", INVALID,
     "tensor 'w': error: name 'w' is defined twice"},
    {"duplicate_input", INVALID,
     "input 'x': error: name 'x' is defined twice"},
    {"duplicate_output", INVALID,
     "node 'b' (Relu): error: name 'y' is defined twice"},
    {"duplicate_result", INVALID,
     "output 'y': error: is listed twice"},
    {"einsum", INVALID,
     "node 'the_node' (Einsum): error: the equation has 1 inputs, the node 2"},
    {"elems_differ", INVALID,
     "node 'the_node' (Add): error: add: operands must have the same element type, found "
     "f32[n, 4] and i64[4]"},
    {"external_absolute", INVALID,
     "tensor 'w': error: '/etc/passwd' is an absolute path, expected one beneath '.'"},
    {"external_and_raw", INVALID,
     "tensor 'w': error: has its data in more than one place"},
    {"external_folder", INVALID,
     "tensor 'w': error: './.' is a folder, expected a regular file"},
    {"external_length", INVALID,
     "tensor 'w': error: external data: length is 12, but the shape needs 16 bytes"},
    {"external_missing", IO,
     "tensor 'w': error: can't open './nowhere.bin': No such file or directory"},
    {"external_no_location", INVALID,
     "tensor 'w': error: external data: no location"},
    {"external_offset_huge", INVALID,
     "tensor 'w': error: external data: 16 bytes at offset 18446744073709551608 reach past "
     "the end of 'weights.bin' (32 bytes)"},
    {"external_offset_negative", INVALID,
     "tensor 'w': error: external data: offset is '-4', must be a whole number"},
    {"external_offset_overflow", INVALID,
     "tensor 'w': error: external data: offset is '18446744073709551616', must be a whole "
     "number"},
    {"external_offset_text", INVALID,
     "tensor 'w': error: external data: offset is '0x10', must be a whole number"},
    {"external_parent", INVALID,
     "tensor 'w': error: '../weights.bin' leaves the folder '.'"},
    {"external_past_end", INVALID,
     "tensor 'w': error: external data: 16 bytes at offset 20 reach past the end of "
     "'weights.bin' (32 bytes)"},
    {"external_twice", INVALID,
     "tensor 'w': error: external data: two times 'location'"},
    {"function_attr", INVALID,
     "node 'call' (Mine): error: function 'Mine' has no attribute 'alpha'"},
    {"function_attr_ref", INVALID,
     "node 'the_node' (Softmax), from @: node 'call' (Mine): error: attribute 'axis' refers "
     "to 'nope', which function 'Mine' doesn't have"},
    {"function_inputs", INVALID,
     "node 'call' (Mine): error: function 'Mine' takes 1 inputs, but gets 2"},
    {"function_mutual", INVALID,
     "node 'to_ping' (Ping), from @: node 'to_pong' (Pong), from @: node 'call' (Ping): "
     "error: function 'Ping' calls itself"},
    {"function_outputs", INVALID,
     "node 'call' (Mine): error: function 'Mine' gives 1 outputs, but 2 are taken"},
    {"function_recursive", INVALID,
     "node 'inner' (Again), from @: node 'call' (Again): error: function 'Again' calls itself"},
    {"function_sees_outside", INVALID,
     "node 'the_node' (Add), from @: node 'call' (Mine): error: 'x' is used, but nothing "
     "defines it; did you mean 'a'?"},
    {"function_twice", INVALID,
     "function 'Mine' (local): error: is defined twice"},
    {"function_unknown_op", UNSUPPORTED,
     "node 'inside' (Foo), from @: node 'call' (Mine): error: operator 'Foo' is not known"},
    {"gemm_rank", INVALID,
     "node 'the_node' (Gemm): error: input 1 has rank 1, must be 2"},
    {"if_condition", INVALID,
     "node 'the_node' (If): error: the condition is f32, must be bool"},
    {"if_cycle", INVALID,
     "node 'the_node' (If): error: depends on its own output (a cycle)"},
    {"if_dangling", INVALID,
     "node 'the_node' (If): error: 'q' is used, but nothing defines it; did you mean 'x'?"},
    {"if_outputs", INVALID,
     "node 'the_node' (If): error: then_branch has 1 outputs, must have 2"},
    {"if_shadow", INVALID,
     "node 'hides' (Relu): error: name 'z' in a subgraph hides the one of an outer graph"},
    {"input_elem", UNSUPPORTED,
     "input 'x': error: element type 8 (STRING) is not supported"},
    {"input_negative", INVALID,
     "input 'x': error: dim 0 is -2"},
    {"input_no_shape", UNSUPPORTED,
     "input 'x': error: has no shape; its rank must be known"},
    {"input_overflow", INVALID,
     "input 'x': error: the product of its dims overflows"},
    {"input_rank_9", UNSUPPORTED,
     "input 'x': error: rank 9 is above 8"},
    {"input_sequence", UNSUPPORTED,
     "input 'x': error: is a sequence; only tensors are supported"},
    {"input_unnamed", INVALID,
     "error: input 0 has no name"},
    {"ir_version", UNSUPPORTED,
     "error: IR version 99 is not supported, only 3 to 14"},
    {"loop_inputs", INVALID,
     "node 'the_node' (Loop): error: body has 1 outputs, needs at least 2"},
    {"missing_input", INVALID,
     "node 'the_node' (Add): error: input 0 is missing"},
    {"no_op_type", INVALID,
     "node 'the_node' (): error: a node has no operator type"},
    {"no_opset", INVALID,
     "node 'the_node' (Relu): error: operator 'Relu': domain 'ai.onnx' is not imported by the "
     "model"},
    {"no_outputs", INVALID,
     "error: the graph has no outputs"},
    {"op_too_new", INVALID,
     "node 'the_node' (Gelu): error: operator 'Gelu' doesn't exist in version 19 of its domain"},
    {"opset_6", UNSUPPORTED,
     "error: opset 6 is not supported, only 7 to 28"},
    {"opset_99", UNSUPPORTED,
     "error: opset 99 is not supported, only 7 to 28"},
    {"opset_twice", INVALID,
     "error: operator domain 'ai.onnx' is imported twice"},
    {"output_refused", UNSUPPORTED,
     "node 'the_node' (BatchNormalization): error: output 'm' is used, but not supported"},
    {"output_type", INVALID,
     "output 'y': error: is declared as INT64, but the graph computes f32"},
    {"refused_op", UNSUPPORTED,
     "node 'the_node' (LSTM): error: operator 'LSTM' is not supported: recurrent operators"},
    {"self_cycle", INVALID,
     "node 'the_node' (Add): error: depends on its own output (a cycle)"},
    {"shapes_differ", INVALID,
     "node 'the_node' (MatMul): error: matmul: f32[n, 4] and f32[5, 3] disagree on the extent "
     "that is summed over: 4 and 5"},
    {"sparse", UNSUPPORTED,
     "error: sparse initializers"},
    {"split_outputs", INVALID,
     "node 'the_node' (Split): error: num_outputs is 3, but it has 2 outputs"},
    {"squeeze", INVALID,
     "node 'the_node' (Squeeze): error: dim 1 is 4, must be 1 to be squeezed"},
    {"squeeze_unknown", UNSUPPORTED,
     "node 'the_node' (Squeeze): error: has no axes, and whether dim 0 (n) is 1 is known only "
     "when the model runs"},
    {"tensor_bool", INVALID,
     "tensor 'w': error: element 2 of type BOOL is 2"},
    {"tensor_bytes_overflow", INVALID,
     "tensor 'w': error: its size in bytes overflows"},
    {"tensor_elem", INVALID,
     "tensor 'w': error: element type 77 (unknown) is not supported"},
    {"tensor_long", INVALID,
     "tensor 'w': error: has 20 bytes of data, but its type and shape need 16"},
    {"tensor_negative", INVALID,
     "tensor 'w': error: dim 0 is -4"},
    {"tensor_none", INVALID,
     "tensor 'w': error: has 0 elements in float_data, but its shape needs 4"},
    {"tensor_overflow", INVALID,
     "tensor 'w': error: the product of its dims overflows"},
    {"tensor_rank", UNSUPPORTED,
     "tensor 'w': error: rank 9 is above 8"},
    {"tensor_segment", UNSUPPORTED,
     "tensor 'w': error: is stored in segments"},
    {"tensor_short", INVALID,
     "tensor 'w': error: has 15 bytes of data, but its type and shape need 16"},
    {"tensor_string", UNSUPPORTED,
     "tensor 'w': error: element type 8 (STRING) is not supported"},
    {"tensor_two_places", INVALID,
     "tensor 'w': error: has its data in more than one place"},
    {"tensor_typed_count", INVALID,
     "tensor 'w': error: has 2 elements in float_data, but its shape needs 4"},
    {"tensor_uint8_range", INVALID,
     "tensor 'w': error: element 3 is 256, which UINT8 can't hold"},
    {"tensor_unnamed", INVALID,
     "error: initializer 0 has no name"},
    {"tensor_wrong_field", INVALID,
     "tensor 'w': error: its data is in int64_data, which isn't the field for FLOAT"},
    {"too_few_inputs", INVALID,
     "node 'the_node' (Add): error: has 1 inputs, needs 2"},
    {"too_many_inputs", INVALID,
     "node 'the_node' (Relu): error: has 2 inputs, needs 1"},
    {"too_many_outputs", INVALID,
     "node 'the_node' (Relu): error: has 2 outputs, needs 1"},
    {"topk_large", INVALID,
     "node 'the_node' (TopK): error: topk: k is 5, but axis 1 has only 4 elements"},
    {"two_unknown_ops", UNSUPPORTED,
     "node 'n1' (Foo): error: operator 'Foo' is not known (2 nodes)"},
    {"unknown_domain", INVALID,
     "node 'f' (Foo): error: operator 'Foo': domain 'acme' is not imported by the model"},
    {"unknown_op", UNSUPPORTED,
     "node 'the_node' (MatMull): error: operator 'MatMull' is not known; did you mean "
     "'MatMul'?"},
    {"unknown_op_in_domain", UNSUPPORTED,
     "node 'f' (Foo): error: operator 'Foo' of domain 'acme' is not known"},
    {"unsqueeze_twice", INVALID,
     "node 'the_node' (Unsqueeze): error: axis 1 is given twice"},
    {"wire_child_length", INVALID,
     "byte 5: error: length of GraphProto.node is 50, but its parent has only 10 bytes left"},
    {"wire_cut", INVALID,
     "byte 5: error: length of ModelProto.graph is 63, but its parent has only 31 bytes left"},
    {"wire_empty", INVALID,
     "error: there is no graph: not an ONNX model?"},
    {"wire_field_0", INVALID,
     "byte 0: error: field number 0 in ModelProto"},
    {"wire_fixed32", INVALID,
     "byte 0: error: truncated field 30 of ModelProto"},
    {"wire_fixed64", INVALID,
     "byte 0: error: truncated field 30 of ModelProto"},
    {"wire_group", INVALID,
     "byte 2: error: field 30 of ModelProto is a group, which ONNX doesn't have"},
    {"wire_group_known", INVALID,
     "byte 2: error: ModelProto.graph has wire type 3"},
    {"wire_length", INVALID,
     "byte 3: error: length of ModelProto.graph is 1000, but its parent has only 3 bytes left"},
    {"wire_length_64", INVALID,
     "byte 1: error: length of ModelProto.graph is 18446744073709551615, but its parent has "
     "only 0 bytes left"},
    {"wire_long_name", UNSUPPORTED,
     "byte 14: error: NodeProto.op_type has 65537 bytes; the limit is 65536"},
    {"wire_nested", UNSUPPORTED,
     "byte 300: error: messages are nested more than 100 deep"},
    {"wire_nested_type", UNSUPPORTED,
     "input 'x': error: is a sequence; only tensors are supported"},
    {"wire_nul", INVALID,
     "byte 8: error: NodeProto.op_type holds a NUL"},
    {"wire_overlong_varint", INVALID,
     "byte 1: error: varint is longer than 64 bits"},
    {"wire_packed", INVALID,
     "byte 8: error: packed TensorProto.float_data has 5 bytes, which is no whole number of "
     "elements"},
    {"wire_packed_varint", INVALID,
     "byte 8: error: truncated varint"},
    {"wire_tag_33_bits", INVALID,
     "byte 0: error: varint is longer than 32 bits"},
    {"wire_text", INVALID,
     "byte 0: error: ModelProto.metadata_props has wire type 4"},
    {"wire_truncated_varint", INVALID,
     "byte 1: error: truncated varint"},
    {"wire_two_graphs", INVALID,
     "byte 4: error: ModelProto.graph occurs twice"},
    {"wire_type_6", INVALID,
     "byte 2: error: field 30 of ModelProto has wire type 6"},
    {"wire_type_of_field", INVALID,
     "byte 0: error: ModelProto.graph has wire type 0"},
    {"wire_utf8", INVALID,
     "byte 11: error: NodeProto.op_type is not valid UTF-8"},
    {"wire_varint_65_bits", INVALID,
     "byte 1: error: varint is longer than 64 bits"},
    {"gather_block_axis", UNSUPPORTED,
     "node 'the_node' (GatherBlockQuantized): error: gather_axis is 0 and quantize_axis 0; "
     "must be the first and the last"},
    {"gather_block_scales", INVALID,
     "node 'the_node' (GatherBlockQuantized): error: scales 'scales' is f16[9, 1], must be of "
     "extents [9, 2]"},
    {"moe_activation", UNSUPPORTED,
     "node 'the_node' (MoE): error: activation_type 'tanhish'"},
    {"moe_fusion", INVALID,
     "node 'the_node' (MoE): error: swiglu with swiglu_fusion 0 needs fc3_experts_weights"},
    {"moe_router", INVALID,
     "node 'the_node' (MoE): error: router_probs 'scores' is f32[6, 4], must be of as many "
     "rows as the input"},
    {"moe_swapped", INVALID,
     "node 'the_node' (MoE): error: fc1_experts_weights 'fc1' is f32[4, 6, 5], must be of "
     "extents [4, ?, 6]"},
    {"moe_width", INVALID,
     "node 'the_node' (MoE): error: fc1_experts_weights 'fc1' is f32[4, 10, 5], must be of "
     "extents [4, ?, 6]"},
    {"nbits_block", INVALID,
     "node 'the_node' (MatMulNBits): error: block_size is 24, must be a power of two from 16 "
     "on"},
    {"nbits_prepacked", UNSUPPORTED,
     "node 'the_node' (MatMulNBits): error: weight_prepacked is 1: weights in the layout of "
     "one device"},
    {"nbits_scales", INVALID,
     "node 'the_node' (MatMulNBits): error: scales 'scales' is f32[20], must be of extents "
     "[7, 3]"},
    {"nbits_scales_type", INVALID,
     "node 'the_node' (MatMulNBits): error: scales 'scales' is f16[21], must be f32, as 'x' is"},
    {"nbits_weights", INVALID,
     "node 'the_node' (MatMulNBits): error: B 'w' is u8[7, 3, 7], must be of extents [7, 3, 8]"},
    {"nbits_width", INVALID,
     "node 'the_node' (MatMulNBits): error: A 'x' is f32[2, 3, 39], must be floats of 40 "
     "columns"},
    {"nbits_zeros", INVALID,
     "node 'the_node' (MatMulNBits): error: zero_points 'zeros' is u8[7, 1], must be of "
     "extents [7, 2]"},
    {"nbits_zeros_type", INVALID,
     "node 'the_node' (MatMulNBits): error: zero_points 'zeros' is f64[7, 3], must be u8, f32, "
     "f16 or bf16"},
    {"qmoe_bias", INVALID,
     "node 'the_node' (QMoE): error: fc1_experts_bias 'fc1_bias' is f32[3, 31], must be of "
     "extents [3, 32]"},
    {"qmoe_bits", UNSUPPORTED,
     "node 'the_node' (QMoE): error: expert_weight_bits is 3, must be 2, 4 or 8"},
    {"qmoe_experts", INVALID,
     "node 'the_node' (QMoE): error: fc2_experts_weights 'fc2' is u8[2, 32, 8], must be of "
     "extents [3, 32, 8]"},
    {"qmoe_k", INVALID,
     "node 'the_node' (QMoE): error: k is 4, must be in [1, 3], the number of experts"},
    {"qmoe_no_scales", INVALID,
     "node 'the_node' (QMoE): error: fc2_scales are missing"},
    {"qmoe_prepacked", UNSUPPORTED,
     "node 'the_node' (QMoE): error: weights_prepacked is 1: weights in the layout of one "
     "device; export them with weights_prepacked 0"},
    {"qmoe_scales", INVALID,
     "node 'the_node' (QMoE): error: fc1_scales 'fc1_scales' is f32[3, 32, 1], must be of "
     "extents [3, 32, 2]"},
    {"qmoe_type", UNSUPPORTED,
     "node 'the_node' (QMoE): error: quant_type 'fp8'; there is int"},
    {"qmoe_weights", INVALID,
     "node 'the_node' (QMoE): error: fc2_experts_weights 'fc2' is u8[3, 32, 7], must be of "
     "extents [3, 32, 8]"},
    {"qmoe_zeros", INVALID,
     "node 'the_node' (QMoE): error: fc2_zero_points 'fc2_zeros' is u8[3, 31, 1], must be of "
     "extents [3, 32, 1]"},
    {"dequantize_block", INVALID,
     "node 'the_node' (DequantizeLinear): error: block_size is -2"},
    {"dequantize_f32", INVALID,
     "node 'the_node' (DequantizeLinear): error: x 'w' is f32[4], must be integers of up to 32 bits, or FLOAT8E4M3FN"},
    {"dequantize_scale_type", INVALID,
     "node 'the_node' (DequantizeLinear): error: x_scale 's' is f64[], must be f32, f16 or bf16"},
    {"float8_add", UNSUPPORTED,
     "node 'the_node' (Add): error: 'w' is FLOAT8E4M3FN, which only DequantizeLinear and Cast read"},
    {"float8_blocks", INVALID,
     "node 'the_node' (DequantizeLinear): error: x_zero_point 'z' is u8[2, 3], must be of extents [2, 4]"},
    {"float8_cast_to", UNSUPPORTED,
     "node 'the_node' (Cast): error: attribute 'to': element type 17 (FLOAT8E4M3FN) is not supported"},
    {"float8_e5m2", UNSUPPORTED,
     "tensor 'w': error: element type 19 (FLOAT8E5M2) is not supported"},
    {"float8_fill", UNSUPPORTED,
     "node 'the_node' (ConstantOfShape): error: 'value' of FLOAT8E4M3FN"},
    {"float8_fnuz", UNSUPPORTED,
     "tensor 'w': error: element type 18 (FLOAT8E4M3FNUZ) is not supported"},
    {"float8_identity", UNSUPPORTED,
     "node 'the_node' (Identity): error: 'w' is FLOAT8E4M3FN, which only DequantizeLinear and Cast read"},
    {"float8_input", UNSUPPORTED,
     "input 'x': error: element type 17 (FLOAT8E4M3FN) is not supported"},
    {"float8_output", UNSUPPORTED,
     "output 'w': error: 'w' is FLOAT8E4M3FN, which only DequantizeLinear and Cast read"},
    {"float8_range", INVALID,
     "tensor 'w': error: element 0 is 271, which FLOAT8E4M3FN can't hold"},
    {"float8_scales", INVALID,
     "node 'the_node' (DequantizeLinear): error: x_scale 's' is f32[3], must be of extents [4]"},
    {"float8_zero", INVALID,
     "node 'the_node' (DequantizeLinear): error: the zero point of FLOAT8E4M3FN must be 0"},
    {"float8_zero_type", INVALID,
     "node 'the_node' (DequantizeLinear): error: x_zero_point 'z' must have the type of x"},
};
/* clang-format on */

/// The first line printed for loading bad_<name>.onnx, without "bad_<name>.onnx: " at its start.
static char *first_line(pm_arena *arena, const char *name, pm_status *out_status)
{
    pm_diag *diag = pm_diag_create(arena);
    pm_module *module;
    char *path = pm_arena_printf(arena, "bad_%s.onnx", name), *text = NULL;
    size_t size = 0;
    *out_status = pm_onnx_load(arena, diag, path, &module);
    ck_assert_msg((module == NULL) == (*out_status != PM_OK), "%s", name);
    ck_assert_msg(*out_status == PM_OK || pm_diag_count(diag, PM_ERROR) > 0, "%s", name);
    FILE *out = open_memstream(&text, &size);
    pm_diag_print(diag, out, false);
    fclose(out);
    char *copy = pm_arena_strndup(arena, text, strcspn(text, "\n"));
    free(text);
    size_t prefix = strlen(path);
    if (strncmp(copy, path, prefix) == 0 && copy[prefix] == ':')
        copy += prefix + 2;
    /* further names of the file are written as @ in the table */
    for (char *at; (at = strstr(copy, path)) != NULL;) {
        *at = '@';
        memmove(at + 1, at + prefix, strlen(at + prefix) + 1);
    }
    return copy;
}

static void expect(const bad_case *c)
{
    pm_arena *arena = pm_arena_create();
    pm_status status;
    const char *text = first_line(arena, c->name, &status);
    ck_assert_msg(status == (pm_status)c->status, "%s: status %d: %s", c->name, status, text);
    ck_assert_msg(strcmp(text, c->text) == 0, "%s:\n  got      %s\n  expected %s", c->name, text,
                  c->text);
    pm_arena_destroy(arena);
}

START_TEST(test_table)
{
    ck_assert_int_eq(chdir(DATA), 0);
    expect(&cases[_i]);
}
END_TEST

/// Small files that unfold: a function that calls another one twice, thirty deep; loops within loops
/// whose shapes have to be found by importing them again.
START_TEST(test_bomb)
{
    static const char *const names[] = {"function_bomb", "loop_bomb"};
    ck_assert_int_eq(chdir(DATA), 0);
    pm_arena *arena = pm_arena_create();
    pm_status status;
    const char *text = first_line(arena, names[_i], &status);
    ck_assert_int_eq(status, PM_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(
        strstr(text, "functions and subgraphs expand to more than 500000 nodes"));
    pm_arena_destroy(arena);
}
END_TEST

static void copy_file(const char *from, const char *to)
{
    char buffer[4096];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    ck_assert(in && out);
    size_t n = fread(buffer, 1, sizeof buffer, in);
    ck_assert_uint_lt(n, sizeof buffer);
    ck_assert_uint_eq(fwrite(buffer, 1, n, out), n);
    fclose(in);
    ck_assert_int_eq(fclose(out), 0);
}

/// Links and pipes can't be kept in a repository: they are made here.
START_TEST(test_external_links)
{
    static const bad_case linked[] = {
        {"external_symlink", INVALID,
         "tensor 'w': error: 'link.bin' goes through a symbolic link, which a model may not name"},
        {"external_symlink_folder", INVALID,
         "tensor 'w': error: 'linkdir/weights.bin' goes through a symbolic link, which a model may "
         "not name"},
        {"external_hardlink", INVALID,
         "tensor 'w': error: './hard.bin' has 2 hard links, expected a file with one name"},
        {"external_fifo", INVALID,
         "tensor 'w': error: './fifo.bin' is a special file, expected a regular file"},
        {"external_inside_parent", INVALID,
         "tensor 'w': error: 'sub/../../onnx/weights.bin' leaves the folder '.'"},
    };
    char dir[] = "/tmp/pm_onnx_XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(dir), 0);
    copy_file(DATA "/weights.bin", "weights.bin");
    copy_file(DATA "/weights.bin", "original.bin");
    ck_assert_int_eq(symlink("weights.bin", "link.bin"), 0);
    ck_assert_int_eq(symlink(".", "linkdir"), 0);
    ck_assert_int_eq(link("original.bin", "hard.bin"), 0);
    ck_assert_int_eq(mkfifo("fifo.bin", 0600), 0);
    ck_assert_int_eq(mkdir("sub", 0700), 0);
    for (size_t i = 0; i < PM_COUNT(linked); i++) {
        char from[256], to[128];
        snprintf(from, sizeof from, DATA "/bad_%s.onnx", linked[i].name);
        snprintf(to, sizeof to, "bad_%s.onnx", linked[i].name);
        copy_file(from, to);
        expect(&linked[i]);
        unlink(to);
    }
    static const char *const made[] = {"weights.bin", "original.bin", "link.bin",
                                       "linkdir",     "hard.bin",     "fifo.bin"};
    for (size_t i = 0; i < PM_COUNT(made); i++)
        unlink(made[i]);
    rmdir("sub");
    ck_assert_int_eq(chdir("/"), 0);
    ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("onnx_hostile");
    TCase *tests = tcase_create("cases");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, test_table, 0, (int)PM_COUNT(cases));
    tcase_add_loop_test(tests, test_bomb, 0, 2);
    tcase_add_test(tests, test_external_links);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
