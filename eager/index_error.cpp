#include "tandem/eager/index_error.h"

#include "tandem/core/error.h"

namespace tandem::eager {

namespace {

/// Element n in row-major order.
int64_t load(const core::TensorImpl& t, int64_t n) {
  int64_t at = 0;
  for (int d = t.sizes.rank() - 1; d >= 0; --d) {
    at += n % t.sizes[d] * t.strides[d];
    n /= t.sizes[d];
  }
  return t.dtype == DType::int32 ? static_cast<const int32_t*>(t.data)[at]
                                 : static_cast<const int64_t*>(t.data)[at];
}

/// The first value outside of [0, size) and other than `ignored`, in row-major order.
bool find_bad(const core::TensorImpl& t, int64_t size, const int64_t* ignored, int64_t* bad) {
  for (int64_t n = 0; n < t.numel; ++n) {
    *bad = load(t, n);
    if ((*bad < 0 || *bad >= size) && !(ignored && *bad == *ignored)) return true;
  }
  return false;
}

std::string out_of_range(int64_t index, const core::TensorImpl& t, int axis) {
  return "index " + std::to_string(index) + " is out of range for axis " + std::to_string(axis) + " of " +
         name(t.dtype) + to_string(t.sizes);
}

/// Of the stacked indices of index and index_put, each along an axis of its own.
std::string stacked_error(const Call& call) {
  const core::TensorImpl &t = *call.in[0], &at = *call.in[1];
  const int axis = normalize_axis(call.words[0], t.sizes.rank(), ops::def(call.op).name, call.where);
  const int64_t row = at.numel / at.sizes[0];
  for (int64_t n = 0; n < at.numel; ++n) {
    const int own = axis + static_cast<int>(n / row);
    const int64_t index = load(at, n), size = t.sizes[own];
    if (index < -size || index >= size) return out_of_range(index, t, own);
  }
  return "index out of range";
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
  if (call.op == OpId::index || call.op == OpId::index_put) return stacked_error(call);
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
    if (!labels && find_bad(index, t.sizes[axis], nullptr, &bad)) return out_of_range(bad, t, axis);
    if (labels && find_bad(index, t.sizes[axis], &call.words[1], &bad))
      return "label " + std::to_string(bad) + " is out of range for axis " + std::to_string(axis) + " of " +
             name(t.dtype) + to_string(t.sizes);
  }
  return "index out of range";
}

}  // namespace tandem::eager
