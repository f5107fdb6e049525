#include "tandem/eager/index_error.h"

#include "tandem/core/error.h"

namespace tandem::eager {

namespace {

int64_t load(const core::TensorImpl& t, int64_t at) {
  return t.dtype == DType::int32 ? static_cast<const int32_t*>(t.data)[at]
                                 : static_cast<const int64_t*>(t.data)[at];
}

/// The first value outside of [0, size) and other than `ignored`, in row-major order.
bool find_bad(const core::TensorImpl& t, int64_t size, const int64_t* ignored, int64_t* bad) {
  for (int64_t n = 0; n < t.numel; ++n) {
    int64_t at = 0, rest = n;
    for (int d = t.sizes.rank() - 1; d >= 0; --d) {
      at += rest % t.sizes[d] * t.strides[d];
      rest /= t.sizes[d];
    }
    *bad = load(t, at);
    if ((*bad < 0 || *bad >= size) && !(ignored && *bad == *ignored)) return true;
  }
  return false;
}

}  // namespace

std::string index_error(const Call& call) {
  using ops::OpId;
  if (call.op == OpId::one_hot) {
    int64_t bad = 0;
    if (find_bad(*call.in[0], call.words[0], nullptr, &bad))
      return "class " + std::to_string(bad) + " is out of range for " + std::to_string(call.words[0]) +
             " classes";
  }
  const bool labels = call.op == OpId::cross_entropy || call.op == OpId::nll_loss;
  const bool along = call.op == OpId::index_select || call.op == OpId::gather || call.op == OpId::index_add ||
                     call.op == OpId::scatter_add || call.op == OpId::index_copy ||
                     call.op == OpId::scatter || call.op == OpId::index_fill;
  if (labels || along || call.op == OpId::embedding) {
    const core::TensorImpl &t = *call.in[0], &index = *call.in[1];
    const int axis = labels ? 1
                     : along
                         ? normalize_axis(call.words[0], t.sizes.rank(), ops::def(call.op).name, call.where)
                         : 0;
    int64_t bad = 0;
    if (find_bad(index, t.sizes[axis], labels ? &call.words[1] : nullptr, &bad))
      return (labels ? "label " : "index ") + std::to_string(bad) + " is out of range for axis " +
             std::to_string(axis) + " of " + name(t.dtype) + to_string(t.sizes);
  }
  return "index out of range";
}

}  // namespace tandem::eager
