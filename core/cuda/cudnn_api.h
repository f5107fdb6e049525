// The C functions of cuDNN 9's graph interface that Tandem calls, as those of api.h: by declarations of its
// own, found at run time (libraries.h). Constants have the vendor's values (cudnn_graph.h;
// tests/core/cuda_api_test.cpp compares them). A table of pointers, filled once, then immutable; any thread.
#pragma once

#include "tandem/core/cuda/api.h"

namespace tandem::cuda {

struct Cudnn {
  using Handle = struct HandleOfCudnn*;
  using Descriptor = struct DescriptorOfCudnn*;

  /// cudnnStatus_t
  static constexpr int kSuccess = 0, kNotInitialized = 1001, kBadParam = 2000, kNullPointer = 2002,
                       kMisaligned = 2003, kNotFinalized = 2004, kAttributeType = 2010, kNotSupported = 3000,
                       kHostAllocationFailed = 4003, kExecutionFailed = 5000;
  /// cudnnDataType_t, cudnnConvolutionMode_t, cudnnBackendHeurMode_t
  static constexpr int kFloat = 0, kDouble = 1, kHalf = 2, kInt32 = 4, kBrain = 9, kBoolean = 11;
  static constexpr int kCrossCorrelation = 1;
  static constexpr int kHeuristicFallback = 2, kHeuristicA = 3;

  /// cudnnBackendAttributeType_t
  struct Type {
    static constexpr int handle = 0, data_type = 1, boolean = 2, int64 = 3, float32 = 4, pointer = 6,
                         convolution_mode = 7, heuristic_mode = 8, numerical_note = 11, pointwise_mode = 14,
                         descriptor = 15, reduction = 18, behavior_note = 19, characters = 24;
  };
  /// cudnnBackendDescriptorType_t
  struct Kind {
    static constexpr int pointwise = 0, convolution = 1, engine = 2, engine_config = 3, heuristic = 4,
                         plan = 5, convolution_forward = 10, convolution_weight = 11, convolution_input = 12,
                         pointwise_operation = 13, graph = 15, pack = 16, tensor = 17, product = 18,
                         product_operation = 19, reduction = 21, reduction_operation = 22, reshape = 31,
                         device = 38;
  };
  /// cudnnBackendAttributeName_t
  struct Attribute {
    static constexpr int pointwise_mode = 0, pointwise_type = 1, pointwise_axis = 9;
    static constexpr int convolution_compute_type = 100, convolution_mode = 101, convolution_dilations = 102,
                         convolution_strides = 103, convolution_pads_after = 104,
                         convolution_pads_before = 105, convolution_axes = 106;
    static constexpr int heuristic_mode = 200, heuristic_graph = 201, heuristic_results = 202,
                         heuristic_device = 204;
    static constexpr int config_engine = 300;
    static constexpr int plan_handle = 400, plan_config = 401, plan_workspace = 402, plan_device = 407;
    /// Of the three operations, in this order: alpha, beta, the convolution and three tensors.
    static constexpr int forward_alpha = 700, forward_beta = 701, forward_convolution = 702, forward_w = 703,
                         forward_x = 704, forward_y = 705;
    static constexpr int input_alpha = 706, input_beta = 707, input_convolution = 708, input_w = 709,
                         input_x = 710, input_y = 711;
    static constexpr int weight_alpha = 712, weight_beta = 713, weight_convolution = 714, weight_w = 715,
                         weight_x = 716, weight_y = 717;
    /// Of a pointwise operation: what it does, up to three operands (t chooses between x and b), the result.
    static constexpr int pointwise_does = 750, pointwise_x = 751, pointwise_b = 752, pointwise_y = 753,
                         pointwise_t = 758;
    static constexpr int graph_handle = 800, graph_operations = 801;
    static constexpr int tensor_alignment = 900, tensor_type = 901, tensor_sizes = 902, tensor_strides = 903,
                         tensor_id = 906, tensor_virtual = 907, tensor_by_value = 908;
    static constexpr int pack_ids = 1000, pack_pointers = 1001, pack_workspace = 1003;
    static constexpr int engine_index = 1301, engine_numerical_note = 1303, engine_behavior_note = 1305;
    static constexpr int product_type = 1500, product_a = 1520, product_b = 1521, product_c = 1522,
                         product_does = 1523;
    static constexpr int reduction_mode = 1600, reduction_type = 1601, reduction_x = 1610, reduction_y = 1611,
                         reduction_does = 1612;
    static constexpr int reshape_x = 2200, reshape_y = 2201;
    static constexpr int device_text = 2702;
  };
  /// cudnnPointwiseMode_t
  struct Pointwise {
    static constexpr int add = 0, mul = 1, div = 6, sub = 9, exp = 13, log = 15, identity = 21,
                         greater_equal = 303, index = 501, select = 601;
  };
  /// cudnnReduceTensorOp_t
  struct Reduce {
    static constexpr int add = 0, max = 3;
  };
  /// cudnnBackendBehaviorNote_t
  static constexpr int kCompilesAtRunTime = 0;
  /// cudnnBackendNumericalNote_t
  struct Note {
    static constexpr int tensor_core = 0, down_convert_inputs = 1, reduced_precision_reduction = 2, fft = 3,
                         nondeterministic = 4, winograd = 5, winograd_6x6 = 7, winograd_13x13 = 8, count = 10;
  };

#define TANDEM_CUDA(result, name, symbol, parameters) result(*name) parameters = nullptr;
#include "tandem/core/cuda/cudnn.def"
#undef TANDEM_CUDA
};

}  // namespace tandem::cuda
