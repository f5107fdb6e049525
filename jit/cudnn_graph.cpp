#include "tandem/jit/cudnn_graph.h"

#include <array>

#include "tandem/core/error.h"

namespace tandem::jit {

using cuda::Cudnn;
using Attribute = Cudnn::Attribute;
using Kind = Cudnn::Kind;
using Type = Cudnn::Type;

std::string cudnn_said(const Cudnn& api, int status) {
  std::array<char, 256> more{};
  api.last_error(more.data(), more.size());
  more.back() = '\0';
  std::string text = api.error_string(status);
  if (more[0] != '\0') text += std::string(" (") + more.data() + ")";
  return text;
}

void cudnn_check(const Cudnn& api, int status, const char* call) {
  if (status != Cudnn::kSuccess) fail(std::string(call) + ": " + cudnn_said(api, status));
}

int cudnn_type(DType t) {
  switch (t) {
    case DType::float16:
      return Cudnn::kHalf;
    case DType::bfloat16:
      return Cudnn::kBrain;
    case DType::float32:
      return Cudnn::kFloat;
    case DType::float64:
      return Cudnn::kDouble;
    default:
      internal_error(std::string("cuDNN is not asked for ") + name(t));
  }
}

CudnnDescriptor::CudnnDescriptor(const Cudnn& api, int kind) : api_(&api) {
  cudnn_check(api, api.descriptor_create(kind, &made_), "cudnnBackendCreateDescriptor");
}

void CudnnDescriptor::set(int attribute, int type, int64_t count, const void* values) {
  cudnn_check(*api_, api_->set(made_, attribute, type, count, values), "cudnnBackendSetAttribute");
}

void CudnnDescriptor::set(int attribute, int64_t value) { set(attribute, Type::int64, 1, &value); }

void CudnnDescriptor::set(int attribute, const Dims& values) {
  set(attribute, Type::int64, values.rank(), values.data());
}

void CudnnDescriptor::set(int attribute, const CudnnDescriptor& value) {
  set(attribute, Type::descriptor, 1, &value.made_);
}

void CudnnDescriptor::finalize() { cudnn_check(*api_, try_finalize(), "cudnnBackendFinalize"); }

int64_t CudnnDescriptor::read(int attribute, int type, int64_t most, void* values) const {
  int64_t count = 0;
  cudnn_check(*api_, api_->get(made_, attribute, type, most, &count, values), "cudnnBackendGetAttribute");
  return count;
}

CudnnGraph::Tensor CudnnGraph::tensor(int type, const Dims& sizes, const Dims& strides, int64_t alignment,
                                      int flag) {
  const auto id = static_cast<int64_t>(tensors_.size()) + 1;
  CudnnDescriptor t(*api_, Kind::tensor);
  t.set(Attribute::tensor_type, Type::data_type, 1, &type);
  t.set(Attribute::tensor_sizes, sizes);
  t.set(Attribute::tensor_strides, strides);
  t.set(Attribute::tensor_id, id);
  t.set(Attribute::tensor_alignment, alignment);
  const bool yes = true;
  if (flag >= 0) t.set(flag, Type::boolean, 1, &yes);
  t.finalize();
  tensors_.push_back({std::move(t), type});
  return id;
}

CudnnGraph::Tensor CudnnGraph::memory(int type, const Dims& sizes, const Dims& strides, int64_t alignment) {
  return tensor(type, sizes, strides, alignment, -1);
}

CudnnGraph::Tensor CudnnGraph::between(int type, const Dims& sizes, const Dims& strides) {
  return tensor(type, sizes, strides, 16, Attribute::tensor_virtual);
}

CudnnGraph::Tensor CudnnGraph::number(int rank) {
  Dims ones;
  for (int d = 0; d < rank; ++d) ones.push_back(1);
  return tensor(Cudnn::kFloat, ones, ones, 4, Attribute::tensor_by_value);
}

CudnnDescriptor& CudnnGraph::does(int kind, int type_attribute, int compute) {
  CudnnDescriptor& made = keep(CudnnDescriptor(*api_, kind));
  made.set(type_attribute, Type::data_type, 1, &compute);
  return made;
}

void CudnnGraph::operation(int kind, std::initializer_list<Named> operands, int does_attribute,
                           CudnnDescriptor* does) {
  CudnnDescriptor op(*api_, kind);
  if (does) {
    does->finalize();
    op.set(does_attribute, *does);
  }
  for (const auto& [attribute, t] : operands)
    if (t) op.set(attribute, descriptor(t));
  op.finalize();
  add(std::move(op));
}

void CudnnGraph::pointwise(int mode, Tensor x, Tensor b, Tensor y, Tensor t) {
  const bool whole = type(y) == Cudnn::kBoolean || type(y) == Cudnn::kInt32;
  CudnnDescriptor& what = does(Kind::pointwise, Attribute::pointwise_type, whole ? type(y) : Cudnn::kFloat);
  what.set(Attribute::pointwise_mode, Type::pointwise_mode, 1, &mode);
  operation(Kind::pointwise_operation,
            {{Attribute::pointwise_x, x},
             {Attribute::pointwise_b, b},
             {Attribute::pointwise_t, t},
             {Attribute::pointwise_y, y}},
            Attribute::pointwise_does, &what);
}

void CudnnGraph::index(Tensor x, int64_t axis, Tensor y) {
  CudnnDescriptor& what = does(Kind::pointwise, Attribute::pointwise_type, Cudnn::kFloat);
  const int mode = Cudnn::Pointwise::index;
  what.set(Attribute::pointwise_mode, Type::pointwise_mode, 1, &mode);
  what.set(Attribute::pointwise_axis, axis);
  operation(Kind::pointwise_operation, {{Attribute::pointwise_x, x}, {Attribute::pointwise_y, y}},
            Attribute::pointwise_does, &what);
}

void CudnnGraph::product(Tensor a, Tensor b, Tensor c) {
  operation(Kind::product_operation,
            {{Attribute::product_a, a}, {Attribute::product_b, b}, {Attribute::product_c, c}},
            Attribute::product_does, &does(Kind::product, Attribute::product_type, Cudnn::kFloat));
}

void CudnnGraph::reduce(int mode, Tensor x, Tensor y) {
  CudnnDescriptor& what = does(Kind::reduction, Attribute::reduction_type, Cudnn::kFloat);
  what.set(Attribute::reduction_mode, Type::reduction, 1, &mode);
  operation(Kind::reduction_operation, {{Attribute::reduction_x, x}, {Attribute::reduction_y, y}},
            Attribute::reduction_does, &what);
}

void CudnnGraph::reshape(Tensor x, Tensor y) {
  operation(Kind::reshape, {{Attribute::reshape_x, x}, {Attribute::reshape_y, y}});
}

CudnnDescriptor CudnnGraph::finish(Cudnn::Handle handle) const {
  std::vector<Cudnn::Descriptor> all;
  for (const CudnnDescriptor& op : operations_) all.push_back(op.get());
  CudnnDescriptor graph(*api_, Kind::graph);
  graph.set(Attribute::graph_operations, Type::descriptor, static_cast<int64_t>(all.size()), all.data());
  if (handle) graph.set(Attribute::graph_handle, Type::handle, 1, &handle);
  graph.finalize();
  return graph;
}

}  // namespace tandem::jit
