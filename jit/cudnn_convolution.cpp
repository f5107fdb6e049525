// Convolutions as graphs of cuDNN's: one operation in one of three directions, and, where there is a bias,
// its addition to a value between the two that stays float32, so that the result is rounded once.
#include "tandem/core/error.h"
#include "tandem/jit/cudnn_plan.h"

namespace tandem::jit {

using cuda::Cudnn;
using Attribute = Cudnn::Attribute;
using Kind = Cudnn::Kind;
using Type = Cudnn::Type;

namespace {

CudnnDescriptor convolution(const Cudnn& api, const CudnnShape& shape) {
  CudnnDescriptor c(api, Kind::convolution);
  const int compute = Cudnn::kFloat, mode = Cudnn::kCrossCorrelation;
  c.set(Attribute::convolution_axes, shape.pads.rank());
  c.set(Attribute::convolution_compute_type, Type::data_type, 1, &compute);
  c.set(Attribute::convolution_mode, Type::convolution_mode, 1, &mode);
  c.set(Attribute::convolution_pads_before, shape.pads);
  c.set(Attribute::convolution_pads_after, shape.pads);
  c.set(Attribute::convolution_strides, shape.strides);
  c.set(Attribute::convolution_dilations, shape.dilations);
  c.finalize();
  return c;
}

struct Operation {
  int kind, alpha, beta, convolution, w, x, y;
};
Operation operation(CudnnDirection direction) {
  using A = Attribute;
  switch (direction) {
    case CudnnDirection::forward:
      return {Kind::convolution_forward,
              A::forward_alpha,
              A::forward_beta,
              A::forward_convolution,
              A::forward_w,
              A::forward_x,
              A::forward_y};
    case CudnnDirection::input:
      return {Kind::convolution_input,
              A::input_alpha,
              A::input_beta,
              A::input_convolution,
              A::input_w,
              A::input_x,
              A::input_y};
    case CudnnDirection::weight:
      return {Kind::convolution_weight,
              A::weight_alpha,
              A::weight_beta,
              A::weight_convolution,
              A::weight_w,
              A::weight_x,
              A::weight_y};
  }
  internal_error("a direction of a convolution that does not exist");
}

CudnnGraph graph_of(const Cudnn& api, const CudnnShape& shape, int64_t alignment) {
  CudnnGraph graph(api);
  const int type = cudnn_type(shape.dtype);
  CudnnGraph::Tensor x = graph.memory(type, shape.x, shape.x_strides, alignment);
  const CudnnGraph::Tensor w = graph.memory(type, shape.w, shape.w_strides, alignment);
  CudnnGraph::Tensor y = graph.memory(type, shape.y, shape.y_strides, alignment);
  CudnnGraph::Tensor bias = 0, sum = 0;
  const bool forward = shape.direction == CudnnDirection::forward;
  CudnnGraph::Tensor& result = forward ? y : x;
  const CudnnGraph::Tensor rounded = result;
  if (shape.biased) {
    TANDEM_INTERNAL(shape.direction != CudnnDirection::weight, "a weight's gradient with a bias");
    const Dims& sizes = forward ? shape.y : shape.x;
    Dims one = sizes, strides = sizes;
    for (int d = 0; d < sizes.rank(); ++d) {
      if (d != 1) one[d] = 1;
      strides[d] = d == 0 ? sizes[1] : 1;
    }
    bias = graph.memory(type, one, strides, alignment);
    result = sum = graph.between(Cudnn::kFloat, sizes, forward ? shape.y_strides : shape.x_strides);
  }
  const CudnnDescriptor& does = graph.keep(convolution(api, shape));
  const Operation names = operation(shape.direction);
  const float one = 1, zero = 0;
  CudnnDescriptor op(api, names.kind);
  op.set(names.alpha, Type::float32, 1, &one);
  op.set(names.beta, Type::float32, 1, &zero);
  op.set(names.convolution, does);
  op.set(names.x, graph.descriptor(x));
  op.set(names.w, graph.descriptor(w));
  op.set(names.y, graph.descriptor(y));
  op.finalize();
  graph.add(std::move(op));
  if (shape.biased) graph.pointwise(Cudnn::Pointwise::add, sum, bias, rounded);
  return graph;
}

}  // namespace

std::string to_string(const CudnnShape& s) {
  static constexpr const char* kDirections[] = {"forward", "input", "weight"};
  return std::string(kDirections[static_cast<int>(s.direction)]) + ' ' + name(s.dtype) +
         (s.tf32 ? " tf32" : "") + (s.biased ? " biased" : "") + " x " + to_string(s.x) + " w " +
         to_string(s.w) + " y " + to_string(s.y) + " groups " + std::to_string(s.groups) + " pads " +
         to_string(s.pads) + " strides " + to_string(s.strides) + " dilations " + to_string(s.dilations);
}

std::optional<CudnnPlan> CudnnPlan::make(const CudnnTarget& target, const CudnnShape& shape,
                                         int64_t alignment, std::string* why) {
  return make(target, graph_of(*target.api, shape, alignment),
              {.exact = shape.dtype == DType::float32 && !shape.tf32}, why);
}

}  // namespace tandem::jit
