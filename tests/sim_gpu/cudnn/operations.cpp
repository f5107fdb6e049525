#include "tests/sim_gpu/cudnn/operations.h"

namespace sim_gpu {

namespace {

using A = Cudnn::Attribute;
using K = Cudnn::Kind;

}  // namespace

bool is_convolution(int kind) {
  return kind == K::convolution_forward || kind == K::convolution_input || kind == K::convolution_weight;
}
bool is_operation(int kind) {
  return is_convolution(kind) || kind == K::pointwise_operation || kind == K::product_operation ||
         kind == K::reduction_operation || kind == K::reshape;
}

int check_part(Descriptor part, int kind) {
  if (const int status = check_descriptor(part); status != Cudnn::kSuccess) return status;
  if (kind == -2 ? !is_operation(part->kind) : part->kind != kind)
    return refuse("a descriptor of another kind", Cudnn::kBadParam);
  if (!part->finalized) return refuse("a descriptor that is not finalized", Cudnn::kNotFinalized);
  return Cudnn::kSuccess;
}

int finalize_convolution(Descriptor d) {
  const int64_t axes = d->first<int64_t>(A::convolution_axes);
  ConvolutionData c;
  c.axes = static_cast<int>(axes);
  if (d->first<int>(A::convolution_compute_type) != Cudnn::kFloat)
    return refuse("this type of computation", Cudnn::kNotSupported);
  if (d->first<int>(A::convolution_mode) != Cudnn::kCrossCorrelation)
    return refuse("this mode", Cudnn::kNotSupported);
  const auto before = d->read<int64_t>(A::convolution_pads_before),
             after = d->read<int64_t>(A::convolution_pads_after),
             strides = d->read<int64_t>(A::convolution_strides),
             dilations = d->read<int64_t>(A::convolution_dilations);
  for (const auto* const list : {&before, &after, &strides, &dilations})
    if (static_cast<int64_t>(list->size()) != axes)
      return refuse("a list that has not one element an axis", Cudnn::kBadParam);
  if (before != after) return refuse("different pads before and after", Cudnn::kNotSupported);
  for (size_t i = 0; i < before.size(); ++i) {
    if (before[i] < 0 || strides[i] < 1 || dilations[i] < 1)
      return refuse("a pad, stride or dilation that is too small", Cudnn::kBadParam);
    c.pads[i] = before[i];
    c.strides[i] = strides[i];
    c.dilations[i] = dilations[i];
  }
  d->problem = c;
  return Cudnn::kSuccess;
}

int finalize_operation(Descriptor d) {
  using Result = ConvolutionData::Result;
  struct {
    int alpha, beta, convolution, w, x, y;
    Result result;
  } names{};
  if (d->kind == K::convolution_forward)
    names = {A::forward_alpha, A::forward_beta, A::forward_convolution, A::forward_w, A::forward_x,
             A::forward_y,     Result::y};
  else if (d->kind == K::convolution_input)
    names = {A::input_alpha, A::input_beta, A::input_convolution, A::input_w, A::input_x,
             A::input_y,     Result::x};
  else
    names = {A::weight_alpha, A::weight_beta, A::weight_convolution, A::weight_w, A::weight_x,
             A::weight_y,     Result::w};
  if (d->first<float>(names.alpha) != 1 || d->first<float>(names.beta) != 0)
    return refuse("this alpha or beta", Cudnn::kNotSupported);
  const auto part = [&](int name) { return d->first<Descriptor>(name); };
  for (const int name : {names.convolution, names.w, names.x, names.y})
    if (const int status = check_descriptor(part(name)); status != Cudnn::kSuccess) return status;
  ConvolutionData c = *part(names.convolution)->problem;
  c.result = names.result;
  c.x = part(names.x)->problem->x;
  c.w = part(names.w)->problem->x;
  c.y = part(names.y)->problem->x;
  if (c.x.rank != c.axes + 2 || c.w.rank != c.x.rank || c.y.rank != c.x.rank)
    return refuse("tensors of another rank than the convolution", Cudnn::kBadParam);
  const Tensor& result = c.result == Result::y ? c.y : c.result == Result::x ? c.x : c.w;
  const int type = c.result == Result::w ? c.x.type : c.w.type;
  for (const Tensor* const t : {&c.x, &c.w, &c.y})
    if (t->by_value || (t->is_virtual && t != &result) ||
        (t->type != type && !(t->is_virtual && t->type == Cudnn::kFloat)))
      return refuse("these types together", Cudnn::kNotSupported);
  if (c.x.id == c.w.id || c.x.id == c.y.id || c.w.id == c.y.id)
    return refuse("two tensors of one name", Cudnn::kBadParam);
  if (c.x.sizes[0] != c.y.sizes[0] || c.w.sizes[0] != c.y.sizes[1] || c.x.sizes[1] % c.w.sizes[1] != 0 ||
      c.w.sizes[0] % (c.x.sizes[1] / c.w.sizes[1]) != 0)
    return refuse("channels or batches that do not fit", Cudnn::kBadParam);
  for (int a = 0; a < c.axes; ++a)
    if (c.y.sizes[a + 2] !=
        (c.x.sizes[a + 2] + 2 * c.pads[a] - c.dilations[a] * (c.w.sizes[a + 2] - 1) - 1) / c.strides[a] + 1)
      return refuse("sizes that do not fit", Cudnn::kBadParam);
  d->problem = c;
  return Cudnn::kSuccess;
}

int finalize_other(Descriptor d) {
  Operation op;
  op.kind = d->kind;
  const auto take = [&](std::initializer_list<int> operands, int result) {
    for (const int name : operands)
      if (d->values.count(name) != 0) op.in.push_back(d->first<Descriptor>(name)->problem->x);
    op.out = d->first<Descriptor>(result)->problem->x;
  };
  int compute = Cudnn::kFloat;
  if (d->kind == K::pointwise_operation) {
    const Descriptor does = d->first<Descriptor>(A::pointwise_does);
    op.mode = does->first<int>(A::pointwise_mode);
    op.axis = does->values.count(A::pointwise_axis) != 0 ? does->first<int64_t>(A::pointwise_axis) : -1;
    compute = does->first<int>(A::pointwise_type);
    take({A::pointwise_x, A::pointwise_b, A::pointwise_t}, A::pointwise_y);
    if (compute == Cudnn::kBoolean && op.mode == Cudnn::Pointwise::greater_equal) compute = Cudnn::kFloat;
  } else if (d->kind == K::product_operation) {
    compute = d->first<Descriptor>(A::product_does)->first<int>(A::product_type);
    take({A::product_a, A::product_b}, A::product_c);
  } else if (d->kind == K::reduction_operation) {
    const Descriptor does = d->first<Descriptor>(A::reduction_does);
    op.mode = does->first<int>(A::reduction_mode);
    compute = does->first<int>(A::reduction_type);
    take({A::reduction_x}, A::reduction_y);
  } else {
    take({A::reshape_x}, A::reshape_y);
  }
  if (compute != Cudnn::kFloat) return refuse("this type of computation", Cudnn::kNotSupported);
  if (const std::string wrong = check_operation(op); !wrong.empty()) return refuse(wrong, Cudnn::kBadParam);
  d->operation = op;
  return Cudnn::kSuccess;
}

int finalize_graph(Descriptor d) {
  const auto operations = d->read<Descriptor>(A::graph_operations);
  for (const Descriptor op : operations)
    if (const int status = check_part(op, -2); status != Cudnn::kSuccess) return status;
  if (!is_convolution(operations[0]->kind)) {
    for (const Descriptor op : operations) {
      if (!op->operation) return refuse("a convolution among other operations", Cudnn::kNotSupported);
      d->graph.push_back(*op->operation);
    }
    return Cudnn::kSuccess;  // whether an engine takes it, the heuristic says
  }
  using Result = ConvolutionData::Result;
  ConvolutionData c = *operations[0]->problem;
  Tensor& result = c.result == Result::y ? c.y : c.result == Result::x ? c.x : c.w;
  if (operations.size() > 1) {
    if (operations.size() > 2 || !operations[1]->operation || c.result == Result::w)
      return refuse("these operations behind a convolution", Cudnn::kNotSupported);
    const Operation& op = *operations[1]->operation;
    if (op.kind != K::pointwise_operation || op.mode != Cudnn::Pointwise::add || !result.is_virtual ||
        op.in[0].id != result.id || op.in[1].is_virtual || op.in[1].by_value || op.out.is_virtual)
      return refuse("another operation behind a convolution than the addition of memory",
                    Cudnn::kNotSupported);
    c.biased = true;
    c.bias = op.in[1];
    c.sum_type = result.type;
    for (int a = 0; a < c.bias.rank; ++a)
      if (c.bias.sizes[a] != (a == 1 ? result.sizes[1] : 1))
        return refuse("a bias that is not one value a channel", Cudnn::kNotSupported);
    const int type = c.w.type;
    result = op.out;
    if (result.type != type || c.bias.type != type)
      return refuse("these types together", Cudnn::kNotSupported);
  }
  if (result.is_virtual) return refuse("a graph without a result", Cudnn::kBadParam);
  d->problem = c;
  return Cudnn::kSuccess;
}

}  // namespace sim_gpu
